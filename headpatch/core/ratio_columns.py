"""Beside a mean of ratios over pairs: the ratio of means, and the pair that carries most of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headpatch.core.baseline_runs import LEAST
from headpatch.core.study.study import Study
from headpatch.present.column import RATIO_ENDS
from headpatch.stats.ratio import dominating_pair, ratio_of_means
from headpatch.stats.scenes import by_scene

Values = Float[np.ndarray, "pairs rows"]


def ratio_columns(
    study: Study,
    normalized: Values,
    ld_gaps: Float[np.ndarray, " pairs"],
    names: Sequence[str],
    whole: bool,
    scenes: Int[np.ndarray, " pairs"] | None = None,
) -> dict[str, Any]:
    """Return the columns that stand beside a mean of `normalized`, by the end of their name.

    `ld_gaps` are LD_with - LD_without of each pair (logits), `names` their names. With `whole` only
    pairs that have every row are taken, as for the mean; else for each row those that have it.
    `scenes`: see `headpatch.stats.ratio.ratio_of_means`.
    """
    count = normalized.shape[1]
    shares = dict(zip(RATIO_ENDS[:3], np.full((3, count), np.nan), strict=True))
    top_pair, top_share = np.full(count, "", dtype=object), np.full(count, np.nan)
    for rows, pairs in _alike(normalized, whole):
        if pairs.sum() < LEAST:
            continue
        values, gaps = normalized[pairs][:, rows], ld_gaps[pairs]
        rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
        options, own = study.pairs, None if scenes is None else scenes[pairs]
        effects = values * gaps[:, None]
        found = ratio_of_means(effects, gaps, options.level, options.resamples, rng, own)
        figures = found.mean, found.low, found.high
        for end, figure in zip(RATIO_ENDS[:3], figures, strict=True):
            shares[end][rows] = figure
        place, top_share[rows] = dominating_pair(by_scene(values, own))
        kept = np.asarray(names, dtype=object)[pairs]
        top_pair[rows] = (kept if own is None else kept[_first_of_each(own)])[place]
    top_pair[np.isnan(top_share)] = ""  # all of them 0
    return dict(zip(RATIO_ENDS, (*shares.values(), top_pair, top_share), strict=True))


def _first_of_each(scenes: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " scenes"]:
    """Return the place of each scene's first pair, by whose name a scene goes."""
    return np.sort(np.unique(scenes, return_index=True)[1])


def gaps_of(tables: Sequence[pd.DataFrame]) -> Float[np.ndarray, " pairs"] | None:
    """Return LD_with - LD_without (logits) of each pair; None where its table does not say."""
    if not {"ld_with", "ld_without"} <= {*tables[0]}:
        return None
    return np.array([table["ld_with"].iloc[0] - table["ld_without"].iloc[0] for table in tables])


def _alike(
    values: Values, whole: bool
) -> Iterator[tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " pairs"]]]:
    """Yield rows that the same pairs have, and these pairs."""
    there = np.isfinite(values)
    if whole:
        rows = there.any(0)
        yield rows, there[:, rows].all(1)
        return
    for pattern in np.unique(there, axis=1).T:
        yield (there == pattern[:, None]).all(0), pattern

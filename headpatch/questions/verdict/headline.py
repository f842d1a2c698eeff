"""What a verdict says as a whole: whether the heads that look decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from headpatch.heads import Head
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation, true_correlation
from headpatch.stats.rankings import (
    Correlation,
    Precision,
    Ranking,
    correlation,
    descending,
    effect_size,
    precision_at,
)
from headpatch.stats.verdict_labels import CAUSAL, Rule
from headpatch.stats.verdicts import Observed


@dataclass(frozen=True)
class Headline:
    """The figures of the headline; heads by name, the largest effect first.

    Attributes
    ----------
    pairs
        That heads were judged on.
    heads
        How many there are.
    counts
        Heads of each verdict.
    picked
        That attention picked out on other pairs.
    picked_causal, picked_within, picked_undecided
        Of these: shown to act, shown to lie within ±δ, neither.
    causal
        Every head that is shown to act.
    missed
        Those of them that attention did not pick.
    rho
        Spearman's, over heads, of attention difference and effect size, both means over the pairs
        that were measured.
    true_rho
        The same of true values, which endless pairs would show; and how reliable both rankings are.
    precision
        Of the attention ranking against the exact causal one, at several k.
    """

    pairs: int
    heads: int
    counts: dict[str, int]
    picked: tuple[str, ...]
    picked_causal: tuple[str, ...]
    picked_within: tuple[str, ...]
    picked_undecided: tuple[str, ...]
    causal: tuple[str, ...]
    missed: tuple[str, ...]
    rho: Correlation
    true_rho: TrueCorrelation
    precision: tuple[Precision, ...]


def summarize(
    table: pd.DataFrame,
    seen: Observed,
    by_attention: Ranking,
    picked: Sequence[Head],
    rule: Rule,
) -> Headline:
    """Work out the headline.

    Parameters
    ----------
    table
        The columns of ``verdicts.csv``.
    by_attention
        Flat indices of the heads as attention ranked them, on other pairs.
    picked
        The first of them.
    """
    names = [str(Head(int(a), int(b))) for a, b in zip(table["layer"], table["head"], strict=True)]
    verdict = dict(zip(names, table["verdict"], strict=True))
    size = effect_size(seen.necessity.mean(0), seen.sufficiency.mean(0))
    by_effect = descending(size)
    ordered = [names[i] for i in by_effect]
    chosen = [str(head) for head in picked]
    causal = tuple(name for name in ordered if verdict[name] in CAUSAL)

    def of(*classes: str) -> tuple[str, ...]:
        return tuple(name for name in ordered if name in chosen and verdict[name] in classes)

    flat = [
        values.reshape(len(values), -1)
        for values in (np.nan_to_num(seen.attention), seen.necessity, seen.sufficiency)
    ]
    ks = sorted({k for k in (len(chosen), len(causal)) if 0 < k <= len(names)})
    return Headline(
        pairs=len(seen.necessity),
        heads=len(names),
        counts={str(name): int(count) for name, count in table["verdict"].value_counts().items()},
        picked=tuple(chosen),
        picked_causal=of(*CAUSAL),
        picked_within=of("watches", "inert"),
        picked_undecided=of("undecided"),
        causal=causal,
        missed=tuple(name for name in causal if name not in chosen),
        rho=correlation(flat[0], flat[1], flat[2], rule.level),
        true_rho=true_correlation(flat[0], flat[1], flat[2], rule.level),
        precision=tuple(precision_at(by_attention, by_effect, k) for k in ks),
    )

"""What a verdict says as a whole: whether the heads that look decide."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headpatch.heads import Head
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation
from headpatch.stats.rankings import Correlation, Precision, descending, effect_size, precision_at
from headpatch.stats.verdict_labels import CAUSAL


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


def summarize(table: pd.DataFrame, saved: Mapping[str, Any], top: int, pairs: int) -> Headline:
    """Work out the headline.

    Parameters
    ----------
    table
        ``verdicts.csv``.
    saved
        ``verdict.pt``, of which both correlations are taken.
    top
        Heads that attention picks out.
    pairs
        That heads were judged on.
    """
    counts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
    table = by_effect(table)
    label = dict(zip(table["name"], table["verdict"], strict=True))
    picked = first_by_attention(table, top)
    causal = tuple(name for name, verdict in label.items() if verdict in CAUSAL)

    def of(*classes: str) -> tuple[str, ...]:
        return tuple(name for name in label if name in picked and label[name] in classes)

    looks = descending(-table["attention_rank"].to_numpy(float))
    ks = sorted({k for k in (len(picked), len(causal)) if k > 0})
    return Headline(
        pairs=pairs,
        heads=len(label),
        counts=counts,
        picked=picked,
        picked_causal=of(*CAUSAL),
        picked_within=of("watches", "inert"),
        picked_undecided=of("undecided"),
        causal=causal,
        missed=tuple(name for name in causal if name not in picked),
        rho=Correlation(**saved["rho"]),
        true_rho=TrueCorrelation(**saved["true_rho"]),
        precision=tuple(precision_at(looks, np.arange(len(table)), k) for k in ks),
    )


def by_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``verdicts.csv`` with each head's name, the largest effect first."""
    names = [str(Head(int(a), int(b))) for a, b in zip(table["layer"], table["head"], strict=True)]
    size = effect_size(table["necessity"].to_numpy(float), table["sufficiency"].to_numpy(float))
    return table.assign(name=names).iloc[descending(size)]


def first_by_attention(table: pd.DataFrame, top: int) -> tuple[str, ...]:
    """Name the heads that attention picks out, the first first."""
    picked = table[table["attention_rank"] <= top].sort_values("attention_rank")
    return tuple(picked["name"])

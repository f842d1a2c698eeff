"""Several doses of one kind: what each head does as the dose grows."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.aggregate import aggregate
from headpatch.core.dataset import Pairs
from headpatch.kinds import KINDS, WITH_ALPHA
from headpatch.questions.ablate.columns import DOSES, DOSES_MEAN
from headpatch.questions.ablate.measure import Ablated
from headpatch.stats.dose_response import (
    rank_trend,
    slope,
    straightness,
    trend_test,
    turn_test,
)
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import adjusted

Curves: TypeAlias = list[Float[np.ndarray, " doses"]]
"""A pair's effects by dose, the neutral one among them, a curve a row of its table."""
_ROUNDING: Final = 1e-6  # of the runs' difference: float32 holds seven digits of each LD


def doses_of(one: Ablated) -> tuple[pd.DataFrame, Curves]:
    """Return the rows of ``doses.csv`` of one pair, and their curves; none of one dose alone.

    Effects that may be rounding count as 0, so that the order of rounding is no trend.
    """
    named = one.named
    rows, curves = [], list[Float[np.ndarray, " doses"]]()
    if "alpha" not in named or named["alpha"].nunique() < 2:
        return pd.DataFrame(), curves
    named = named[named["kind"].isin(WITH_ALPHA)]
    kept = [column.name for column in DOSES if column.name in named]
    for (kind, *_), of_one in named.groupby(["kind", "heads", "direction"], sort=False):
        alphas, neutral = of_one["alpha"].to_numpy(np.float64), KINDS[str(kind)].neutral
        gap = float((of_one["ld_with"] - of_one["ld_without"]).abs().max())
        floor = max(one.noise_floor, _ROUNDING * gap)
        small = (of_one["effect"].abs() <= floor).to_numpy()
        shares = np.where(small, 0.0, of_one["normalized"].to_numpy(np.float64))
        apart = alphas != neutral
        alphas, shares = np.append(alphas[apart], neutral), np.append(shares[apart], 0.0)
        order = np.argsort(alphas)
        doses, curve = alphas[order] - neutral, shares[order]
        curves.append(curve)
        rows.append(
            {name: of_one[name].iloc[0] for name in kept}
            | {
                "doses": ", ".join(f"{alpha:g}" for alpha in alphas[order]),
                "slope": float(slope(curve, doses)),
                "straightness": float(straightness(curve, doses)),
                "spearman": float(rank_trend(curve)) if np.isfinite(curve).all() else np.nan,
            }
        )
    return pd.DataFrame(rows), curves


def dose_means(measured: Sequence[tuple[pd.DataFrame, Curves]], pairs: Pairs) -> pd.DataFrame:
    """Return the columns of ``doses_mean.csv``: means with intervals, and tests over scenes."""
    study, scenes = pairs.study, pairs.survey.scenes
    found = aggregate([table for table, _ in measured], DOSES, study, scenes)
    p: dict[str, list[float]] = {"trend": [], "turn": []}
    for row in range(len(found)):
        values = np.stack([curves[row] for _, curves in measured])
        there = np.isfinite(values).all(1)
        each = by_scene(values[there], scenes[there])
        several = len(each) > 1
        p["trend"].append(trend_test(each) if several else 1.0)
        p["turn"].append(turn_test(each) if several else 1.0)
    for name, values_of in p.items():
        found[f"{name}_p"] = values_of
        found[f"{name}_q"] = adjusted(np.array(values_of))
    found["shape"] = _shapes(found, 1 - study.pairs.level)
    ordered: pd.DataFrame = DOSES_MEAN.ordered(found)
    return ordered


def _shapes(found: pd.DataFrame, alpha: float) -> list[str]:
    shapes = []
    for row in found.to_dict("records"):
        if row["turn_q"] < alpha:
            shapes.append("turns")
        elif row["trend_q"] < alpha:
            shapes.append("rises" if row["spearman"] > 0 else "falls")
        else:
            shapes.append("undecided")
    return shapes

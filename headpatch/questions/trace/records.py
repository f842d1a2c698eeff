"""A few figures of each token, from what ``trace.pt`` holds: of one pair, or means over many."""

from collections.abc import Mapping
from math import nan
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.stats.rankings import descending, spearman

MEASURES: Final = ("contrast", "logit", "logprob")
"""Of a token: logit(token) - logit(rival), logit(token), and its log-probability in nats."""
RUNS: Final = ("with", "without")


def records(traced: Mapping[str, Any], top: int) -> list[dict[str, Any]]:
    """Return each token's measures, first `top` heads by attention and by effect, and correlations.

    `traced` is what ``trace.pt`` holds, as tensors or arrays.
    """
    return [_record(traced, place, top) for place in range(len(traced["tokens"]))]


def _record(traced: Mapping[str, Any], place: int, top: int) -> dict[str, Any]:
    measure, many = traced["measures"][place], "pair_names" in traced
    row: dict[str, Any] = {
        "forced": traced["forced"][place],
        "slot" if many else "index": int(traced["index"][place]),
        "token": traced["tokens"][place],
        "rival": traced["rivals"][place],
    }
    if many:
        row["tokens"] = dict(traced["texts"][place])
        row |= {name: int(traced[name][place]) for name in ("pairs", "measure_pairs")}
    else:
        row |= {name: traced[name][place] for name in ("says_with", "says_without")}
    row |= {
        f"{name}_{run}": float(traced[f"{name}_{run}"][place]) for name in MEASURES for run in RUNS
    }
    floor = float(traced["floor" if many else f"{measure}_floor"][place])
    diff = np.asarray(traced["diff"][place], np.float64)
    row |= {"measure": measure, "noise_floor": floor}
    row["attention"] = [
        {
            "head": f"{layer}.{head}",
            "value": float(diff[layer, head]),
            **_ends(traced, "diff", "value", (place, layer, head)),
        }
        for layer, head in _largest(diff, top)
    ]
    for way in traced["effect_logit"]:
        effects = {
            name: np.asarray(traced[f"effect_{name}"][way][place], np.float64) for name in MEASURES
        }
        own, totals = effects[measure], traced.get("total")
        known = ~np.isnan(diff)  # not in layers without heads, nor without image tokens
        row[way] = {
            # over heads, of |effect|
            "total": float(np.nansum(np.abs(own))) if totals is None else float(totals[way][place]),
            **_ends(traced, "total", "total", (place,), way),
            "top": [
                {
                    "head": f"{layer}.{head}",
                    "effect": float(own[layer, head]),
                    **_ends(traced, "effect", "effect", (place, layer, head), way),
                    **{name: float(effects[name][layer, head]) for name in MEASURES},
                    "below_floor": bool(abs(own[layer, head]) <= floor),
                }
                for layer, head in _largest(np.abs(own), top)
            ],
            "spearman": spearman(diff[known], np.abs(own)[known]) if known.any() else nan,
        }
    return row


def _ends(
    traced: Mapping[str, Any], key: str, name: str, place: tuple[int, ...], way: str = ""
) -> dict[str, float]:
    """Return the ends of an interval over pairs; nothing of one pair."""
    ends = {}
    for end in ("low", "high"):
        if (values := traced.get(f"{key}_{end}")) is not None:
            ends[f"{name}_{end}"] = float((values[way] if way else values)[place])
    return ends


def _largest(values: Float[np.ndarray, "layers heads"], count: int) -> list[tuple[int, int]]:
    """Return layer and head of the largest values that are known."""
    first = descending(values)[: min(count, int((~np.isnan(values)).sum()))]
    return [divmod(flat, values.shape[1]) for flat in first.tolist()]

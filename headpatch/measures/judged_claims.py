"""What a verdict's tables, and what was measured beside them, say to claims.

A claim is *supported* or *contradicted* only by something shown; everything between is *not
testable* with these data, and the figure says why, or what is missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import hypergeom

from headpatch.heads import HeadSet
from headpatch.measures.claim_evidence import Evidence, cut_of, each_layer, records
from headpatch.measures.claims import Claim
from headpatch.measures.followed import Ask
from headpatch.measures.intervals import mean_interval
from headpatch.measures.verdicts import CAUSAL

Outcome = Literal["supported", "contradicted", "not testable"]
_Found = tuple[Outcome | None, str]
"""An outcome and the figure behind it; None if intervals leave it open."""
_OPEN = "the interval reaches across the bound: more pairs are needed"
HALF = 0.5
"""The share of the difference between the runs that counts as carrying the object."""


@dataclass(frozen=True)
class Judged:
    """A claim and what is shown of it; `figure` is the number behind the outcome, in words."""

    claim: str
    outcome: Outcome
    figure: str


def judge_claim(claim: Claim, seen: Evidence) -> Judged:
    """Say what is shown of a claim.

    Raises
    ------
    InputError
        If it names a head or a layer that the model does not have.
    """
    seen.check(claim)
    judges: Mapping[str, Callable[[Claim, Evidence], _Found]] = {
        "class": _class,
        "looks": _looks,
        "model": _model_looks,
        "together": _together,
        "hold": _hold,
        "reads": _reads,
        "vision heads": _vision_heads,
        "vision": _vision,
    }
    outcome, figure = judges[claim.form](claim, seen)
    if outcome is None:
        return Judged(claim.text, "not testable", f"{figure}; {_OPEN}")
    return Judged(claim.text, outcome, figure)


def _class(claim: Claim, seen: Evidence) -> _Found:
    row, delta, alpha = seen.row(claim.heads[0]), seen.rule.delta, seen.rule.alpha
    figures = "; ".join(_figure(row, name) for name in ("necessity", "sufficiency"))
    said = f"verdict {row['verdict']}; {figures}"
    if claim.word in ("necessary", "sufficient"):
        name = {"necessary": "necessity", "sufficient": "sufficiency"}[claim.word]
        shown = row[f"{name}_low"] > delta and row[f"{name}_q"] < alpha
        return _either(shown, row[f"{name}_high"] < delta), said
    causal = row["verdict"] in CAUSAL
    within = row["verdict"] in ("watches", "inert")
    if claim.word == "causal":
        return _either(causal, within), said
    if claim.word == "inert":
        return _either(within, causal), f"{said}; equivalence q = {row['equivalence_q']:.1g}"
    if claim.word == "inhibitory":
        lows = [row[f"{name}_low"] for name in ("necessity", "sufficiency")]
        return _either(row["verdict"] == "inhibitory", min(lows) > -delta), said
    if row["verdict"] == "redundant":
        return "supported", f"{said}; together with {row['partners']}"
    alone = row["necessity_low"] > delta and row["necessity_q"] < alpha
    why = "necessary alone" if alone else "no set of heads was found that needs it"
    return "contradicted" if alone else "not testable", f"{said}; {why}"


def _looks(claim: Claim, seen: Evidence) -> _Found:
    row = seen.row(claim.heads[0])
    if row["attention_diff"] != row["attention_diff"]:
        return "not testable", "the head does not attend to the image's tokens"
    more = row["attention_diff_low"] > 0 and row["attention_diff_q"] < seen.rule.alpha
    said = f"{_figure(row, 'attention_diff')}, rank {row['attention_rank']}"
    return _either(more, row["attention_diff_high"] < 0), said


def _model_looks(_: Claim, seen: Evidence) -> _Found:
    if seen.looks is None:
        return "not testable", "verdict.pt, with the attention on each pair, is missing"
    low, high, said = _interval(seen.looks, seen)
    return _either(low > 0, high < 0), f"attention difference, mean of all heads: {said}"


def _together(claim: Claim, seen: Evidence) -> _Found:
    name, rows = str(HeadSet(claim.heads)), seen.sets
    rows = rows[rows["heads"] == name]
    if len(rows):
        row = records(rows)[0]
        said = (
            f"joint necessity {_between(row, 'joint')}, least excess over what each does alone "
            f"{_between(row, 'excess')}, q = {row['q']:.1g}"
        )
        return _either(bool(row["redundant"]), row["excess_high"] < seen.rule.delta), said
    found = seen.followed.get(Ask("together", claim.heads).name)
    if found is None or found.why_not:
        why = found.why_not if found else "they were not changed together"
        return "not testable", f"{name}: {why}"
    parts = {part: _interval(values, seen) for part, values in found.figures.items()}
    lows = [low for low, _, _ in parts.values()]
    shorts = [high < seen.rule.delta for _, high, _ in parts.values()]
    said = ", ".join(f"{part} {figure}" for part, (_, _, figure) in parts.items())
    return _either(min(lows) > seen.rule.delta, any(shorts)), said


def _hold(claim: Claim, seen: Evidence) -> _Found:
    """At least half of the heads there, and more than chance, or fewer than half."""
    first, last = claim.layers
    table = seen.heads
    if claim.word == "causal":
        wanted = table[table["verdict"].isin(CAUSAL)]
    else:
        wanted = table[table["attention_rank"] <= seen.top]
    if wanted.empty:
        return "not testable", "no head is shown to act"
    inside = int(wanted["layer"].between(first, last).sum())
    there = int(table["layer"].between(first, last).sum())
    p = float(hypergeom.sf(inside - 1, len(table), there, len(wanted)))
    said = (
        f"{inside} of {len(wanted)} lie in layers {first}-{last}, which hold {there} of "
        f"{len(table):,} heads (p = {p:.1g} if spread evenly)"
    )
    if 2 * inside < len(wanted):
        return "contradicted", said
    if p < seen.rule.alpha:
        return "supported", said
    return "not testable", f"{said}: as many may lie there by chance"


def _reads(claim: Claim, seen: Evidence) -> _Found:
    """Cutting the region must cost more than δ, and more than cutting as much elsewhere."""
    found = seen.followed.get(cut_of(claim).name)
    if found is None or found.why_not:
        return "not testable", found.why_not if found else "attention was not cut there"
    low, high, said = _interval(found.figures["region"], seen)
    said = f"cutting it costs {said}"
    if "elsewhere" not in found.figures:
        return _either(low > seen.rule.delta, high < seen.rule.delta), said
    more, _, apart = _interval(found.figures["region"] - found.figures["elsewhere"], seen)
    said += f", which is {apart} more than as many image tokens elsewhere"
    return _either(low > seen.rule.delta and more > 0, high < seen.rule.delta), said


def _vision_heads(claim: Claim, seen: Evidence) -> _Found:
    """Every layer's must be; one shown not to be contradicts."""
    delta = seen.rule.delta
    rows = []
    if seen.vision is not None:
        for row in records(seen.vision[seen.vision["layer"].between(*claim.layers)]):
            shown = row["necessity_low"] > delta and row["necessity_q"] < seen.rule.alpha
            figure = f"layer {row['layer']} {_between(row, 'necessity')}"
            rows.append((figure, shown, row["necessity_high"] < delta))
    else:
        for one in each_layer(claim, "vision heads"):
            found = seen.followed.get(one.name)
            if found is None or found.why_not:
                return "not testable", found.why_not if found else "no vision layer was changed"
            low, high, figure = _interval(found.figures["necessity"], seen)
            rows.append((f"layer {one.layers[0]} {figure}", low > delta, high < delta))
    said = "necessity of all heads of a layer: " + "; ".join(row[0] for row in rows)
    return _either(all(row[1] for row in rows), any(row[2] for row in rows)), said


def _vision(claim: Claim, seen: Evidence) -> _Found:
    """Its heads are necessary there, or the region's patches hold half of the difference."""
    outcome, said = _vision_heads(claim, seen)
    if outcome == "supported":
        return outcome, said
    layers = []
    for one in each_layer(claim, "stream"):
        found = seen.followed.get(one.name)
        if found is None or found.why_not:
            why = found.why_not if found else "the stream was not swapped there"
            return "not testable", f"{said}; {why}"
        layers.append((one.layers[0], *_interval(found.figures["sufficiency"], seen)))
    held = "; ".join(f"layer {layer} {figure}" for layer, _, _, figure in layers)
    carried = all(low > HALF for _, low, _, _ in layers)
    short = any(high < HALF for _, _, high, _ in layers)
    return _either(carried, short), (
        f"share of the difference that the region's patches bring, put into the other run as they "
        f"leave the layer: {held}; half counts as carrying it; {said}"
    )


def _interval(values: Float[np.ndarray, " pairs"], seen: Evidence) -> tuple[float, float, str]:
    """Return the ends of the interval of a mean over pairs, and both in words."""
    rng = np.random.default_rng([seen.rule.seed % 2**64, 0])
    found = mean_interval(values[:, None], seen.rule.level, seen.rule.resamples, rng)
    mean, low, high = (float(ends[0]) for ends in (found.mean, found.low, found.high))
    return low, high, f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _either(supported: bool, contradicted: bool) -> Outcome | None:
    return "supported" if supported else "contradicted" if contradicted else None


def _figure(row: Mapping[str, Any], name: str) -> str:
    return (
        f"{name.replace('_diff', ' difference')} {_between(row, name)}, q = {row[f'{name}_q']:.1g}"
    )


def _between(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.3f} ({row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f})"

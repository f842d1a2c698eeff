"""What a verdict's tables, and what was measured beside them, say to claims.

A claim is *supported* or *contradicted* only by something shown; everything between is *not
testable* with these data, and the figure says why, or what is missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scipy.stats import binom, hypergeom

from headpatch.stats.claim_evidence import Evidence
from headpatch.stats.claim_figures import Found, Outcome, either, figure, interval, needed
from headpatch.stats.claims import Claim, Form
from headpatch.stats.classes import CAUSAL
from headpatch.stats.judged_layers import carries, reads, vision_heads, vision_span
from headpatch.stats.judged_sets import independent, more_together, redundant, work_together

_OPEN = "the interval reaches across the bound: more pairs are needed"
_FOR = tuple(one for one in CAUSAL if one != "inhibitory")
"""The classes of a head that acts for the answer."""


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
    outcome, said = _JUDGES[claim.form](claim, seen)
    if outcome is None:
        return Judged(claim.text, "not testable", f"{said}; {_OPEN}")
    return Judged(claim.text, outcome, said)


def _class(claim: Claim, seen: Evidence) -> Found:
    row, delta, alpha = seen.row(claim.heads[0]), seen.rule.delta, seen.rule.alpha
    figures = "; ".join(figure(row, name) for name in ("necessity", "sufficiency"))
    said = f"verdict {row['verdict']}; {figures}"
    if claim.word in ("necessary", "sufficient"):
        name = {"necessary": "necessity", "sufficient": "sufficiency"}[claim.word]
        shown = row[f"{name}_low"] > delta and row[f"{name}_q"] < alpha
        return either(shown, row[f"{name}_high"] < delta), said
    against = row["verdict"] == "inhibitory"
    within = row["verdict"] in ("watches", "inert")
    if claim.word == "causal":
        said += "; it acts against the answer" * against
        return either(row["verdict"] in _FOR, within or against), said
    if claim.word == "inert":
        return either(
            within, row["verdict"] in CAUSAL
        ), f"{said}; equivalence q = {row['equivalence_q']:.1g}"
    if claim.word == "inhibitory":
        lows = [row[f"{name}_low"] for name in ("necessity", "sufficiency")]
        return either(against, min(lows) > -delta), said
    if row["verdict"] == "redundant":
        return "supported", f"{said}; together with {row['partners']}"
    alone = needed(row, seen.rule)
    why = "necessary alone" if alone else "no set of heads was found that needs it"
    return "contradicted" if alone else "not testable", f"{said}; {why}"


def _looks(claim: Claim, seen: Evidence) -> Found:
    row = seen.row(claim.heads[0])
    if row["attention_diff"] != row["attention_diff"]:
        return "not testable", "the head does not attend to the image's tokens"
    more = row["attention_diff_low"] > 0 and row["attention_diff_q"] < seen.rule.alpha
    said = f"{figure(row, 'attention_diff')}, rank {row['attention_rank']}"
    return either(more, row["attention_diff_high"] < 0), said


def _model_looks(_: Claim, seen: Evidence) -> Found:
    if seen.looks is None:
        return "not testable", "verdict.pt, with the attention on each pair, is missing"
    low, high, said = interval(seen.looks, seen.rule)
    return either(low > 0, high < 0), f"attention difference, mean of all heads: {said}"


def _hold(claim: Claim, seen: Evidence) -> Found:
    """More of them than chance, and at least half; or shown to be fewer than half.

    Heads are taken as draws: from all heads, whose share in the layers is chance; or from heads of
    which half lie there.
    """
    first, last = claim.layers
    table = seen.heads
    if claim.word == "causal":
        wanted = table[table["verdict"].isin(_FOR)]
    else:
        wanted = table[table["attention_rank"] <= seen.top]
    if wanted.empty:
        return "not testable", "no head is shown to act for the answer"
    inside = int(wanted["layer"].between(first, last).sum())
    there = int(table["layer"].between(first, last).sum())
    said = (
        f"{inside} of {len(wanted)} lie in layers {first}-{last}, which hold {there} of "
        f"{len(table):,} heads"
    )
    if 2 * inside < len(wanted):
        p = float(binom.cdf(inside, len(wanted), 0.5))
        said += f" (p = {p:.1g} if half of such heads lay there)"
        if p < seen.rule.alpha:
            return "contradicted", said
        return "not testable", f"{said}: too few heads to show that fewer than half do"
    p = float(hypergeom.sf(inside - 1, len(table), there, len(wanted)))
    said += f" (p = {p:.1g} if spread evenly)"
    if p < seen.rule.alpha:
        return "supported", said
    return "not testable", f"{said}: as many may lie there by chance"


_JUDGES: Mapping[Form, Callable[[Claim, Evidence], Found]] = {
    Form.CLASS: _class,
    Form.LOOKS: _looks,
    Form.MODEL_LOOKS: _model_looks,
    Form.REDUNDANT: redundant,
    Form.MORE_TOGETHER: more_together,
    Form.WORK_TOGETHER: work_together,
    Form.INDEPENDENT: independent,
    Form.HOLD: _hold,
    Form.READS: reads,
    Form.VISION_HEADS: vision_heads,
    Form.VISION_SPAN: vision_span,
    Form.VISION_CARRIES: carries,
}

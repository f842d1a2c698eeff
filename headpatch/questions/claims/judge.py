"""What a verdict's tables, and experiments beside it, say to claims.

A claim is *supported* or *contradicted* only by something shown. Where figures leave it open it is
*undecided*: more pairs may show it. Where none could tell it is *not testable*, and the figure says
why, or what is missing. A head's class is corrected over all heads; all else over the claims that
are judged together (`Evidence.rule`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, hypergeom

from headpatch.core.claims_grammar import Claim, Form
from headpatch.questions.claims import judge_followed
from headpatch.questions.claims.case import Evidence, UnmeasuredError, each_layer
from headpatch.questions.claims.experiments import Experiment
from headpatch.questions.claims.outcomes import Outcome, Shown, either, interval
from headpatch.stats.verdict_labels import CAUSAL, RAW_FLOOR, SMALL, Rule
from headpatch.text import signed

_ONE = 1 - 1e-12
_OPEN = "the interval reaches across the bound: more pairs are needed"
_EFFECTS = ("necessity", "sufficiency")


@dataclass(frozen=True)
class Judged:
    """A claim and what is shown of it; `figure` is the number behind the outcome, in words."""

    claim: str
    outcome: Outcome
    figure: str


def judge_claim(claim: Claim, evidence: Evidence) -> Judged:
    """Say what is shown of a claim."""
    outcome, figure = _shown(_JUDGES[claim.form], claim, evidence)
    if outcome is None:
        return Judged(claim.text, "undecided", f"{figure}; {_OPEN}")
    return Judged(claim.text, outcome, figure)


def _shown(judge: Callable[[Claim, Evidence], Shown], claim: Claim, evidence: Evidence) -> Shown:
    try:
        return judge(claim, evidence)
    except UnmeasuredError as reason:
        return "not testable", str(reason)


def _between(row: Mapping[str, Any], name: str) -> str:
    """Say a table's figure in words, with its interval."""
    mean, low, high = (signed(row[one]) for one in (name, f"{name}_low", f"{name}_high"))
    return f"{mean} ({low} to {high})"


def _figure(row: Mapping[str, Any], name: str) -> str:
    """Say a table's figure in words, with its interval and its q."""
    words = name.replace("_diff", " difference")
    return f"{words} {_between(row, name)}, q = {row[f'{name}_q']:.1g}"


def _beyond(row: Mapping[str, Any], name: str, rule: Rule) -> bool:
    """Say whether a table's row shows an effect above δ."""
    return bool(row[f"{name}_low"] > rule.delta and row[f"{name}_q"] < rule.alpha)


def _class(claim: Claim, evidence: Evidence) -> Shown:
    row, rule = evidence.row(claim.heads[0]), evidence.rule
    verdict = row["verdict"]
    words = f"verdict {verdict}; " + "; ".join(_figure(row, name) for name in _EFFECTS)
    against, within = verdict == "inhibitory", verdict in SMALL
    match claim.word:
        case "necessary" | "sufficient":
            name = {"necessary": "necessity", "sufficient": "sufficiency"}[claim.word]
            return either(_beyond(row, name, rule), row[f"{name}_high"] < rule.delta), words
        case "causal":
            words += "; it acts against the answer" * against
            return either(verdict in CAUSAL, within), words
        case "inert":
            words += f"; equivalence q = {row['equivalence_q']:.1g}"
            return either(within, verdict in (*CAUSAL, "mixed")), words
        case "inhibitory":
            lows = [row[f"{name}_low"] for name in _EFFECTS]
            return either(against, min(lows) > -rule.delta), words
        case _ if verdict == "redundant":
            return "supported", f"{words}; together with {row['partners'].rstrip(';')}"
        case _ if _beyond(row, "necessity", rule):
            return "contradicted", f"{words}; necessary alone"
        case _:
            return "undecided", f"{words}; no set of heads was found that needs it"


def _looks(claim: Claim, evidence: Evidence) -> Shown:
    row = evidence.row(claim.heads[0])
    if np.isnan(row["attention_diff"]):
        return "not testable", "the head does not attend to the image's tokens"
    bound = evidence.rule.attention_delta
    words = (
        f"{_figure(row, 'attention_diff')}, rank {row['attention_rank']}; an attention difference "
        f"is of interest from δ_a = {bound:g} on"
    )
    raw = row.get("attention_raw_diff", np.nan)
    if not np.isnan(raw):
        words += f" and {RAW_FLOOR:g} of all attention; here {raw:+.4f}"
    next_to_none = row.get("attention_raw_diff_high", 1.0) < RAW_FLOOR
    contradicted = bool(row["attention_diff_high"] < bound or next_to_none)
    return either(bool(_looking(row, evidence.rule)), contradicted), words


def _looking(table: Any, rule: Rule) -> Any:
    """Say of rows of ``verdicts.csv`` whether they show a head to look at the region."""
    shown = (table["attention_diff_low"] > rule.attention_delta) & (
        table["attention_diff_q"] < rule.alpha
    )
    if "attention_raw_diff_low" in table:  # an earlier version did not write it
        shown = shown & (table["attention_raw_diff_low"] > RAW_FLOOR)
    return shown


def _model_looks(_: Claim, evidence: Evidence) -> Shown:
    if evidence.verdict.looks is None:
        return "not testable", "verdict.pt, with the attention on each pair, is missing"
    low, high, words = interval(evidence.verdict.looks, evidence.rule)
    bound = evidence.rule.attention_delta
    words = f"attention difference, mean of all heads: {words}; of interest from {bound:g} on"
    return either(low > bound, high < bound), words


def _hold(claim: Claim, evidence: Evidence) -> Shown:
    """More of them than chance, and at least half; or shown to be fewer than half.

    Heads are taken as draws: from all heads, whose share in the layers is chance; or from heads of
    which half lie there.
    """
    first, last = claim.layers
    table, alpha = evidence.verdict.heads, evidence.rule.alpha
    top = evidence.verdict.study.verdict.top
    picked = (table["attention_rank"] <= top) & _looking(table, evidence.rule)
    wanted = table[table["verdict"].isin(CAUSAL) if claim.word == "causal" else picked]
    if wanted.empty:
        word = "act on the answer" if claim.word == "causal" else "look at the region"
        return "not testable", f"no head is shown to {word}"
    inside = int(wanted["layer"].between(first, last).sum())
    places = int(table["layer"].between(first, last).sum())
    words = (
        f"{inside} of {len(wanted)} lie in layers {first}-{last}, which hold {places} of "
        f"{len(table):,} heads"
    )
    if 2 * inside < len(wanted):
        p = float(binom.cdf(inside, len(wanted), 0.5))
        words += f" (p = {p:.1g} if half of such heads lay there)"
        if p < alpha:
            return "contradicted", words
        return "undecided", f"{words}: too few heads to show that fewer than half do"
    p = float(hypergeom.sf(inside - 1, len(table), places, len(wanted)))
    words += f" (p = {p:.1g} if spread evenly)"
    if p < alpha:
        return "supported", words
    return "undecided", f"{words}: as many may lie there by chance"


def _redundant(claim: Claim, evidence: Evidence) -> Shown:
    """More together than alone, and none of them necessary alone."""
    outcome, words = _shown(_more_together, claim, evidence)
    rule = evidence.rule
    needed = [head for head in claim.heads if _beyond(evidence.row(head), "necessity", rule)]
    if needed:
        return "contradicted", f"{words}; necessary alone: {', '.join(map(str, needed))}"
    return outcome, words


def _more_together(claim: Claim, evidence: Evidence) -> Shown:
    """Necessary together, and each adds more once the others are gone than it does alone."""
    name, delta = str(claim.tested_set), evidence.rule.delta
    for row in evidence.rows(evidence.verdict.sets[evidence.verdict.sets["heads"] == name]):
        words = (
            f"joint necessity {_between(row, 'joint')}, least excess over what each does alone "
            f"{_between(row, 'excess')}, q = {row['q']:.1g}"
        )
        return either(bool(row["redundant"]), row["excess_high"] < delta), words
    figures = evidence.figures(
        Experiment("together", claim.heads), judge_followed.APART, f"{name}: "
    )
    parts = {part: interval(values, evidence.rule) for part, values in figures.items()}
    words = ", ".join(f"{part} {ends.words}" for part, ends in parts.items())
    supported = min(ends.low for ends in parts.values()) > delta
    return either(supported, any(ends.high < delta for ends in parts.values())), words


def _vision_heads(claim: Claim, evidence: Evidence) -> Shown:
    """Every layer's must be; one shown not to be contradicts."""
    vision, delta = evidence.verdict.vision, evidence.rule.delta
    shown: list[tuple[bool, bool, str]] = []  # whether it is, whether it is not, and the figure
    of_claim = None if vision is None else vision[vision["layer"].between(*claim.layers)]
    for row in () if of_claim is None else evidence.rows(of_claim):
        words = f"layer {row['layer']} {_between(row, 'necessity')}"
        beyond = _beyond(row, "necessity", evidence.rule)
        shown.append((beyond, row["necessity_high"] < delta, words))
    for experiment in each_layer(claim) if vision is None else ():
        figures = evidence.figures(experiment, "no vision layer was changed")
        low, high, words = interval(figures["necessity"], evidence.rule)
        shown.append((low > delta, high < delta, f"layer {experiment.layers[0]} {words}"))
    figure = f"necessity of all heads of a layer: {'; '.join(words for *_, words in shown)}"
    return either(all(one[0] for one in shown), any(one[1] for one in shown)), figure


def _correlate(claim: Claim, evidence: Evidence) -> Shown:
    """Spearman's rho over heads, of true values: means scramble ranks, which looks like less."""
    found = evidence.verdict.correlation
    if found is None:
        return "not testable", "verdict.pt, with the correlation, is missing"
    if found["untold"]:
        return "not testable", f"the correlation of true values cannot be told: {found['untold']}"
    ends = np.arctanh(np.clip([found[end] for end in ("low", "rho", "high")], -_ONE, _ONE))
    low, high = (float(np.tanh(ends[1] + (end - ends[1]) * evidence.wider)) for end in ends[::2])
    words = f"rho {found['rho']:+.2f} ({low:+.2f} to {high:+.2f}) over heads, of true values"
    above, below = low > claim.number, high < claim.number
    return (either(above, below) if claim.word == "more" else either(below, above)), words


_JUDGES: Mapping[Form, Callable[[Claim, Evidence], Shown]] = {
    Form.CLASS: _class, Form.LOOKS: _looks, Form.MODEL_LOOKS: _model_looks,
    Form.REDUNDANT: _redundant, Form.MORE_TOGETHER: _more_together,
    Form.WORK_TOGETHER: judge_followed.work_together,
    Form.INDEPENDENT: judge_followed.independent, Form.TOGETHER: judge_followed.together,
    Form.OTHERS: judge_followed.more_than_others, Form.HOLD: _hold,
    Form.SPAN: judge_followed.span, Form.READS: judge_followed.reads,
    Form.CORRELATE: _correlate, Form.VISION_HEADS: _vision_heads,
    Form.VISION_SPAN: judge_followed.vision_span, Form.VISION_CARRIES: judge_followed.carries,
}  # fmt: skip

"""What experiments beside a verdict say to claims."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from headpatch.core.claims_grammar import Claim
from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet
from headpatch.questions.claims.case import Evidence, attention_cut, stream_swaps
from headpatch.questions.claims.experiments import Experiment
from headpatch.questions.claims.outcomes import Shown, either, interval
from headpatch.stats.interactions import Word, interaction_label, joint_reading

HALF = 0.5
"""The share of the difference between the runs that counts as carrying the object."""
APART = "they were not changed together"
_ENDS = {"answer": "the answer position", "question": "the question's words",
         "region": "the region", "image": "the image"}  # fmt: skip


def work_together(claim: Claim, evidence: Evidence) -> Shown:
    """Both are needed: synergy one way, and synergy or nothing the other way.

    Where the ways disagree (in series, a threshold) it is not told from other cases.
    """
    labels, words = _interaction(claim, evidence)
    if "synergy" in labels and not {"redundancy", "opposed", "undecided"} & labels:
        return "supported", words
    if "synergy" in labels and "undecided" not in labels:
        return "undecided", f"{words}; the two directions disagree"
    return either(False, not {"synergy", "undecided"} & labels), words


def independent(claim: Claim, evidence: Evidence) -> Shown:
    """What they do together is what they do alone, added up: within ±δ, both ways."""
    labels, words = _interaction(claim, evidence)
    other = {"synergy", "redundancy", "opposed"} & labels
    return either(labels == {"independence"}, bool(other)), words


def _interaction(claim: Claim, evidence: Evidence) -> tuple[set[Word], str]:
    """Name the interaction of two heads, noising and denoising."""
    members, delta = HeadSet(claim.heads), evidence.rule.delta
    figures = evidence.figures(Experiment("interaction", claim.heads), APART, f"{members}: ")
    labels, parts = [], []
    for way in get_args(Direction):
        both, alone = figures[f"{way} both"], [figures[f"{way} {head}"] for head in claim.heads]
        excess = both - np.sum(alone, 0)
        ends = interval(excess, evidence.rule)
        signs = [interval(values, evidence.rule).sign(delta) for values in alone]
        small = ends.low > -delta and ends.high < delta
        against, opposed = bool(2 * both.mean() < excess.mean()), min(signs) * max(signs) < 0
        label = interaction_label(way, ends.sign(delta), small, against, opposed)
        labels.append(label)
        parts.append(f"{way} {ends.words} beyond what each does alone: {label}")
    reading = joint_reading(labels[0], labels[1])
    return set(labels), "; ".join([*parts, *[reading] * bool(reading)])


def reads(claim: Claim, evidence: Evidence) -> Shown:
    """Cutting it must cost more than δ; the region, also more than cutting as much elsewhere."""
    rule, cut = evidence.rule, attention_cut(claim)
    figures = evidence.figures(cut, "attention was not cut there")
    low, high, words = interval(figures[cut.keys], rule)
    words = f"cutting {_ENDS[claim.object]} from {_ENDS[claim.word]} costs {words}"
    if "elsewhere" not in figures:
        return either(low > rule.delta, high < rule.delta), words
    more = interval(figures[cut.keys] - figures["elsewhere"], rule)
    words += f", which is {more.words} more than as many image tokens elsewhere"
    return either(low > rule.delta and more.low > 0, high < rule.delta), words


def together(claim: Claim, evidence: Evidence) -> Shown:
    """What all of them do at once must lie beyond δ."""
    name = {"necessary": "necessity", "sufficient": "sufficiency"}[claim.word]
    figures = _joint(claim, evidence)
    low, high, words = interval(figures[name], evidence.rule)
    delta = evidence.rule.delta
    return either(low > delta, high < delta), f"{name} of all of them together {words}"


def more_than_others(claim: Claim, evidence: Evidence) -> Shown:
    """They must be necessary together, and by more than δ more than random sets are."""
    return _more(_joint(claim, evidence), evidence, "of all of them together",
                 "random sets with as many heads of each layer", "heads")  # fmt: skip


def _joint(claim: Claim, evidence: Evidence) -> Mapping[str, Any]:
    members = HeadSet(claim.heads)
    return evidence.figures(Experiment("joint", claim.heads), APART, f"{members}: ")


def span(claim: Claim, evidence: Evidence) -> Shown:
    """Heads of language-model layers: as of vision layers."""
    return _layers(Experiment("span", layers=claim.layers), evidence)


def vision_span(claim: Claim, evidence: Evidence) -> Shown:
    """Together they must be necessary, and by more than δ more than as many other layers are."""
    return _layers(Experiment("vision span", layers=claim.layers), evidence)


def _layers(experiment: Experiment, evidence: Evidence) -> Shown:
    figures = evidence.figures(experiment, "these layers were not changed together")
    return _more(
        figures, evidence, "of all their heads together", "as many other layers have", "layers"
    )


def _more(
    figures: Mapping[str, Any], evidence: Evidence, whose: str, others: str, what: str
) -> Shown:
    """Compare what was changed with others, as many."""
    low, high, words = interval(figures["necessity"], evidence.rule)
    words, delta = f"necessity {whose} {words}", evidence.rule.delta
    if high < delta:
        return "contradicted", words
    if "elsewhere" not in figures:
        left = "as many and read, are left" if what == "layers" else "as many, are left there"
        return "not testable", f"{words}; no other {what}, {left} to compare"
    more = interval(figures["necessity"] - figures["elsewhere"], evidence.rule)
    words += f", which is {more.words} more than {others} in the mean"
    return either(low > delta and more.low > delta, more.high < delta), words


def carries(claim: Claim, evidence: Evidence) -> Shown:
    """The region's patches must hold half of the difference after the layers, and not before.

    Where they hold it before, every layer after passes it on, and a swap tells none from another.
    """
    (first, last), (after, *before) = claim.layers, stream_swaps(claim)
    unswapped = "the stream was not swapped there"
    leaving = interval(evidence.figures(after, unswapped)["sufficiency"], evidence.rule)
    words = (
        f"the region's patches, put into the other run as they leave layer {last}, bring "
        f"{leaving.words} of the difference; half counts as carrying it"
    )
    if leaving.high < HALF:
        return "contradicted", words
    if not before:
        return "not testable", f"{words}; nothing lies before layer 0 to compare with"
    figures = evidence.figures(before[0], unswapped, f"{words}; ")
    entering = interval(figures["sufficiency"], evidence.rule)
    words += f"; as they enter layer {first}, {entering.words}"
    if entering.low > HALF:
        return "not testable", (
            f"{words}: they hold it before, so that this tells no layer from those before it; "
            "claim that the heads of these vision layers matter more than those of other layers"
        )
    return either(leaving.low > HALF and entering.high < HALF, False), words

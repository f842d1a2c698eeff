"""What is shown of heads that are claimed to act together."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from headpatch.heads import HeadSet
from headpatch.stats.claim_evidence import Evidence, interaction_of, records
from headpatch.stats.claim_figures import Found, between, either, interval, needed
from headpatch.stats.claims import Claim
from headpatch.stats.followed import Ask
from headpatch.stats.interactions import Word, together, word
from headpatch.stats.rule import Rule

_WAYS: tuple[Literal["noising"], Literal["denoising"]] = ("noising", "denoising")


def redundant(claim: Claim, seen: Evidence) -> Found:
    """More together than alone, and none of them necessary alone."""
    outcome, said = more_together(claim, seen)
    if alone := [str(head) for head in claim.heads if needed(seen.row(head), seen.rule)]:
        return "contradicted", f"{said}; necessary alone: {', '.join(alone)}"
    return outcome, said


def more_together(claim: Claim, seen: Evidence) -> Found:
    """Necessary together, and each adds more once the others are gone than it does alone."""
    name, rows = str(claim.tested_set), seen.sets
    rows = rows[rows["heads"] == name]
    if len(rows):
        row = records(rows)[0]
        said = (
            f"joint necessity {between(row, 'joint')}, least excess over what each does alone "
            f"{between(row, 'excess')}, q = {row['q']:.1g}"
        )
        return either(bool(row["redundant"]), row["excess_high"] < seen.rule.delta), said
    found = seen.followed.get(Ask("together", claim.heads).name)
    if found is None or found.why_not:
        why = found.why_not if found else "they were not changed together"
        return "not testable", f"{name}: {why}"
    parts = {part: interval(values, seen.rule) for part, values in found.figures.items()}
    lows = [low for low, _, _ in parts.values()]
    shorts = [high < seen.rule.delta for _, high, _ in parts.values()]
    said = ", ".join(f"{part} {figure}" for part, (_, _, figure) in parts.items())
    return either(min(lows) > seen.rule.delta, any(shorts)), said


def work_together(claim: Claim, seen: Evidence) -> Found:
    """Both are needed: synergy one way, and synergy or nothing the other way.

    Where the ways disagree (in series, a threshold) it is not told from other cases.
    """
    words, said = _interaction(claim, seen)
    if not words:
        return "not testable", said
    if "synergy" in words and not {"redundancy", "opposed", "undecided"} & set(words):
        return "supported", said
    if "synergy" in words and "undecided" not in words:
        return "not testable", said
    return either(False, not {"synergy", "undecided"} & set(words)), said


def independent(claim: Claim, seen: Evidence) -> Found:
    """What they do together is what they do alone, added up: within ±δ, both ways."""
    words, said = _interaction(claim, seen)
    if not words:
        return "not testable", said
    other = {"synergy", "redundancy", "opposed"} & set(words)
    return either(set(words) == {"independence"}, bool(other)), said


def _interaction(claim: Claim, seen: Evidence) -> tuple[tuple[Word, ...], str]:
    """Name the interaction of two heads, noising and denoising; no word if it was not measured."""
    found = seen.followed.get(interaction_of(claim).name)
    if found is None or found.why_not:
        why = found.why_not if found else "they were not changed together"
        return (), f"{HeadSet(claim.heads)}: {why}"
    words, parts = [], []
    for way in _WAYS:
        both = found.figures[f"{way} both"]
        alone = [found.figures[f"{way} {head}"] for head in claim.heads]
        named, said = _word(way, both, alone, seen.rule)
        words.append(named)
        parts.append(f"{way} {said} beyond what each does alone: {named}")
    both_ways = together(words[0], words[1])
    return tuple(words), "; ".join([*parts, *[both_ways] * bool(both_ways)])


def _word(
    way: Literal["noising", "denoising"],
    both: Float[np.ndarray, " pairs"],
    alone: list[Float[np.ndarray, " pairs"]],
    rule: Rule,
) -> tuple[Word, str]:
    beyond = both - np.sum(alone, 0)
    low, high, said = interval(beyond, rule)
    signs = [_sign(interval(values, rule)[:2], rule.delta) for values in alone]
    named = word(
        way,
        _sign((low, high), rule.delta),
        low > -rule.delta and high < rule.delta,
        against=bool(2 * both.mean() < beyond.mean()),
        opposed=min(signs) * max(signs) < 0,
    )
    return named, said


def _sign(ends: tuple[float, float], delta: float) -> int:
    """1 or -1 if an interval lies beyond ±δ; else 0."""
    return int(ends[0] > delta) - int(ends[1] < -delta)

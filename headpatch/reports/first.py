"""The first screen: the question, both pictures and answers, and what was found, in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headpatch.core.measures import measure_of
from headpatch.core.output.folder import Results, reading_of
from headpatch.present.canvas import signed
from headpatch.present.section import Section, listed, said
from headpatch.questions.verdict.charts import true_words
from headpatch.questions.verdict.columns import HEADS, SETS
from headpatch.questions.verdict.sets_view import largest_set_words
from headpatch.reports.heads import Heads, heads_of, judged_on
from headpatch.reports.pictures import Side, example_of
from headpatch.stats.rankings import correlation, descending, effect_size, precision_at, spearman
from headpatch.stats.scenes import by_scene
from headpatch.stats.verdict_labels import CAUSAL

ONE_PAIR = (
    "One pair of pictures shows one case and says nothing of others: headpatch verdict tests many."
)
UNTESTED = "These are means without a test: headpatch verdict judges every head over many pairs."


@dataclass(frozen=True)
class Said:
    """What was found, and no more than the results say."""

    sentence: str  # the finding, with its numbers
    more: Sequence[str] = ()  # what else belongs beside it, a paragraph each
    caution: str = ""  # what it does not show
    failed: str = ""  # nulls that failed: then the finding is not to be believed


def section(results: Results) -> Section:
    """Make the first screen; what is not known is left out."""
    example = example_of(results)
    told = (part.run.get("invalid_because") for part in results.parts)
    because = (why for why in told if isinstance(why, list))
    values = {
        "question": example.question,
        "region": example.region,
        "words": example.words,
        "sides": example.sides,
        "scale": _scale(example.sides),
        "answers": example.answers or results.main.study.get("answers") or ("Yes", "No"),
        "likely": {side.name: side.likely for side in example.sides},
        "because": next(("; ".join(map(str, why)) for why in because if why), ""),
        "model": str(results.main.run.get("model", "")),
        "valid": results.valid,
        "changed": results.changed,
        "said": headline(results, heads_of(results)),
    }
    return Section("first", "The finding", values)


def _scale(sides: Sequence[Side]) -> dict[str, Any] | None:
    """Both LDs on one axis, in percent of its width."""
    known = {side.name: side.ld for side in sides if side.ld is not None}
    if len(known) < 2:
        return None
    most = 1.15 * max(map(abs, known.values())) or 1.0
    return {name: {"at": 50 + 50 * ld / most, "ld": signed(ld, 2)} for name, ld in known.items()}


def headline(results: Results, heads: Heads | None) -> Said:
    """Say what was found, as far as the runs went."""
    if heads is not None and heads.verdict is not None and heads.looks:
        return _judged(results, heads)
    if heads is not None and heads.looks and heads.effects:
        return _changed(heads)
    if heads is not None and heads.looks:
        return _looked(heads)
    if heads is not None and heads.effects:
        return _only_changed(heads)
    return Said(
        "No run in this folder says anything of every head of the language model; what there is "
        "follows below."
    )


def _judged(results: Results, heads: Heads) -> Said:
    verdict, rank = heads.verdict, heads.looks[0].rank
    assert verdict is not None
    causal, picked = np.isin(verdict, CAUSAL), rank <= heads.top
    size = _size(heads)
    order = descending(size)

    def named(which: np.ndarray) -> str:
        names = [heads.name(int(flat)) for flat in order if which.flat[flat]]
        return f" ({listed(names, 6)})" if names else ""

    def count(which: np.ndarray) -> str:
        number = int(which.sum())
        return "none is" if not number else f"{number:,} {'is' if number == 1 else 'are'}"

    both, within = causal & picked, np.isin(verdict, ("watches", "inert")) & picked
    delta = results.main.study.get("verdict", {}).get("delta")
    picker = measure_of(str(results.main.study.get("rank", {}).get("by", "diff"))).picker
    limit = "±δ" if delta is None else f"±{delta:.1%}"
    sentence = (
        f"Of the {heads.top} heads that {picker} picks out, {count(both)} shown to act on the "
        f"answer{named(both)}, and {count(within)} shown to stay within {limit} of the difference "
        "between the two answers."
    )
    missed, name = causal & ~picked, f"{picker[0].upper()}{picker[1:]}"
    acting = f"Of all {causal.size:,} heads, {count(causal)} shown to act, "
    acting += f"judged on {judged_on(results)}. "
    if causal.any() and missed.sum() == causal.sum():
        acting += f"{name} misses every one of them{named(missed)}."
    elif causal.any():
        acting += f"{name} misses {int(missed.sum()):,} of them{named(missed)}."
    else:
        acting += "That is no proof that none does: see how many are undecided."
    more = [acting, *_together(results), _agreement(results, heads, size)]
    return Said(sentence, more, "", _failed(results))


def _together(results: Results) -> list[str]:
    """What the largest set of heads does of which each is needed, where one was found."""
    sets = results.table(SETS.file, SETS.needed)
    named = {name: HEADS[name].sort for name in ("layer", "head", "necessity")}
    table = results.table(HEADS.file, named)
    if sets is None or table is None:
        return []
    words = largest_set_words(sets, table)
    return [words] if words else []


def _agreement(results: Results, heads: Heads, size: np.ndarray) -> str:
    """How looking and acting go together, over all heads."""
    look = heads.looks[0]
    rho = signed(spearman(np.nan_to_num(look.diff).ravel(), size.ravel()), 2)
    part = results.first("verdict.pt")
    needed = {"attention_diff": 3, "resample_noising": 3, "resample_denoising": 3, "level": 0}
    saved = results.tensors("verdict.pt", needed)
    true = ""
    if saved is not None and part is not None:
        with reading_of(part, "verdict.pt"):
            there = list(heads.layers)
            looks, necessity, sufficiency = (
                np.nan_to_num(np.asarray(saved[key], np.float64)[:, there]).reshape(
                    len(saved[key]), -1
                )
                for key in list(needed)[:3]
            )
            if "scenes" in saved:  # results of earlier versions lack it
                scenes = np.asarray(saved["scenes"])
                looks, necessity, sufficiency = (
                    by_scene(each, scenes) for each in (looks, necessity, sufficiency)
                )
            level = float(saved["level"])
            found = correlation(looks, necessity, sufficiency, level)
            if "true_rho" in saved:  # results of earlier versions lack it
                true = f" Of their true values: {true_words(saved['true_rho'], level)}."
        rho = f"{signed(found.rho, 2)} [{signed(found.low, 2)}, {signed(found.high, 2)}]"
    by = str(results.main.study.get("rank", {}).get("by", "diff"))
    first = precision_at(descending(-look.rank.astype(float)), descending(size), heads.top)
    first_of = f"Of attention's first {first.k}"
    if by != "diff":
        first_of = f"Of the first {first.k} of {measure_of(by).picker}"
    return (
        f"Spearman's ρ of measured attention difference and size of effect: {rho}.{true} "
        f"{first_of}, {first.hits} are among the {first.k} largest effects "
        f"(chance: {first.chance * first.k:.1f})."
    )


def _size(heads: Heads) -> np.ndarray:
    """Size of each head's effect: the larger of both directions, as a verdict counts it."""
    first = heads.effects[0]
    alike = [one for one in heads.effects if (one.kind, one.where) == (first.kind, first.where)]
    return effect_size(alike[0].normalized, alike[-1].normalized)


def _failed(results: Results) -> str:
    table = results.table("nulls.csv", {"null": "text", "outcome": "text"})
    if table is None:
        return ""
    return listed(dict.fromkeys(table.loc[table["outcome"] == "failed", "null"]))


def _changed(heads: Heads) -> Said:
    look, effect = heads.looks[0], heads.effects[0]
    size = np.nan_to_num(np.abs(effect.normalized))
    largest, first = int(size.argmax()), int(look.rank.argmin())
    value = share(effect.normalized.flat[largest])
    if largest == first:
        sentence = (
            f"The head that looks most, {heads.name(first)}, also has the largest effect of any "
            f"single head: {value} of the difference between the two answers."
        )
    else:
        sentence = (
            f"Head {heads.name(largest)} has the largest effect of any single head, {value} of "
            f"the difference between the two answers; by attention it is number "
            f"{look.rank.flat[largest]:,} of {size.size:,}. Head {heads.name(first)} looks most, "
            f"and its effect is {share(effect.normalized.flat[first])}."
        )
    above = size > (effect.floor if np.isfinite(effect.floor) else 0.0)
    rho = spearman(look.diff.ravel(), size.ravel())
    more = [
        f"{effect.where[0].upper()}{effect.where[1:]}, every head changed alone by "
        f"{effect.kind} {effect.direction}. "
        f"{int(above.sum()):,} of {above.size:,} effects rise above the noise floor. "
        f"Spearman's ρ of attention difference and size of effect: {said(rho, 2)}."
    ]
    return Said(sentence, more, UNTESTED if effect.many else ONE_PAIR)


def _looked(heads: Heads) -> Said:
    look = heads.looks[0]
    first = int(look.rank.argmin())
    shares, of = "", "all its attention" if look.by_image else "its image attention"
    if {"with", "without"} <= set(look.figures):
        shares = (
            f": {look.figures['with'].flat[first]:.0%} of {of} with the object, "
            f"{look.figures['without'].flat[first]:.0%} without"
        )
    name = heads.name(first)
    place = "image" if look.by_image else "region"
    sentence = f"Of all heads, {name} turns to the {place} most when the object is there{shares}."
    caution = (
        "Every head is only looked at here: this says where heads look, not which of them decide. "
        "headpatch sweep changes every head and measures the answer."
    )
    return Said(sentence, [], caution)


def _only_changed(heads: Heads) -> Said:
    effect = heads.effects[0]
    largest = int(np.nan_to_num(np.abs(effect.normalized)).argmax())
    sentence = (
        f"Head {heads.name(largest)} has the largest effect of any single head: "
        f"{share(effect.normalized.flat[largest])} of the difference between the two answers "
        f"({effect.where}, {effect.kind} {effect.direction})."
    )
    return Said(sentence, [], UNTESTED if effect.many else ONE_PAIR)


def share(value: float) -> str:
    """Write a normalized effect in percent, with two significant digits."""
    if not np.isfinite(value):
        return "undefined"
    percent = 100 * float(value)
    if abs(percent) < 0.01:
        return "less than 0.01%"
    digits = max(0, 1 - int(np.floor(np.log10(abs(percent)))))
    return f"{percent:.{digits}f}%".replace("-", "−")

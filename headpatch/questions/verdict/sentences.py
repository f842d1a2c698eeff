"""What is shown of one head, in one or two sentences that hold without the table.

Every sentence names the positions, the size with its interval, how many pairs lie beyond δ, and on
how many the answer turns. Effects are in percent of the LD difference between the runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import pandas as pd

from headpatch.core.question import Context
from headpatch.stats.verdict_labels import RAW_FLOOR

_WHERE: Final = {
    "answer": "at the answer position",
    "question": "at the question's words",
    "image": "at the image's tokens",
    "all": "at all positions",
}
_EFFECTS: Final = {"necessity": "noising", "sufficiency": "denoising"}
"""Name of the column, and the term for the direction."""
_ANSWER: Final = {"necessity": "with-run", "sufficiency": "without-run"}
_MORE: Final = {"watches": "more", "looks away": "less"}
_NAMED: Final = 6
"""Factors or levels named in a sentence."""


@dataclass(frozen=True)
class Setting:
    """What every sentence refers to."""

    positions: str
    delta: float
    attention_delta: float
    pairs: int
    source: str = "twin"
    attended: str = "region"  # what heads are compared by their attention to

    @classmethod
    def of(cls, context: Context, pairs: int) -> "Setting":
        """Return the study of a verdict over so many pairs."""
        options = context.options
        return cls(
            str(options.get("positions", "answer")), float(options.get("delta", 0.02)),
            float(options.get("attention_delta", 0.05)), pairs, str(options.get("source", "twin")),
            context.attended,
        )  # fmt: skip

    @property
    def where(self) -> str:
        """The positions in words, and from where z comes if it is not the pair's own other run."""
        other = " from another pair" * (self.source == "other")
        return _WHERE.get(self.positions, f"at {self.positions}") + other


def sentence(row: Mapping[str, Any], study: Setting, factors: pd.DataFrame | None = None) -> str:
    """Say what is shown of a head: a row of ``verdicts.csv``.

    `factors` is ``factors.csv``. Columns that an earlier version did not write are left out.
    """
    name, verdict = f"{row['layer']:.0f}.{row['head']:.0f}", str(row["verdict"])
    size = {one: _size(row, one) for one in _EFFECTS}
    bound = f"δ = {percent(study.delta, False)}"
    need, enough = size["necessity"], size["sufficiency"]
    match verdict:
        case "necessary+sufficient":
            words = (
                f"resampling it {study.where} takes away {need} of the LD difference (noising), "
                f"and its z alone, put into the other run, brings {enough} (denoising)"
            )
            words += _on_pairs(row, study, *_EFFECTS)
        case "necessary":
            words = f"resampling it {study.where} takes away {need} of the LD difference (noising)"
            words += _on_pairs(row, study, "necessity") + _other(row, "sufficiency", study)
        case "sufficient":
            words = (
                f"its z alone, put into the other run {study.where}, brings {enough} of the LD "
                "difference (denoising)"
            )
            words += _on_pairs(row, study, "sufficiency") + _other(row, "necessity", study)
        case "redundant":
            words = (
                f"alone it takes away {need} of the LD difference {study.where} (noising), but it "
                f"is needed within {_partners(row)}"
            )
            words += _on_pairs(row, study, "necessity")
        case "inhibitory":
            against = [one for one in _EFFECTS if row[f"{one}_high"] < -study.delta]
            parts = " and ".join(f"{size[one]} ({_EFFECTS[one]})" for one in against)
            words = f"it works against the answer {study.where}: {parts} of the LD difference"
            words += _on_pairs(row, study, *against)
        case "mixed":
            words = (
                f"the means {need} (noising) and {enough} (denoising) of the LD difference "
                f"{study.where} hide what it does on pairs"
            )
            words += _on_pairs(row, study, *_EFFECTS)
        case "watches" | "looks away" | "inert":
            words = (
                f"its effect {study.where} is shown to be small: {need} (noising) and {enough} "
                "(denoising) of the LD difference"
            )
            words += _on_pairs(row, study, *_EFFECTS)
        case _:
            words = (
                f"neither an effect beyond ±δ nor a small one is shown {study.where}: {need} "
                f"(noising), {enough} (denoising) of the LD difference"
            )
            words += _on_pairs(row, study, *_EFFECTS)
    looks = _looks(row, study) if verdict in ("watches", "looks away", "inert") else ""
    return f"{name} {verdict}: {words}; {bound}.{looks}{_by_factor(row, factors)}"


def percent(share: float, sign: bool = True) -> str:
    """Say a share in percent, to two digits and at least tenths where it is small."""
    value = 100 * share
    digits = 0 if abs(value) >= 20 else 1 if abs(value) >= 0.095 or value == 0 else 2
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return f"{text.lstrip('+-') if not text.strip('+-0.') else text}%"


def _size(row: Mapping[str, Any], name: str) -> str:
    low, high = (percent(row[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{percent(row[name])} [{low} to {high}]"


def _on_pairs(row: Mapping[str, Any], study: Setting, *names: str) -> str:
    """Say how effects spread over pairs, and how many answers turned."""
    parts = []
    for name in names:
        if f"{name}_sd" not in row or isnan(row[f"{name}_sd"]):
            continue
        above, below = (round(row[f"{name}_{side}"] * study.pairs) for side in ("above", "below"))
        beyond = f"{above} of {study.pairs} pairs above δ" if above or not below else ""
        under = f"{below} of {study.pairs} below −δ" if below else ""
        which = f"{_EFFECTS[name]}: " * (len(names) > 1)
        spread = f"{which}sd {percent(row[f'{name}_sd'], False)} over pairs, "
        words = spread + ", ".join(part for part in (beyond, under) if part)
        words += _weights(row, name, study)
        turned = row.get(f"{name}_turned", float("nan"))
        if not isnan(turned):
            words += f", the {_ANSWER[name]}'s answer turns on {turned:.0f}"
        parts.append(words)
    return f" ({'; '.join(parts)})" if parts else ""


def _weights(row: Mapping[str, Any], name: str, study: Setting) -> str:
    """Say on how few pairs a mean rests, and what it is with pairs weighted by their gap."""
    words = ""
    carried = row.get(f"{name}_carried", float("nan"))
    if carried < study.pairs / 4 and abs(row[name]) > study.delta / 2:
        words += f", the mean rests on {carried:.0f} of {study.pairs} pairs"
    ratio = row.get(f"{name}_ratio", float("nan"))
    if not row[f"{name}_low"] <= ratio <= row[f"{name}_high"] and not isnan(ratio):
        words += f", ratio of means {_size(row, f'{name}_ratio')}"
    return words


def _other(row: Mapping[str, Any], name: str, study: Setting) -> str:
    """Say of the other direction what is shown there, if it is the opposite."""
    if row[f"{name}_high"] >= -study.delta:
        return ""
    return f"; but {_EFFECTS[name]} moves the answer the other way, {_size(row, name)}"


def _partners(row: Mapping[str, Any]) -> str:
    partners = str(row.get("partners", "") or "")
    first = partners.split(";", maxsplit=1)[0].strip("+")
    names = [name for name in first.split("+") if name]
    if not names:
        return "a set"
    return f"the set with {', '.join(names)}"


def _looks(row: Mapping[str, Any], study: Setting) -> str:
    """Say how the attention differs, and whether that is shown to be next to nothing."""
    diff = row["attention_diff"]
    if isnan(diff):
        return " It does not attend to the image."
    low, high = (row[f"attention_diff_{end}"] for end in ("low", "high"))
    words = f"{diff:+.3f} [{low:+.3f} to {high:+.3f}]"
    bound = f"δ_a = {study.attention_delta:g}"
    share = "its image attention" if study.attended == "region" else "all its attention"
    if row["verdict"] in _MORE:
        more = _MORE[row["verdict"]]
        return (
            f" It attends {more} to the {study.attended} with the object: {words} of {share}; "
            f"{bound}."
        )
    raw = row.get("attention_raw_diff", float("nan"))
    if abs(diff) > study.attention_delta and abs(raw) < RAW_FLOOR:
        return (
            f" Its attention difference is {words} of its image attention, but {raw:+.5f} of all "
            f"its attention: it gives the image next to none; {bound} and {RAW_FLOOR:g} of all."
        )
    within = row.get("attention_equivalence_q", 1.0) < 0.05
    shown = "is shown to lie within ±δ_a" if within else "is not shown to be of interest"
    return f" Its attention difference {shown}: {words}; {bound}."


def _by_factor(row: Mapping[str, Any], factors: pd.DataFrame | None) -> str:
    """Say on which factors the effect is shown to depend, with the effect at each level."""
    if factors is None or factors.empty:
        return ""
    own = factors[(factors["layer"] == row["layer"]) & (factors["head"] == row["head"])]
    words = ""
    for (direction, factor), levels in own.groupby(["direction", "factor"], sort=False):
        ordered = levels.reindex(levels["effect"].abs().sort_values(ascending=False).index)
        named = ", ".join(
            f"{one['level']} {_size(one, 'effect')} ({one['pairs']} pairs)"
            for one in ordered.head(_NAMED).to_dict("records")
        )
        rest = f" and {len(levels) - _NAMED} more" if len(levels) > _NAMED else ""
        words += f" Its {_EFFECTS[str(direction)]} effect depends on {factor}: {named}{rest}."
    return words

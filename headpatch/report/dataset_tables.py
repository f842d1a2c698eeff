"""Tables about a dataset of pairs, and of means over it, for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.effects_view import effect_cell, interval_cell, means_words
from headpatch.present.tables import plain_table

if TYPE_CHECKING:
    pass


def design(counts: Mapping[str, Mapping[str, int]]) -> RenderableType:
    """Show how often each level of each factor comes up.

    Parameters
    ----------
    counts
        By factor and level.
    """
    table = plain_table("factor", "levels (pairs)", title="Design", wrapped="levels (pairs)")
    for factor, levels in counts.items():
        table.add_row(factor, ", ".join(f"{level} ({count})" for level, count in levels.items()))
    return table


def top_effects(
    rows: Sequence[Mapping[str, Any]],
    level: float,
    floor: float,
    layers: Sequence[Mapping[str, Any]] = (),
) -> RenderableType:
    """Show each direction's heads with the largest mean effects, beside their attention rank.

    Parameters
    ----------
    rows, layers
        Of `headpatch.questions.sweep.many.Sweeps.top`: heads or sets, and whole layers.
    level, floor
        Coverage of the intervals; noise floor in logits.
    """
    parts = [
        _top_of(direction, [row for row in several if row["direction"] == direction], what, level,
                floor)
        for what, several in (("heads", rows), ("layer", layers))
        for direction in dict.fromkeys(row["direction"] for row in several)
    ]  # fmt: skip
    caution = (
        " The largest of many are listed, and the largest of many are partly lucky: `headpatch "
        "verdict` picks heads on one half of the pairs and judges them on the other."
    )
    return Group(*parts, Text(means_words(level, floor) + caution))


def _top_of(
    direction: str, rows: Sequence[Mapping[str, Any]], what: str, level: float, floor: float
) -> RenderableType:
    ranked = any(row["attention_rank"] is not None for row in rows)
    approx = "approx" in rows[0]
    question = {"noising": "necessary?", "denoising": "sufficient?"}[direction]
    table = plain_table(
        "#",
        what,
        "effect",
        *["approx"] * approx,
        "norm.",
        f"{level:.0%} interval",
        "answer changed",
        *["attention rank"] * ranked,
        title=f"{direction} ({question}): largest mean effects of {rows[0]['kind']}"
        + ", whole layers" * (what == "layer"),
        wrapped=what if max(len(row["heads"]) for row in rows) > 30 else None,
    )
    for row in rows:
        rank = row["attention_rank"]
        effect, *share = _figures(row, floor)
        table.add_row(
            str(row["place"]),
            row["heads"],
            effect,
            *([f"{row['approx']:+.4f}"] if approx else []),
            *share,
            f"{row['answer_changed']:.0%}",
            *["" if rank is None else str(rank)] * ranked,
        )
    return table


def _figures(row: Mapping[Any, Any], floor: float) -> tuple[str, str, str]:
    share = row["normalized"]
    return (
        effect_cell(floor)(row),
        "undefined" if math.isnan(share) else f"{share:+.4f}",
        interval_cell("normalized")(row),
    )


def _control(row: Mapping[Any, Any]) -> str:
    return "none" if math.isnan(row["control_mean"]) else f"{row['control_mean']:+.4f}"

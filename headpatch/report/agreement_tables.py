"""How gradients' estimates agree with the exact effects of the same sweep, for a terminal."""

import math
from collections.abc import Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.tables import plain_table

_ONE: Final = {"": ""}
_PAIRS: Final = {"": "mean of the pairs", "of_means_": "mean effects"}


def agreement(
    found: Mapping[str, Mapping[str, float | int]], sets: bool, level: float
) -> RenderableType:
    """Show how estimates from gradients agree with the exact effects of the same run.

    Parameters
    ----------
    found
        By ``kind_direction``: figures of `headpatch.questions.sweep.approx.Agreed.figures`, or of
        `headpatch.questions.sweep.approx_many.AgreedPairs.figures`.
    sets
        Whether they are of sets rather than of single heads.
    level
        Coverage of the intervals.
    """
    if not found:
        return Text("Attribution patching: fewer than two effects to compare with, nothing to say.")
    one, what = next(iter(found.values())), "sets" if sets else "heads"
    pairs = int(one.get("pairs", 0))
    interval = f"{level:.0%} interval"
    table = plain_table(
        "kind",
        "direction",
        *[""] * bool(pairs),
        "Pearson",
        interval,
        "Spearman",
        f"top-{one['k']} recall",
        *[interval] * bool(pairs),
        "by chance",
        title=f"Attribution patching (one backward pass{' a pair' * bool(pairs)}) against the "
        f"exact effects of {one['heads']:,} {what}",
    )
    for way, figures in found.items():
        kind, _, direction = way.rpartition("_")
        for prefix, of in (_PAIRS if pairs else _ONE).items():
            table.add_row(
                kind,
                direction,
                *[of] * bool(pairs),
                _signed(figures[f"{prefix}pearson"]),
                _ends(figures, f"{prefix}pearson", "+.2f"),
                _signed(figures[f"{prefix}spearman"]),
                f"{figures[f'{prefix}top_recall']:.2f}",
                *[_ends(figures, f"{prefix}top_recall", ".2f")] * bool(pairs),
                f"{figures['top_recall_chance']:.2f}",
            )
    return Group(table, Text(_note(what, pairs)))


def _note(what: str, pairs: int) -> str:
    said = (
        f"Intervals resample {what}, which are not independent draws: they show how far a figure "
        "hangs on a few of them."
    )
    if pairs:
        said = (
            f"mean of the pairs: each pair's own agreement, averaged over {pairs:,} pairs; mean "
            "effects: of the means over pairs. Intervals are over pairs."
        )
    return (
        f"{said} The estimate is first-order and no substitute: a head with a large effect can "
        "have a small estimate, or one of the wrong sign."
    )


def _signed(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.2f}"


def _ends(figures: Mapping[str, float | int], name: str, form: str) -> str:
    """Return an interval, or nothing where there is none."""
    low, high = (figures.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    return "" if math.isnan(low) else f"{low:{form}} to {high:{form}}"

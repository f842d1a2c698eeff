"""What tables and figures of changed heads share: columns, words, means with their intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.heads import abridged
from headpatch.kinds import ASKED, kind_label
from headpatch.kinds import KINDS as CHANGES
from headpatch.present.canvas import ORANGE, check_columns, signed
from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Column, Row
from headpatch.present.panel import Guide, Look, Panel, Scale, Series, Values

if TYPE_CHECKING:
    import pandas

# colour and marker of a kind of change
KINDS: Final = {name: (CHANGES[name].color, CHANGES[name].marker) for name in ASKED}
DIRECTIONS: Final = {"noising": "Noising\n(necessary?)", "denoising": "Denoising\n(sufficient?)"}
MOST_ROWS: Final = 20  # in a figure of means: those with the largest effects
_LEAST: Final = 0.02  # that an axis of normalized effects reaches: rounding must look small
_WHOLE: Final = 3  # heads of a set that are all named
COVER: Final = "Bar: {level:.0%} interval over pairs."

ALPHA: Final = Column(
    "alpha",
    "factor of a kind: `scale` multiplies z by it, `reweight` attention by 1 + it; if either ran",
    form="g",
    key=True,
    optional=True,
)
TOWARD: Final = Column(
    "toward",
    "to what `reweight` multiplies attention: `image` or `region`; there only where it ran",
    "–",
    "text",
    key=True,
    optional=True,
)
CHANGED: Final = (
    Column("pair", "name of the pair of pictures", "–", "text", key=True),
    Column(
        "heads",
        "`24.17` (layer.head), `v8.3` in the vision tower, or `24.17+23.20` if changed together. "
        "Read it as text: `24.10` is not `24.1`",
        "–",
        "text",
        key=True,
    ),
    Column(
        "layer",
        "layer of the head where a row is of one head (of the tower that `heads` names); empty for "
        "sets and for controls. `layer` and `head` tell 24.1 and 24.10 apart however a table is "
        "read",
        "layer",
        "whole",
        optional=True,
        follows=True,
    ),
    Column("head", "its number in that layer", "–", "whole", optional=True, follows=True),
    Column(
        "kind",
        "what the heads' z (input of the attention output projection) becomes: `zero`; `mean` (of "
        "a reference set of pairs); `resample` (z of the other run); `resample-other` and "
        "`resample-same` (z of a random other pair's run with the other, or the same, answer); "
        "`scale` (alpha times itself); `reweight` (what attention gives with that to the image or "
        "the region times 1 + alpha, renormalised); `self` (its own z, for the noise floor)",
        "–",
        "text",
        key=True,
    ),
    ALPHA,
    TOWARD,
    Column(
        "donor",
        "name of the other pair whose z it was; there only where such a kind ran",
        "–",
        "text",
        optional=True,
    ),
    Column(
        "direction",
        "`noising`: the base is the with-run (is the head necessary?); `denoising`: the base is "
        "the without-run (is it sufficient?)",
        "–",
        "text",
        key=True,
    ),
    Column(
        "positions",
        "where z is changed: `answer`, `question`, `image` or `all`; of the vision tower `class`, "
        "`patches` or `all`; of heads of both towers both, as `answer+v:patches`",
        "–",
        "text",
        key=True,
    ),
    Column("ld_with", "LD of the untouched run with the object", "logits", form="+.3f"),
    Column("ld_without", "LD of the untouched run without it", "logits", form="+.3f"),
    Column("ld", "LD after the intervention", "logits", form="+.3f"),
    Column("effect", "`ld` − LD of the base", "logits", form="+.4f", interval=True),
    Column(
        "normalized",
        "noising: (`ld_with` − `ld`) / (`ld_with` − `ld_without`); denoising: (`ld` − "
        "`ld_without`) / (the same). 0 = nothing, 1 = the whole difference, negative = the other "
        "way; empty if the two runs' LD are equal",
        "share",
        form="+.4f",
        interval=True,
        ratio=True,
    ),
)
"""The first columns of ``effects.csv``."""
ANSWERS: Final = (
    Column("answer_before", "first token of the base's answer", "–", "text"),
    Column("answer_after", "first token of the answer after the intervention", "–", "text"),
)
ANSWER_CHANGED: Final = Column(
    "answer_changed", "pairs whose first answer token changed", "share", form=".0%"
)


def effect_cell(floor: float, column: str = "effect") -> Cell:
    """Show an effect in logits; in brackets, by its order of magnitude, if it may be rounding."""

    def cell(row: Row) -> str:
        effect = row[column]
        return f"{effect:+.4f}" if abs(effect) > floor else f"({effect:+.0e})"

    return cell


def interval_cell(name: str, digits: int = 4) -> Cell:
    """Show the interval of a column over pairs; nothing where there is none."""

    def cell(row: Row) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "" if math.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"

    return cell


def means_words(level: float, floor: float) -> str:
    """Say what the figures of a table of mean effects are."""
    return (
        "Means over pairs. effect: shift of LD in logits; normalized: as a share of the difference "
        f"between a pair's runs (0 = nothing, 1 = all of it), with its {level:.0%} interval over "
        f"pairs. In brackets: not above the noise floor, {floor:.1e} logits."
    )


def unread_words(layers: Sequence[int], rows: int, largest: float) -> str:
    """Say what changes of vision layers did that the language model never reads."""
    never = f"layer {layers[0]} never reaches"
    if len(layers) > 1:
        never = f"layers {layers[0]}-{layers[-1]} never reach"
    moved = "exactly 0, as it must"
    if largest:
        moved = f"up to {largest:.1e} logits, where it must be 0: DO NOT TRUST THIS RUN"
    return (
        f"Free control: vision {never} the language model; over {rows:,} rows LD moves by {moved}."
    )


def mean_effects_chart(file: str, means: "pandas.DataFrame", level: float) -> Chart:
    """Show the mean normalized effects of ``effects_mean.csv``, with their intervals over pairs.

    Where the table has ``control_mean``, random heads of the same layers stand behind, in grey.
    """
    needed = ("heads", "kind", "direction", "normalized", "normalized_low", "normalized_high")
    check_rows(means, needed)
    table = means.assign(row=_names(means))

    def series(look: Look, rows: "pandas.DataFrame") -> list[Series]:
        chance = ends_of(rows, "control_mean") if "control_mean" in rows else None
        return [effect_series(rows, look, chance, "random heads of the same layers")]

    title = f"Mean effect on the Yes/No answer over {pairs_in(means)}{changed_at(means)}"
    cover = " " + COVER.format(level=level)
    return effects_chart("mean_effects", file, title, table, series, MOST_ROWS, note=cover)


def effects_chart(
    name: str,
    file: str,
    title: str,
    table: "pandas.DataFrame",
    series: "Callable[[Look, pandas.DataFrame], Sequence[Series]]",
    most: int,
    *,
    note: str = "",
    guides: Sequence[Guide] = (),
    room: float = 0.08,
) -> Chart:
    """Show normalized effects: a row of panels a direction, a column a kind.

    `table` names each effect's ``row`` in the chart, of which the `most` with the largest effects
    are shown; `series` makes a panel's series of its effects, one a row, empty where there is none.
    `room` is beside the numbers, as a share of their span.
    """
    names, left_out = _largest(table, most)
    kinds, directions = in_order(table["kind"], KINDS), in_order(table["direction"], DIRECTIONS)
    panels = []
    for direction, kind in product(directions, kinds):
        asked = table[(table["kind"] == kind) & (table["direction"] == direction)]
        rows = asked.drop_duplicates("row").set_index("row").reindex(names)
        color, marker = KINDS.get(kind, (ORANGE, "D"))
        asks = " ".join(DIRECTIONS.get(direction, direction).lower().split())
        drawn = series(Look(color, marker, size=4.5, width=1.4), rows)
        heading = f"{kind_label(kind, table).capitalize()}, {asks}"
        panels.append(Panel(heading, drawn, "Normalized effect", "Heads", names, across=True))
    numbers = np.concatenate([[0.0, _LEAST], *(panel.numbers_on("x") for panel in panels)])
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    whole = high >= 0.4  # then the axis reaches the whole difference, 1
    low, high = min(low, -0.05 * high), max(high, float(whole))
    scale = Scale(low=low - room * (high - low), high=high + room * (high - low))
    guides = (*[Guide("x", 1.0, line=":")] * whole, *guides)
    line = "dotted line" if whole else f"beyond the axis, which ends at {high:.2g}"
    return Chart(
        name,
        file,
        title + (f" ({len(names)} largest of {len(names) + left_out})" if left_out else ""),
        [replace(panel, x_scale=scale, guides=guides) for panel in panels],
        f"Normalized effect: 0 = the base run's answer, 1 = the other run's ({line})."
        " All panels have one scale." * (len(panels) > 1) + note,
        [_spoken(panel) for panel in panels],
        columns=len(kinds),
    )


def effect_series(
    rows: "pandas.DataFrame",
    look: Look,
    chance: tuple[Values, Values, Values] | None,
    chance_name: str,
    **more: Any,
) -> Series:
    """Return effects at their rows beside what chance does: its middle and both ends."""
    place = np.where(rows["kind"].notna(), np.arange(len(rows)), np.nan)
    effect, low, high = ends_of(rows, "normalized")
    more |= {"low": low, "high": high} if "normalized_low" in rows else {}
    if chance is not None and np.isfinite(chance[0]).any():
        more |= {"null": chance[0], "null_low": chance[1], "null_high": chance[2]}
    return Series("", place, effect, look=look, null_name=chance_name, **more)


def _spoken(panel: Panel) -> str:
    """Name the largest effect of a panel."""
    sizes = np.nan_to_num(np.abs(panel.series[0].y))
    largest = int(sizes.argmax())
    value = float(panel.series[0].y[largest])
    return f"Largest: {panel.names[largest]}, {signed(value, 3)}" if sizes[largest] else ""


def _largest(table: "pandas.DataFrame", most: int) -> tuple[list[str], int]:
    """Name the rows that are drawn, and say how many are not."""
    size = table["normalized"].abs().groupby(table["row"]).max().fillna(0.0)
    names = list(dict.fromkeys(table["row"]))
    if len(names) > most:
        names = list(size.sort_values(ascending=False, kind="stable").index[:most])
    return names, table["row"].nunique() - len(names)


def in_order(values: "pandas.Series", known: Mapping[str, object]) -> list[str]:
    """List the values that there are, the `known` ones first and in their order."""
    found = list(dict.fromkeys(values.astype(str)))
    return [name for name in known if name in found] + [n for n in found if n not in known]


def row_names(effects: "pandas.DataFrame") -> "pandas.Series":
    """Name the row of the figure that each row of the table belongs to."""
    names = effects["heads"].astype(str)
    count = names.str.count(r"\+") + 1
    names = names.where(count <= 3, "joint: " + count.astype(str) + " heads")
    if "positions" in effects and effects["positions"].nunique() > 1:
        names = names + " (" + effects["positions"].astype(str) + ")"
    return names


def changed_at(effects: "pandas.DataFrame") -> str:
    """Say for a title where z was changed; the rows say it where it was at several places."""
    if "positions" not in effects:
        return ""
    places = in_order(effects["positions"], {})
    return f"; z changed at: {places[0]}" if len(places) == 1 else "; z changed as the rows say"


def _names(means: "pandas.DataFrame") -> "pandas.Series":
    """Name each row: a whole layer as such, and long sets so that each has a name of its own."""
    names = row_names(means)
    if "role" not in means:
        return names
    heads, role = means["heads"].astype(str), means["role"]
    layers = "layer:" + heads.str.partition(".")[0]
    names = names.mask(role == "layer", layers)
    long = (role == "set") & (heads.str.count(r"\+") >= _WHOLE)
    if long.any():
        known = dict.fromkeys(heads[long])
        first = {one: "+".join(one.split("+")[: _WHOLE - 1]) for one in known}
        short = {one: f"set {number}: {first[one]}+…" for number, one in enumerate(known, start=1)}
        names = names.mask(long, heads.map(short))
    return names


def check_rows(table: "pandas.DataFrame", columns: Sequence[str]) -> None:
    """Refuse a table of means that lacks columns, or any row."""
    check_columns(table, columns, "means")
    if table.empty:
        raise ValueError("the table holds no row")


def pairs_in(table: "pandas.DataFrame") -> str:
    """Say over how many pairs means are."""
    return f"{int(table['pairs'].max()):,} pairs" if "pairs" in table else "pairs"


def ends_of(rows: "pandas.DataFrame", name: str) -> tuple[Values, Values, Values]:
    """Return a column and both ends of its interval; the value itself where there is none."""
    middle = rows[name].to_numpy(np.float64)
    ends = (rows.get(f"{name}_{end}", rows[name]).fillna(rows[name]) for end in ("low", "high"))
    low, high = (np.where(np.isfinite(middle), end.to_numpy(np.float64), np.nan) for end in ends)
    return middle, low, high


def kind_cell(row: Row) -> str:
    """Name the kind of a row, with its factor where it has one."""
    return kind_label(row["kind"], row)


def changed_name(row: Row) -> str:
    """Name a row of changed heads in a sentence."""
    return f"{abridged(row['heads'])} ({kind_label(row['kind'], row)}, {row['direction']})"


def control_cell(row: Row) -> str:
    """Show what random controls of a row do: their mean and, of one pair, standard deviation."""
    if math.isnan(row["control_mean"]):
        return "none"
    sd = row.get("control_sd", math.nan)
    return f"{row['control_mean']:+.4f}" + ("" if math.isnan(sd) else f"±{sd:.4f}")


def answer_cell(row: Row) -> str:
    """Show how the first token of the answer turns, if it does."""
    before, after = row["answer_before"], row["answer_after"]
    return "same" if before == after else f"{before} → {after}"

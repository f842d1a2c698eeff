"""What cutting attention edges does to the answer: the tables for a terminal."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.tables import plain_table
from headpatch.report.cuts import arrow

if TYPE_CHECKING:
    import pandas


def cut_tables(named: "pandas.DataFrame", floor: float) -> RenderableType:
    """Show the effect of every window by edge and run, and the largest of each in full."""
    first = named.iloc[0]
    parts: list[RenderableType] = [
        Text(
            "Cutting attention from → to: effect on LD = logit(Yes) - logit(No); "
            f"LD with {first['ld_with']:+.3f}, without {first['ld_without']:+.3f}",
            style="bold",
        )
    ]
    swept = bool(named["role"].eq("window").all())
    shown = named
    if swept:
        parts += [_over_depth(named, run, floor) for run in dict.fromkeys(named["run"])]
        size = named["effect"].abs()
        largest = size.groupby([named["edge"], named["run"]], sort=False).idxmax()
        shown = named.loc[largest]
    parts.append(_in_full(shown, floor, swept))
    parts.append(
        Text(
            "norm.: effect as a share of the difference between the runs, towards the other run's "
            "LD (0 = nothing, 1 = all of it, negative = away from it). random tokens: the same "
            "with as many random image tokens in the region's place, mean ± sd. `question` is "
            "every token after the image, the answer position included. Effects below the noise "
            f"floor ({floor:.1e} logits) are in brackets."
        )
    )
    return Group(*parts)


def _over_depth(named: "pandas.DataFrame", run: str, floor: float) -> RenderableType:
    here = named[named["run"] == run]
    edges = list(dict.fromkeys(here["edge"]))
    title = f"Run {run} the object: effect by window of layers (logits)"
    table = plain_table("layers", *map(arrow, edges), title=title)
    for layers, rows in here.groupby("layers", sort=False):
        effects = dict(zip(rows["edge"], rows["effect"], strict=True))
        table.add_row(str(layers), *(_effect(float(effects[edge]), floor) for edge in edges))
    return table


def _in_full(shown: "pandas.DataFrame", floor: float, largest: bool) -> RenderableType:
    layers = bool(shown["layers"].astype(bool).all())
    title = "The window with the largest effect of each edge" if largest else "Every cut"
    table = plain_table(
        "from → to",
        "run",
        "layers" if layers else "heads",
        "LD",
        "effect",
        "norm.",
        "random tokens",
        "answer",
        title=title,
    )
    for row in shown.to_dict("records"):
        flipped = row["answer_before"] != row["answer_after"]
        heads = str(row["heads"])
        if heads.count("+") > 2:
            heads = f"joint: {heads.count('+') + 1} heads"
        table.add_row(
            arrow(str(row["edge"])),
            str(row["run"]),
            str(row["layers"]) if layers else heads,
            f"{row['ld']:+.3f}",
            _effect(row["effect"], floor),
            "undefined" if math.isnan(row["normalized"]) else f"{row['normalized']:+.4f}",
            _control(row),
            Text(f"{row['answer_before']} → {row['answer_after']}" if flipped else "same"),
        )
    return table


def _effect(effect: float, floor: float) -> str:
    return f"{effect:+.4f}" if abs(effect) > floor else f"({effect:+.0e})"


def _control(row: Mapping[Any, Any]) -> str:
    if not row["control_n"] or math.isnan(row["control_mean"]):
        return "none"
    sd = "" if math.isnan(row["control_sd"]) else f"±{row['control_sd']:.4f}"
    return f"{row['control_mean']:+.4f}{sd}"

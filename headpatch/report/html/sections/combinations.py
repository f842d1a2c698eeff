"""Heads changed two by two: whether they stand in for each other, or need each other."""

import math
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.output.folder import Results
from headpatch.kinds import kind_label
from headpatch.present.canvas import signed
from headpatch.present.charts import heat, slots
from headpatch.present.section import Figure, Section, largest, listed, words

LISTED = 8
"""Pairs of heads in the table, for each way."""
MOST = 30
"""Heads in a map: those with the largest interactions."""
_ASKED = {"noising": "necessary?", "denoising": "sufficient?"}
_NEEDED = {
    "heads": "text",
    "role": "text",
    "kind": "text",
    "direction": "text",
    "word": "text",
    **dict.fromkeys(["normalized", "sum", "interaction"], "number"),
    **dict.fromkeys(["interaction_low", "interaction_high", "pairs"], "number"),
}
_REPAIR = {
    "heads": "text",
    "kind": "text",
    "direction": "text",
    **dict.fromkeys(["direct", "total", "repair"], "number"),
}
_PARTS = {
    "heads": "text",
    "kind": "text",
    "direction": "text",
    "rank": "number",
    "part": "text",
    "change": "number",
}


def section(results: Results) -> Section | None:
    """Make the combinations; None unless `combine` ran."""
    table, part = results.table("combinations.csv", _NEEDED), results.first("combinations.csv")
    if table is None or part is None:
        return None
    two = table[table["role"] == "pair"]
    if two.empty:
        return None
    figures: dict[str, Figure] = {}
    rows: list[dict[str, str]] = []
    for (kind, direction), here in two.groupby(["kind", "direction"], sort=False):
        alone = table[
            (table["role"] == "head") & (table["kind"] == kind) & (table["direction"] == direction)
        ]
        title = f"{kind_label(str(kind), here)}, {direction} ({_ASKED.get(str(direction), '')})"
        figures[f"combinations-{len(figures)}"] = _figure(alone, here, title)
        size = here["interaction"].abs().sort_values(ascending=False, kind="stable")
        rows += [_row(row) for row in here.loc[size.index[:LISTED]].to_dict("records")]
    return Section(
        "combinations",
        "Heads together",
        {
            "rows": rows,
            "pairs": int(table["pairs"].max()),
            "repair": _repair(results),
            "positions": str(part.study.get("combine", {}).get("positions", "answer")),
        },
        figures,
    )


def _figure(alone: pd.DataFrame, two: pd.DataFrame, title: str) -> Figure:
    size = dict.fromkeys(alone["heads"], 0.0)
    for heads, value in zip(two["heads"], two["interaction"].abs().fillna(0.0), strict=True):
        for name in heads.split("+"):
            size[name] = max(size.get(name, 0.0), value)
    kept = set(sorted(size, key=lambda name: -size[name])[:MOST])
    names = [name for name in size if name in kept]
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    texts = [["" for _ in names] for _ in names]
    for row in two.to_dict("records"):
        ends = [place[name] for name in row["heads"].split("+") if name in place]
        if len(ends) == 2:
            values[ends, ends[::-1]] = row["interaction"]
            text = f"{row['heads']}: {signed(row['interaction'], 4)} ({row['word']})"
            texts[ends[0]][ends[1]] = texts[ends[1]][ends[0]] = words(text)
    for name, value in zip(alone["heads"], alone["normalized"], strict=True):
        if name in place:
            texts[place[name]][place[name]] = words(f"{name} alone: {signed(value, 4)}")
    axis = slots(names)
    said = largest(
        two,
        "interaction",
        lambda row: f"{row['heads']}, {signed(row['interaction'], 4)}, {row['word']}",
    )
    return Figure(
        [heat(values, texts)],
        {
            "xaxis": {**axis, "tickangle": -90},
            "yaxis": {**axis, "autorange": "reversed"},
        },
        400,
        f"Map: interaction of every two of {len(names)} heads, {title}.{said}",
        title=title,
    )


def _row(row: dict[Any, Any]) -> dict[str, str]:
    value = signed(row["interaction"], 4)
    if not math.isnan(row["interaction_low"]):
        ends = (signed(row[f"interaction_{end}"], 4) for end in ("low", "high"))
        value += " [{}, {}]".format(*ends)
    return {
        "heads": row["heads"].replace("+", " + "),
        "way": f"{kind_label(row['kind'], row)}, {row['direction']}",
        "together": signed(row["normalized"], 4),
        "sum": signed(row["sum"], 4),
        "interaction": value,
        "word": row["word"],
    }


def _repair(results: Results) -> list[dict[str, str]]:
    """Self-repair of each set: what it writes itself, what follows, and who takes over."""
    table = results.table("selfrepair.csv", _REPAIR)
    if table is None:
        return []
    parts = results.table("selfrepair_parts.csv", _PARTS)
    moved: dict[tuple[str, str, str], list[str]] = {}
    if parts is not None:
        for row in parts[parts["change"].abs() >= 5e-4].sort_values("rank").to_dict("records"):
            key = row["heads"], row["kind"], row["direction"]
            moved.setdefault(key, []).append(f"{row['part']} ({signed(row['change'], 3)})")
    return [
        {
            "heads": _label(row["heads"]),
            "way": f"{kind_label(row['kind'], row)}, {row['direction']}",
            "direct": signed(row["direct"], 4),
            "total": signed(row["total"], 4),
            "repair": signed(row["repair"], 4),
            "moved": listed(moved.get((row["heads"], row["kind"], row["direction"]), ()), 3),
        }
        for row in table.to_dict("records")
    ]


def _label(name: str) -> str:
    count = name.count("+") + 1
    return name.replace("+", " + ") if count <= 2 else f"all {count} heads"

"""What people see of sets of heads that are needed together: redundancy, and each one's part."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.question import rows_of
from headpatch.present.column import Cell, Row
from headpatch.present.effects_view import interval_cell
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.present.section import listed
from headpatch.questions.verdict.charts import head_names
from headpatch.questions.verdict.columns import HEADS, SETS
from headpatch.questions.verdict.sentences import percent
from headpatch.stats.scenes import by_scene


def sets_parts(
    sets: pd.DataFrame, table: pd.DataFrame, level: float, saved: Mapping[str, Any]
) -> Iterator[Part]:
    """Show the sets of heads that do more together than alone, and what each of them adds.

    `sets` is ``partners.csv``, `table` ``verdicts.csv``, `saved` ``verdict.pt`` or empty.
    """
    kept = sets[sets["redundant"]]
    if kept.empty:
        yield Words(
            f"Sets of heads tested for doing more together than alone: {len(sets):,}; shown to do "
            "so: none."
        )
        return
    verdicts = dict(zip(head_names(table), table["verdict"], strict=True))

    def alike(row: Row) -> str:
        members = row["heads"].split("+")
        return f"{sum(verdicts[name] == 'redundant' for name in members)} of {len(members)}"

    cells: dict[str, str | Cell] = {
        "heads": lambda row: row["heads"].replace("+", " + "),
        "necessity together": "joint",
        f"{level:.0%} interval": interval_cell("joint", 3),
        "least that one adds": "excess",
        f"its {level:.0%} interval": interval_cell("excess", 3),
        "q": "q",
        "redundant": alike,
    }
    yield Words(largest_set_words(sets, table), "page")
    largest = largest_set(sets)
    yield from _members(largest, table, level, left_out(largest, saved))
    title = "More together than alone: sets of which every head is needed"
    yield grid(title, kept, cells, SETS, wrapped="heads")
    yield Words(
        f"{len(kept):,} of {len(sets):,} sets that were tested. Least that one adds: of any of the "
        "heads, once the others are gone, beyond what it does alone. redundant: how many of the "
        "heads are not shown to be necessary alone; the others are, and do more beside."
    )


def largest_set(sets: pd.DataFrame) -> Row:
    """Return the set that carries most of those shown to be needed together; empty if none is."""
    kept = sets[sets["redundant"]]
    return (
        rows_of(kept.sort_values("joint", ascending=False, kind="stable"))[0] if len(kept) else {}
    )


def largest_set_words(sets: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say what the largest set does together, and its heads alone; empty if there is none."""
    row = largest_set(sets)
    if not row:
        return ""
    members = row["heads"].split("+")
    alone = _alone(table, members)["necessity"]
    pairs = row.get("pairs")
    on = f" on {pairs:,.0f} pairs that did not choose them" if pairs and row.get("part") else ""
    return (
        f"{len(members)} heads are needed together: {listed(members, 15)}. Changed as one set "
        f"(noising) they take away {_share(row, 'joint')} of the LD difference{on}; alone none of "
        f"them takes more than {percent(alone.max(), sign=False)}. None can be left out: each adds "
        f"at least {_share(row, 'excess')} once the others are gone, beyond what it does alone."
    )


def _share(row: Row, name: str) -> str:
    value, low, high = (percent(row[f"{name}{end}"], sign=False) for end in ("", "_low", "_high"))
    return f"{value} [{low} to {high}]"


def _alone(table: pd.DataFrame, members: list[str]) -> pd.DataFrame:
    return table.assign(name=head_names(table)).set_index("name", drop=False).loc[members]


def left_out(row: Row, saved: Mapping[str, Any]) -> list[float]:
    """Return a set's necessity without each of its heads in turn, on the pairs that judge it.

    Means over scenes, from what ``verdict.pt`` (`saved`) has of every pair; empty if it lacks it.
    """
    number = int(row.get("part") or 0)
    if not number or not {"parts", "pairs", "resample_noising", "scenes"} <= set(saved):
        return []
    part, places = saved["parts"][number - 1], {name: at for at, name in enumerate(saved["pairs"])}
    judges = [places[name] for name in part["judges"]]
    alone, scenes = np.asarray(saved["resample_noising"]), np.asarray(saved["scenes"])[judges]
    noised = dict(zip(part["sets_noising"], np.asarray(part["noising"]), strict=True))
    members = row["heads"].split("+")
    found = []
    for head in members:
        others = [other for other in members if other != head]
        if len(others) == 1:
            layer, index = map(int, others[0].split("."))
            values = alone[judges, layer, index]
        elif "+".join(others) in noised:
            values = noised["+".join(others)]
        else:
            return []
        found.append(float(by_scene(np.asarray(values, np.float64), scenes).mean()))
    return found


def _members(row: Row, table: pd.DataFrame, level: float, rest: Sequence[float]) -> Iterator[Part]:
    """Show on the page each head of a set: what it does alone, what is left without it."""
    members = row["heads"].split("+")
    cells: dict[str, Cell] = {
        "head": lambda head: head["name"],
        "verdict": HEADS["verdict"].cell,
        "necessity alone": HEADS["necessity"].cell,
        f"{level:.0%} interval": interval_cell("necessity", 3),
    }
    rows: list[dict[str, Any]] = rows_of(_alone(table, members))
    together = percent(row["joint"], sign=False)
    title = f"The {len(members)} heads of the largest set, {together} together"
    if rest:
        rows = [one | {"rest": value} for one, value in zip(rows, rest, strict=True)]
        joint = SETS["joint"]
        cells["the others without it"] = lambda head: joint.text(head["rest"])
        cells["falls by"] = lambda head: joint.text(row["joint"] - head["rest"])
        rows.sort(key=lambda one: one["rest"])
    texts = tuple(tuple(cell(one) for cell in cells.values()) for one in rows)
    numeric = (False, False, *[True] * (len(cells) - 2))
    yield Grid(title, tuple(cells), texts, numeric, place="page")
    if "falls by" in cells:
        yield Words(
            "Leave-one-out, on the pairs that judge the set: its necessity without each head in "
            "turn, and how far it falls. Where heads stand in for one another, a head that takes "
            "next to nothing alone makes the set fall by much.",
            "page",
        )

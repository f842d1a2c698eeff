"""The heads behind each token of an answer: tables, and a line of words.

Tokens are those of one pair's answers, or slots of many pairs' (means with intervals).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.effects_view import DIRECTIONS
from headpatch.present.tables import plain_table
from headpatch.questions.trace.charts import shown

if TYPE_CHECKING:
    from rich.table import Table

Row: TypeAlias = Mapping[str, Any]
_FORCED: Final = {
    "with": "The with-run's answer",
    "without": "The without-run's answer",
    "text": "The given answer",
}
_COLUMNS = (
    "with, without: in that run, logit(token) - logit(the token under `or`, which a run would say "
    "instead); logit(token) in brackets where {both} would say it. attention: heads whose share of "
    "the image attention that falls on the region differs most, and by how much. The other "
    "columns: heads with the largest effects on that difference (or logit), in logits. "
)
_FLOOR = "Effects at or below the noise floor ({floor:.1e} logits at most) are in brackets."
_MANY = (
    "Means over pairs, with {level:.0%} intervals over pairs; n: pairs that have the "
    "token, and after the stroke those of them with another one under `or`, over which alone that "
    "difference is averaged. Fewer than two pairs have no interval. The largest of many heads are "
    "listed, and the largest of many are partly lucky. "
)


def trace_tables(tokens: Sequence[Row], level: float | None = None) -> RenderableType:
    """Show each token with its first heads, by attention and by effect: a table an answer.

    Parameters
    ----------
    tokens
        Summaries of one pair's tokens, or of many pairs' slots.
    level
        Coverage of the slots' intervals; None: these are one pair's tokens.
    """
    parts: list[RenderableType] = []
    ways = _ways(tokens)
    count = [] if level is None else ["n"]
    for source in dict.fromkeys(one["forced"] for one in tokens):
        table = plain_table(
            "token",
            "or",
            *count,
            "with",
            "without",
            "attention",
            *map(_way, ways),
            title=f"{_FORCED[source]}, token by token",
        )
        for one in tokens:
            if one["forced"] == source:
                _add(table, one, ways)
        parts.append(table)
    floor = max(one["noise_floor"] for one in tokens)
    both = "both" if level is None else "both runs of most pairs"
    words = _COLUMNS.format(both=both) + _FLOOR.format(floor=floor)
    parts.append(Text(words if level is None else _MANY.format(level=level) + words))
    return Group(*parts)


def _ways(tokens: Sequence[Row]) -> list[str]:
    """Name the kinds and directions that a summary has figures of."""
    return [name for name in tokens[0] if name.rpartition("_")[2] in DIRECTIONS]


def _way(name: str) -> str:
    kind, _, direction = name.rpartition("_")
    return f"{kind}, {direction}"


def _add(table: "Table", one: Row, ways: Sequence[str]) -> None:
    form = "{:+.2f}" if one["rival"] else "({:.2f})"
    runs = [form.format(one[f"{one['measure']}_{run}"]) for run in ("with", "without")]
    looks = [(row["head"], f"{row['value']:+.2f}{_ends(row, 'value')}") for row in one["attention"]]
    columns = [_lines(looks)]
    for way in ways:
        found = [(row["head"], _effect(row)) for row in one[way]["top"]]
        columns.append(_lines(found))
    count = [_count(one)] if "pairs" in one else []
    table.add_row(Text(shown(one["token"])), Text(shown(one["rival"])), *count, *runs, *columns)


def _count(one: Row) -> str:
    pairs, averaged = one["pairs"], one["measure_pairs"]
    return f"{pairs:,}" if pairs == averaged else f"{pairs:,}/{averaged:,}"


def _lines(rows: Sequence[tuple[str, str]]) -> Text:
    return Text("\n".join(f"{head} {value}" for head, value in rows) or "none")


def _effect(row: Row) -> str:
    value = f"({row['effect']:+.0e})" if row["below_floor"] else f"{row['effect']:+.2f}"
    return value + _ends(row, "effect")


def _ends(row: Row, name: str) -> str:
    """Return an interval, where there is one."""
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    return "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"


def trace_summary(tokens: Sequence[Row], valid: bool, pairs: int | None = None) -> str:
    """Say in a line which token heads move most, of those that a run would not say.

    A logit that moves where both runs would say the token anyway is no match for that. No more is
    said than one pair, or these pairs, can show.

    Parameters
    ----------
    tokens
        As for `trace_tables`.
    pairs
        How many pairs' slots these are, of which those are considered that at least half of the
        pairs have; None: these are one pair's tokens.
    """
    caveat = "One pair shows one case, not a rule."
    if pairs is not None:
        caveat = f"Means over {pairs:,} pairs."
        tokens = [one for one in tokens if 2 * one["pairs"] >= pairs] or tokens
    if not valid:
        caveat = "The study is INVALID (its answers are not Yes and No): these figures say nothing."
    said = []
    contested = [one for one in tokens if one["rival"]] or tokens
    for way in _ways(tokens):
        one = max(contested, key=lambda token: token[way]["total"])
        first = one[way]["top"][0]
        said.append(
            f"{_way(way)}: heads move {shown(one['token'])!r} most (sum of |effects| "
            f"{one[way]['total']:.1f} logits{_ends(one[way], 'total')}), head {first['head']} the "
            f"furthest ({first['effect']:+.2f}{_ends(first, 'effect')})"
        )
    return f"{'; '.join(said)}. {caveat}"

"""Columns of a table, declared once: reading, tables for people and documentation follow."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, Final, Literal, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = Callable[[Row], str]
Sort: TypeAlias = Literal["text", "number", "whole", "truth"]

UNDEFINED = "undefined"
RATIO_ENDS: Final = ("_ratio", "_ratio_low", "_ratio_high", "_top_pair", "_top_share")
"""How the columns end that stand beside a column marked with `Column.ratio`, over pairs."""


@dataclass(frozen=True)
class Column:
    """One column of a table that is written; empty text and NaN stand for nothing."""

    name: str
    meaning: str  # one sentence, in Markdown
    unit: str = "–"  # a dash where there is none
    sort: Sort = "number"
    form: str = ""  # how a number is shown to people, such as ``+.4f``
    key: bool = False  # it says which row this is, over pairs
    interval: bool = False  # over pairs its mean has an interval: ``…_low`` and ``…_high``
    ratio: bool = False  # a share of the pair's gap in LD: over pairs `RATIO_ENDS` stand beside it
    optional: bool = False  # a table may lack it
    follows: bool = False  # from the keys, as the layer of a head does

    def text(self, value: Any) -> str:
        """Show a value to people."""
        if value is None or (isinstance(value, float) and isnan(value)):
            return UNDEFINED if self.sort == "number" else ""
        text = format(value, self.form) if self.form else str(value)
        return text.lstrip("+-") if self.form and not text.strip("+-0.%") else text  # 0: no sign

    def cell(self, row: Row) -> str:
        """Show the value that a row has."""
        return self.text(row[self.name])


@dataclass(frozen=True)
class Schema:
    """The columns of a file."""

    file: str
    row: str  # what one row is, in Markdown
    columns: tuple[Column, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def keys(self) -> list[str]:
        """Columns that say which row a row is."""
        return [column.name for column in self.columns if column.key]

    @property
    def needed(self) -> dict[str, Sort]:
        """Columns that a saved table must have, and what they hold."""
        return {column.name: column.sort for column in self.columns if not column.optional}

    def ordered(self, table: Any) -> Any:
        """Return a DataFrame's declared columns, as far as it has them, in the declared order."""
        return table[[column.name for column in self.columns if column.name in table]]

    def markdown(self) -> str:
        """Describe the file as a table for the documentation."""
        lines = [f"One row {self.row}.", "", "| column | unit | meaning |", "|---|---|---|"]
        lines += [f"| `{one.name}` | {one.unit} | {one.meaning} |" for one in self.columns]
        return "\n".join(lines)

    def over_pairs(self, file: str, *more: Column) -> "Schema":
        """Describe the means of this table over pairs, with `more` columns at the end."""
        kept = [one for one in self.columns if (one.key and one.name != "pair") or one.follows]
        columns = [replace(column, meaning=f"as in `{self.file}`") for column in kept]
        for column in (one for one in self.columns if one.interval):
            columns.append(column)
            columns += [
                Column(f"{column.name}_{end}", words, column.unit, form=column.form, optional=True)
                for end, words in (("low", "lower end of its interval"), ("high", "upper end"))
            ]
            columns += ratio_companions(column) if column.ratio else ()
        pairs = Column("pairs", "pairs that have the row", "count", "whole")
        return Schema(file, f"{self.row}; means over pairs", (*columns, *more, pairs))


def ratio_companions(column: Column) -> tuple[Column, ...]:
    """Declare what stands beside the mean of a column of ratios, over pairs."""
    name = column.name
    meanings = (
        f"ratio of means: `{name}` as the sum of effects over the sum of the pairs' differences in "
        "LD, so that pairs with small differences weigh less",
        "lower end of its interval",
        "upper end",
    )
    ends = zip(RATIO_ENDS, meanings, strict=False)
    return (
        *(
            Column(name + end, meaning, column.unit, form=column.form, optional=True)
            for end, meaning in ends
        ),
        Column(
            f"{name}{RATIO_ENDS[3]}",
            f"the pair that carries most of the mean of `{name}`",
            "–",
            "text",
            optional=True,
        ),
        Column(
            f"{name}{RATIO_ENDS[4]}",
            "its part of the sum of sizes",
            "share",
            form=".0%",
            optional=True,
        ),
    )

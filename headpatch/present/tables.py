"""Tables for a terminal."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headpatch.present.parts import Grid, Part, Words
from headpatch.text import visible

_WRAPPED = 20  # least width of a column that wraps
_GAP = 2  # spaces that part a column from the next


def answers(
    question: str,
    words: Sequence[str],
    runs: Sequence[Mapping[str, Any]],
    in_full: Sequence[str] | None = None,
) -> RenderableType:
    """Show what the model says of each picture, its LD, and how likely the two answers are.

    `runs` hold ``ld`` and the facts of `headpatch.engine.answers.AnswerReading`; without answers
    `in_full` their first tokens are shown.
    """
    columns = [f"P({word})" for word in words]
    table = plain_table(
        "", "answer", "LD (logits)", *columns, title=f"Question: {question}", wrapped=["answer"]
    )
    for index, (name, run) in enumerate(zip(("with", "without"), runs, strict=True)):
        first = f"{run['top']!r} {probability(run['p_top'])}"
        answer = first if in_full is None else in_full[index]
        likely = ((run[f"p_{one}"], run[f"rank_{one}"]) for one in ("yes", "no"))
        shares = (f"{probability(p)}, rank {rank:,}" for p, rank in likely)
        table.add_row(name, Text(answer), f"{run['ld']:+.3f}", *shares)
    variants = [variant for run in runs for variant in _variants(run)]
    return Group(table, Text("; ".join(variants))) if variants else table


def _variants(reading: Mapping[str, Any]) -> list[str]:
    return [f"{text!r} holds {share:.2g}" for text, share in reading["variants"].items()]


def says(words: Sequence[str], reading: Mapping[str, Any]) -> str:
    """Say how likely the two answers are in one run, and which token wins."""
    answers = ", ".join(
        f"{word} {probability(reading[f'p_{one}'])} (rank {reading[f'rank_{one}']:,})"
        for word, one in zip(words, ("yes", "no"), strict=True)
    )
    top = f"{reading['top']!r} {probability(reading['p_top'])}"
    return "; ".join([top, answers, *_variants(reading)])


def probability(value: float) -> str:
    """Write a probability so that a small one is no 0."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def failed_words(failed: Sequence[str]) -> str:
    """Say what failed nulls mean."""
    return (
        f"A NULL FAILED ({', '.join(failed)}): what follows cannot be taken at its word until that "
        "is understood. Every output is marked."
    )


def files(folder: str, names: list[str]) -> RenderableType:
    """Name the files that a run wrote."""
    return Group(Text(f"Wrote to {folder}:"), *(Text(f"  {name}") for name in names))


class _Whole(Table):
    """A table that is wider than a narrow console rather than cut to it."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        cells = tuple(_spelled_out(cell) for cell in cells)
        super().add_row(*cells, **options)
        for column, cell in zip(self.columns, cells, strict=False):
            if column.no_wrap:
                texts = (str(cell), str(column.header))
                lines = [line for text in texts for line in text.splitlines()]
                column.min_width = max([column.min_width or 0, *map(cell_len, lines)])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        least = sum((column.min_width or 0) + _GAP for column in self.columns) - _GAP
        wide = max(options.max_width, least)
        yield from super().__rich_console__(console, options.update(width=wide))
        yield Segment.line()


def _spelled_out(cell: RenderableType | None) -> RenderableType | None:
    """Spell out a cell's control characters before its column is measured."""
    if isinstance(cell, Text):
        cell.plain = visible(cell.plain)
    return visible(cell) if isinstance(cell, str) else cell


def plain_table(*columns: str, title: str, wrapped: Collection[str] = ()) -> Table:
    """Return an empty table that keeps its figures whole; only the columns `wrapped` may wrap."""
    bold = Text(visible(title), style="bold") if title else None
    table = _Whole(title=bold, title_justify="left", header_style="bold", box=SIMPLE_HEAD,
                   show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))  # fmt: skip
    for column in columns:
        if column in wrapped:
            table.add_column(column, overflow="fold", min_width=_WRAPPED)
        else:
            table.add_column(column, no_wrap=True)
    return table


# of cells that say an outcome
_STYLES: Final = {"failed": "bold red", "contradicted": "red", "supported": "green"}
_MOST_KEYS: Final = 3


@dataclass(frozen=True)
class _Fitted:
    """A table that is cut into several, below each other, where the terminal is narrower.

    Each begins with the columns that tell its rows apart. Whole where nobody looks: in a pipe.
    """

    grid: Grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        seen = console.is_terminal or "COLUMNS" in os.environ
        wide = options.max_width if seen else None
        widths = self._widths()
        broken = {
            heading
            for heading, width in zip(self.grid.headings, widths, strict=True)
            if heading == self.grid.wrapped or (wide and sum(widths) - _GAP > wide < 2 * width)
        }
        blocks = [list(range(len(widths)))] if wide is None else self._blocks(broken, wide)
        for number, block in enumerate(blocks):
            yield self._table("" if number else self.grid.title, block, broken)

    def _widths(self, broken: Collection[str] = ()) -> list[int]:
        """Width of each column, with what parts it from the next."""
        columns = zip(self.grid.headings, *self.grid.rows, strict=True)
        widths = [max(map(_width, texts)) for texts in columns]
        return [
            _GAP + (min(width, _WRAPPED) if heading in broken else width)
            for heading, width in zip(self.grid.headings, widths, strict=True)
        ]

    def _blocks(self, broken: Collection[str], wide: int) -> list[list[int]]:
        """Say which columns stand together."""
        widths = self._widths(broken)
        if sum(widths) - _GAP <= wide:
            return [list(range(len(widths)))]
        keys = self._keys()
        if 3 * sum(widths[key] for key in keys) > 2 * wide:
            keys = keys[:1]
        blocks: list[list[int]] = [[]]
        for column, width in enumerate(widths):
            taken = sum(widths[one] for one in blocks[-1])
            if taken + width - _GAP > wide and set(blocks[-1]) - set(keys):
                blocks.append(list(keys))
            if column not in blocks[-1]:
                blocks[-1].append(column)
        return blocks

    def _keys(self) -> list[int]:
        """Return the first columns that tell all rows apart, of those that are not all the same."""
        rows = self.grid.rows
        differing = [
            column
            for column in range(len(self.grid.headings))
            if len(rows) < 2 or len({row[column] for row in rows}) > 1
        ]
        for count in range(1, min(_MOST_KEYS, len(differing)) + 1):
            keys = differing[:count]
            if len({tuple(row[key] for key in keys) for row in rows}) == len(rows):
                return keys
        return differing[:1] or [0]

    def _table(self, title: str, columns: Sequence[int], broken: Collection[str]) -> Table:
        names = [self.grid.headings[column] for column in columns]
        table = plain_table(*names, title=title, wrapped=broken)
        for row in self.grid.rows:
            cells = (row[column] for column in columns)
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
        return table


def _width(cell: str) -> int:
    return max(map(cell_len, visible(cell).splitlines()), default=0)


def renderables(parts: Iterable[Part]) -> Iterator[RenderableType]:
    """Turn what a terminal shows of a view into what rich prints; charts are files."""
    below_text = False
    for part in parts:
        if isinstance(part, Words) and part.place != "page":
            yield Text(part.text, style="bold" if part.strong else "")
            below_text = True
        elif isinstance(part, Grid) and part.place != "page":
            if below_text:
                yield Text()
            yield _Fitted(part)
            below_text = False

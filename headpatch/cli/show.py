"""What a person sees while a verb runs and when it ends; what a script reads."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headpatch.study import Study

if TYPE_CHECKING:
    import pandas

    from headpatch.analyses.session import Session
    from headpatch.engine.patching import OnProgress


def output_folder(study: Study) -> Path:
    """Return the study's output folder, or refuse it if it cannot be written."""
    from headpatch.results import check_folder

    folder = Path(study.out)
    check_folder(folder)
    return folder


@contextmanager
def progress(what: str, quiet: bool) -> "Iterator[OnProgress]":
    """Show a bar on a terminal's stderr while something long runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def warn(text: str) -> None:
    """Say something on stderr that the results do not."""
    print(f"headpatch: {text}", file=sys.stderr)


def say_replaced(folder: Path, verb: str) -> None:
    """Say on stderr, as files are moved to `folder`, that another verb's effects.csv goes."""
    from headpatch.results import effects_by

    other = effects_by(folder)
    if other not in (None, verb):
        warn(
            f"{folder / 'effects.csv'} of an earlier {other} is replaced; another --out keeps both"
        )


def print_json(session: "Session", folder: Path, names: list[str], **more: Any) -> None:
    """Print what a script reads: the study's question and LDs, `more`, and the files."""
    content = {
        "question": session.pair.question,
        "region": session.pair.region.name,
        "model": session.vlm.name,
        "valid": session.valid,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        **more,
        "files": [str(folder / name) for name in names],
    }
    print_object(content)


def print_object(content: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(plain(content), ensure_ascii=False, allow_nan=False))


def records(table: "pandas.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table, as a script reads them: every number in full."""
    cells = table.astype(object).where(table.notna(), None)
    return [{str(name): cell for name, cell in row.items()} for row in cells.to_dict("records")]


def plain(value: Any) -> Any:
    """Turn tensors into lists, and what JSON has no word for (NaN, infinity) into null."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def show(console: Console, *parts: RenderableType) -> None:
    """Print tables and texts; a table wider than the console runs over its edge, uncut."""
    for part in parts:
        console.print(part, crop=False, markup=False)


def print_files(console: Console, session: "Session", folder: Path, names: list[str]) -> None:
    """Name the files, and say first if the study was not valid."""
    from headpatch.report import tables

    if not session.valid:
        console.print("INVALID STUDY: the two answers do not flip; see LD above.", style="bold red")
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole

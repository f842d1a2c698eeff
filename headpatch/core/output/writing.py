"""Writing a result: its tables, tensors, figures and ``run.yaml``, together or not at all.

Of a forced study whose answers are not right, every table has a last column ``valid`` and every
file of tensors a key ``valid``, both false; other runs write neither.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headpatch.core.output.files import write_columns, write_tensors
from headpatch.core.output.provenance import write_record
from headpatch.core.output.staging import check_folder, staged, taken
from headpatch.core.question import Context, Result
from headpatch.core.study.figure_options import FigureOptions
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.present.figure_data import data_of

_MARK = "valid"


def save(result: Result, folder: Path) -> list[str]:
    """Write a result into a folder that no other run holds; see `Result.save`."""
    check_folder(folder)
    with taken(folder, result.origin.verb.name):
        return write(result, folder)


def write(result: Result, folder: Path) -> list[str]:
    """Write a result into a folder that this run holds; return the names of its files."""
    with staged(folder, result.origin.verb.name) as stage:
        origin, files = result.origin, result.files()
        for name, content in files.items():
            if name.endswith(".csv"):
                write_columns(stage / name, _marked(content, result.valid))
            else:
                write_tensors(stage / name, {**content, **({} if result.valid else {_MARK: False})})
        if origin.gate is not None:
            write_columns(stage / "gate.csv", _marked(origin.gate, result.valid))
        write_record(stage, origin.study, origin.run)
        for part in origin.verb.question().view(files, origin.context):
            if isinstance(part, Chart):
                _write_figure(part, stage, origin.study.figures, origin.context)
        return sorted(file.name for file in stage.iterdir())


def _marked(table: Any, valid: bool) -> Mapping[str, Iterable[object]]:
    """Return a table's columns by name, with the column that says that the study is not valid."""
    columns = {str(key): table[key] for key in table}
    rows = len(next(iter(columns.values()), ()))
    return columns if valid else {**columns, _MARK: [False] * rows}


def _write_figure(chart: Chart, folder: Path, options: FigureOptions, context: Context) -> None:
    """Write a figure in every format that is asked for, or its data as a table."""
    path = folder / chart.file
    for ending in options.format:
        if ending == "csv":
            write_columns(
                path.with_name(f"{path.stem}_data.csv"), _marked(data_of(chart), context.valid)
            )
        else:
            target = path.with_suffix(f".{ending}")
            draw(chart, target, **context.title, width=options.width, style=options.style)

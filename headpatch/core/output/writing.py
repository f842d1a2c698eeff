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
from headpatch.core.question import Result
from headpatch.present.chart import Chart
from headpatch.present.figure import draw

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
                draw(part, stage / part.file, **origin.context.title)
        return sorted(file.name for file in stage.iterdir())


def _marked(table: Any, valid: bool) -> Mapping[str, Iterable[object]]:
    """Return a table's columns by name, with the column that says that the study is not valid."""
    columns = {str(key): table[key] for key in table}
    rows = len(next(iter(columns.values()), ()))
    return columns if valid else {**columns, _MARK: [False] * rows}

"""Writing a result: its tables, tensors, figures and ``run.yaml``, together or not at all."""

from pathlib import Path

from headpatch.core.output.files import write_columns, write_tensors
from headpatch.core.output.provenance import write_record
from headpatch.core.output.staging import check_folder, staged, taken
from headpatch.core.question import Result
from headpatch.present.chart import Chart
from headpatch.present.figure import draw


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
                write_columns(stage / name, {str(key): content[key] for key in content})
            else:
                write_tensors(stage / name, content)
        if origin.gate is not None:
            write_columns(stage / "gate.csv", origin.gate)
        write_record(stage, origin.study, origin.run)
        for part in origin.verb.question().view(files, origin.context):
            if isinstance(part, Chart):
                draw(part, stage / part.file, **origin.context.title)
        return sorted(file.name for file in stage.iterdir())

"""Writing a result: its tables, tensors, figures and ``run.yaml``, together or not at all."""

from collections.abc import Mapping
from pathlib import Path

from headpatch.core.output.files import write_columns, write_tensors
from headpatch.core.output.provenance import write_record
from headpatch.core.output.staging import check_folder, staged, taken
from headpatch.core.question import Result
from headpatch.core.study.figure_options import FigureOptions
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.present.figure_data import data_of


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
                _write_figure(part, stage, origin.study.figures, origin.context.title)
        return sorted(file.name for file in stage.iterdir())


def _write_figure(
    chart: Chart, folder: Path, options: FigureOptions, title: Mapping[str, str]
) -> None:
    """Write a figure in every format that is asked for, or its data as a table."""
    path = folder / chart.file
    for ending in options.format:
        if ending == "csv":
            write_columns(path.with_name(f"{path.stem}_data.csv"), data_of(chart))
        else:
            target = path.with_suffix(f".{ending}")
            draw(chart, target, **title, width=options.width, style=options.style)

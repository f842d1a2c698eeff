"""Results that were saved, read again; and figures of results, saved or not."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from headpatch.core.output.folder import Part, Saved, parts_of, written_in
from headpatch.core.output.records import Records
from headpatch.core.question import Context, Result, Verb, verbs
from headpatch.core.study.figure_options import FigureOptions, figures_of
from headpatch.core.study.record import RUN, Record
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.present.canvas import Sheet
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.reports.derived import context as context_of
from headpatch.reports.derived import runs_of, saved
from headpatch.reports.page import write
from headpatch.text import user_path

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

# by name, with question and region of their titles, and how they are drawn
Charts: TypeAlias = dict[str, tuple[Chart, dict[str, str], FigureOptions]]


class Run(Saved):
    """A folder of results; ``run["sweep.pt"]`` is what the file holds.

    Files are read when they are asked for; one that was changed after the run is warned of.
    ``attention_data/README.md`` gives every column and key.

    Attributes
    ----------
    folder
        Where they are.
    study
        Of the latest run there; `headpatch.open_session` takes it again.
    provenance
        What ran it: verb, versions, device, dtype, weights, LDs, noise floor.
    """

    def __init__(self, records: Records, record: Record) -> None:
        super().__init__(records.folder)
        self._records, self._record = records, record
        self.study = Study.make(records.folder / RUN, verb=record.verb or None)
        self.provenance = dict(record.run)

    def by(self, names: Iterable[str]) -> "Run":
        """Return the run that wrote files, where several verbs share the folder."""
        for name in names:
            for record in self._records.wrote(name):
                return self if record is self._record else Run(self._records, record)
        return self

    def wrote(self, name: str) -> bool:
        """Say whether a file is of this run."""
        return name in self and self._record in self._records.wrote(name)

    def __getitem__(self, name: str) -> Any:
        first = name not in self._read
        found = super().__getitem__(name)
        if first and any(self._records.changed(one, [name]) for one in self._records.wrote(name)):
            warnings.warn(f"{self.folder / name} was changed after the run", stacklevel=2)
        return found

    def parts(self) -> list[Part]:
        """Return what each verb has left here."""
        return list(parts_of(self._records, self.folder))

    @property
    def tables(self) -> "dict[str, pandas.DataFrame]":
        """Every table, by name without ``.csv``."""
        return {Path(name).stem: self[name] for name in self if name.endswith(".csv")}

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        """What every ``.pt`` file holds, by name without ``.pt``."""
        return {Path(name).stem: self[name] for name in self if name.endswith(".pt")}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {', '.join(self)})"


def read_run(folder: str | Path) -> Run:
    """Read what a verb wrote into a folder.

    Raises
    ------
    InputError
        If the folder holds no ``run.yaml``, or a damaged one.

    Examples
    --------
    >>> run = hp.read_run("attention_data")
    >>> run.study.question
    'Is there anything in the top left corner?'
    >>> list(run.tables["heads"].columns)[:4]
    ['rank', 'layer', 'head', 'diff']
    >>> tuple(run.tensors["per_head_analysis"]["diff"].shape)  # layers, heads
    (32, 32)
    """
    folder = user_path(folder, "folder")
    records = written_in(folder, "folder")
    return Run(records, records.every[0])


def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Turn the results in a folder into one HTML page, as `headpatch report` does.

    Parameters
    ----------
    folder
        With what one or several verbs wrote, there or in folders directly in it.
    out
        The file to write; None is ``report.html`` in the folder.

    Returns
    -------
    Path
        The page. Files that were changed after their run are warned of.

    Raises
    ------
    InputError
        If the folder holds no results, or the page cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     names = hp.rank(session).save(place)
    ...     hp.report(place).name
    'report.html'
    """
    folder = user_path(folder, "folder")
    written = write(folder, folder / "report.html" if out is None else user_path(out, "out"))
    if written.changed:
        changed = ", ".join(map(str, written.changed))
        warnings.warn(f"changed after the run: {changed}", stacklevel=2)
    return written.path


def plot(
    what: Any,
    kind: str | None = None,
    *,
    question: str = "",
    region: str = "",
    overlays: int = 3,
    width: float | None = None,
    style: str | Path | None = None,
) -> "matplotlib.figure.Figure":
    """Draw results as the command line does; a notebook shows the figure.

    Parameters
    ----------
    what
        What a function of `headpatch` found, a run of `read_run`, or its folder.
    kind
        Which figure: of a ranking ``heads``, ``quadrants``, ``vision``, ``divergences`` or
        ``overlays``; of a sweep ``sweep`` or ``approx``; of a rollout ``rollout`` or
        ``perturbation``; of a verdict ``verdict`` or ``faithfulness``; ``effects``, ``cuts``,
        ``combinations``, ``path``, ``trace``; over pairs ``mean_effects`` or ``ranked_pairs``. None
        takes the first that there is.
    question, region
        Words for the title, where the results hold none.
    overlays
        Heads whose attention is laid over the pictures.
    width, style
        Inches, and a style file of matplotlib, as ``--width`` and ``--style``. None takes those of
        the results' study (`headpatch.Study.figures`).

    Returns
    -------
    matplotlib.figure.Figure
        7 inches wide, if nobody says otherwise; ``savefig("figure.pdf")`` writes it. pyplot does
        not know of it.

    Raises
    ------
    InputError
        If there is nothing to draw, no such figure, or no such style.

    Examples
    --------
    >>> figure = hp.plot(hp.rank(session), "quadrants")
    >>> float(figure.get_figwidth())
    7.0
    >>> hp.plot("attention_data", "heads").axes[0].get_ylabel()
    'Head (layer.head)'
    """
    if isinstance(what, str | Path):
        what = read_run(what)
    if not isinstance(what, Result | Run):
        expected = "results of headpatch, or their folder"
        raise InputError("what", f"a {type(what).__name__}", expected)
    charts = charts_of(what, overlays)
    if not charts:
        files = what.files() if isinstance(what, Result) else what
        raise InputError("what", f"nothing to draw in {', '.join(files) or 'it'}", "results")
    if kind is not None and kind not in charts:
        raise InputError("kind", repr(kind), f"one of {', '.join(charts)}")
    chart, title, options = charts[kind or next(iter(charts))]
    sheet = Sheet()
    asked = question or title["question"], region or title["region"]
    draw(chart, sheet, *asked, **options.given(width=width, style=style).look)
    return sheet.figure


def charts_of(what: Result | Run, overlays: int) -> Charts:
    """Return the charts of results by name, with the words of their titles."""
    if isinstance(what, Result):
        return _charts(what.origin.verb, what.files(), what.origin.context, overlays)
    charts: Charts = {}
    last = sorted(verbs(), key=lambda verb: verb.name == "rank")  # effects tell more
    for verb in last:
        for part in runs_of(verb, what.parts())[:1]:
            charts |= _charts(verb, saved(verb, part), context_of(verb, part), overlays)
    return charts


def _charts(verb: Verb, files: Any, context: Context, overlays: int) -> Charts:
    asked = replace(context, options={**context.options, "overlays": overlays})
    parts, options = verb.question().view(files, asked), figures_of(context.study)
    return {part.name: (part, context.title, options) for part in parts if isinstance(part, Chart)}

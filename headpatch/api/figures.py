"""A figure of results, whether they were written or not."""

from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from headpatch.api.runs import Run, read_run
from headpatch.core.question import Context, Result, Verb
from headpatch.core.registry import verbs
from headpatch.errors import InputError
from headpatch.present.canvas import Sheet
from headpatch.present.figure import draw
from headpatch.present.parts import Chart, Drawn
from headpatch.questions.rollout.one import Rolled
from headpatch.questions.trace.many import TracedPairs
from headpatch.questions.trace.one import Traced
from headpatch.report.figures import KINDS, Files, Words, kinds_of
from headpatch.report.html.sections.derived import context as context_of
from headpatch.report.html.sections.derived import runs_of, saved

if TYPE_CHECKING:
    import matplotlib.figure


def plot(
    what: Any, kind: str | None = None, *, question: str = "", region: str = "", overlays: int = 3
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

    Returns
    -------
    matplotlib.figure.Figure
        7 inches wide; ``savefig("figure.pdf")`` writes it. pyplot does not know of it.

    Raises
    ------
    InputError
        If there is nothing to draw, or no such figure.

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
    charts = charts_of(what, overlays)
    files, words = ({}, Words()) if isinstance(what, Result) else contents(what)
    found = list(dict.fromkeys([*kinds_of(files), *charts]))
    if not found:
        raise InputError("what", f"nothing to draw in {', '.join(files) or 'it'}", "results")
    if kind is not None and kind not in found:
        raise InputError("kind", repr(kind), f"one of {', '.join(found)}")
    kind = kind or found[0]
    if kind in charts:
        chart, title = charts[kind]
        sheet = Sheet()
        draw(chart, sheet, question or title["question"], region or title["region"])
        return sheet.figure
    if isinstance(files, Run):
        words = _words(files.by(KINDS[kind].needs))
    words = replace(words, question=question or words.question, region=region or words.region)
    sheet = Sheet()
    KINDS[kind].draw(files, sheet, words)
    return sheet.figure


Charts: TypeAlias = dict[str, tuple[Chart | Drawn, dict[str, str]]]


def charts_of(what: Any, overlays: int) -> Charts:
    """Return the charts of results by name, with the words of their titles."""
    if isinstance(what, Result):
        return _charts(what.origin.verb, what.files(), what.origin.context, overlays)
    charts: Charts = {}
    last = sorted(verbs(), key=lambda verb: verb.name == "rank")  # effects tell more
    for verb in last if isinstance(what, Run) else ():
        for part in runs_of(verb, what.parts())[:1]:
            charts |= _charts(verb, saved(verb, part), context_of(verb, part), overlays)
    return charts


def _charts(verb: Verb, files: Any, context: Context, overlays: int) -> Charts:
    asked = replace(context, options={**context.options, "overlays": overlays})
    return {
        part.name: (part, context.title)
        for part in verb.question().view(files, asked)
        if isinstance(part, Chart | Drawn)
    }


@singledispatch
def contents(what: Any) -> tuple[Files, Words]:
    """Return the files of results, by name, and words for a title."""
    raise InputError("what", f"a {type(what).__name__}", "results of headpatch, or their folder")


@contents.register
@contents.register(Traced)
@contents.register(TracedPairs)
def _traced(what: Traced | TracedPairs) -> tuple[Files, Words]:
    return {"trace.pt": what.saved()}, Words()


@contents.register
def _rolled(what: Rolled) -> tuple[Files, Words]:
    files = {"rollout.pt": what.saved()}
    return files | ({} if what.check is None else {"perturbation.csv": what.check.curves}), Words()


@contents.register
def _run(what: Run) -> tuple[Files, Words]:
    return what, Words()  # those of the run that wrote what is drawn


def _words(what: Run) -> Words:
    """Return the words of a figure of what was saved."""
    study, question, region = what.study, what.study.question, what.study.region
    if "pairs" in what.provenance and what.wrote("gate.csv"):
        ran = what["gate.csv"] if study.force else what["gate.csv"].query("passed")
        question = f"{_one(ran['question'], 'questions')} ({len(ran):,} pairs)"
        region = _one(ran["region"], "regions")
    return Words(
        question,
        region,
        bool(what.provenance.get("valid", True)),
        level=study.pairs.level,
        delta=study.verdict.delta,
    )


def _one(values: Any, what: str) -> str:
    """Return the value that all pairs have, or say that they differ."""
    found = list(dict.fromkeys(values))
    return str(found[0]) if len(found) == 1 else f"each pair's own, {len(found):,} {what}"


@contents.register(str)
@contents.register(Path)
def _folder(what: str | Path) -> tuple[Files, Words]:
    return contents(read_run(what))

"""A verdict as the command line runs it: its pairs, the run itself, and its files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.cli import many
from headpatch.cli.kept import kept, opened
from headpatch.cli.verb import Request
from headpatch.errors import InputError
from headpatch.pairs.manifest import Entry

if TYPE_CHECKING:
    import pandas

    from headpatch.core.baseline_runs import Survey
    from headpatch.models.vlm import VLM
    from headpatch.questions.verdict.whole import Judgement

_FINISHED = ".verdict-pairs"


@dataclass(frozen=True, eq=False)
class Ran:
    """A verdict that was run and written.

    Attributes
    ----------
    nulls
        The columns of ``nulls.csv``.
    failed
        Nulls that failed.
    names
        Files that were written.
    """

    vlm: "VLM"
    survey: "Survey"
    found: "Judgement"
    nulls: "pandas.DataFrame"
    failed: list[str]
    names: list[str]


def check_source(request: Request, n: int | None) -> None:
    """Refuse pairs that are to be drawn and to be read.

    Raises
    ------
    InputError
        If so.
    """
    if n is not None and request.study.pairs.manifest is not None:
        raise InputError(
            "--n, --pairs", "both of them", "one of them", "--limit takes fewer of a dataset."
        )


@contextmanager
def pairs_of(request: Request) -> Iterator[tuple[Entry, ...]]:
    """Give the dataset's pairs, or draw them into a folder that lasts as long as the block."""
    from headpatch.core.split import need_pairs

    study = request.study
    if study.pairs.manifest is not None:
        entries = many.dataset(study, compared=True)
        need_pairs(study, len(entries), "--pairs")
        yield entries
        return
    need_pairs(study, study.draw.n, "--n")
    from headpatch.core.drawing import draw_for_once
    from headpatch.core.output import scratch_folder

    with scratch_folder() as place:
        with request.stage("Drawing pairs") as advance:
            drawn = draw_for_once(study, place, advance)
        yield drawn.entries


def judge(
    request: Request,
    folder: Path,
    entries: tuple[Entry, ...],
    resume: bool | None,
    vlm: "VLM | None" = None,
) -> Ran:
    """Run a verdict, and write its files.

    Parameters
    ----------
    resume
        Whether to go on from pairs that an interrupted verdict has left in the folder; None
        refuses to decide.
    vlm
        None loads the study's.
    """
    from headpatch.core import output as results
    from headpatch.core.split import need_pairs
    from headpatch.questions.verdict import whole as analysis
    from headpatch.questions.verdict.nulls import failed, table
    from headpatch.report import draw

    study = request.study
    store = opened(folder / _FINISHED, "parts", resume, "verdict")
    vlm, survey = many.surveyed(request, entries, study.verdict.positions, vlm, hold=True)
    need_pairs(study, len(survey.entries), "--pairs")
    with kept(store), request.stage("Changing heads") as advance:
        found = analysis.run(study, vlm, survey, store, advance)
    nulls = table(found.nulls)
    written = {
        "verdicts.csv": found.verdicts.heads,
        "partners.csv": found.verdicts.sets,
        "nulls.csv": nulls,
        "faithfulness.csv": found.faithfulness,
    }
    if found.vision is not None:
        written["vision.csv"] = found.vision
    wrong = failed(found.nulls)
    with results.staged(folder, "verdict") as stage, request.stage("Drawing"):
        results.write_pairs(
            stage, study, vlm, survey, written, found.noise_floor, failed_nulls=wrong
        )
        results.write_tensors(stage / "verdict.pt", found.saved)
        draw.draw_verdict(stage, study.verdict.delta, study.pairs.level, wrong, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    store.remove()
    return Ran(vlm, survey, found, nulls, wrong, names)

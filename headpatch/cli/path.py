"""`headpatch path`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headpatch.cli import many
from headpatch.cli.chosen import By, Heads, Top
from headpatch.cli.kept import kept, opened
from headpatch.cli.options import Resume, Several, Window, several
from headpatch.cli.show import Terminal, print_files, print_json, records, show, warn
from headpatch.cli.verb import Request, verb
from headpatch.core.study.together import refuse_both
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.models.vlm import VLM

_PAIRS = ".path-pairs"


@verb("path", keys={"resume": None})
def path(
    request: Request,
    heads: Heads = None,
    top: Top = None,
    by: By = None,
    edges: Annotated[
        Several | None,
        several(
            "--edges",
            "Attention to cut, from-to, comma-separated: answer-region,words-region. Ends as "
            "for `headpatch cut`.",
            "EDGES",
        ),
    ] = None,
    window: Window = None,
    resume: Resume = None,
) -> None:
    """Follow the object through the model: where what tells the pictures apart is, and when.

    Four views over depth, each exact. The stream: the residual stream of one run put into the
    other at the region's image tokens, the other image tokens, the question's words or the answer
    position, entering every layer (and at patches, leaving every vision layer); 1 means that these
    tokens hold the whole difference there. Edges: attention between tokens cut in windows of
    layers. Direct attribution: what each head and MLP writes straight into LD = logit(Yes) -
    logit(No). Paths to heads: through which input (query, keys, values), and from which tokens or
    vision layer, named heads hear of the object.

    One pair of pictures shows one case. With `--pairs` all of it is measured on every pair that
    passes the gate, and figures are means with intervals over pairs; the region's tokens are each
    pair's own. Heads that rankings pick are picked on one half of the pairs, and the paths to them
    are those of the other half. Ctrl-C keeps finished pairs; the same command with `--resume` goes
    on and gives the same result.

    Prints what it found in sentences. Writes path.csv, path.pt, path.png (one figure over depth)
    and run.yaml; with `--pairs` path_mean.csv and gate.csv too.

    Examples
    --------
    `headpatch path`

    `headpatch path --heads 24.17,23.20 --edges answer-region,words-region --window 3`

    `headpatch path --pairs pairs --limit 4` (after `headpatch pairs --n 20`)
    """
    refuse_both({"heads": heads, "top": top, "by": by})
    study, folder = request.study, request.folder
    if study.pairs.manifest is not None:
        _many(request, folder, resume)
        return
    if resume is not None:
        raise InputError("--resume, --no-resume", "one pair of pictures", "--pairs as well")
    from headpatch.core import output as results
    from headpatch.core.session import open_session
    from headpatch.questions.path import one as analysis
    from headpatch.report import draw
    from headpatch.report.path_tables import path_tables

    with request.stage("Running both pictures"):
        session = open_session(study, positions="answer")
    found = analysis.follow(session, request.stage)
    _say(session.vlm, "" if found.resumed else "every swap", found.why_not)
    with results.staged(folder, "path") as stage, request.stage("Drawing"):
        results.write_path(stage, session, found)
        draw.draw_path(stage)
        names = sorted(file.name for file in stage.iterdir())
    if request.as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=found.noise_floor,
            path=records(found.table),
            summary=list(found.summary),
        )
        return
    console = Terminal()
    show(console, path_tables(found.saved), *found.summary)
    print_files(console, session, folder, names)


def _many(request: Request, folder: Path, resume: bool | None) -> None:
    """Do the same over a dataset."""
    study = request.study
    entries = many.dataset(study)
    from headpatch.core import output as results
    from headpatch.core.session import model_of
    from headpatch.questions.path import many as analysis
    from headpatch.report import draw
    from headpatch.report.path_tables import path_tables

    store = opened(folder / _PAIRS, "pairs", resume, "path")
    with request.stage("Loading the model"):
        vlm = model_of(study)
    analysis.check(study, vlm)
    _, survey = many.surveyed(request, entries, None, vlm)
    with kept(store):
        found = analysis.follow(study, vlm, survey, store, request.stage)
    _say(vlm, f"every swap of {found.whole:,} pairs" if found.whole else "", found.why_not)
    tables = {"path.csv": found.table, "path_mean.csv": found.means}
    with results.staged(folder, "path") as stage, request.stage("Drawing"):
        results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
        results.write_tensors(stage / "path.pt", found.saved)
        draw.draw_path(stage)
        names = sorted(file.name for file in stage.iterdir())
    store.remove()
    if request.as_json:
        many.print_pairs(
            vlm,
            survey,
            folder,
            names,
            noise_floor=found.noise_floor,
            path_mean=records(found.means),
            summary=list(found.summary),
        )
        return
    console = Terminal()
    show(console, path_tables(found.saved), *found.summary)
    many.finish(console, study, survey, folder, names)


def _say(vlm: "VLM", whole: str, why_not: str) -> None:
    """Say on stderr what was slow, and what is left out.

    Parameters
    ----------
    whole
        What took whole passes; empty if nothing did.
    """
    if whole:
        warn(
            f"passes of {vlm.name} ({str(vlm.dtype).removeprefix('torch.')}) cannot be resumed "
            f"halfway: {whole} took a whole forward pass"
        )
    if why_not:
        warn(f"direct attribution is left out: {why_not}")

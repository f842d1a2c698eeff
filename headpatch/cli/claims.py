"""`headpatch claims`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headpatch.cli import many
from headpatch.cli.judging import check_source, judge, pairs_of
from headpatch.cli.kept import kept
from headpatch.cli.options import Resume, number
from headpatch.cli.show import print_object, show, warn
from headpatch.cli.verb import EVERY, PICTURES, Request, verb
from headpatch.errors import InputError
from headpatch.measures.claims import Claim

if TYPE_CHECKING:
    from headpatch.measures.followed import Ask
    from headpatch.models.vlm import VLM
    from headpatch.pairs.manifest import Entry
    from headpatch.results.verdict import SavedVerdict

_FINISHED = ".claims-pairs"


@verb(
    "claims",
    (EVERY - PICTURES) - {"config"},
    {"config": None, "n": "draw.n", "results": None, "resume": None},
)
def claims(
    request: Request,
    config: Annotated[
        Path, typer.Argument(help="Study file (YAML) that lists claims.", metavar="CONFIG")
    ],
    n: Annotated[int | None, number("--n", "Pairs to draw for a verdict, without --pairs.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", help="Folder of a verdict to judge by, instead of --out.", metavar="DIR"
        ),
    ] = None,
    resume: Resume = None,
) -> None:
    r"""Judge a study's claims: supported, contradicted, or not testable.

    A study file lists claims, one sentence each:

        claims:
          - head 24.17 is necessary            (or sufficient, causal, redundant, inhibitory, inert)
          - head 24.17 looks at the region
          - the model looks at the region
          - heads 24.17 and 23.20 are redundant          (or: heads 24.17, 23.20 and 19.31)
          - layers 17-26 hold the sensitive heads        (or: the causal heads)
          - the answer reads the region in layers 17-24  (or: the question)
          - the heads of vision layer 8 are necessary
          - vision layer 8 carries the object

    They are judged by the verdict in the output folder (--out, or --results); where there is none,
    `headpatch verdict` is run first, with its files. What a claim needs beside it is measured on
    some of the pairs that judge: attention to the region is cut, the stream at the region's patches
    is swapped, heads are changed together. What is run, and its price, is said first. Ctrl-C keeps
    what is finished; the same command with `--resume` goes on.

    An interval over pairs must lie beyond, or within, the smallest effect of interest. What that
    leaves open is not testable, and the figure says why, or what is missing. Writes claims.csv and,
    where something was measured for it, followed.csv.

    Examples
    --------
    `printf 'claims:\n- head 9.31 looks at the region\n- head 9.31 is causal\n' > claims.yaml`

    `headpatch claims claims.yaml --n 40 --out claims_output`
    """
    study, folder = request.study, request.folder
    if not study.claims:
        raise InputError(f"{config}: claims", "none", "claims such as 'head 24.17 is necessary'")
    check_source(request, n)
    listed = [Claim.parse(text) for text in study.claims]
    from headpatch.results.verdict import SavedVerdict

    place, saved = results or folder, None
    if results is not None or SavedVerdict.lies_in(folder):
        argument = "--out" if results is None else "--results"
        saved = SavedVerdict.read(place, argument)
        saved.check_model(study, argument)
    ran: list[str] = []
    if saved is None or saved.missing(listed):
        saved, ran = _complete(request, folder, saved, listed, resume)
    judged = [asdict(one) for one in saved.judge(listed)]
    names = sorted([*ran, *_write(folder, saved, judged)])
    if request.as_json:
        files = [str(folder / name) for name in names]
        print_object({"claims": judged, "failed_nulls": saved.failed_nulls, "files": files})
        return
    from headpatch.report import tables, verdict_tables

    console = Console()
    show(console, verdict_tables.claims(judged, saved.failed_nulls))
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


def _write(folder: Path, saved: "SavedVerdict", judged: Sequence[dict[str, str]]) -> list[str]:
    from headpatch import results
    from headpatch.results.files import columns_of

    columns = {name: [one[name] for one in judged] for name in judged[0]}
    columns["failed_nulls"] = [";".join(saved.failed_nulls)] * len(judged)
    with results.staged(folder) as stage:
        results.write_columns(stage / "claims.csv", columns)
        if saved.followed is not None:
            results.write_columns(stage / "followed.csv", columns_of(saved.followed))
        return [file.name for file in stage.iterdir()]


def _complete(
    request: Request,
    folder: Path,
    saved: "SavedVerdict | None",
    listed: Sequence[Claim],
    resume: bool | None,
) -> "tuple[SavedVerdict, list[str]]":
    """Run what the claims need: a verdict if there is none, and what they need beside it.

    Returns
    -------
    The verdict, and the files that it wrote if it was run.
    """
    from headpatch.results.verdict import SavedVerdict

    if saved is not None:  # with the settings that it was made by
        request = replace(request, study=saved.study_like(request.study))
    names: list[str] = []
    with pairs_of(request) as entries:
        vlm = many.loaded(request)
        layers = 0 if vlm.vision is None else vlm.vision.grid.layers
        for claim in listed:
            claim.check(vlm.lm.grid, layers)
        if saved is None:
            _say_verdict(request, folder, vlm, len(entries))
            names = judge(request, folder, entries, resume, vlm).names
            saved = SavedVerdict.read(folder)
        asks = saved.missing(listed)
        if asks:
            saved = _follow(request, folder, vlm, saved, entries, asks, resume)
        return saved, names


def _say_verdict(request: Request, folder: Path, vlm: "VLM", pairs: int) -> None:
    from headpatch.analyses.verdict import cost

    rows = cost(request.study, vlm.lm.grid, pairs)
    warn(
        f"{folder} holds no verdict: heads of {vlm.name} are changed on {pairs:,} pairs, "
        f"about {rows:,} times in all"
    )


def _follow(
    request: Request,
    folder: Path,
    vlm: "VLM",
    saved: "SavedVerdict",
    entries: "tuple[Entry, ...]",
    asks: "Sequence[Ask]",
    resume: bool | None,
) -> "SavedVerdict":
    """Measure what claims need beside a verdict, on some of the pairs that judged."""
    from headpatch.analyses.finished import Finished
    from headpatch.analyses.followed import follow, pairs_followed, passes

    study, finished = request.study, Finished(folder / _FINISHED)
    finished.open(resume, "run of claims")
    chosen = pairs_followed(study, saved.passed(entries))
    each = 2 + sum(passes(study, one) for one in asks)
    warn(
        f"the claims need more than the verdict: {'; '.join(one.name for one in asks)}: on each of "
        f"{len(chosen):,} pairs, at most {each:,} forward passes"
    )
    with (
        kept(finished, "pairs", finished.folder),
        request.stage("Following claims up") as advance,
    ):
        found = follow(study, vlm, chosen, asks, finished, advance)
    finished.remove()
    return saved.with_followed(found, [entry.name for entry in chosen])

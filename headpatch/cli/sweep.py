"""`headpatch sweep`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headpatch.analyses.listed import Listed
from headpatch.cli.app import app
from headpatch.cli.options import (
    Config,
    Context,
    Debug,
    Device,
    DeviceMap,
    Directions,
    Dtype,
    Force,
    Json,
    Kinds,
    Model,
    Out,
    Quantize,
    Question,
    RegionName,
    Seed,
    With,
    Without,
    study_from,
    whole,
)
from headpatch.cli.show import output_folder, print_files, print_json, progress, show
from headpatch.errors import HeadpatchError

if TYPE_CHECKING:
    from headpatch.analyses.session import Session
    from headpatch.analyses.sweep import Plan
    from headpatch.journal import Journal


class _Interrupted(HeadpatchError):
    exit_code = 130


@app.command()
def sweep(
    context: Context,
    kinds: Kinds = None,
    directions: Directions = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="Where z is changed: answer (cheap), question, image, all (dear).",
            metavar="SCOPE",
        ),
    ] = None,
    sets: Annotated[
        Path | None,
        typer.Option(
            "--sets",
            help="Change the sets of this file instead of every single head: one set a line, "
            "such as 24.17+23.20; # starts a comment.",
            metavar="FILE",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", parser=whole, help="Heads or sets listed for each direction.", metavar="N"
        ),
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option(
            "--reference",
            parser=whole,
            help="Drawn pairs over which kind `mean` averages z; 0: this pair alone.",
            metavar="N",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            parser=whole,
            help="Rows that are run together; found by itself if left out.",
            metavar="N",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            parser=whole,
            help="Memory that these rows may take, in MiB.",
            metavar="MIB",
        ),
    ] = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on from what an interrupted sweep has left in the output folder, or discard "
            "it.",
        ),
    ] = None,
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    region: RegionName = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    seed: Seed = None,
    force: Force = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Change every head, one after the other, and map what each does to the answer.

    Every head of the language model x zero, mean, resample x noising (is it necessary?),
    denoising (is it sufficient?): the shift of LD = logit(Yes) - logit(No), exact for each head.
    All heads share the untouched part of the pass, so that at the answer position a whole sweep
    costs a few forward passes instead of one for each head. Where a model does not allow this, it
    falls back to plain passes and says so. The cost is printed before the run.

    Prints the heads with the largest effects beside their attention rank. Writes effects.csv (a
    row for every head, kind and direction), sweep.pt (the same as tensors), sweep.png (a map of
    layers x heads) and run.yaml. Effects at or below the noise floor (patching a head with its
    own z) are marked.

    Ctrl-C keeps the finished rows in the output folder; the same command with `--resume` goes on.

    Examples
    --------
    `headpatch sweep --kinds resample --out sweep_output`

    `printf '27.15+27.27\n31.2+31.15\n' > sets.txt`

    `headpatch sweep --sets sets.txt --out sets_output`
    """
    study = study_from(
        context,
        {
            "positions": "sweep.positions",
            "sets": "sweep.sets",
            "top": "sweep.top",
            "reference": "sweep.reference",
            "rows": "sweep.rows",
            "budget": "sweep.budget",
        },
        kinds="sweep.kinds",
        directions="sweep.directions",
    )
    folder = output_folder(study)
    listed = Listed.read(Path(study.sweep.sets)) if study.sweep.sets is not None else None
    from headpatch import results
    from headpatch.analyses import sweep as analysis
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.session import open_session
    from headpatch.journal import Journal, key
    from headpatch.report import draw
    from headpatch.report import sweep_tables as tables

    with progress("Running both pictures", as_json):
        session = open_session(study, positions=study.sweep.positions)
    grid = session.vlm.lm.grid
    chosen = listed.within(grid) if listed is not None else None
    job = analysis.plan(session, chosen)
    journal = Journal(folder, key(session, job))
    journal.open(resume)
    finished = journal.finished(session.pair.name)
    _announce(session, job, listed, len(finished))
    means = None
    if "mean" in study.sweep.kinds:
        with progress("Averaging reference pairs", as_json) as advance:
            means = mean_z(session, advance, study.sweep.reference)
    with (
        _kept(journal),
        journal.writing(session.pair.name) as add,
        progress("Changing heads", as_json) as advance,
    ):
        swept = analysis.run(session, job, means, advance, add, finished)
        with results.staged(folder) as stage:
            results.write_sweep(stage, session, swept)
            draw.draw_sweep(stage)
            names = sorted(file.name for file in stage.iterdir())
    journal.remove()
    best = swept.top(study.sweep.top)
    if as_json:
        print_json(
            session,
            folder,
            names,
            positions=study.sweep.positions,
            rows=len(job.asked),
            forward_passes=job.passes,
            widened=session.widens,
            noise_floor=swept.noise_floor,
            noise_floor_over=job.noise,
            top=best,
            spearman=swept.correlations,
        )
        return
    console = Console()
    show(console, tables.top(best, swept.noise_floor, job.noise))
    if swept.correlations:
        show(console, tables.correlations(swept.correlations, grid.layers * grid.heads))
    print_files(console, session, folder, names)


def _announce(session: "Session", job: "Plan", listed: Listed | None, finished: int) -> None:
    """Say on stderr what is run, how, and what it costs."""
    options, fast = session.study.sweep, session.fast
    if not session.widens:
        why = session.base.trace.prefills[0].refused
        if not why and fast is not None:
            why = f"it is off by {fast.worst:.1e} logits"
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name} at positions "
            f"{options.positions} ({why}): every row gets a forward pass of its own",
            file=sys.stderr,
        )
    if listed is not None and (repeated := len(listed.lines) - len(job.sets)):
        print(
            f"headpatch: {repeated:,} of the lines of {listed.path} repeat an earlier set; each "
            "set is run once",
            file=sys.stderr,
        )
    what = "heads" if job.every else "sets"
    print(
        f"headpatch: {len(job.sets):,} {what} x {', '.join(dict.fromkeys(options.kinds))} x "
        f"{', '.join(dict.fromkeys(options.directions))} at positions {options.positions}, and "
        f"{job.noise} patched with their own z: {len(job.asked):,} rows for "
        f"{job.passes:{',.1f' if job.passes >= 1 else '.1g'}} forward passes",
        file=sys.stderr,
    )
    if finished:
        print(
            f"headpatch: {finished:,} of {len(job.asked):,} rows were finished before; going on",
            file=sys.stderr,
        )


@contextmanager
def _kept(journal: "Journal") -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if journal.count == 0:
            raise
        raise _Interrupted(f"interrupted; {_words(journal)}") from None
    except Exception:
        if journal.count:
            print(f"headpatch: {_words(journal)}", file=sys.stderr)
        raise


def _words(journal: "Journal") -> str:
    return (
        f"{journal.count:,} finished rows are kept in {journal.path}: the same command with "
        "--resume goes on from there"
    )

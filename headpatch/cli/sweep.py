"""`headpatch sweep`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from headpatch.cli import sweep_many
from headpatch.cli.kept import kept, opened
from headpatch.cli.options import Alpha, Directions, Kinds, Reference, Resume, number
from headpatch.cli.price import announce
from headpatch.cli.show import Terminal, print_files, print_json, say_replaced, show
from headpatch.cli.verb import Request, verb
from headpatch.core.study import Study
from headpatch.errors import InputError
from headpatch.kinds import averages
from headpatch.questions.sweep.listed import Listed


@verb("sweep", keys={"positions": None, "resume": None})
def sweep(
    request: Request,
    kinds: Kinds = None,
    alpha: Alpha = None,
    directions: Directions = None,
    tower: Annotated[
        str | None,
        typer.Option(
            "--tower",
            help="Whose heads are changed: lm (the language model's) or vision.",
            metavar="lm|vision",
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="Where z is changed: answer (cheap), question, image, all (dear); with --tower "
            "vision: class (the class token), patches, all.",
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
    layers: Annotated[
        bool | None,
        typer.Option("--layers", help="Change every whole layer as well (all its heads at once)."),
    ] = None,
    approx: Annotated[
        bool | None,
        typer.Option(
            "--approx",
            help="Also estimate the same effects from one backward pass (attribution patching), "
            "and measure how the estimates agree with the exact effects.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        number("--top", "Heads or sets listed for each direction."),
    ] = None,
    reference: Reference = None,
    rows: Annotated[
        int | None,
        number("--rows", "Rows that are run together; found by itself if left out."),
    ] = None,
    budget: Annotated[
        int | None,
        number("--budget", "Memory that these rows may take, in MiB.", "MIB"),
    ] = None,
    resume: Resume = None,
) -> None:
    r"""Change every head, one after the other, and map what each does to the answer.

    Every head of the language model, or of the vision tower with `--tower vision`, x zero, mean,
    resample x noising (is it necessary?), denoising (is it sufficient?): the shift of LD =
    logit(Yes) - logit(No), exact for each head. All heads share the untouched part of the pass,
    so that at the answer position each kind and direction costs a few forward passes instead of
    one for each head. Where a model does not allow this, it falls back to plain passes and says
    so. What is to come is priced before the run, the reference pairs of kind mean included.

    Prints the heads with the largest effects beside their attention rank. Writes effects.csv (a
    row for every head, kind and direction), sweep.pt (the same as tensors), sweep.png (a map of
    layers x heads) and run.yaml. Effects at or below the noise floor (patching a head with its
    own z) are marked.

    `--tower vision` starts each batch at the layer that it changes, but runs the whole language
    model for each row: it costs most of a forward pass a row. Layers past the one that the
    language model reads must move nothing at all, and this is said. `--approx` adds a column to
    effects.csv, approx.pt (the estimate for every head and position) and approx.png; the
    estimates are printed with their agreement with the exact effects, since they can be far off.

    With `--pairs`: every head of either tower, and every layer, on every pair of a dataset that
    passes the gate (both answers right). Kind `mean` is then the mean over the dataset. Writes
    also effects_mean.csv and mean_effects.png (means with intervals over pairs) and gate.csv.
    `--approx` shows how estimates agree pair by pair, and in their means over pairs.

    Ctrl-C keeps the finished rows in the output folder; the same command with `--resume` goes on.

    Examples
    --------
    `headpatch sweep --kinds resample --out sweep_output`

    `printf '21.14+23.9\n21.16+25.8\n' > sets.txt`

    `headpatch sweep --sets sets.txt --kinds resample --out sets_output`

    `headpatch sweep --tower vision --kinds resample --positions patches --layers`

    `headpatch sweep --kinds resample --approx`

    `headpatch sweep --kinds resample --pairs pairs --limit 5` (after `headpatch pairs --n 20`)
    """
    scope = {"lm": "sweep.positions", "vision": "vision.positions"}
    request = request.override({scope[request.study.sweep.tower]: positions})
    study, folder = request.study, request.folder
    options = study.sweep
    listed = Listed.read(Path(options.sets)) if options.sets is not None else None
    _refuse(study)
    if study.pairs.manifest is not None:
        sweep_many.sweep(request, folder, listed, resume)
        return
    from headpatch.core import output as results
    from headpatch.core.mean_activations import mean_z
    from headpatch.core.session import open_session
    from headpatch.questions.sweep import one as analysis
    from headpatch.questions.sweep.finished_rows import NAME, FinishedRows, keys_of
    from headpatch.questions.sweep.plan import left, opening
    from headpatch.report import draw
    from headpatch.report import sweep_tables as tables
    from headpatch.report.agreement_tables import agreement

    with request.stage("Running both pictures"):
        positions, vision = opening(study)
        session = open_session(study, positions=positions, vision=vision)
    grid = session.vlm.stack(options.tower).grid
    chosen = listed.within(grid) if listed is not None else None
    job = analysis.plan(session, chosen, options.tower)
    keys = keys_of(study, session.vlm, [session.pair], chosen)
    store = opened(folder / NAME, "rows", resume, "sweep", keys.values())
    keeper = FinishedRows(store, keys)
    finished = keeper.finished(session.pair.name)
    to_come = left(session, job, finished)
    announce(session, to_come, listed, len(finished))
    means = None
    if averages(options.kinds):
        with request.stage("Averaging reference pairs") as advance:
            means = mean_z(session, advance, options.reference, (job.tower,))
    with (
        kept(store),
        keeper.writing(session.pair.name) as add,
        request.stage("Changing heads") as advance,
    ):
        swept = analysis.run(session, job, means, advance, add, finished)
        with results.staged(folder, "sweep") as stage:
            results.write_sweep(stage, session, swept)
            draw.draw_sweep(stage)
            if swept.approx is not None:
                draw.draw_approx(stage)
            names = sorted(file.name for file in stage.iterdir())
            say_replaced(folder, "sweep")
    store.remove()
    best, layered = swept.top(options.top), swept.top(options.top, layers=True)
    largest = swept.largest()
    agreed = {way: one.figures() for way, one in swept.agreed.items()}
    if request.as_json:
        more: dict[str, Any] = {"top_layers": layered} if job.layers else {}
        if swept.unread is not None:
            more["unread"] = asdict(swept.unread)
        if job.approx:
            more["approx"] = agreed
        print_json(
            session,
            folder,
            names,
            tower=job.tower,
            positions=swept.saved["positions"],
            rows=len(job.asked),
            forward_passes=to_come.total,
            widened=session.widens,
            noise_floor=swept.noise_floor,
            noise_floor_over=job.noise,
            top=best,
            largest=largest,
            spearman=swept.correlations,
            **more,
        )
        return
    console = Terminal()
    show(console, tables.top(best, swept.noise_floor, job.noise))
    if words := tables.unlisted(largest, best):
        show(console, words)
    if layered:
        show(console, tables.layers(layered))
    if swept.correlations:
        show(console, tables.correlations(swept.correlations, grid.layers * grid.heads))
    if job.approx:
        show(console, agreement(agreed, not job.every, study.pairs.level))
    if swept.unread is not None:
        show(console, tables.unread(**asdict(swept.unread)))
    print_files(console, session, folder, names)


def _refuse(study: Study) -> None:
    """Refuse, before anything loads, what does not go together."""
    options = study.sweep
    if options.approx and study.quantize is not None:
        raise InputError(
            "--approx, --quantize",
            "both of them",
            "one of them",
            "Gradients through quantised weights are not checked.",
        )

"""`headpatch ablate`."""

from dataclasses import asdict
from typing import Annotated

import typer

from headpatch.cli import ablate_many
from headpatch.cli.options import Alpha, Directions, Kinds, Reference, number
from headpatch.cli.price import announce_plain, announce_vision
from headpatch.cli.show import Terminal, print_files, print_json, records, say_replaced, show
from headpatch.cli.verb import Request, verb
from headpatch.core.study.together import refuse_void_scope
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.kinds import averages


@verb("ablate", keys={"vision_positions": None})
def ablate(
    request: Request,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads to change: 24.17,23.20 or 24.0-24.31 or layer:24 or "
            "top:5 (of the attention ranking); with a v of the vision tower: v8.3, layer:v8.",
            metavar="HEADS",
        ),
    ] = None,
    kinds: Kinds = None,
    alpha: Alpha = None,
    directions: Directions = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="Where z of language-model heads is changed: answer, question, image, all.",
            metavar="SCOPE",
        ),
    ] = None,
    vision_positions: Annotated[
        str | None,
        typer.Option(
            "--vision-positions",
            help="Where z of vision heads is changed: class (the class token), patches, all.",
            metavar="SCOPE",
        ),
    ] = None,
    controls: Annotated[
        int | None,
        number("--controls", "Random sets of heads of the same layers to compare with."),
    ] = None,
    reference: Reference = None,
) -> None:
    """Change heads and measure the shift of LD = logit(Yes) - logit(No).

    Each head alone, then all together: zero, mean and resample; noising (is the head necessary?)
    and denoising (is it sufficient?); beside random heads of the same layers and the noise
    floor. Writes effects.csv, head_effects.png and run.yaml.

    Heads of both towers may stand side by side. Those of the language model change at
    `--positions`, those of the vision tower (v8.3) at `--vision-positions`; the column `positions`
    says which. A set with a vision head costs most of a forward pass for every row and control:
    this is said before the run. Heads of vision layers that the language model never reads must
    move nothing at all, and this is said too.

    With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Kind
    `mean` is then the mean over the dataset. Writes effects.csv (a row for each pair),
    effects_mean.csv (means with intervals over pairs), gate.csv (the LDs of every pair),
    the figure and run.yaml.

    Examples
    --------
    `headpatch ablate --heads 24.17,23.20`

    `headpatch ablate --heads v8.3,21.14 --kinds resample --controls 2`

    `headpatch ablate --heads top:3 --kinds resample --pairs pairs --limit 5`
    (after `headpatch pairs --n 20`)
    """
    selection = Selection.parse(request.study.ablate.heads)
    request = _at_vision_positions(request, selection, vision_positions)
    study, folder = request.study, request.folder
    if study.pairs.manifest is not None:
        ablate_many.ablate(request, folder)
        return
    from headpatch.core import output as results
    from headpatch.core.mean_activations import mean_z
    from headpatch.core.ranking import order
    from headpatch.core.session import open_session, towers_of
    from headpatch.core.towers import resolve
    from headpatch.present import tables
    from headpatch.questions.ablate import one as analysis
    from headpatch.report import draw, sweep_tables

    with request.stage("Running both pictures"):
        at, vision = study.ablate.positions, selection.names_vision
        session = open_session(study, positions=at, vision=vision)
    announce_plain(session)
    session.check_region()
    chosen = resolve(selection, session.vlm, lambda: order(session))
    job = analysis.plan(session, chosen)
    announce_vision(session, job)
    means = None
    if averages(study.ablate.kinds):
        with request.stage("Averaging reference pairs") as advance:
            means = mean_z(session, advance, towers=towers_of(at, vision))
    with request.stage("Changing heads") as advance:
        ablation = analysis.run(session, job, means, advance)
    with results.staged(folder, "ablate") as stage, request.stage("Drawing"):
        results.write_ablation(stage, session, ablation)
        pair = session.pair
        draw.draw_ablation(stage, pair.question, pair.region.name, session.valid)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "ablate")
    if request.as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=ablation.noise_floor,
            effects=records(ablation.named),
            summary=ablation.summary,
            **({} if ablation.unread is None else {"unread": asdict(ablation.unread)}),
        )
        return
    console = Terminal()
    show(console, tables.effects(ablation.named, ablation.noise_floor), ablation.summary)
    if ablation.unread is not None:
        show(console, sweep_tables.unread(**asdict(ablation.unread)))
    print_files(console, session, folder, names)


def _at_vision_positions(request: Request, selection: Selection, scope: str | None) -> Request:
    """Take the flag into the study, under its own name if it is wrong."""
    flag = "--vision-positions"
    refuse_void_scope(selection.names_vision, str(selection), scope)
    try:
        return request.override({"vision.positions": scope})
    except InputError as error:
        raise InputError(flag, error.found, error.expected, error.hint) from None

"""`headpatch ablate`."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from headpatch.cli import many
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
    Limit,
    Model,
    Out,
    Pairs,
    Quantize,
    Question,
    RegionName,
    Seed,
    With,
    Without,
    study_from,
    whole,
)
from headpatch.cli.show import output_folder, print_files, print_json, progress, say_replaced, show
from headpatch.heads import Selection


@app.command()
def ablate(
    context: Context,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads to change: 24.17,23.20 or 24.0-24.31 or layer:24 or "
            "top:5 (of the attention ranking).",
            metavar="HEADS",
        ),
    ] = None,
    kinds: Kinds = None,
    directions: Directions = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions", help="Where z is changed: answer, question, image, all.", metavar="SCOPE"
        ),
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option(
            "--controls",
            parser=whole,
            help="Random sets of heads of the same layers to compare with.",
            metavar="N",
        ),
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option(
            "--reference",
            parser=whole,
            help="Drawn pairs over which kind `mean` averages z; 0: this pair alone. With --pairs, "
            "used only where questions differ in length and --positions is not answer.",
            metavar="N",
        ),
    ] = None,
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    region: RegionName = None,
    pairs: Pairs = None,
    limit: Limit = None,
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
    """Change heads and measure the shift of LD = logit(Yes) - logit(No).

    Each head alone, then all together: zero, mean and resample; noising (is the head necessary?)
    and denoising (is it sufficient?); beside random heads of the same layers and the noise
    floor. Writes effects.csv, head_effects.png and run.yaml.

    With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Kind
    `mean` is then the mean over the dataset. Writes effects.csv (a row for each pair),
    effects_mean.csv (means with bootstrap intervals over pairs), gate.csv (the LDs of every pair),
    the figure and run.yaml.

    Examples
    --------
    `headpatch ablate --heads 24.17,23.20`

    `headpatch ablate --heads top:3 --pairs pairs` (after `headpatch pairs --n 20`)
    """
    study = study_from(
        context,
        {
            "heads": "ablate.heads",
            "positions": "ablate.positions",
            "controls": "ablate.controls",
            "reference": "ablate.reference",
        },
        kinds="ablate.kinds",
        directions="ablate.directions",
    )
    selection = Selection.parse(study.ablate.heads)
    folder = output_folder(study)
    if study.pairs.manifest is not None:
        many.ablate(study, folder, as_json)
        return
    from headpatch import results
    from headpatch.analyses import ablate as analysis
    from headpatch.analyses.rank import order
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.session import open_session
    from headpatch.report import draw, tables

    with progress("Running both pictures", as_json):
        session = open_session(study, positions=study.ablate.positions)
    if session.fast is not None and not session.fast.exact:
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name} "
            f"(off by {session.fast.worst:.1e} logits): every head gets a forward pass of its own",
            file=sys.stderr,
        )
    session.region_tokens  # noqa: B018  a region without any is refused here
    ranking = order(session) if selection.needs_ranking else ()
    chosen = selection.resolve(session.vlm.lm.grid, ranking)
    means = None
    if "mean" in study.ablate.kinds:
        with progress("Averaging reference pairs", as_json) as advance:
            means = mean_z(session, advance)
    with progress("Changing heads", as_json) as advance:
        ablation = analysis.ablate(session, chosen, means, advance)
    with results.staged(folder) as stage, progress("Drawing", as_json):
        results.write_ablation(stage, session, ablation)
        pair = session.pair
        draw.draw_ablation(stage, pair.question, pair.region.name, session.valid)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "ablate")
    if as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=ablation.noise_floor,
            effects=json.loads(ablation.named.to_json(orient="records")),
            summary=ablation.summary,
        )
        return
    console = Console()
    show(console, tables.effects(ablation.named, ablation.noise_floor), ablation.summary)
    print_files(console, session, folder, names)

"""`headpatch rank`."""

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
    Dtype,
    Force,
    Json,
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
from headpatch.cli.show import output_folder, print_files, print_json, progress, show


@app.command()
def rank(
    context: Context,
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    region: RegionName = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", parser=whole, help="Heads listed, drawn and counted by layer.", metavar="N"
        ),
    ] = None,
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
    """Rank heads by how much more they look at the region when the object is there.

    Correlational: it shows where heads look, not what they do (that is `headpatch ablate`).
    Writes heads.csv, four .pt files, five figures and run.yaml.

    With `--pairs`: means over a dataset of pairs, with bootstrap intervals over pairs. Pairs whose
    two answers are not both right are listed and left out. Writes heads.csv, gate.csv (the LDs of
    every pair), a figure and run.yaml.

    Examples
    --------
    `headpatch rank --with bundled:1.jpg --without bundled:2.jpg --region top-left
    --question "Is there anything in the top left corner?"` (pictures that come with headpatch;
    yours are paths)

    `headpatch rank --pairs pairs` (after `headpatch pairs --n 20`)
    """
    study = study_from(context, {"top": "rank.top"})
    folder = output_folder(study)
    if study.pairs.manifest is not None:
        many.rank(study, folder, as_json)
        return
    from headpatch import results
    from headpatch.analyses import rank as analysis
    from headpatch.analyses.session import open_session
    from headpatch.report import draw, tables

    with progress("Running both pictures", as_json):
        session = open_session(study)
    ranking = analysis.rank(session)
    optional = ("attention_overlays.png", "vision_encoder_layers.png")
    with results.staged(folder, optional) as stage, progress("Drawing", as_json):
        results.write_ranking(stage, session, ranking)
        draw.draw_ranking(stage, study.rank.overlays)
        names = sorted(file.name for file in stage.iterdir())
    top = int(ranking.per_head["top"])
    if as_json:
        print_json(
            session,
            folder,
            names,
            answer_with=ranking.answers[0],
            answer_without=ranking.answers[1],
            heads=ranking.top(top),
            spatial=ranking.spatial,
        )
        return
    console = Console()
    show(
        console,
        tables.answers(
            session.pair.question,
            {
                "with": (ranking.answers[0], session.base.ld_with),
                "without": (ranking.answers[1], session.base.ld_without),
            },
        ),
        tables.top_heads(ranking.top(top)),
        tables.layers(ranking.per_head["layer_counts"], top),
        tables.quadrants(ranking.spatial),
    )
    if "vision_patch_diff" in ranking.spatial:
        show(console, tables.vision(ranking.spatial))
    show(console, tables.divergences(ranking.spatial))
    if study.expected is not None:
        every = ranking.top(ranking.per_head["rank"].numel())
        show(console, tables.expected(study.expected, every, ranking.spatial))
    print_files(console, session, folder, names)

"""`headpatch path`."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from headpatch.cli.app import app
from headpatch.cli.combine import By, Heads, one_choice
from headpatch.cli.options import (
    Config,
    Context,
    Debug,
    Device,
    DeviceMap,
    Dtype,
    Force,
    Json,
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
from headpatch.errors import RunError


@app.command()
def path(
    context: Context,
    heads: Heads = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", parser=whole, help="Take the first N heads of each ranking.", metavar="N"
        ),
    ] = None,
    by: By = None,
    edges: Annotated[
        str | None,
        typer.Option(
            "--edges",
            help="Attention to cut, from-to, comma-separated: answer-region,words-region. Ends as "
            "for `headpatch cut`.",
            metavar="EDGES",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            parser=whole,
            help="Layers that are cut together, centred on every layer in turn.",
            metavar="N",
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
    """Follow the object through the model: where what tells the pictures apart is, and when.

    Four views over depth, each exact. The stream: the residual stream of one run put into the
    other at the region's image tokens, the other image tokens, the question's words or the answer
    position, entering every layer (and at patches, leaving every vision layer); 1 means that these
    tokens hold the whole difference there. Edges: attention between tokens cut in windows of
    layers. Direct attribution: what each head and MLP writes straight into LD = logit(Yes) -
    logit(No). Paths to heads: through which input (query, keys, values), and from which tokens or
    vision layer, named heads hear of the object.

    Prints what it found in sentences. Writes path.csv, path.pt, path.png (one figure over depth)
    and run.yaml.

    Examples
    --------
    `headpatch path`

    `headpatch path --heads 24.17,23.20 --edges answer-region,words-region --window 3`
    """
    one_choice(context)
    own = {name: f"path.{name}" for name in ("heads", "top", "window")}
    study = study_from(context, own, by="path.by", edges="path.edges")
    folder = output_folder(study)
    from headpatch import results
    from headpatch.analyses import path as analysis
    from headpatch.analyses.combine_heads import choose, single_effects
    from headpatch.analyses.cut import check_layers
    from headpatch.analyses.path_heads import head_paths
    from headpatch.analyses.path_table import assemble
    from headpatch.analyses.rank import order
    from headpatch.analyses.session import open_session
    from headpatch.report import draw
    from headpatch.report.path_tables import path_tables

    with progress("Running both pictures", as_json):
        session = open_session(study, positions="answer")
    check_layers(analysis.cut_session(session))
    analysis.token_classes(session)  # a region without tokens is refused here
    with progress("Ranking heads by effect", as_json) as advance:
        chosen = choose(
            session.vlm.lm.grid,
            study.path,
            lambda: single_effects(session, "answer", advance),
            lambda: order(session),
        )
    with progress("Swapping the stream", as_json) as advance:
        streams = analysis.streams(session, advance)
    if not streams.resumed:
        print(
            f"headpatch: passes of {session.vlm.name} ({study.dtype}) cannot be resumed halfway: "
            "every swap took a whole forward pass",
            file=sys.stderr,
        )
    with progress("Cutting edges", as_json) as advance:
        cuts = analysis.edges(session, advance)
    attribution = None
    try:
        attribution = analysis.attribute(session)
    except RunError as error:
        print(f"headpatch: direct attribution is left out: {error}", file=sys.stderr)
    with progress("Patching paths to heads", as_json) as advance:
        paths = head_paths(session, chosen, advance)
    traced = assemble(session, streams, cuts, attribution, paths)
    with results.staged(folder) as stage, progress("Drawing", as_json):
        results.write_path(stage, session, traced)
        draw.draw_path(stage)
        names = sorted(file.name for file in stage.iterdir())
    if as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=traced.noise_floor,
            path=json.loads(traced.table.to_json(orient="records")),
            summary=list(traced.summary),
        )
        return
    console = Console()
    show(console, path_tables(traced.saved), *traced.summary)
    print_files(console, session, folder, names)

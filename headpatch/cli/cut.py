"""`headpatch cut`."""

import json
import sys
from itertools import product
from typing import Annotated

import typer
from rich.console import Console

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
from headpatch.errors import InputError


@app.command()
def cut(
    context: Context,
    queries: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Which tokens no longer look, comma-separated: answer, question (every token "
            "after the image), words (those but the answer), image, region, other (the image "
            "outside the region), all.",
            metavar="NAMES",
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option("--to", help="At which tokens; the same names.", metavar="NAMES"),
    ] = None,
    edges: Annotated[
        str | None,
        typer.Option(
            "--edges",
            help="Several at once, from-to: answer-region,question-other. Instead of --from, --to.",
            metavar="EDGES",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            parser=whole,
            help="Layers whose heads are cut together, centred on every layer in turn.",
            metavar="N",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", help="One fixed span of layers instead: 10-14.", metavar="FIRST-LAST"
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads instead, one by one and jointly: 24.17,23.20 or 24.0-24.31 or layer:24 or "
            "top:5 (of the attention ranking).",
            metavar="HEADS",
        ),
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option(
            "--controls",
            parser=whole,
            help="Random sets of image tokens outside the region to compare with.",
            metavar="N",
        ),
    ] = None,
    itself: Annotated[
        bool | None,
        typer.Option("--itself", help="Cut a token's view of its own position too."),
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
    """Cut attention between named tokens and measure the shift of LD = logit(Yes) - logit(No).

    In both runs, for all heads of a window of layers that moves through the model (attention
    knockout, Geva et al. 2023), for fixed layers, or for single heads; beside the same cut of as
    many random image tokens, and the noise floor. A token keeps its own position unless --itself
    is given; one that loses every key gets z = 0. Writes cuts.csv, cuts.png and run.yaml.

    Example: `headpatch cut --from answer,question --to region --window 5`
    """
    context.params["edges"] = _edges(queries, keys, edges)
    own = {name: f"cut.{name}" for name in ("window", "layers", "heads", "controls", "itself")}
    study = study_from(context, own, edges="cut.edges")
    folder = output_folder(study)
    from headpatch import results
    from headpatch.analyses import cut as analysis
    from headpatch.analyses.rank import order
    from headpatch.analyses.session import open_session
    from headpatch.report import draw
    from headpatch.report.cut_tables import cut_tables

    with progress("Running both pictures", as_json):
        session = open_session(study, positions="question")
    with progress("Cutting edges", as_json) as advance:
        found = analysis.cut(session, lambda: order(session), advance)
    if not found.resumed:
        print(
            f"headpatch: passes of {session.vlm.name} ({study.dtype}) cannot be resumed halfway: "
            "every cut took a whole forward pass",
            file=sys.stderr,
        )
    with results.staged(folder) as stage, progress("Drawing", as_json):
        results.write_cuts(stage, session, found)
        pair = session.pair
        draw.draw_cuts(stage, pair.question, pair.region.name, session.valid)
        names = sorted(file.name for file in stage.iterdir())
    if as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=found.noise_floor,
            cuts=json.loads(found.named.to_json(orient="records")),
            summary=found.summary,
        )
        return
    console = Console()
    show(console, cut_tables(found.named, found.noise_floor), found.summary)
    print_files(console, session, folder, names)


def _edges(queries: str | None, keys: str | None, edges: str | None) -> str | None:
    """Join every ``--from`` with every ``--to``."""
    if queries is None and keys is None:
        return edges
    if edges is not None:
        raise InputError("--edges", "--from or --to beside it", "either --edges or both of them")
    if queries is None or keys is None:
        raise InputError("--from, --to", "only one of them", "both ends of the edge")
    ends = product(*([one.strip() for one in end.split(",")] for end in (queries, keys)))
    return ",".join("-".join(pair) for pair in ends)

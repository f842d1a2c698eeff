"""`headpatch trace`."""

import sys
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
    Directions,
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

Answer = Annotated[
    str | None,
    typer.Option(
        "--answer",
        help="What both runs are made to say, instead of a run's own answer.",
        metavar="TEXT",
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option("--tokens", parser=whole, help="At most so many tokens of it.", metavar="N"),
]


def check_forced(context: Context) -> None:
    """Refuse an answer that is given twice."""
    if context.params["answer"] is not None and context.params["forced"] is not None:
        raise InputError("--answer, --forced", "both of them", "one of them")


@app.command()
def trace(
    context: Context,
    answer: Answer = None,
    forced: Annotated[
        str | None,
        typer.Option(
            "--forced",
            help="Whose own answer both runs are made to say: with, without, or both in turn.",
            metavar="RUN",
        ),
    ] = None,
    tokens: Tokens = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds", help="What z becomes, comma-separated: resample, zero.", metavar="KINDS"
        ),
    ] = None,
    directions: Directions = None,
    top: Annotated[
        int | None,
        typer.Option("--top", parser=whole, help="Heads listed for each token.", metavar="N"),
    ] = None,
    noise: Annotated[
        int | None,
        typer.Option(
            "--noise",
            parser=whole,
            help="Heads a token that are patched with their own z, for the noise floor.",
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
    """Trace an answer token by token: which heads look at the region, which move the token.

    Both runs are made to say the same answer, by default that of the with-run. For every token,
    from the position before it: each head's attention to the region in both runs, and the effect
    of giving that head the other run's z there, for every head, exactly (a sweep a token).

    An effect is measured on logit(token) - logit(rival), the rival being the token that a run
    would say instead after the same words; on logit(token) where both runs would say it. Such a
    token, a comma for instance, is a control: where its log-probability does not move, its heads
    decide nothing. trace.csv has all three measures.

    A head acts here through one position. What it has written into the earlier tokens of the
    answer or the question is left as it was.

    Prints each token with its first heads by attention and by effect. Writes trace.csv (a row for
    every token, kind, direction and head; beside each effect the mean and deviation of the other
    heads of its layer), trace.pt (the same as tensors, tokens x layers x heads), trace.png and
    run.yaml.

    Examples
    --------
    `headpatch trace --tokens 6 --out trace_output`

    `headpatch trace --answer "Yes, there is a triangle" --directions denoising`
    """
    check_forced(context)
    own = {name: f"trace.{name}" for name in ("answer", "forced", "tokens", "top", "noise")}
    study = study_from(context, own, kinds="trace.kinds", directions="trace.directions")
    folder = output_folder(study)
    from headpatch import results
    from headpatch.analyses import trace as analysis
    from headpatch.analyses.session import open_session
    from headpatch.report import draw
    from headpatch.report.traces import trace_summary, trace_tables

    with progress("Running both pictures", as_json):
        session = open_session(study, positions="answer")
    if not session.widens:
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name}: every head gets a "
            "forward pass of its own at every token",
            file=sys.stderr,
        )
    with progress("Changing heads, token by token", as_json) as advance:
        traced = analysis.trace(session, advance)
    with results.staged(folder) as stage, progress("Writing and drawing", as_json):
        results.write_trace(stage, session, traced)
        draw.draw_trace(stage)
        names = sorted(file.name for file in stage.iterdir())
    summaries = traced.summaries()
    summary = trace_summary(summaries, session.valid)
    if as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=traced.noise_floor,
            answers={one.source: one.text for one in traced.own},
            tokens=summaries,
            summary=summary,
        )
        return
    console = Console()
    show(console, trace_tables(summaries), summary)
    print_files(console, session, folder, names)

"""`headpatch check`."""

import json
from dataclasses import asdict

from rich.console import Console

from headpatch.cli.app import app
from headpatch.cli.options import (
    Config,
    Context,
    Debug,
    Device,
    DeviceMap,
    Dtype,
    Json,
    Model,
    Quantize,
    Question,
    Seed,
    With,
    Without,
    study_from,
)
from headpatch.cli.show import plain, progress, show


@app.command()
def check(
    context: Context,
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what headpatch can and cannot control in a model.

    Loads the model, asks it the study's question, and tries: are single heads changed exactly by
    the fast path (against plain forward passes), how large is the noise floor, what would each
    sweep cost? Prints towers, layers, heads, answer tokens, image tokens and times. Writes
    nothing; the two answers need not flip.

    Example: `headpatch check --model demo`
    """
    study = study_from(context, {})
    study.pair()  # bad pictures are refused before torch is imported
    from headpatch.analyses import check as analysis
    from headpatch.report import sweep_tables as tables

    with progress("Trying positions", as_json) as advance:
        report = analysis.check(study, None, advance)
    scopes = {
        name: scope if isinstance(scope, str) else asdict(scope)
        for name, scope in report.scopes.items()
    }
    if as_json:
        content = {
            **report.facts,
            "seconds_forward": report.seconds,
            "positions": scopes,
            "limits": list(report.limits),
        }
        print(json.dumps(plain(content), ensure_ascii=False, allow_nan=False))
        return
    ways = len(set(study.sweep.kinds)) * len(set(study.sweep.directions))
    console = Console()
    show(
        console,
        tables.model(report.facts, report.seconds),
        tables.scopes(scopes, ways),
        tables.limits(report.limits),
    )

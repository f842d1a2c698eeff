"""`headpatch check`."""

from dataclasses import asdict

from headpatch.cli.show import Terminal, print_object, show
from headpatch.cli.verb import ONE_PAIR, Request, verb


@verb("check", ONE_PAIR - {"region", "out", "force"})
def check(request: Request) -> None:
    """Say what headpatch can and cannot control in a model.

    Loads the model, asks it the study's question, and tries, in the language model and in the
    vision tower: are single heads changed exactly by the fast path (against plain forward passes),
    how large is the noise floor, what would each sweep cost? Prints towers, layers, heads, answer
    tokens, image tokens and times. Writes nothing; the two answers need not flip.

    Example: `headpatch check --model demo`
    """
    study = request.study
    study.pair()  # bad pictures are refused before torch is imported
    from headpatch.questions.check import checks as analysis
    from headpatch.report import sweep_tables as tables

    with request.stage("Trying positions") as advance:
        report = analysis.check(study, None, advance)
    scopes, vision = (
        {name: scope if isinstance(scope, str) else asdict(scope) for name, scope in found.items()}
        for found in (report.scopes, report.vision)
    )
    if request.as_json:
        content = {
            **report.facts,
            "seconds_forward": report.seconds,
            "positions": scopes,
            "vision_positions": vision,
            "limits": list(report.limits),
        }
        print_object(content)
        return
    ways = len(set(study.sweep.kinds)) * len(set(study.sweep.directions))
    console = Terminal()
    show(
        console,
        tables.model(report.facts, report.seconds),
        tables.scopes(scopes, ways),
        *([tables.vision_scopes(vision, ways)] if vision else []),
        tables.limits(report.limits),
    )

"""`headpatch combine`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from headpatch.cli.show import output_folder, print_files, print_json, progress, show
from headpatch.errors import InputError, RunError
from headpatch.study import Study

if TYPE_CHECKING:
    from headpatch.analyses.combine_judge import Combinations
    from headpatch.analyses.selfrepair import SelfRepair

Heads = Annotated[
    str | None,
    typer.Option(
        "--heads",
        help="Named heads instead of --top and --by: 24.17,23.20 or 24.0-24.5 or layer:24 or top:5 "
        "(of the attention ranking).",
        metavar="HEADS",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Rankings that --top takes heads of, comma-separated: effect (the largest exact "
        "effects of one head alone, of each direction), attention.",
        metavar="RANKINGS",
    ),
]

_REPAIR = ("selfrepair.csv", "selfrepair_parts.csv")  # not every model's LD can be taken apart


@app.command()
def combine(
    context: Context,
    heads: Heads = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", parser=whole, help="Take the first N heads of each ranking.", metavar="N"
        ),
    ] = None,
    by: By = None,
    kinds: Kinds = None,
    directions: Directions = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions", help="Where z is changed: answer, question, image, all.", metavar="SCOPE"
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
    listed: Annotated[
        int | None,
        typer.Option(
            "--listed", parser=whole, help="Pairs of heads listed for each way.", metavar="N"
        ),
    ] = None,
    pairs: Pairs = None,
    limit: Limit = None,
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
    """Change heads two by two, to see whether they stand in for each other or need each other.

    Interaction = effect of both together - effect of each alone, for every two of the chosen
    heads, exact. Noising: above 0, either would do (each covers for the other: a head that seems
    idle alone may decide together with its double); below 0, both are needed, or one reads the
    other. Denoising: the reverse. Then self-repair: what the heads write straight to the logits
    against what follows when they are changed, and which later heads and MLPs make the difference.

    On one pair of pictures figures are known up to rounding and say nothing of other pairs; with
    `--pairs` they are means with intervals over pairs, and heads that a ranking picks are picked on
    one half of the pairs and judged on the other.

    Writes combinations.csv, combinations.png (a map of every two heads), selfrepair.csv,
    selfrepair_parts.csv and run.yaml.

    Examples
    --------
    `headpatch combine --top 6`

    `headpatch combine --heads 24.17,23.20,31.2`

    `headpatch combine --pairs pairs --limit 20` (after `headpatch pairs --n 20`)
    """
    one_choice(context)
    own = {name: f"combine.{name}" for name in ("heads", "top", "positions", "reference", "listed")}
    study = study_from(
        context,
        own,
        by="combine.by",
        kinds="combine.kinds",
        directions="combine.directions",
    )
    folder = output_folder(study)
    if study.pairs.manifest is not None:
        _many(study, folder, as_json)
        return
    from headpatch import results
    from headpatch.analyses import combine as analysis
    from headpatch.analyses import combine_judge, selfrepair
    from headpatch.analyses.combine_heads import choose, single_effects
    from headpatch.analyses.rank import order
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.session import open_session
    from headpatch.report import draw

    options = study.combine
    with progress("Running both pictures", as_json):
        session = open_session(study, positions=options.positions)
    if not session.widens:
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name} at positions "
            f"{options.positions}: every set of heads gets a forward pass of its own",
            file=sys.stderr,
        )
    session.region_tokens  # noqa: B018  a region without any is refused here
    with progress("Ranking heads by effect", as_json) as advance:
        chosen = choose(
            session.vlm.lm.grid,
            options,
            lambda: single_effects(session, options.positions, advance),
            lambda: order(session),
        )
    plan = analysis.Plan.of(study, chosen)
    means = None
    if "mean" in options.kinds:
        with progress("Averaging reference pairs", as_json) as advance:
            means = mean_z(session, advance, options.reference)
    with progress("Changing heads together", as_json) as advance:
        combined = combine_judge.judge(
            study, plan, [analysis.measure(session, plan, means, advance)]
        )
    repaired = None
    try:
        with progress("Taking passes apart", as_json) as advance:
            asked = selfrepair.plan(study, combined.repaired)
            found = selfrepair.measure(session, asked, means, advance)
            repaired = selfrepair.judge(study, [found])
    except RunError as error:
        _without_repair(error)
    with results.staged(folder, _REPAIR) as stage, progress("Drawing", as_json):
        results.write_combinations(stage, session, combined, repaired)
        pair = session.pair
        draw.draw_combinations(stage, pair.question, pair.region.name, session.valid)
        names = sorted(file.name for file in stage.iterdir())
    summary = combined.summary(session.valid)
    if as_json:
        print_json(
            session, folder, names, **_content(combined, repaired, options.listed), summary=summary
        )
        return
    console = Console()
    _show(console, study, combined, repaired, summary)
    print_files(console, session, folder, names)


def one_choice(context: Context) -> None:
    """Refuse heads that are both named and taken from rankings.

    Raises
    ------
    InputError
        If so.
    """
    for name in ("top", "by"):
        if context.params["heads"] is not None and context.params[name] is not None:
            raise InputError(f"--heads, --{name}", "both of them", "named heads, or rankings")


def _many(study: Study, folder: Path, as_json: bool) -> None:
    """Do the same over a dataset."""
    from headpatch.cli import many

    entries = many.dataset(study)
    from headpatch import results
    from headpatch.analyses import combine_many as analysis
    from headpatch.report import draw

    vlm, survey = many.surveyed(study, entries, study.combine.positions, as_json)
    with progress("Ranking heads by effect", as_json) as advance:
        chosen = analysis.choose_heads(study, vlm, survey, advance)
    with progress("Changing heads together", as_json) as advance:
        combined = analysis.run(study, vlm, survey, chosen, advance)
    repaired = None
    try:
        with progress("Taking passes apart", as_json) as advance:
            sets = combined.repaired
            repaired = analysis.repair(study, vlm, survey, chosen, sets, advance)
    except RunError as error:
        _without_repair(error)
    tables = results.combination_columns(combined, repaired)
    with results.staged(folder, _REPAIR) as stage, progress("Drawing", as_json):
        results.write_pairs(stage, study, vlm, survey, tables, combined.noise_floor)
        draw.draw_combinations(stage, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    summary = combined.summary(survey.valid)
    if chosen.chosen_on:
        summary += (
            f" Heads were picked on {chosen.chosen_on:,} other pairs and judged on "
            f"{len(chosen.entries):,}."
        )
    if as_json:
        content = _content(combined, repaired, study.combine.listed)
        many.print_pairs(vlm, survey, folder, names, **content, summary=summary)
        return
    console = Console()
    _show(console, study, combined, repaired, summary)
    many.finish(console, study, survey, folder, names)


def _without_repair(error: RunError) -> None:
    print(f"headpatch: self-repair is left out: {error}", file=sys.stderr)


def _content(
    combined: "Combinations", repaired: "SelfRepair | None", listed: int
) -> dict[str, Any]:
    """What a script reads: every set, the largest interactions, and self-repair."""

    def rows(table: Any) -> Any:
        return json.loads(table.to_json(orient="records"))

    content = {
        "noise_floor": combined.noise_floor,
        "combinations": rows(combined.table),
        "largest": rows(combined.largest(listed)),
    }
    if repaired is not None:
        content["selfrepair"] = rows(repaired.table)
        content["selfrepair_parts"] = rows(repaired.parts)
    return content


def _show(
    console: Console,
    study: Study,
    combined: "Combinations",
    repaired: "SelfRepair | None",
    summary: str,
) -> None:
    from headpatch.report.combinations import combination_tables, repair_tables

    largest = combined.largest(study.combine.listed)
    show(
        console,
        combination_tables(
            combined.table, largest, combined.noise_floor, study.verdict.delta, study.pairs.level
        ),
    )
    if repaired is not None:
        show(console, repair_tables(repaired.table, repaired.parts))
    show(console, summary)

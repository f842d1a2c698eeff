"""`headpatch combine`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headpatch.cli import many
from headpatch.cli.chosen import By, Heads, Top
from headpatch.cli.options import Alpha, Directions, Kinds, number
from headpatch.cli.price import announce_plain
from headpatch.cli.show import Terminal, print_files, print_json, records, show, warn
from headpatch.cli.verb import Request, verb
from headpatch.core.study import Study
from headpatch.core.study.together import refuse_both

if TYPE_CHECKING:
    from headpatch.questions.combine.whole import Combined


@verb("combine")
def combine(
    request: Request,
    heads: Heads = None,
    top: Top = None,
    by: By = None,
    kinds: Kinds = None,
    alpha: Alpha = None,
    directions: Directions = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions", help="Where z is changed: answer, question, image, all.", metavar="SCOPE"
        ),
    ] = None,
    reference: Annotated[
        int | None,
        number("--reference", "Drawn pairs over which kind `mean` averages z; 0: this pair alone."),
    ] = None,
    listed: Annotated[
        int | None,
        number("--listed", "Pairs of heads listed for each way."),
    ] = None,
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

    `headpatch combine --heads 20.18,21.14,23.9`

    `headpatch combine --heads 21.14,23.9 --pairs pairs --limit 5` (after `headpatch pairs --n 20`)
    """
    refuse_both({"heads": heads, "top": top, "by": by})
    study, folder = request.study, request.folder
    if study.pairs.manifest is not None:
        _many(request, folder)
        return
    from headpatch.core import output as results
    from headpatch.core.session import open_session
    from headpatch.questions.combine.whole import combine as analysis
    from headpatch.report import draw

    with request.stage("Running both pictures"):
        session = open_session(study, positions=study.combine.positions)
    announce_plain(session)
    found = analysis(session, request.stage)
    with results.staged(folder, "combine") as stage, request.stage("Drawing"):
        results.write_combinations(stage, session, found.combinations, found.repair)
        pair = session.pair
        draw.draw_combinations(
            stage, study.verdict.delta, pair.question, pair.region.name, session.valid
        )
        names = sorted(file.name for file in stage.iterdir())
    _say(found)
    if request.as_json:
        print_json(session, folder, names, **_content(found, study.combine.listed))
        return
    console = Terminal()
    _show(console, study, found)
    print_files(console, session, folder, names)


def _many(request: Request, folder: Path) -> None:
    """Do the same over a dataset."""
    study = request.study
    entries = many.dataset(study)
    from headpatch.core import output as results
    from headpatch.questions.combine.whole import combine_pairs
    from headpatch.report import draw

    vlm, survey = many.surveyed(request, entries, study.combine.positions)
    found = combine_pairs(study, vlm, survey, request.stage)
    tables = results.combination_columns(found.combinations, found.repair)
    with results.staged(folder, "combine") as stage, request.stage("Drawing"):
        results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
        draw.draw_combinations(stage, study.verdict.delta, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    _say(found)
    if request.as_json:
        many.print_pairs(vlm, survey, folder, names, **_content(found, study.combine.listed))
        return
    console = Terminal()
    _show(console, study, found)
    many.finish(console, study, survey, folder, names)


def _say(found: "Combined") -> None:
    """Say on stderr what is left out."""
    if found.repair is None:
        warn(f"self-repair is left out: {found.why_not}")


def _content(found: "Combined", listed: int) -> dict[str, object]:
    """What a script reads: every set, the largest interactions, and self-repair."""
    content: dict[str, object] = {
        "noise_floor": found.noise_floor,
        "combinations": records(found.table),
        "largest": records(found.combinations.largest(listed)),
    }
    if found.repair is not None:
        content["selfrepair"] = records(found.repair.table)
        content["selfrepair_parts"] = records(found.repair.parts)
    return content | {"summary": found.summary}


def _show(console: Console, study: Study, found: "Combined") -> None:
    from headpatch.report.combinations import combination_tables, repair_tables

    largest = found.combinations.largest(study.combine.listed)
    delta, level = study.verdict.delta, study.pairs.level
    show(console, combination_tables(found.table, largest, found.noise_floor, delta, level))
    if found.repair is not None:
        show(console, repair_tables(found.repair.table, found.repair.parts))
    show(console, found.summary)

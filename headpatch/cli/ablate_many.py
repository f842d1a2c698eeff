"""`headpatch ablate --pairs`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.cli import many
from headpatch.cli.price import announce_vision
from headpatch.cli.show import Terminal, records, say_replaced, show
from headpatch.cli.verb import Request
from headpatch.heads import Selection

if TYPE_CHECKING:
    from headpatch.core.session import Session
    from headpatch.questions.ablate.one import Plan


def ablate(request: Request, folder: Path) -> None:
    """Change the study's heads on every pair of the dataset."""
    study = request.study
    entries = many.dataset(study)
    selection = Selection.parse(study.ablate.heads)
    from headpatch.core import output as results
    from headpatch.core.towers import resolve
    from headpatch.questions.ablate import many as analysis
    from headpatch.report import dataset_tables, draw, sweep_tables

    vlm = many.loaded(request)
    if not selection.needs_ranking:
        resolve(selection, vlm)  # heads that are not there are refused before the pairs are run
    vision = selection.names_vision
    vlm, survey = many.surveyed(request, entries, study.ablate.positions, vlm, vision, hold=True)
    chosen = resolve(selection, vlm, survey.order)

    def say(session: "Session", job: "Plan") -> None:
        if session.pair.name == survey.entries[0].name:
            announce_vision(session, job, survey)

    with request.stage("Changing heads") as advance:
        found = analysis.ablate(study, vlm, survey, chosen, advance, say)
    tables = {"effects.csv": found.effects, "effects_mean.csv": found.means}
    with results.staged(folder, "ablate") as stage, request.stage("Drawing"):
        results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
        draw.draw_mean_effects(stage, "head_effects.png", study.pairs.level, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "ablate")
    if request.as_json:
        more: dict[str, Any] = {} if found.unread is None else {"unread": asdict(found.unread)}
        more["effects_mean"] = records(found.means)
        many.print_pairs(vlm, survey, folder, names, noise_floor=found.noise_floor, **more)
        return
    console = Terminal()
    show(console, dataset_tables.effects(found.means, study.pairs.level, found.noise_floor))
    if selection.needs_ranking:
        console.print("These heads were picked by their attention on the same pairs.")
    if found.unread is not None:
        show(console, sweep_tables.unread(**asdict(found.unread)))
    many.finish(console, study, survey, folder, names)

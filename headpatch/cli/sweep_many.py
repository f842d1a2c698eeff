"""`headpatch sweep --pairs`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from headpatch.cli import many
from headpatch.cli.kept import kept, opened
from headpatch.cli.price import announce
from headpatch.cli.show import Terminal, say_replaced, show
from headpatch.cli.verb import Request
from headpatch.questions.sweep.listed import Listed

if TYPE_CHECKING:
    from headpatch.core.session import Session
    from headpatch.core.study import Study
    from headpatch.questions.sweep.many import Sweeps
    from headpatch.questions.sweep.one import Plan, Sweep


def sweep(request: Request, folder: Path, listed: Listed | None, resume: bool | None) -> None:
    """Change every head, or every set of a list, on every pair of the dataset."""
    study = request.study
    entries = many.dataset(study)
    from headpatch.core import output as results
    from headpatch.questions.sweep import many as analysis
    from headpatch.questions.sweep.finished_rows import NAME, FinishedRows, keys_of_pairs
    from headpatch.questions.sweep.plan import opening, refuse
    from headpatch.report import draw

    vlm = many.loaded(request)
    refuse(study, vlm)
    sets = None if listed is None else listed.within(vlm.stack(study.sweep.tower).grid)
    keys = keys_of_pairs(study, vlm, entries, sets)
    store = opened(folder / NAME, "rows", resume, "sweep", keys.values())
    keeper, finished = FinishedRows(store, keys), store.count
    positions, vision = opening(study)
    vlm, survey = many.surveyed(request, entries, positions, vlm, vision, hold=True)

    def say(session: "Session", job: "Plan") -> None:
        if session.pair.name == survey.entries[0].name:
            announce(session, job, listed, finished, survey)

    with (
        kept(store),
        results.staged(folder, "sweep") as stage,
    ):

        def write(found: "Sweep") -> None:
            path = stage / "effects.csv"
            results.write_columns(path, results.sweep_columns(found), more=path.exists())

        with request.stage("Changing heads") as advance:
            found = analysis.sweep(study, vlm, survey, sets, advance, say, write, keeper)
        with request.stage("Drawing"):
            tables = {"effects_mean.csv": found.means}
            results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
            results.write_tensors(stage / "sweep.pt", found.saved)
            draw.draw_sweep(stage)
            draw.draw_mean_effects(stage, "mean_effects.png", study.pairs.level, **survey.words)
            if found.approx is not None:
                results.write_tensors(stage / "approx.pt", found.approx)
                draw.draw_approx(stage)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "sweep")
    store.remove()
    agreed = {way: one.figures() for way, one in found.agreed.items()}
    if request.as_json:
        many.print_pairs(vlm, survey, folder, names, **_for_a_script(study, found, agreed))
        return
    console = Terminal()
    _show(console, study, found, agreed)
    many.finish(console, study, survey, folder, names)


def _for_a_script(
    study: "Study", found: "Sweeps", agreed: Mapping[str, Mapping[str, float | int]]
) -> dict[str, Any]:
    """Return what `--json` prints beside the gate."""
    top = study.sweep.top
    more: dict[str, Any] = {}
    if found.plan.layers:
        more["top_layers"] = found.top(top, layers=True)
    if found.unread is not None:
        more["unread"] = asdict(found.unread)
    if found.plan.approx:
        more["approx"] = agreed
    return {
        "tower": found.plan.tower,
        "positions": found.saved["positions"],
        "noise_floor": found.noise_floor,
        "top": found.top(top),
        "largest": found.largest(),
        **more,
    }


def _show(
    console: Console,
    study: "Study",
    found: "Sweeps",
    agreed: Mapping[str, Mapping[str, float | int]],
) -> None:
    """Print the tables."""
    from headpatch.report import dataset_tables, sweep_tables
    from headpatch.report.agreement_tables import agreement

    top, level, floor = study.sweep.top, study.pairs.level, found.noise_floor
    heads, layers = found.top(top), found.top(top, layers=True)
    show(console, dataset_tables.top_effects(heads, level, floor, layers))
    if words := sweep_tables.unlisted(found.largest(), heads):
        show(console, words)
    if found.plan.approx:
        show(console, agreement(agreed, not found.plan.every, level))
    if found.unread is not None:
        show(console, sweep_tables.unread(**asdict(found.unread)))

"""What `rank`, `ablate` and `sweep` do with `--pairs`: the same, over a dataset."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from headpatch.cli.kept import kept
from headpatch.cli.show import print_object, progress, say_replaced, show
from headpatch.heads import Selection
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.study import Study

if TYPE_CHECKING:
    from headpatch.analyses.listed import Listed
    from headpatch.analyses.session import Session
    from headpatch.analyses.survey import Survey
    from headpatch.analyses.sweep import Plan
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM


def dataset(study: Study) -> tuple[Entry, ...]:
    """Read the pairs that a study runs, before any model loads.

    Raises
    ------
    InputError
        If the dataset is bad, or holds too few pairs.
    """
    assert study.pairs.manifest is not None
    found = Manifest.read(Path(study.pairs.manifest)).take(study.pairs.limit, study.seed)
    found.need(2, "which an interval over pairs needs")
    return found.entries


def rank(study: Study, folder: Path, as_json: bool) -> None:
    """Rank heads by their mean attention difference over the dataset."""
    entries = dataset(study)
    from headpatch import results
    from headpatch.analyses import many
    from headpatch.report import dataset_tables, draw

    vlm, survey = surveyed(study, entries, None, as_json)
    columns = many.rank(study, survey)
    with results.staged(folder) as stage, progress("Drawing", as_json):
        results.write_pairs(stage, study, vlm, survey, {"heads.csv": columns})
        draw.draw_ranked_pairs(stage, study.rank.top, study.pairs.level, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    rows = zip(*(values[: study.rank.top] for values in columns.values()), strict=True)
    top = [dict(zip(columns, row, strict=True)) for row in rows]
    if as_json:
        print_pairs(vlm, survey, folder, names, heads=top)
        return
    console = Console()
    show(console, dataset_tables.top_heads(top, study.pairs.level))
    finish(console, study, survey, folder, names)


def ablate(study: Study, folder: Path, as_json: bool) -> None:
    """Change the study's heads on every pair of the dataset."""
    entries = dataset(study)
    selection = Selection.parse(study.ablate.heads)
    from headpatch import results
    from headpatch.analyses import many
    from headpatch.report import dataset_tables, draw

    vlm, survey = surveyed(study, entries, study.ablate.positions, as_json)
    chosen = selection.resolve(vlm.lm.grid, survey.order() if selection.needs_ranking else ())
    with progress("Changing heads", as_json) as advance:
        found = many.ablate(study, vlm, survey, chosen, advance)
    tables = {"effects.csv": found.effects, "effects_mean.csv": found.means}
    with results.staged(folder) as stage, progress("Drawing", as_json):
        results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
        draw.draw_mean_effects(stage, "head_effects.png", study.pairs.level, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "ablate")
    if as_json:
        means = json.loads(found.means.to_json(orient="records"))
        print_pairs(vlm, survey, folder, names, noise_floor=found.noise_floor, effects_mean=means)
        return
    console = Console()
    show(console, dataset_tables.effects(found.means, study.pairs.level, found.noise_floor))
    if selection.needs_ranking:
        console.print("These heads were picked by their attention on the same pairs.")
    finish(console, study, survey, folder, names)


def sweep(
    study: Study, folder: Path, listed: "Listed | None", resume: bool | None, as_json: bool
) -> None:
    """Change every head, or every set of a list, on every pair of the dataset."""
    entries = dataset(study)
    from headpatch import results
    from headpatch.analyses import many
    from headpatch.analyses.sweep import Sweep
    from headpatch.journal import Journal, key_of_pairs
    from headpatch.report import dataset_tables, draw

    vlm = _load(study, as_json)
    sets = listed.within(vlm.lm.grid) if listed is not None else None
    journal = Journal(folder, key_of_pairs(study, vlm, entries, sets))
    journal.open(resume)
    finished = journal.count
    vlm, survey = surveyed(study, entries, study.sweep.positions, as_json, vlm)

    def announce(session: "Session", job: "Plan") -> None:
        if session.pair.name == survey.entries[0].name:
            _announce(session, job, len(survey.entries), finished)

    estimates = ("approx.pt", "approx.png")  # of one pair
    with kept(journal, "rows", journal.path), results.staged(folder, estimates) as stage:

        def write(found: Sweep) -> None:
            path = stage / "effects.csv"
            results.write_columns(path, results.sweep_columns(found), more=path.exists())

        with progress("Changing heads", as_json) as advance:
            found = many.sweep(study, vlm, survey, sets, advance, announce, write, journal)
        with progress("Drawing", as_json):
            tables = {"effects_mean.csv": found.means}
            results.write_pairs(stage, study, vlm, survey, tables, found.noise_floor)
            results.write_tensors(stage / "sweep.pt", found.saved)
            draw.draw_sweep(stage)
            draw.draw_mean_effects(stage, "mean_effects.png", study.pairs.level, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
        say_replaced(folder, "sweep")
    journal.remove()
    best = found.top(study.sweep.top)
    if as_json:
        print_pairs(
            vlm,
            survey,
            folder,
            names,
            positions=study.sweep.positions,
            noise_floor=found.noise_floor,
            top=best,
        )
        return
    console = Console()
    show(console, dataset_tables.top_effects(best, study.pairs.level, found.noise_floor))
    finish(console, study, survey, folder, names)


def _load(study: Study, as_json: bool) -> "VLM":
    from headpatch.analyses.session import model_of

    with progress("Loading the model", as_json):
        return model_of(study)


def surveyed(
    study: Study,
    entries: tuple[Entry, ...],
    positions: "Positions | None",
    as_json: bool,
    vlm: "VLM | None" = None,
) -> "tuple[VLM, Survey]":
    """Load the model, unless it is given, and run every pair untouched."""
    from headpatch.analyses.survey import survey

    vlm = vlm or _load(study, as_json)
    with progress("Running the pairs", as_json) as advance:
        found = survey(study, vlm, entries, positions, advance)
    if positions is not None and not found.widens:
        print(
            f"headpatch: the widening pass is not exact for {vlm.name} at positions {positions}: "
            "every row gets a forward pass of its own",
            file=sys.stderr,
        )
    return vlm, found


def _announce(session: "Session", job: "Plan", pairs: int, finished: int) -> None:
    """Say on stderr what is run, how, and what it costs."""
    options = session.study.sweep
    print(
        f"headpatch: {pairs:,} pairs x {len(job.asked):,} rows ({len(job.sets):,} "
        f"{'heads' if job.every else 'sets'} x {', '.join(dict.fromkeys(options.kinds))} x "
        f"{', '.join(dict.fromkeys(options.directions))} at positions {options.positions}, and "
        f"{job.noise} patched with their own z): {pairs * job.passes:,.0f} forward passes",
        file=sys.stderr,
    )
    if finished:
        print(
            f"headpatch: {finished:,} of {pairs * len(job.asked):,} rows were finished before; "
            "going on",
            file=sys.stderr,
        )


def print_pairs(vlm: "VLM", survey: "Survey", folder: Path, names: list[str], **more: Any) -> None:
    """Print what a script reads: the model, how the gate went, `more`, and the files."""
    failed = [
        {
            "pair": one.entry.name,
            "line": one.entry.line,
            "ld_with": one.ld_with,
            "ld_without": one.ld_without,
            "reason": one.reason,
        }
        for one in survey.gated
        if not one.passed
    ]
    content = {
        "model": vlm.name,
        "valid": survey.valid,
        "pairs": len(survey.gated),
        "passed": len(survey.gated) - len(failed),
        "failed": failed,
        **more,
        "files": [str(folder / name) for name in names],
    }
    print_object(content)


def finish(
    console: Console, study: Study, survey: "Survey", folder: Path, names: list[str]
) -> None:
    """Say how the gate went, and name the files."""
    from headpatch.report import dataset_tables, tables

    show(console, dataset_tables.gate(survey.gate_columns(), study.pairs.margin))
    if not survey.valid:
        console.print("INVALID STUDY: pairs that failed the gate were run.", style="bold red")
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole

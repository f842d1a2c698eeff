"""What verbs share with `--pairs`: a dataset is read, every pair is run, the gate is reported."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from headpatch.cli.show import print_object, show, unused, warn
from headpatch.cli.verb import Request
from headpatch.core.study import Study
from headpatch.pairs.manifest import Entry, Manifest

_ALL = 0.995  # what 100% is written for

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM


def dataset(study: Study, compared: bool = False) -> tuple[Entry, ...]:
    """Read the pairs that a study runs, before any model loads.

    Parameters
    ----------
    compared
        Whether heads are compared by their attention to each pair's region.

    Raises
    ------
    InputError
        If the dataset is bad, holds too few pairs, or heads cannot be compared on a region.
    """
    assert study.pairs.manifest is not None
    found = Manifest.read(Path(study.pairs.manifest)).take(study.pairs.limit, study.seed)
    found.need(2, "which an interval over pairs needs")
    for entry in found.entries if compared else ():
        entry.region.compare(f"{entry.where}, region")
    return found.entries


def loaded(request: Request) -> "VLM":
    """Load the study's model."""
    from headpatch.core.session import model_of

    with request.stage("Loading the model"):
        return model_of(request.study)


def surveyed(
    request: Request,
    entries: tuple[Entry, ...],
    positions: "Positions | None",
    vlm: "VLM | None" = None,
    vision: bool = False,
    hold: bool = False,
) -> "tuple[VLM, Survey]":
    """Load the model, unless it is given, and run every pair untouched.

    Parameters
    ----------
    positions, vision, hold
        As `headpatch.core.baseline_runs.survey` takes them.
    """
    from headpatch.core.baseline_runs import survey

    vlm = vlm or loaded(request)
    with request.stage("Running the pairs") as advance:
        found = survey(request.study, vlm, entries, positions, advance, vision=vision, hold=hold)
    for caution in found.cautions:
        warn(caution)
    if positions is not None and not found.widens:
        warn(
            f"the widening pass is not exact for {vlm.name} at positions {positions}: "
            "every row gets a forward pass of its own"
        )
    return vlm, found


def print_pairs(vlm: "VLM", survey: "Survey", folder: Path, names: list[str], **more: Any) -> None:
    """Print what a script reads: the model, how the gate went, `more`, and the files."""
    failed = [
        {
            "pair": one.entry.name,
            "line": one.entry.line,
            "ld_with": one.ld_with,
            "ld_without": one.ld_without,
            "reason": one.reason,
            **one.columns(),
        }
        for one in survey.gated
        if not one.passed
    ]
    caution, cut = _caution(survey), _cut_away(survey)
    if cut:
        warn(cut)
    content = {
        "model": vlm.name,
        **unused(vlm),
        "valid": survey.valid,
        **survey.counts,
        "failed": failed,
        **({"caution": caution} if caution else {}),
        **({"cut_away": cut} if cut else {}),
        **more,
        "files": [str(folder / name) for name in names],
    }
    print_object(content)


def finish(
    console: Console, study: Study, survey: "Survey", folder: Path, names: list[str]
) -> None:
    """Say how the gate went, and name the files."""
    from headpatch.core.gate_view import gate
    from headpatch.present import tables
    from headpatch.present.terminal import renderables

    show(console, *renderables(gate(survey.gate_columns(), study.pairs.margin)))
    if not survey.valid:
        console.print("INVALID STUDY: pairs that failed the gate were run.", style="bold red")
    if caution := _caution(survey):
        console.print(caution)
    say_cut_away(console, survey)
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


def say_cut_away(console: Console, survey: "Survey") -> None:
    """Say, on stderr too, of which pairs the model does not see all."""
    if cut := _cut_away(survey):
        warn(cut)
        console.print(f"Note: {cut}.", soft_wrap=True, markup=False)


def _cut_away(survey: "Survey") -> str:
    """What the processor does not show of the pairs; empty if it shows all, or is not known."""
    pictures = [one.picture_shown for one in survey.gated if one.picture_shown < _ALL]
    regions = [one.region_shown for one in survey.gated if one.region_shown < _ALL]
    if not pictures and not regions:
        return ""
    count = f"{len(survey.gated):,} pairs"
    said = f"the processor cuts away part of the picture in {len(pictures):,} of {count}"
    said += f" (down to {min(pictures):.0%} of it)" if pictures else ""
    said += f", part of the region in {len(regions):,}"
    return said + (f" (down to {min(regions):.0%} of it)" if regions else "")


def _caution(survey: "Survey") -> str:
    """Say that intervals over so few pairs are rough; empty if they are enough."""
    from headpatch.core import split

    count = len(survey.entries)
    if count >= split.LEAST:
        return ""
    return (
        f"Caution: {count} pairs. With fewer than {split.LEAST}, intervals over pairs are rough: "
        "they may miss the mean more often than they say, or reach beyond what is possible."
    )

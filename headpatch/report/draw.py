"""Draw the figures of a run from what it saved, into its folder. No model is run."""

from pathlib import Path

from headpatch.core.output.saved import Saved
from headpatch.report.figures import KINDS, Words


def _draw(folder: Path, figures: dict[str, str], words: Words | None = None) -> None:
    """Draw figures, each ``kind: file``, from the files in `folder`, into that folder."""
    files = Saved(folder)
    for kind, file in figures.items():
        KINDS[kind].draw(files, folder / file, words or Words())


def draw_mean_effects(
    folder: Path, name: str, level: float, question: str, region: str, valid: bool = True
) -> None:
    """Draw the means over pairs that a run over a dataset wrote."""
    _draw(folder, {"mean_effects": name}, Words(question, region, valid, level=level))


def draw_rollout(folder: Path) -> None:
    """Draw the maps that `rollout` wrote, and their check if there is one."""
    figures = {"rollout": "rollout.png"}
    if "perturbation.csv" in Saved(folder):
        figures["perturbation"] = "perturbation.png"
    _draw(folder, figures)


def draw_trace(folder: Path) -> None:
    """Draw the heads behind each token that `trace` wrote."""
    _draw(folder, {"trace": "trace.png"})

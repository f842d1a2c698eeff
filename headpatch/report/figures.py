"""Every figure by the name of its kind, with the files that it is drawn from.

Files are given by name: those of a folder (`headpatch.core.output.saved.Saved`), or what they would
hold of results that were never written. Nothing here runs a model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from headpatch.present.canvas import Target
from headpatch.present.effects_view import mean_effects
from headpatch.present.figure import draw
from headpatch.questions.rollout.charts import curves_chart, maps_chart
from headpatch.questions.trace.charts import trace_chart

Files: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Words:
    """What a figure says beside its data, where the files do not say it themselves.

    Attributes
    ----------
    question, region
        Of the title.
    valid
        Whether the two answers flip.
    level
        Coverage of intervals over pairs.
    delta
        Smallest effect of interest.
    """

    question: str = ""
    region: str = ""
    valid: bool = True
    level: float = 0.95
    delta: float = 0.02

    @property
    def title(self) -> dict[str, str]:
        """Question and region; a figure of a forced study says so."""
        return {"question": _asked(self.question, self.valid), "region": self.region}


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes
    ----------
    needs
        Files it is drawn from.
    draw
        Draws it.
    unless
        Files beside which `needs` mean something else.
    """

    needs: tuple[str, ...]
    draw: Callable[[Files, Target, Words], None]
    unless: tuple[str, ...] = ()

    def fits(self, files: Files) -> bool:
        """Whether it can be drawn from these files."""
        return all(name in files for name in self.needs) and not any(
            name in files for name in self.unless
        )


def kinds_of(files: Files) -> list[str]:
    """Name the figures that can be drawn from files, the most telling first."""
    return [name for name, kind in KINDS.items() if kind.fits(files)]


def _asked(question: str, valid: bool) -> str:
    """The question as a figure shows it; a figure of a forced study says so."""
    return question if valid else f"{question} (INVALID STUDY: its answers are not Yes and No)"


def _own(saved: Mapping[str, Any]) -> dict[str, str]:
    """Question and region as a ``.pt`` file says them."""
    question = _asked(saved["question"], saved["valid"])
    return {"question": question, "region": saved["region_name"]}


def _mean_effects(files: Files, target: Target, words: Words) -> None:
    mean_effects(files["effects_mean.csv"], target, level=words.level, **words.title)


def _rollout(files: Files, target: Target, words: Words) -> None:
    found = files["rollout.pt"]
    draw(maps_chart(found), target, **_own(found))


def _perturbation(files: Files, target: Target, words: Words) -> None:
    found, curves = files["rollout.pt"], files["perturbation.csv"]
    chart = curves_chart(curves, token=repr(found["token"]), fill=found["fill"])
    draw(chart, target, **_own(found))


def _trace(files: Files, target: Target, words: Words) -> None:
    traced = files["trace.pt"]
    draw(trace_chart(traced), target, **_own(traced))


KINDS: Final[Mapping[str, Kind]] = {
    "trace": Kind(("trace.pt",), _trace),
    "rollout": Kind(("rollout.pt",), _rollout),
    "perturbation": Kind(("rollout.pt", "perturbation.csv"), _perturbation),
}
"""Every figure of a run by name, the most telling first."""

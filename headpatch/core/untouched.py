"""What the first walk over a dataset measures of each pair, untouched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.core.donors import Layout, layout_of
from headpatch.core.gate import Gated, gate, of_the_row, run_entry, study_of
from headpatch.core.held import Held
from headpatch.core.mean_activations import MeanZ, Sums
from headpatch.core.measures import hangs_on, measure_of
from headpatch.core.pair_units import Keys
from headpatch.core.ranking import MASSES, masses, ranked_by
from headpatch.core.session import RIGHT, Session, checked
from headpatch.core.study.study import Study
from headpatch.engine.answers import AnswerReading
from headpatch.engine.patching import OnProgress
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry


@dataclass(frozen=True, eq=False)
class Untouched:
    """What the first walk keeps of a pair."""

    gated: Mapping[str, Any]  # the fields of `Gated`, but for the entry
    layout: Layout | None = None  # None, as what follows: the pair is not run
    masses: Mapping[str, Float[np.ndarray, "layers heads"]] | None = None
    incomparable: Mapping[str, str] = field(default_factory=dict)  # of the error, if there is one
    sums: Sums = field(default_factory=dict)


@dataclass(eq=False)
class FirstWalk:
    """Opens and measures pairs; `measured` counts them.

    Pairs stay open that are `held`; `checks`, where given, take the comparisons of the fast paths
    with the plain one: pairs must then come in the dataset's order.
    """

    study: Study
    vlm: VLM
    positions: Positions | None
    vision: bool
    reference: MeanZ | None
    held: Held | None
    checks: Checks | None
    keys: Keys
    measured: int = 0

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of heads, by which they are compared or ranked."""
        ranked = (key.name for by in self.study.rankings for key in measure_of(by).keys)
        return tuple(dict.fromkeys((*MASSES, *ranked)))

    def names(self, entries: Sequence[Entry]) -> list[str]:
        """Return the keys of the pairs' units."""
        asked: dict[str, Any] = {
            "untouched": (self.positions, self.vision, self.reference is not None),
            "margin": self.study.pairs.margin,
            "force": self.study.force,
        }
        if ranked := hangs_on(self.study.rankings, self.study.rank.tau):
            asked["ranked"] = ranked
        return self.keys.of(self.study, entries, asked)

    def open(self, entry: Entry) -> tuple[Entry, Session]:
        """Run a pair."""
        own = study_of(self.study, entry)
        return entry, run_entry(own, self.vlm, entry, self.positions, self.vision)

    def measure(self, opened: tuple[Entry, Session], _: OnProgress) -> Untouched:
        """Judge a pair at the gate, and see where its heads look."""
        entry, session = opened
        self.measured += 1
        found = gate(entry, session)
        own = {one.name: getattr(found, one.name) for one in fields(found) if one.name != "entry"}
        if not found.passed and not self.study.force:
            return Untouched(own)
        if self.checks is not None:
            session = checked(session, self.checks)
        words: Mapping[str, str] = {}
        try:
            own_masses = masses(session) | ranked_by(session, *self.study.rankings)
        except InputError as error:  # only a question that compares heads is refused
            words = vars(of_the_row(error, found.entry))
            grid = self.vlm.lm.grid
            own_masses = dict.fromkeys(self.figures, np.full((grid.layers, grid.heads), np.nan))
        if self.held is not None:
            self.held.offer(session)
        sums = {} if self.reference is None else self.reference.of_pair(session)
        return Untouched(own, layout_of(session), own_masses, words, sums)


def unmeasured(entry: Entry, left_out: Mapping[str, str]) -> Gated | None:
    """Say of a pair that is not measured that it fails the gate; None of the others."""
    if entry.name not in left_out:
        return None
    nothing = math.nan
    readings = [AnswerReading(nothing, nothing, 0, 0, "", nothing, said) for said in RIGHT]
    present, absent = readings
    why = left_out[entry.name]
    return Gated(entry, nothing, nothing, (present, absent), passed=False, reason=why, prompt="")

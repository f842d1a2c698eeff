"""What the first walk over a dataset measures of each pair, untouched."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.core.donors import Layout, layout_of
from headpatch.core.gate import (
    Gated,
    gate,
    not_run,
    of_the_row,
    reason_of,
    run_entry,
    study_of,
)
from headpatch.core.held import Held
from headpatch.core.mean_activations import MeanZ, Sums
from headpatch.core.measures import hangs_on, measure_of
from headpatch.core.pair_units import Keys
from headpatch.core.ranking import MASSES, image_masses, masses, ranked_by
from headpatch.core.session import Session, checked
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError, RowError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.region import BY_DIFFERENCE, BY_IMAGE

OverPairs: TypeAlias = dict[str, Float[np.ndarray, "pairs layers heads"]]
"""Figures of heads by name."""


@dataclass(frozen=True, eq=False)
class Untouched:
    """What the first walk keeps of a pair."""

    gated: Mapping[str, Any]  # the fields of `Gated`, but for the entry
    layout: Layout | None = None  # None, as what follows: the pair is not run
    masses: Mapping[str, Float[np.ndarray, "layers heads"]] | None = None
    incomparable: Mapping[str, str] = field(default_factory=dict)  # of the error, if there is one
    sums: Sums = field(default_factory=dict)
    yardstick: str = ""  # what its heads are compared by, if not a region that is named
    image: Mapping[str, Float[np.ndarray, "layers heads"]] | None = None
    """By the image's part of all attention, if some pair of the dataset allows no other."""


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
    mixed: bool = False  # whether some pair may have no place that heads are compared by
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
            **({"image": True} if self.mixed else {}),
        }
        if ranked := hangs_on(self.study.rankings, self.study.rank.tau):
            asked["ranked"] = ranked
        return self.keys.of(self.study, entries, asked)

    def open(self, entry: Entry) -> tuple[Entry, Session | RowError]:
        """Run a pair, or say what is wrong with its row."""
        own = study_of(self.study, entry)
        try:
            return entry, run_entry(own, self.vlm, entry, self.positions, self.vision)
        except RowError as error:
            return entry, error.again()  # without what it arose from

    def measure(self, opened: tuple[Entry, Session | RowError], _: OnProgress) -> Untouched:
        """Judge a pair at the gate, and see where its heads look."""
        entry, session = opened
        self.measured += 1
        if isinstance(session, RowError):
            return Untouched(_facts(not_run(entry, reason_of(entry, session))))
        found = gate(entry, session)
        if not found.passed and not self.study.force:
            return Untouched(_facts(found))
        if self.checks is not None:
            session = checked(session, self.checks)
        words: Mapping[str, str] = {}
        yardstick, image = "", None
        try:
            own_masses = masses(session) | ranked_by(session, *self.study.rankings)
            yardstick = session.pair.region.yardstick
        except InputError as error:  # only a question that compares heads is refused
            words = vars(of_the_row(error, entry))
            grid = self.vlm.lm.grid
            own_masses = dict.fromkeys(self.figures, np.full((grid.layers, grid.heads), np.nan))
        if self.mixed:
            image = image_masses(session)
        if self.held is not None:
            self.held.offer(session)
        sums = {} if self.reference is None else self.reference.of_pair(session)
        how = layout_of(session), own_masses, words, sums, yardstick, image
        return Untouched(_facts(found), *how)


def _facts(found: Gated) -> dict[str, Any]:
    """Return the fields of `Gated`, but for the entry."""
    return {one.name: getattr(found, one.name) for one in fields(found) if one.name != "entry"}


def unmeasured(entry: Entry, left_out: Mapping[str, str]) -> Gated | None:
    """Say of a pair that is not measured that it fails the gate; None of the others."""
    if entry.problem is not None:
        return not_run(entry, reason_of(entry, entry.problem))
    return not_run(entry, left_out[entry.name]) if entry.name in left_out else None


@dataclass(eq=False)
class Seen:
    """What the units of a first walk say together; `take` them in the pairs' order."""

    gated: list[Gated] = field(default_factory=list)
    run: list[Entry] = field(default_factory=list)
    layouts: dict[str, Layout] = field(default_factory=dict)
    _units: list[Untouched] = field(default_factory=list)  # of the run pairs

    def take(self, entry: Entry, unit: Untouched) -> None:
        """Take in what was measured of a pair."""
        self.gated.append(Gated(entry, **unit.gated))
        if unit.layout is not None:
            self.run.append(entry)
            self.layouts[entry.name] = unit.layout
            self._units.append(replace(unit, sums={}))

    def figures(self) -> tuple[OverPairs, InputError | None]:
        """Return masses by name, and why heads cannot be compared on the first such pair.

        A mean needs one measure: all are compared by the image if one pair allows no other.
        """
        by_image = any(unit.yardstick == BY_IMAGE for unit in self._units)
        masses = [
            {**(unit.masses or {}), **((unit.image or {}) if by_image else {})}
            for unit in self._units
        ]
        names = masses[0] if masses else MASSES
        found = {name: np.stack([one[name] for one in masses]) for name in names}
        wrong = (unit.incomparable for unit in self._units if unit.incomparable and not by_image)
        return found, next((InputError(**one) for one in wrong), None)

    @property
    def yardstick(self) -> str:
        """What heads are compared by over the pairs, of which some may allow less than others."""
        said = Counter(unit.yardstick for unit in self._units)
        for words in (BY_IMAGE, BY_DIFFERENCE):
            if count := said[words]:
                more = "; all are compared alike" if words == BY_IMAGE else ""
                some = f" ({count:,} of {len(self.run):,} pairs name no region{more})"
                return words + some * (count < len(self.run))
        return ""

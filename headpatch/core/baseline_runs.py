"""The first walk over a dataset, untouched: which pairs are run, and where heads look in them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from headpatch.core.cost import inexact, slow_pairs
from headpatch.core.donors import Layout
from headpatch.core.fast_paths import decide
from headpatch.core.gate import Gated, cautions_of, none_passed, sessions, study_of
from headpatch.core.held import Held
from headpatch.core.mean_activations import MeanZ
from headpatch.core.measures import Figures, Order, measure_of
from headpatch.core.pair_units import Keys, each_unit
from headpatch.core.session import RUNS, Session, run_both, towers_of
from headpatch.core.share import ALONE, Share
from headpatch.core.store import Store, dataset_digest
from headpatch.core.study.study import Study
from headpatch.core.untouched import FirstWalk, Seen, unmeasured
from headpatch.engine.patching import Donor, OnProgress
from headpatch.engine.selfcheck import MOST, Checks
from headpatch.errors import InputError
from headpatch.heads import Grid, Head
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import BY_IMAGE, UNNAMED
from headpatch.pairs.same_scene import need_scenes, scenes_of, with_scenes
from headpatch.stats.scenes import Scenes, by_scene

LEAST = 2
"""Scenes that an interval over pairs needs."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first walk over a dataset found."""

    gated: tuple[Gated, ...]  # every pair, in order
    entries: tuple[Entry, ...]  # those that are run: that passed, or all of a forced study
    masses: Mapping[str, Float[np.ndarray, "pairs layers heads"]]
    """By name: attention on the region, or on the image (`MASSES`; see `yardstick`), and what the
    study's rankings go by; NaN where heads cannot be compared on it."""
    grid: Grid  # the heads
    reference: MeanZ | None  # over the run pairs; None if nothing is changed, or there is no mean
    valid: bool  # whether all that are run passed
    widens: bool  # whether language-model heads of every pair are changed by widening passes
    cautions: tuple[str, ...] = ()
    """Both answers are unlikely in some pairs, or another prompt was asked than the run's."""
    open_pairs: Held | None = None  # those that are still open, if they were asked for
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of the run pairs, by name
    incomparable: InputError | None = None  # why heads cannot be compared on the first such pair
    checks: Checks = field(default_factory=lambda: Checks().decided())
    """How the fast paths did on these pairs, for the heads that they were run for."""
    slow: tuple[str, ...] = ()
    """On which pairs they are not used, why and at what price; empty if they are on all."""
    keys: Keys | None = None  # names units of these pairs; None of a survey that was put together
    yardstick: str = ""
    """What heads are compared by, in words; empty if by attention to regions that are named."""
    divided: bool = False  # whether other processes have opened some of the pairs

    @property
    def held(self) -> Mapping[str, Session]:
        """Pairs that are still open, by name."""
        return self.open_pairs.sessions if self.open_pairs is not None else {}

    @cached_property
    def scenes(self) -> Scenes:
        """The number of the scene that each run pair shows: the unit of statistics over pairs."""
        return scenes_of(self.entries)

    @cached_property
    def digest(self) -> str:
        """A hash of the run pairs: what a mean over them hangs on."""
        return dataset_digest(self.entries)

    @property
    def ld_gaps(self) -> Float[np.ndarray, " pairs"]:
        """LD_with - LD_without (logits) of each pair that is run."""
        gap = {one.entry.name: one.ld_with - one.ld_without for one in self.gated}
        return np.array([gap[entry.name] for entry in self.entries])

    @property
    def prompts(self) -> tuple[str, ...]:
        """The pairs' prompts, with ``{question}`` in place of the question, each once."""
        return tuple(dict.fromkeys(one.prompt for one in self.gated if one.prompt))

    @property
    def question(self) -> str:
        """The pairs' question as a title says it."""
        pairs = len(self.entries)
        asked = {" / ".join(dict.fromkeys(one.questions)) for one in self.entries}
        own = asked.pop() if len(asked) == 1 else f"each pair's own, {len(asked):,} questions"
        return f"{own} ({pairs:,} pairs)"

    @property
    def region_name(self) -> str:
        """The pairs' region as a title says it."""
        names = {entry.region.name for entry in self.entries}
        return names.pop() if len(names) == 1 else f"each pair's own ({len(names):,} regions)"

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs there are, and scenes of those that are run; and which faults: `Gated`."""
        return {
            "pairs": len(self.gated),
            "scenes": int(self.scenes.max()) + 1,
            **{
                name: sum(getattr(one, name) for one in self.gated)
                for name in ("passed", "wrong_sign", "neither", "doubtful")
            },
        }

    def gate_columns(self) -> dict[str, list[Any]]:
        """Return the columns of ``gate.csv``: a row for each pair, its factors at the end."""
        asks_twice = any(one.entry.question_without for one in self.gated)
        own = any(one.entry.answers for one in self.gated)
        rows = [
            {
                "pair": one.entry.name,
                "scene": one.entry.scene,
                "line": one.entry.line,
                "region": one.entry.region.name,
                "question": one.entry.question,
                **({"question_without": one.entry.question_without or ""} if asks_twice else {}),
                **({"answers": ", ".join(one.entry.answers or ())} if own else {}),
                "ld_with": one.ld_with,
                "ld_without": one.ld_without,
                "passed": one.passed,
                "reason": one.reason,
                **one.columns(),
            }
            for one in self.gated
        ]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        for name in dict.fromkeys(name for one in self.gated for name in one.entry.factors):
            if name not in columns:  # a table's own `reason`, say, gives way
                columns[name] = [one.entry.factors.get(name, "") for one in self.gated]
        return columns

    def as_compared(self, pair: Pair) -> Pair:
        """Return a pair whose heads are compared as those of all pairs are."""
        alike = self.yardstick.startswith(BY_IMAGE) and not pair.region.whole
        return replace(pair, region=UNNAMED) if alike else pair

    def compare(self) -> None:
        """Refuse to compare heads by attention where a pair's region does not allow it."""
        if self.incomparable is not None:
            raise self.incomparable

    def order(self, by: str) -> tuple[Head, ...]:
        """Return the heads in the order of a ranking by mean figures; refuses as `compare`."""
        self.compare()
        return tuple(Head(*divmod(int(index), self.grid.heads)) for index in self.ranking(by))

    def ranking(self, by: str, places: Sequence[int] | slice = slice(None)) -> Order:
        """Return the order of all heads, by mean figures over the run pairs or some of them."""
        measure, scenes = measure_of(by), self.scenes[places]
        means: Figures = {
            key.name: by_scene(self.masses[key.name][places], scenes).mean(0)
            for key in measure.keys
        }
        return measure.order(means, self.grid)

    def knows(self, names: Sequence[str]) -> bool:
        """Whether the pairs were measured for these rankings."""
        return all(key.name in self.masses for by in names for key in measure_of(by).keys)

    def mean_masses(self, name: str) -> Float[np.ndarray, "layers heads"]:
        """Return a figure of `masses`, averaged over the run pairs' scenes."""
        mean: Float[np.ndarray, "layers heads"] = by_scene(self.masses[name], self.scenes).mean(0)
        return mean

    def without(self, reasons: Mapping[str, str]) -> "Survey":
        """Return the survey without some pairs, which fail the gate for reasons of their own.

        An `InputError` if too few are left. Means over the pairs are still over all.
        """
        if not reasons:
            return self
        gated = tuple(
            replace(one, passed=False, reason=reasons[one.entry.name])
            if one.entry.name in reasons
            else one
            for one in self.gated
        )
        kept = [place for place, one in enumerate(self.entries) if one.name not in reasons]
        entries = tuple(self.entries[place] for place in kept)
        if len({one.scene for one in entries}) < LEAST:
            first = next(one for one in gated if one.entry.name in reasons)
            found = f"{len(entries)} of {len(self.entries)} pairs are left"
            found += f" (line {first.entry.line}: {first.reason})"
            raise InputError("--pairs", found, f"at least {LEAST}, which an interval takes")
        masses = {name: values[kept] for name, values in self.masses.items()}
        layouts = {one.name: self.layouts[one.name] for one in entries}
        return replace(self, gated=gated, entries=entries, masses=masses, layouts=layouts)

    def open(self, study: Study, vlm: VLM, positions: Positions | None, vision: bool) -> "Opener":
        """Return what opens pairs, those that are held as they are."""
        return Opener(study, vlm, positions, vision, self.held, self.checks)

    def donor(
        self, study: Study, vlm: VLM, entry: Entry, positions: Positions | None, vision: bool
    ) -> Donor:
        """Return the untouched runs of a pair of which others take z: held, or run again."""
        session = self.held.get(entry.name)
        if session is None:
            session = run_both(study_of(study, entry), vlm, entry.pair(), positions, vision)
        return Donor(entry.name, session.base.trace)


@dataclass(frozen=True, eq=False)
class Opener:
    """Opens pairs of a dataset, whether or not they pass the gate: the survey was that."""

    study: Study
    vlm: VLM
    positions: Positions | None
    vision: bool = False
    held: Mapping[str, Session] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)

    def __call__(self, entry: Entry) -> Session:
        """Open a pair, or return it as it is held."""
        judged = self.study.model_copy(update={"force": True})
        how = self.positions, None, self.vision, self.held, self.checks
        return next(sessions(judged, self.vlm, [entry], *how))


def survey(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    positions: Positions | None = None,
    on_progress: OnProgress | None = None,
    vision: bool = False,
    hold: bool = False,
    *,
    lean: bool = False,
    means: bool = True,
    store: Store | None = None,
    share: Share = ALONE,
    count: Literal[0, 1] = 0,
) -> Survey:
    """Run every pair untouched; fewer than `LEAST` scenes that pass the gate are an error.

    With `hold` pairs stay open for the second walk, so that their pictures are not run again; more
    of them do if `lean` (`headpatch.core.held.lean`).
    `means`: whether mean z over them is needed, where heads are changed. `store`, `share` and
    `count` are as in `headpatch.core.pair_units.each_unit`.
    """
    entries = with_scenes(entries)
    left_out = [unmeasured(entry, share.left_out) for entry in entries]
    walked = [entry for entry, out in zip(entries, left_out, strict=True) if out is None]
    reference = MeanZ(positions, vision) if means and towers_of(positions, vision) else None
    if reference is not None and not reference.small:  # every process runs all: no file holds this
        store, share = None, ALONE
    held = Held(vlm.device, study.pairs.hold, lean)
    keys, checks = Keys(vlm), Checks()
    kept, compared = held if hold else None, checks if share.alone else None
    mixed = any(entry.region.whole for entry in walked)
    walk = FirstWalk(study, vlm, positions, vision, reference, kept, compared, keys, mixed)
    units = each_unit(
        walked, walk.open, "Running the pairs", lambda: walk.names(walked), walk.measure,
        on_progress, store=store, share=share, count=count,
    )  # fmt: skip
    seen = Seen()
    for entry, out in zip(entries, left_out, strict=True):
        if out is not None:
            seen.gated.append(out)
            continue
        unit = next(units)
        seen.take(entry, unit)
        if reference is not None and unit.masses is not None:
            reference.add(unit.sums, len(RUNS))
    gated, run, layouts = seen.gated, seen.run, seen.layouts
    if len({entry.scene for entry in run}) < LEAST and store is not None and share.alone:
        store.remove()  # refused below: nothing goes on from there
    if not run:
        raise none_passed(gated)

    def need(number: int) -> None:
        if number < LEAST:
            not_run = next((one for one in gated if np.isnan(one.ld_with)), None)
            why = f" (line {not_run.entry.line}: {not_run.reason})" if not_run else ""
            problem = f"{len(run)} of {len(entries)} pairs pass the gate{why}"
            expected = f"at least {LEAST}, which an interval over pairs needs"
            raise InputError("--pairs", problem, expected, "Add pairs, or set pairs.margin lower.")

    need_scenes(run, need)
    figures, incomparable = seen.figures()
    mean = reference if reference is not None and reference.here else None
    valid = not study.force or all(one.passed for one in gated)
    here = walk.measured == len(walked) and share.alone
    if towers_of(positions, vision) and not here:  # as if they had been measured here, in order
        own = (entry.pair() for entry in _first_of_each(run, layouts))
        checks = decide(study, vlm, own, positions, vision)
    checks = checks.decided()
    again = Opener(study, vlm, positions, vision, held.sessions, checks)
    more = held, layouts, incomparable, checks, _slow(run, layouts, checks, again), keys
    cautions = cautions_of(study, gated, run, layouts)
    how = figures, vlm.lm.grid, mean, valid, checks.widens, cautions, *more
    last = seen.yardstick, not share.alone
    return Survey(tuple(gated), tuple(run), *how, *last)


def _slow(
    entries: Sequence[Entry], layouts: Mapping[str, Layout], checks: Checks, opened: Opener
) -> tuple[str, ...]:
    """Say on which pairs fast paths are not used, why and at what price.

    A layout's first pairs are compared: if none of them agrees, all of the layout are meant.
    """
    slow: dict[str, list[str]] = {}
    compared = _first_of_each(entries, layouts)
    for tower, name in checks.refused:
        entry = next(one for one in entries if one.name == name)
        alike = [one.name for one in entries if layouts[one.name].shape == layouts[name].shape]
        first = [one.name for one in compared if one.name in alike]
        of_all = all((tower, one) in checks.refused for one in first)
        if of_all and name != first[0]:
            continue  # said of all already
        slow.setdefault(inexact(opened(entry), tower), []).extend(alike if of_all else [name])
    return slow_pairs(slow, len(entries))


def _first_of_each(entries: Sequence[Entry], layouts: Mapping[str, Layout]) -> list[Entry]:
    """Return the first pairs of each shape: what the fast paths are compared on lies in them."""
    seen, first = Counter[object](), list[Entry]()
    for entry in entries:
        shape = layouts[entry.name].shape
        seen[shape] += 1
        if seen[shape] <= MOST:
            first.append(entry)
    return first

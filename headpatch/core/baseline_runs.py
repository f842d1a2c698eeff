"""Walks over a dataset: the first, untouched, and those that open its pairs again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from headpatch.core.cost import inexact, slow_pairs
from headpatch.core.donors import Layout, donors_of, layout_of
from headpatch.core.gate import Gated, of_the_row, sessions, study_of
from headpatch.core.held import Held
from headpatch.core.mean_activations import MeanZ, mean_z
from headpatch.core.ranking import MASSES, descending, masses
from headpatch.core.session import Session, run_both, towers_of
from headpatch.core.store import Store
from headpatch.core.study.options import Changes
from headpatch.core.study.study import Study
from headpatch.engine.patching import Donor, OnProgress, ZMeans
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError
from headpatch.heads import Head, Tower
from headpatch.kinds import averages, donated
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.same_scene import need_scenes, scenes_of, with_scenes
from headpatch.stats.effects import DOUBTFUL_BELOW
from headpatch.stats.scenes import Scenes, by_scene, shared_words

LEAST = 2
"""Scenes that an interval over pairs needs."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first walk over a dataset found."""

    gated: tuple[Gated, ...]  # every pair, in order
    entries: tuple[Entry, ...]  # those that are run: that passed, or all of a forced study
    masses: Mapping[str, Float[np.ndarray, "pairs layers heads"]]
    """By name (`MASSES`): attention on the region; NaN where heads cannot be compared on it."""
    reference: MeanZ | None  # over the run pairs; None if nothing is changed, or there is no mean
    valid: bool  # whether all that are run passed
    widens: bool  # whether language-model heads of every pair are changed by widening passes
    cautions: tuple[str, ...] = ()
    """Both answers are unlikely in some pairs, or another prompt was asked than the run's."""
    held: Mapping[str, Session] = field(default_factory=dict)  # still open, by name, if asked for
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of the run pairs, by name
    incomparable: InputError | None = None  # why heads cannot be compared on the first such pair
    checks: Checks = field(default_factory=lambda: Checks().decided())
    """How the fast paths did on these pairs, for the heads that they were run for."""
    slow: tuple[str, ...] = ()
    """On which pairs they are not used, why and at what price; empty if they are on all."""

    @cached_property
    def scenes(self) -> Scenes:
        """The number of the scene that each run pair shows: the unit of statistics over pairs."""
        return scenes_of(self.entries)

    @property
    def ld_gaps(self) -> Float[np.ndarray, " pairs"]:
        """LD_with - LD_without (logits) of each pair that is run."""
        gap = {one.entry.name: one.ld_with - one.ld_without for one in self.gated}
        return np.array([gap[entry.name] for entry in self.entries])

    @property
    def prompts(self) -> tuple[str, ...]:
        """The pairs' prompts, with ``{question}`` in place of the question, each once."""
        return tuple(dict.fromkeys(one.prompt for one in self.gated))

    @property
    def question(self) -> str:
        """The pairs' question as a title says it."""
        asked, pairs = {entry.question for entry in self.entries}, len(self.entries)
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
        rows = [
            {
                "pair": one.entry.name,
                "scene": one.entry.scene,
                "line": one.entry.line,
                "region": one.entry.region.name,
                "question": one.entry.question,
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

    def compare(self) -> None:
        """Refuse to compare heads by attention where a pair's region does not allow it."""
        if self.incomparable is not None:
            raise self.incomparable

    def order(self) -> tuple[Head, ...]:
        """Return the heads, the largest mean attention difference first; refuses as `compare`."""
        self.compare()
        diff = self.mean_masses("diff")
        return tuple(Head(*divmod(index, diff.shape[1])) for index in descending(diff))

    def mean_masses(self, name: str) -> Float[np.ndarray, "layers heads"]:
        """Return masses of `MASSES`, averaged over the run pairs' scenes."""
        mean: Float[np.ndarray, "layers heads"] = by_scene(self.masses[name], self.scenes).mean(0)
        return mean

    def opened(
        self, study: Study, vlm: VLM, positions: Positions | None, vision: bool = False
    ) -> Iterator[Session]:
        """Open the run pairs one after the other, those that are held as they are."""
        judged = study.model_copy(update={"force": True})  # the survey was the gate
        more = self.held, self.checks
        return sessions(judged, vlm, self.entries, positions, None, vision, *more)

    def donor(
        self, study: Study, vlm: VLM, entry: Entry, positions: Positions | None, vision: bool
    ) -> Donor:
        """Return the untouched runs of a pair of which others take z: held, or run again."""
        session = self.held.get(entry.name)
        if session is None:
            session = run_both(study_of(study, entry), vlm, entry.pair(), positions, vision)
        return Donor(entry.name, session.base.trace)


def survey(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    positions: Positions | None = None,
    on_progress: OnProgress | None = None,
    vision: bool = False,
    hold: bool = False,
) -> Survey:
    """Run every pair untouched; fewer than `LEAST` scenes that pass the gate are an error.

    With `hold` pairs stay open for the second walk, so that their pictures are not run again.
    """
    entries, gated = with_scenes(entries), list[Gated]()

    def judge(found: Gated) -> None:
        gated.append(found)
        if on_progress:
            on_progress(len(gated), len(entries))

    reference = MeanZ(positions, vision) if positions is not None or vision else None
    held, checks = Held(vlm.device), Checks()
    found: dict[str, list[Float[np.ndarray, "layers heads"]]] = {name: [] for name in MASSES}
    run, widens, incomparable, layouts = [], True, None, dict[str, Layout]()
    slow: dict[str, list[str]] = {}
    for session in sessions(study, vlm, entries, positions, judge, vision, checks=checks):
        run.append(gated[-1].entry)
        layouts[run[-1].name] = layout_of(session)
        widens &= session.widens
        for words in filter(None, (inexact(session, tower) for tower in get_args(Tower))):
            slow.setdefault(words, []).append(run[-1].name)
        try:
            own = masses(session)
        except InputError as error:  # only a question that compares heads is refused
            incomparable = incomparable or of_the_row(error, run[-1])
            grid = vlm.lm.grid
            own = dict.fromkeys(MASSES, np.full((grid.layers, grid.heads), np.nan))
        for name, values in own.items():
            found[name].append(values)
        if reference is not None:
            reference.add(session)
        if hold:
            held.offer(session)
        del session  # its caches go before the next pair's are made

    def need(count: int) -> None:
        if count < LEAST:
            problem = f"{len(run)} of {len(entries)} pairs pass the gate"
            expected = f"at least {LEAST}, which an interval over pairs needs"
            raise InputError("--pairs", problem, expected, "Add pairs, or set pairs.margin lower.")

    need_scenes(run, need)
    figures = {name: np.stack(values) for name, values in found.items()}
    mean = reference if reference is not None and reference.here else None
    valid = not study.force or all(one.passed for one in gated)
    decided = checks.decided(), slow_pairs(slow, len(run))
    more = _cautions(study, gated, run), held.sessions, layouts, incomparable, *decided
    return Survey(tuple(gated), tuple(run), figures, mean, valid, widens, *more)


def _cautions(study: Study, gated: Sequence[Gated], run: Sequence[Entry]) -> tuple[str, ...]:
    shared = shared_words(len(run), len({entry.scene for entry in run}))
    reworded = (*filter(None, [shared]), *study.reworded(gated[0].prompt))
    if not (doubtful := sum(one.doubtful for one in gated)):
        return reworded
    answers = " and ".join(study.answers)
    return (
        f"in {doubtful:,} of {len(gated):,} pairs {answers} have less than {DOUBTFUL_BELOW:g} of "
        "the probability together; see gate.csv for what the model says",
        *reworded,
    )


def walk(
    study: Study,
    vlm: VLM,
    survey: Survey,
    options: Changes,
    positions: Positions | None,
    vision: bool,
    on_progress: OnProgress | None,
) -> Iterator[tuple[Session, ZMeans | None, OnProgress]]:
    """Yield the run pairs open, each with the mean z that its kinds need, and its progress."""
    done_pairs, pairs = 0, len(survey.entries)
    donors = donors_of(study, survey.entries, survey.layouts) if donated(options.kinds) else {}

    def advance(done: int, total: int) -> None:
        if on_progress:
            on_progress(done_pairs * total + done, pairs * total)

    for session in survey.opened(study, vlm, positions, vision):
        means = None
        if averages(options.kinds):
            known, towers = survey.reference, towers_of(positions, vision)
            means = known.of(session) if known else mean_z(session, None, options.reference, towers)
        base = session.base
        if donors:
            donor = survey.donor(study, vlm, donors[session.pair.name], positions, vision)
            base = replace(base, donor=donor)
        yield replace(session, base=base), means, advance
        done_pairs += 1
        del session, base  # its caches go before the next pair's are made


def measured(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    keys: Mapping[str, str],
    positions: Positions,
    store: Store,
    measure: Callable[[Session], Mapping[str, Any]],
    checks: Checks,
    held: Mapping[str, Session] | None = None,
) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield what is saved of each pair, in order; what is not is measured, and saved.

    The gate is not applied again: `entries` are those that are run. `keys`, by the pair's name,
    hash all that its numbers depend on (`headpatch.core.store.unit_key`). `checks` are
    decided: they hang on all pairs, not on those that are left. `held` are sessions that are still
    open.
    """
    judged = study.model_copy(update={"force": True})
    known = {name: store.get(key) for name, key in keys.items()}
    left = [entry for entry in entries if known[entry.name] is None]
    opened = sessions(judged, vlm, left, positions, held=held, checks=checks)
    for entry in entries:
        unit = known.pop(entry.name)
        if unit is None:
            session = next(opened)
            unit = dict(measure(session))
            del session  # its caches go before the next pair's are made
            store.put(keys[entry.name], unit)
        yield entry, unit

"""The first walk over a dataset: which pairs pass the gate, where heads look, their mean z."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.core.dataset_mean import MeanZ
from headpatch.core.gate import Gated, of_the_row, sessions
from headpatch.core.ranking import MASSES, masses, ranks
from headpatch.core.session import Session
from headpatch.core.session_cache import Held
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.stats.effects import DOUBTFUL_BELOW

LEAST = 2
"""Pairs that an interval over pairs needs."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first walk over a dataset found.

    Attributes
    ----------
    gated
        Every pair, in order.
    entries
        The pairs that are run: those that passed, or all of a forced study.
    masses
        By name (`headpatch.core.ranking.MASSES`): each run pair's attention on its region; NaN
        where heads cannot be compared on it.
    reference
        Mean z over the run pairs; None if no heads are to be changed, or there is no such mean.
    valid
        Whether all that are run passed.
    widens
        Whether language-model heads of every pair can be changed by widening passes.
    cautions
        What a reader should know: both answers are unlikely in some pairs, or another prompt was
        asked than in the run that is run again.
    held
        Run pairs that are still open, by name, if asked for: as many as memory allows.
    incomparable
        Why heads cannot be compared by attention on the first pair where they cannot; None if they
        can on every one.
    """

    gated: tuple[Gated, ...]
    entries: tuple[Entry, ...]
    masses: Mapping[str, Float[np.ndarray, "pairs layers heads"]]
    reference: MeanZ | None
    valid: bool
    widens: bool
    cautions: tuple[str, ...] = ()
    held: Mapping[str, Session] = field(default_factory=dict)
    incomparable: InputError | None = None

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
    def words(self) -> dict[str, Any]:
        """Words for the title of a figure: question, region, and whether all is valid."""
        return {"question": self.question, "region": self.region_name, "valid": self.valid}

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs there are, pass the gate, say neither answer, or make both unlikely."""
        return {
            "pairs": len(self.gated),
            "passed": sum(one.passed for one in self.gated),
            "neither": sum(one.neither for one in self.gated),
            "doubtful": sum(one.doubtful for one in self.gated),
        }

    def gate_columns(self) -> dict[str, list[Any]]:
        """Return the columns of ``gate.csv``: a row for each pair, its factors at the end."""
        columns: dict[str, list[Any]] = {
            "pair": [one.entry.name for one in self.gated],
            "line": [one.entry.line for one in self.gated],
            "region": [one.entry.region.name for one in self.gated],
            "question": [one.entry.question for one in self.gated],
            "ld_with": [one.ld_with for one in self.gated],
            "ld_without": [one.ld_without for one in self.gated],
            "passed": [one.passed for one in self.gated],
            "reason": [one.reason for one in self.gated],
        }
        answers = [one.columns() for one in self.gated]
        columns |= {name: [one[name] for one in answers] for name in answers[0]}
        for name in dict.fromkeys(name for one in self.gated for name in one.entry.factors):
            if name not in columns:  # a table's own `reason`, say, gives way
                columns[name] = [one.entry.factors.get(name, "") for one in self.gated]
        return columns

    def compare(self) -> None:
        """Refuse to compare heads by their attention where a pair's region does not allow it.

        Raises
        ------
        InputError
            If heads cannot be compared on the region of a pair; it names the pair's line.
        """
        if self.incomparable is not None:
            raise self.incomparable

    def order(self) -> tuple[Head, ...]:
        """Return the heads, the largest mean attention difference first.

        Raises
        ------
        InputError
            As `compare`.
        """
        self.compare()
        diff = self.masses["diff"].mean(0)
        by_rank = ranks(diff).ravel().argsort()
        return tuple(
            Head(int(index) // diff.shape[1], int(index) % diff.shape[1]) for index in by_rank
        )


def survey(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    positions: Positions | None = None,
    on_progress: OnProgress | None = None,
    on_gate: Callable[[Gated], None] | None = None,
    vision: bool = False,
    hold: bool = False,
) -> Survey:
    """Run every pair untouched.

    Parameters
    ----------
    positions
        Where language-model heads are to be changed; None if none are.
    vision
        Whether vision heads are to be changed.
    hold
        Keep pairs open for the second walk, so that their pictures are not run again.

    Raises
    ------
    InputError
        If a pair cannot be run, or fewer than `LEAST` pairs pass the gate.
    """
    gated: list[Gated] = []

    def judge(found: Gated) -> None:
        gated.append(found)
        if on_gate:
            on_gate(found)
        if on_progress:
            on_progress(len(gated), len(entries))

    reference = MeanZ(positions, vision) if positions is not None or vision else None
    held = Held(vlm.device)
    found: dict[str, list[Float[np.ndarray, "layers heads"]]] = {name: [] for name in MASSES}
    run, widens, incomparable = [], True, None
    for session in sessions(study, vlm, entries, positions, judge, vision):
        run.append(gated[-1].entry)
        widens &= session.widens
        try:
            figures = masses(session)
        except InputError as error:  # only a question that compares heads is refused
            incomparable = incomparable or of_the_row(error, run[-1])
            grid = vlm.lm.grid
            figures = dict.fromkeys(MASSES, np.full((grid.layers, grid.heads), np.nan))
        for name, values in figures.items():
            found[name].append(values)
        if reference is not None:
            reference.add(session)
        if hold:
            held.offer(session)
        del session  # its caches go before the next pair's are made
    if len(run) < LEAST:
        raise InputError(
            "--pairs",
            f"{len(run)} of {len(entries)} pairs pass the gate",
            f"at least {LEAST}, which an interval over pairs needs",
            "Add pairs, or set pairs.margin lower.",
        )
    valid = not study.force or all(one.passed for one in gated)
    return Survey(
        tuple(gated),
        tuple(run),
        {name: np.stack(values) for name, values in found.items()},
        reference if reference is not None and reference.here else None,
        valid,
        widens,
        _cautions(study, gated),
        held.sessions,
        incomparable,
    )


def _cautions(study: Study, gated: Sequence[Gated]) -> tuple[str, ...]:
    found = study.reworded(gated[0].prompt)
    if doubtful := sum(one.doubtful for one in gated):
        yes, no = study.answers
        return (
            f"in {doubtful:,} of {len(gated):,} pairs {yes} and {no} have less than "
            f"{DOUBTFUL_BELOW:g} of the probability together; see gate.csv for what the model says",
            *found,
        )
    return found

"""What changes of heads cost, in forward passes of the prompt, and how that is said."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from headpatch.core.effects import check_toward, refuse_reweighting
from headpatch.core.mean_activations import reference_pairs
from headpatch.core.session import Session, check_vision
from headpatch.core.study.study import Study
from headpatch.engine import attribution, edges, vision, widen
from headpatch.engine.interventions import Intervention, check_scope
from headpatch.engine.patching import PLAIN_BATCH
from headpatch.engine.selfcheck import Check
from headpatch.engine.widen import rows_that_fit, rows_within, suffix_start
from headpatch.errors import InputError
from headpatch.heads import HeadSet, Tower
from headpatch.kinds import averages, donated
from headpatch.models.prompt import Prompt, encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.session import Session

_NAMED = 3  # pairs that a sentence names


@dataclass(frozen=True)
class Beside:
    """Forward passes that a run takes besides those of its rows."""

    means: int = 0  # over reference pairs, for kind ``mean``
    rechecks: int = 0  # at most: rows that are run again in float32 (`noise_floor.floor_of`)
    donors: int = 0  # of another pair, if that is not held open

    @classmethod
    def of(
        cls, session: Session, kinds: Sequence[str], reference: int | None, widened: bool
    ) -> "Beside":
        """Say what a run takes; `widened`: language-model heads are among those that change."""
        low = widened and session.widens and session.vlm.dtype != torch.float32
        each = session.prompt.runs  # untouched rows, and runs of a pair
        drawn = reference_pairs(session.pair, reference) * averages(kinds)
        return cls(each * drawn, (PLAIN_BATCH - 1 + each) * low, each * donated(kinds))

    @property
    def total(self) -> int:
        """All of them."""
        return self.means + self.rechecks + self.donors


def cost(
    session: Session, asked: Sequence[Intervention], size: int | None = None, tower: Tower = "lm"
) -> float:
    """Return what rows of one tower cost, their untouched rows included.

    For the vision tower each of `asked` holds one of its heads. `size` is how many rows are run
    together; None leaves it to the path that runs them.
    """
    each = size or PLAIN_BATCH - 1
    if not asked:
        return 0.0
    if tower == "vision":
        return vision.equivalents(session.vlm, session.base, asked, each + 1, session.resumes)
    total = 0.0
    for run, prefill in enumerate(session.base.trace.prefills):
        of_run = [one for one in asked if one.run == run]
        plain = len(of_run)
        if session.widens:
            sets = [one.heads for one in of_run if not one.follows]
            layers, plain = session.vlm.lm.grid.layers, plain - len(sets)
            total += widen.passes(
                prefill, sets, layers, size or rows_that_fit(session.vlm, prefill)
            )
        total += plain + -(-plain // each)
    return total


def widened(
    study: Study,
    vlm: VLM,
    pairs: Pair | Sequence[Entry],
    rows: int,
    positions: Positions = "answer",
) -> float:
    """Return about what changed heads or sets cost, in forward passes, before anything was run.

    A change goes through the layers above it, half of all in the mean, at the tokens from the first
    that it is made at on: of the pair, or the first of several that can be read.
    """
    for _, prompt in asked_of(study, vlm, pairs):
        spans = prompt.spans
        return rows / 2 * (1 - suffix_start(spans, positions) / spans.length)
    return rows / 2


def asked_of(
    study: Study, vlm: VLM, pairs: Pair | Sequence[Entry]
) -> Iterator[tuple[Pair, Prompt]]:
    """Yield the pairs that can be asked, with their prompts."""
    for pair in (pairs,) if isinstance(pairs, Pair) else (entry.pair() for entry in pairs):
        try:
            own = study.of_pair(pair)
            how = own.answers, own.framing, own.sum_variants
            prompt = encode(vlm, pair.images, pair.questions, *how)
        except InputError:  # of a pair that is refused later, with its reason
            continue
        yield pair, prompt


def passes(count: float) -> str:
    """Write a number of forward passes."""
    return f"{count:{',.1f' if count >= 1 else '.1g'}} forward passes"


def inexact(session: "Session", tower: Tower = "lm") -> str:
    """Say, where a tower's fast path is not exact, why, what is done instead and what it costs.

    Nothing where it is. The price is that of changing every head once.
    """
    fast, path, where = session.fast, "widening", f"at positions {session.positions}"
    if tower == "vision":
        fast, path, where = session.fast_vision, "resumed", "in its vision tower"
    if fast is None or fast.exact:
        return ""
    why = f"the {path} pass is not exact for {session.vlm.name} {where} ({fast.why})"
    why += ": every row gets a forward pass of its own"
    many, few = _both_prices(session, tower)
    if not few:
        return f"{why} ({many:,.0f} passes for every head once)"
    price = f"about {many / few:,.2g} times as many passes"
    if many >= 10 * few:
        price = f"about {many / few:,.0f} times as many passes"
    return f"{why}: {price} ({many:,.0f} instead of {few:,.1f} for every head once)"


def _both_prices(session: "Session", tower: Tower) -> tuple[float, float]:
    """Return what changing every head once costs without a fast path and with it, if it can run."""
    where = session.positions if tower == "lm" else None
    heads = map(HeadSet.of, session.vlm.stack(tower).grid)
    asked = [Intervention(one, "zero", "noising", where or "answer") for one in heads]
    used = replace(session, fast=Check(0.0, 0.0), fast_vision=Check(0.0, 0.0))
    runs = tower == "vision" or bool(session.base.trace.prefills[0].layers)
    return cost(session, asked, tower=tower), cost(used, asked, tower=tower) if runs else 0.0


def slow_pairs(slow: Mapping[str, Sequence[str]], pairs: int) -> tuple[str, ...]:
    """Name the pairs, of so many, on which fast paths are not used, by what `inexact` said."""
    return tuple(
        words if len(names) == pairs else f"{_named(names)}: {words}"
        for words, names in slow.items()
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    first = ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return f"pair {first}" if len(names) == 1 else f"pairs {first}"


def in_all(rows: float, included: str, beside: "Beside", survey: "Survey | None") -> str:
    """Write the cost of rows (with what is `included`), of what comes besides, and the sum."""
    means, rechecks, again, donors = beside.means, beside.rechecks, 0, 0
    if survey is not None:  # the first pair's are done
        means *= 0 if survey.reference is not None else len(survey.entries) - 1
        rechecks *= len(survey.entries)
        if not survey.divided:  # else pairs are mostly changed where they are open
            again = 2 * sum(entry.name not in survey.held for entry in survey.entries[1:])
        donors = beside.donors * sum(entry.name not in survey.held for entry in survey.entries)
    parts = {
        "{:,} over reference pairs for their mean": means,
        "{:,} for pairs that memory does not hold open": again,
        "about {:,} for such pairs that z is taken from": donors,
        "at most {:,} to check the noise floor in float32": rechecks,
    }
    more = ", ".join(words.format(count) for words, count in parts.items() if count)
    if not more:
        return passes(rows) + included
    return f"{passes(rows)}{included}, and {more}: {rows + sum(parts.values()):,.1f} in all"


_MIB = 1 << 20
_GRADIENT_PASSES = 4  # both runs, forwards and backwards; no weight gets a gradient


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sweep is going to do."""

    sets: tuple[HeadSet, ...]  # changed one after the other
    every: bool  # whether they are every head alone
    asked: tuple[Intervention, ...]  # of the sets and whole layers, then of the noise floor
    noise: int  # how many sets are patched with their own z
    size: int | None  # rows that are run together; None leaves it to the path that runs them
    passes: float  # cost of the rows and of `approx`, in forward passes of the prompt
    layers: tuple[HeadSet, ...] = ()  # whole layers, changed beside every head
    tower: Tower = "lm"
    approx: bool = False  # whether gradients estimate the same effects
    beside: Beside = field(default_factory=Beside)

    @property
    def total(self) -> float:
        """Cost of all that comes after the two untouched runs and the self-check."""
        return self.passes + self.beside.total


def opening(study: Study) -> tuple[Positions | None, bool]:
    """Return how `open_session` opens a session for the study's sweep: positions, and vision."""
    options = study.sweep
    return (options.positions, False) if options.tower == "lm" else (None, True)


def refuse(study: Study, vlm: VLM) -> None:
    """Refuse, once the model is loaded and before it runs, what it cannot do."""
    options = study.sweep
    if options.approx and (why := attribution.refused(vlm)):
        raise InputError("--approx", why, "a model with gradients", "Leave --approx out.")
    refuse_reweighting(vlm, options.kinds)
    if options.tower == "vision":
        check_vision(vlm)
        check_scope(vlm, study.vision.positions)


def plan(session: Session, sets: Sequence[HeadSet] | None = None, tower: Tower = "lm") -> Plan:
    """Work out what a sweep of `sets`, or (None) of every head, takes."""
    options = session.study.sweep
    refuse(session.study, session.vlm)
    check_toward(session, options.kinds, options.toward)
    if options.edges is not None and (why := edges.refused(session.vlm, session.prompt)):
        raise InputError("--edges", why, "a model whose heads write into the stream as they do")
    grid = session.vlm.stack(tower).grid
    every = sets is None
    chosen = tuple(dict.fromkeys(map(HeadSet.of, grid) if sets is None else sets))
    if not chosen or not all(map(len, chosen)):
        raise InputError("sets", "an empty one", "sets of at least one head")
    for head in {head for members in chosen for head in members}:
        grid.check(head, "sets")
    whole = [one for one in grid.whole_layers() if len(one) > 1]  # a layer of one head is that head
    layers = tuple(whole) if options.layers and every else ()
    more = options.positions, session.study.vision.positions, options.alpha, options.toward
    kinds, directions = dict.fromkeys(options.kinds), dict.fromkeys(options.directions)
    asked = [
        Intervention(members, kind, direction, *more)
        for kind, direction in product(kinds, directions)
        for members in (*chosen, *layers)
    ]
    rng = np.random.default_rng([session.study.seed % 2**64, len(chosen)])
    count = min(options.noise, len(chosen))
    drawn = sorted(rng.choice(len(chosen), size=count, replace=False).tolist())
    selves = product(directions, drawn)
    asked += [Intervention(chosen[index], "self", way, *more) for way, index in selves]
    size = _size(session, tower)
    price = cost(session, asked, size, tower) + _backward(session.study)
    beside = Beside.of(session, options.kinds, options.reference, tower == "lm")
    rest = layers, tower, options.approx, beside
    return Plan(chosen, every, tuple(asked), count, size, price, *rest)


def _backward(study: Study) -> int:
    """Return what the passes cost from which effects are estimated: of both runs, and between."""
    between = (study.sweep.ig or 1) - 1
    return (_GRADIENT_PASSES + _GRADIENT_PASSES // 2 * between) * study.sweep.approx


def left(session: Session, job: Plan, finished: Container[Intervention]) -> Plan:
    """Return the same plan at the price of what is not finished."""
    asked = [one for one in job.asked if one not in finished]
    price = cost(session, asked, job.size, job.tower) + _backward(session.study)
    return replace(job, passes=price)


def _size(session: Session, tower: Tower) -> int | None:
    """How many rows run together: as the study says, as its budget allows, or what fits."""
    options = session.study.sweep
    size = options.rows
    if tower == "vision":
        return size
    prefill = session.base.trace.prefills[0]
    if size is None and session.widens:
        size = rows_that_fit(session.vlm, prefill)
    if options.budget is not None:
        if not session.widens:
            prefill = replace(prefill, start=0)  # a row is a whole pass
        most = rows_within(session.vlm, prefill, options.budget * _MIB)
        size = most if size is None else min(size, most)
    return size

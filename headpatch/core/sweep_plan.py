"""Changing every head, or every set of a list: the plan of it, and what it costs."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from headpatch.core.cost import Beside, cost
from headpatch.core.session import Session, check_vision
from headpatch.core.study import Study
from headpatch.engine import attribution
from headpatch.engine.interventions import Intervention, check_scope
from headpatch.engine.widen import rows_that_fit, rows_within
from headpatch.errors import InputError
from headpatch.heads import HeadSet, Tower
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM

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
    if options.tower == "vision":
        check_vision(vlm)
        check_scope(vlm, study.vision.positions)


def plan(session: Session, sets: Sequence[HeadSet] | None = None, tower: Tower = "lm") -> Plan:
    """Work out what a sweep of `sets`, or (None) of every head, takes."""
    options = session.study.sweep
    refuse(session.study, session.vlm)
    grid = session.vlm.stack(tower).grid
    every = sets is None
    chosen = tuple(dict.fromkeys(map(HeadSet.of, grid) if sets is None else sets))
    if not chosen or not all(map(len, chosen)):
        raise InputError("sets", "an empty one", "sets of at least one head")
    for head in {head for members in chosen for head in members}:
        grid.check(head, "sets")
    whole = [one for one in grid.whole_layers() if len(one) > 1]  # a layer of one head is that head
    layers = tuple(whole) if options.layers and every else ()
    more = options.positions, session.study.vision.positions, options.alpha
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
    price = cost(session, asked, size, tower) + _GRADIENT_PASSES * options.approx
    beside = Beside.of(session, options.kinds, options.reference, tower == "lm")
    rest = layers, tower, options.approx, beside
    return Plan(chosen, every, tuple(asked), count, size, price, *rest)


def left(session: Session, job: Plan, finished: Container[Intervention]) -> Plan:
    """Return the same plan at the price of what is not finished."""
    asked = [one for one in job.asked if one not in finished]
    price = cost(session, asked, job.size, job.tower) + _GRADIENT_PASSES * job.approx
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

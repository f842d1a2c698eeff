"""Changes of a pair's runs: the untouched runs, and the shift of LD that each change makes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any, Generic, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import TypeVar

from headpatch.engine.forward import Keep, Trace, forward
from headpatch.engine.interventions import (
    WITH,
    WITHOUT,
    Cut,
    Intervention,
    Toward,
    ZEdit,
    base_run,
    vision_positions,
)
from headpatch.engine.memory import halving, split
from headpatch.engine.precision import raised
from headpatch.heads import Tower
from headpatch.kinds import KINDS
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

__all__ = ["WITH", "WITHOUT", "Baseline", "Outcome", "base_run", "in_batches", "patch", "run_pair"]

PLAIN_BATCH = 8  # rows of a batch of plain passes, the untouched one included
ZMeans = dict[Tower, list[Tensor]]
"""By tower and layer: mean z, shape ``[tokens, heads, head_dim]``."""
OnProgress = Callable[[int, int], None]  # called with (done, total)
OnOutcome = Callable[["Outcome"], None]
"""Called with each outcome as soon as it is known, in the order in which they are."""
Read = Callable[[Tensor], Tensor]
"""Measures something of logits beside LD: ``[rows, vocabulary]`` to ``[rows, measures]``."""


@runtime_checkable
class OfOneRun(Protocol):
    """A change of one run of the pair: an intervention, cut edges, a swapped stream."""

    @property
    def run(self) -> int:
        """`WITH` or `WITHOUT`."""


Change = TypeVar("Change", bound=OfOneRun, default=Intervention)


@dataclass(frozen=True, eq=False)
class Donor:
    """Another pair, of which some kinds take z: its name, and both runs, the with-run first."""

    name: str
    trace: Trace


@dataclass(frozen=True, eq=False)
class Baseline:
    """Both runs of a pair, untouched: a batch of two, the with-run first, and each run's LD."""

    prompt: Prompt
    trace: Trace
    ld_with: float
    ld_without: float
    donor: Donor | None = None  # with as many tokens, at the same places
    region: Int[Tensor, " tokens"] | None = None  # positions of the pair's region, where known

    def seen_from(self, run: int) -> "Baseline":
        """Return the pair token for token as a change of one run takes it: itself, mostly.

        Of prompts of several lengths it is that run's: z of the other run stands at the places of
        its tokens' partners (`Prompt.partners`), and where a token has none, the run's own z.
        """
        return self._seen[run] if self.prompt.each else self

    @cached_property
    def _seen(self) -> tuple["Baseline", "Baseline"]:
        return self._as_seen_from(WITH), self._as_seen_from(WITHOUT)

    def _as_seen_from(self, run: int) -> "Baseline":
        own, partners = self.prompt.each[run], self.prompt.partners(run)
        prompt = replace(own, runs=2, each=())
        donor = self.donor and replace(self.donor, trace=aligned(self.donor.trace, run, partners))
        inputs = {key: torch.cat([one] * 2) for key, one in own.inputs.items()}
        prompt = replace(prompt, inputs=inputs)
        trace = aligned(self.trace, run, partners)
        return replace(self, prompt=prompt, trace=trace, donor=donor)

    def keys(self, toward: Toward | None) -> Int[Tensor, " keys"] | None:
        """Return the positions to which attention is re-weighted; None of no such change."""
        if toward is None:
            return None
        keys = self.prompt.spans.image if toward == "image" else self.region
        if keys is None or self.prompt.spans.crossed:
            raise ValueError(f"there are no tokens of the {toward} to attend to")
        return keys


@dataclass(slots=True)  # a pair has thousands: frozen ones take four times as long to make
class Outcome(Generic[Change]):
    """What one change did."""

    intervention: Change
    ld: float  # LD of the base run with the change: the untouched run's LD plus `effect`
    # Against the untouched row of its own batch, so that what the batch's shape does to
    # low-precision logits cancels.
    effect: float
    # The first generated token with the change, and in the untouched row; the likelier of the two
    # answers, where only their logits were asked for.
    token: int
    token_before: int
    read: tuple[float, ...] = ()  # effects on what else was measured (see `Read`)


def aligned(trace: Trace, run: int, partners: Int[Tensor, " tokens"]) -> Trace:
    """Return a trace of two runs, the other one's z put at the places of one run's tokens.

    Where a token has no partner there the run's own z stands.
    """
    there = partners >= 0

    def put(own: Tensor, other: Tensor, first: int = 0, other_first: int = 0) -> Tensor:
        where = there[first:]
        given = own.clone()
        given[:, where] = other[:, partners[first:][where] - other_first].to(own)
        return given

    def both(own: Tensor, other: Tensor) -> Tensor:
        return torch.cat([own, other] if run == WITH else [other, own])

    length, z = len(partners), dict(trace.z)
    if "lm" in z:
        sides = [(each[run : run + 1, :length], each[1 - run : 2 - run]) for each in z["lm"]]
        z["lm"] = [both(own, put(own, other)) for own, other in sides]
    prefills = list(trace.prefills)
    if prefills:
        own, other = prefills[run], prefills[1 - run]
        layers = tuple(
            replace(one, z=put(one.z, away.z, own.start, other.start))
            for one, away in zip(own.layers, other.layers, strict=True)
        )
        prefills[1 - run] = replace(own, layers=layers)
    return replace(trace, z=z, prefills=tuple(prefills))


def run_pair(vlm: VLM, prompt: Prompt, keep: Keep | None = None, exact: bool = False) -> Baseline:
    """Run both pictures of a pair untouched, as one batch; see `forward` for `exact`."""
    trace = forward(vlm, prompt, keep=keep, exact=exact)
    ld = trace.ld(prompt)
    return Baseline(prompt, trace, float(ld[WITH]), float(ld[WITHOUT]))


def patch(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    batch: int = PLAIN_BATCH,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    read: Read | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> list[Outcome]:
    """Run interventions the plain way: one forward pass each, several to a batch; in order.

    `base` must keep z of every tower that is changed; kind ``mean`` needs `means`; `batch` counts
    rows, the untouched one included. For `finished` and what does not fit, see `in_batches`.
    """

    def passes(asked: list[Intervention]) -> list[Outcome]:
        own = base.seen_from(asked[0].run)
        prompt = own.prompt.select(asked[0].run).repeat(len(asked) + 1)
        changes = edits_of(vlm, asked, own, means), cuts_of(asked, own)
        trace = forward(vlm, prompt, *changes, exact=True)
        tokens, more = trace.logits.argmax(-1).tolist(), beyond(read, trace.logits)
        return outcomes_of(base, asked, trace.ld(prompt), tokens, more)

    batches = batches_by_run(interventions, batch - 1)
    told = on_progress, on_outcome, finished
    with raised(vlm):
        return in_batches(base, interventions, batches, passes, *told)


def in_batches(
    base: Baseline,
    changes: Sequence[Change],
    batches: Sequence[list[int]],
    passes: Callable[[list[Change]], list[Outcome[Change]]],
    on_progress: OnProgress | None = None,
    on_outcome: Callable[[Outcome[Change]], None] | None = None,
    finished: Mapping[Change, Outcome[Change]] | None = None,
) -> list[Outcome[Change]]:
    """Run changes in batches of one run, each behind an untouched row; return outcomes in order.

    `batches` are places among the changes. Out of memory halves a batch and goes on; an
    `InputError` if not even two rows fit. `finished` are outcomes that an earlier run has left:
    taken as they are, and told to nobody. Of a batch that is not finished all rows run, since its
    shape moves the last digits of each: so the rest comes out as if nothing had been interrupted.
    """
    outcomes = known_outcomes(changes, finished)
    left = [batch for batch in batches if not all(place in outcomes for place in batch)]

    def run(batch: list[int]) -> list[Outcome[Change]]:
        return passes([changes[place] for place in batch])

    for batch, found in halving(left, run, base.trace.logits.device):
        for place, outcome in zip(batch, found, strict=True):
            if place not in outcomes:
                outcomes[place] = outcome
                if on_outcome:
                    on_outcome(outcome)
        if on_progress:
            on_progress(len(outcomes), len(changes))
    return [outcomes[place] for place in range(len(changes))]


def batches_by_run(
    changes: Sequence[OfOneRun], size: int, order: Callable[[Any], Any] | None = None
) -> list[list[int]]:
    """Cut places among changes into batches of one run.

    In the order of `order`, so that changes of one layer are together; where they leave room, the
    next layer's join them.
    """
    found = []
    for run in (WITH, WITHOUT):
        places = [place for place, one in enumerate(changes) if one.run == run]
        if order is not None:
            places.sort(key=lambda place: order(changes[place]))
        found += split(places, size)
    return found


def known_outcomes(
    changes: Sequence[Change], finished: Mapping[Change, Outcome[Change]] | None
) -> dict[int, Outcome[Change]]:
    """Return what is finished, by its place among the changes."""
    known = finished or {}
    return {place: known[one] for place, one in enumerate(changes) if one in known}


def outcomes_of(
    base: Baseline,
    changes: Sequence[Change],
    ld: Float[Tensor, " rows"],
    tokens: Sequence[int],
    more: Sequence[tuple[float, ...]] = (),
    untouched: Float[Tensor, " rows"] | None = None,
) -> list[Outcome[Change]]:
    """Return what changes of one run did, whose rows stand behind the untouched one.

    `more` is of `beyond`; `untouched`, LD that each row is compared with, if not the first's.
    """
    effects = (ld - (ld[:1] if untouched is None else untouched)).tolist()
    before, first = base.ld_without if changes[0].run else base.ld_with, tokens[0]
    rows = zip(changes, effects[1:], tokens[1:], chain(more[1:], repeat(())), strict=False)
    return [
        Outcome(one, before + effect, effect, token, first, read)
        for one, effect, token, read in rows
    ]


def shifts_of(
    base: Baseline, changes: Sequence[Change], logits: Float[Tensor, "rows vocabulary"]
) -> list[Outcome[Change]]:
    """Do what `outcomes_of` does from rows of logits, subtracted in float64."""
    ld = base.prompt.answers.ld(logits := logits.cpu()).double()
    return outcomes_of(base, changes, ld, logits.argmax(-1).tolist())


def beyond(read: Read | None, logits: Tensor) -> list[tuple[float, ...]]:
    """Return, row by row, the effects on what `read` measures; the untouched row comes first."""
    if read is None:
        return [()] * len(logits)
    found = read(logits)
    return [tuple(row) for row in (found - found[0]).tolist()]


def edits_of(
    vlm: VLM, asked: Sequence[Intervention], base: Baseline, means: ZMeans | None
) -> list[ZEdit]:
    """Say what interventions put in place of z, one a row behind an untouched one."""
    each = (z_edits(vlm, row, one, base, means) for row, one in enumerate(asked, start=1))
    return [*chain.from_iterable(each)]


def cuts_of(asked: Sequence[Intervention], base: Baseline) -> list[Cut]:
    """Say what attention interventions re-weight, one a row behind an untouched one."""
    cuts = (cut_of(row, one, base) for row, one in enumerate(asked, start=1))
    return [cut for cut in cuts if cut is not None]


def cut_of(row: int, one: Intervention, base: Baseline) -> Cut | None:
    """Say what attention an intervention re-weights in row `row`; None if it changes z."""
    if (keys := base.keys(one.toward)) is None or one.positions is None or one.alpha is None:
        return None
    where = base.prompt.spans.positions(one.positions)
    return Cut(row, one.heads, where, keys, factor=1 + one.alpha)


def z_edits(
    vlm: VLM, row: int, intervention: Intervention, base: Baseline, means: ZMeans | None
) -> Iterator[ZEdit]:
    """Say, head by head, what an intervention that changes z puts in its place in row `row`."""
    if intervention.toward is not None:
        return
    where = dict[Tower, Tensor]()
    if intervention.positions is not None:
        where["lm"] = base.prompt.spans.positions(intervention.positions)
    if intervention.vision_positions is not None:
        where["vision"] = vision_positions(vlm, base, intervention.vision_positions)
    for (tower, layer), heads in groupby(intervention.heads, attrgetter("tower", "layer")):
        positions = where[tower]
        values = _values(intervention, tower, layer, positions, base, means)
        tokens = base.trace.z["vision"][layer].shape[1] if tower == "vision" else None
        for head in heads:
            value = None if values is None else values[:, head.head]
            yield ZEdit(row, head, positions, value, tokens)


def _values(
    intervention: Intervention,
    tower: Tower,
    layer: int,
    positions: Int[Tensor, " positions"],
    base: Baseline,
    means: ZMeans | None,
) -> Float[Tensor, "positions heads head_dim"] | None:
    """Return what is put in the place of a layer's z, of every head; None for zero."""
    kind, source, run = intervention.kind, KINDS[intervention.kind].source, intervention.run
    if source == "nothing":
        return None
    giver = base.donor if KINDS[kind].donated else base
    kept = means if source == "mean" else giver.trace.z if giver is not None else None
    if kept is None:
        raise ValueError(f"kind {kind!r} needs {'means' if source == 'mean' else 'another pair'}")
    z = kept[tower][layer]
    if source != "mean" and giver is not None:
        z = z[run if source in ("own", "same of donor") else 1 - run]
        positions = positions - giver.trace.z_from if tower == "lm" else positions
    value = z[positions.to(z.device, non_blocking=True)]
    return value if intervention.alpha is None else intervention.alpha * value

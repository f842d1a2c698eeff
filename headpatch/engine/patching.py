"""Interventions on a pair: the untouched runs, and the shift of LD that each change makes."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from headpatch.engine.forward import Keep, Trace, forward
from headpatch.engine.interventions import Direction, Intervention, ZEdit, vision_positions
from headpatch.engine.memory import halving, split
from headpatch.heads import Head, Tower
from headpatch.kinds import KINDS
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

WITH, WITHOUT = 0, 1  # the runs' places in a pair's batch
PLAIN_BATCH = 8
"""Rows of a batch of plain passes, the untouched one included."""
ZMeans = dict[Tower, list[Tensor]]
"""By tower and layer: mean z, shape ``[tokens, heads, head_dim]``."""
OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""
OnOutcome = Callable[["Outcome"], None]
"""Called with each outcome as soon as it is known, in the order in which they are."""
Read = Callable[[Tensor], Tensor]
"""Measures something of logits beside LD: ``[rows, vocabulary]`` to ``[rows, measures]``."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Both runs of a pair, untouched.

    Attributes
    ----------
    prompt, trace
        A batch of two: the with-run, then the without-run.
    ld_with, ld_without
        Logit(Yes) - logit(No) of each.
    """

    prompt: Prompt
    trace: Trace
    ld_with: float
    ld_without: float


@dataclass(frozen=True)
class Outcome:
    """What one intervention did.

    Attributes
    ----------
    ld
        LD of the base run with the change: the untouched run's LD plus `effect`.
    effect
        Measured inside one batch, against its own untouched row, so that what the batch's shape
        does to low-precision logits cancels.
    token, token_before
        The first generated token with the change, and in the untouched row; the likelier of the
        two answers, where only their logits were asked for.
    read
        Effects on what else was measured (see `Read`), each against the untouched row.
    """

    intervention: Intervention
    ld: float
    effect: float
    token: int
    token_before: int
    read: tuple[float, ...] = ()


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
    """Run interventions the plain way: one forward pass each, several to a batch.

    Parameters
    ----------
    base
        Must keep z of every tower that is changed.
    means
        Mean z, needed for kind ``mean``.
    batch
        Rows of a batch, its untouched row included. Out of memory halves it and goes on.
    finished
        Outcomes that an earlier run has left. They are taken as they are, and told to nobody. A
        batch that is finished is not run again; any other is run with all its rows, since the
        batch's shape moves the last digits of each: so the rest comes out as if nothing had been
        interrupted.

    Returns
    -------
    One outcome for each intervention, in order.

    Raises
    ------
    InputError
        If not even two rows fit.
    ValueError
        If means are needed and missing.
    """
    outcomes = known_outcomes(interventions, finished)

    def passes(chunk: list[int]) -> list[Outcome]:
        asked = [interventions[index] for index in chunk]
        return _run_chunk(vlm, base, asked, means, read)

    for members in _by_run(interventions):
        batches = unfinished(split(members, batch - 1), outcomes)
        for chunk, found in halving(batches, passes, vlm.device):
            add_outcomes(outcomes, chunk, found, on_outcome)
            if on_progress:
                on_progress(len(outcomes), len(interventions))
    return [outcomes[index] for index in range(len(interventions))]


def known_outcomes(
    interventions: Sequence[Intervention], finished: Mapping[Intervention, Outcome] | None
) -> dict[int, Outcome]:
    """Return what is finished, by its place among the interventions."""
    known = finished or {}
    return {place: known[one] for place, one in enumerate(interventions) if one in known}


def unfinished(batches: Sequence[list[int]], outcomes: Container[int]) -> list[list[int]]:
    """Return the batches of which not every row is known."""
    return [batch for batch in batches if not all(place in outcomes for place in batch)]


def add_outcomes(
    outcomes: dict[int, Outcome],
    batch: Sequence[int],
    found: Sequence[Outcome],
    on_outcome: OnOutcome | None,
) -> None:
    """Add those of a batch's outcomes that are new, and tell them."""
    for place, outcome in zip(batch, found, strict=True):
        if place not in outcomes:
            outcomes[place] = outcome
            if on_outcome:
                on_outcome(outcome)


def _run_chunk(
    vlm: VLM,
    base: Baseline,
    asked: Sequence[Intervention],
    means: ZMeans | None,
    read: Read | None,
) -> list[Outcome]:
    """Run interventions of one run in one batch behind an untouched row."""
    run = base_run(asked[0].direction)
    edits = [
        edit
        for row, intervention in enumerate(asked, start=1)
        for edit in z_edits(vlm, row, intervention, base, means)
    ]
    prompt = base.prompt.select(run).repeat(len(asked) + 1)
    trace = forward(vlm, prompt, edits, exact=True)
    ld, tokens = trace.ld(prompt), trace.logits.argmax(-1)
    more = beyond(read, trace.logits)
    untouched = base.ld_with if run == WITH else base.ld_without
    outcomes = []
    for row, intervention in enumerate(asked, start=1):
        effect = float(ld[row] - ld[0])
        token, before = int(tokens[row]), int(tokens[0])
        outcomes.append(Outcome(intervention, untouched + effect, effect, token, before, more[row]))
    return outcomes


def beyond(read: Read | None, logits: Tensor) -> list[tuple[float, ...]]:
    """Return, row by row, the effects on what `read` measures; the untouched row comes first."""
    if read is None:
        return [()] * len(logits)
    found = read(logits)
    return [tuple(row) for row in (found - found[0]).tolist()]


def z_edits(
    vlm: VLM, row: int, intervention: Intervention, base: Baseline, means: ZMeans | None
) -> Iterator[ZEdit]:
    """Say, head by head, what an intervention puts in place of z in row `row`."""
    where = dict[Tower, Tensor]()
    if intervention.positions is not None:
        where["lm"] = base.prompt.spans.positions(intervention.positions)
    if intervention.vision_positions is not None:
        where["vision"] = vision_positions(vlm, base, intervention.vision_positions)
    for head in intervention.heads:
        positions = where[head.tower]
        yield ZEdit(row, head, positions, _value(intervention, head, positions, base, means))


def base_run(direction: Direction) -> int:
    """Return the run that a direction changes."""
    return WITH if direction == "noising" else WITHOUT


def _value(
    intervention: Intervention, head: Head, positions: Tensor, base: Baseline, means: ZMeans | None
) -> Tensor | None:
    run, source = base_run(intervention.direction), KINDS[intervention.kind].source
    if source == "nothing":
        return None
    if source == "mean":
        if means is None:
            raise ValueError(f"kind {intervention.kind!r} needs means")
        z = means[head.tower][head.layer]
    else:
        z = base.trace.z[head.tower][head.layer][run if source == "own" else 1 - run]
    value = z[positions.to(z.device), head.head]
    return value if intervention.alpha is None else intervention.alpha * value


def _by_run(interventions: Sequence[Intervention]) -> Iterator[list[int]]:
    for run in (WITH, WITHOUT):
        members = [
            index for index, one in enumerate(interventions) if base_run(one.direction) == run
        ]
        if members:
            yield members

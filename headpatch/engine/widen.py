"""Interventions through the widening pass, chunked to memory."""

import math
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.engine.interventions import Intervention
from headpatch.engine.memory import release, too_little
from headpatch.engine.patching import (
    Baseline,
    OnOutcome,
    OnProgress,
    Outcome,
    Read,
    ZMeans,
    beyond,
    known_outcomes,
    outcomes_of,
)
from headpatch.engine.prefill import Prefill, sources
from headpatch.engine.replay import is_recorded
from headpatch.engine.walk_plan import Row, plan
from headpatch.engine.widening import walk
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.spans import Positions, Spans
from headpatch.models.vlm import VLM

_CPU_TOKENS = 96  # rows × suffix at a time; more falls out of the caches of a core
_CPU_ROWS = 95  # of a longer suffix, so that the untouched row is a small part of the work,
_CPU_BYTES = 256 << 20  # if they take no more than this
_CUDA_BYTES = 4 << 30  # the same rows a chunk, whoever else is on the GPU: the same numbers
_SHARE = 0.5  # of the free device memory, if that is less
_FEW = 0.125  # of a walk's rows that may be others in each pair
_TOKENS = 256  # rows × suffix that walk all layers sooner than another walk's launches are recorded


def suffix_start(spans: Spans, positions: Positions) -> int:
    """Return the first position from which a pass must be widened for `positions`.

    What is read in both directions is carried whole: a change at its end reaches its beginning.
    """
    if positions in ("answer", "question") and not spans.both_ways:
        return int(spans.positions(positions)[0])
    return 0


def widen(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    rows: int | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    read: Read | None = None,
    answers_only: bool = False,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> list[Outcome]:
    """Do what `headpatch.engine.patching.patch` does to language-model heads, by widening passes.

    All interventions have one scope of positions; `base` must keep prefills from its
    `suffix_start`. `rows` are those of a chunk; None finds what fits. Out of memory halves it and
    goes on; an `InputError` if not even one row fits.

    With `answers_only`, the tokens of Yes and No alone are unembedded. Each `Outcome.token` is then
    the likeliest of them: the word that would follow can be any, and takes the whole vocabulary.
    """
    _refuse(base, interventions, means)
    if answers_only and read is not None:
        raise ValueError("what is read takes the logits of the whole vocabulary")
    outcomes = known_outcomes(interventions, finished) if finished else {}  # hashes each
    how = means, rows, read, answers_only, frozenset(outcomes)
    # Closed at once if a callback raises: what hangs on the model must come off.
    with closing(_walked(vlm, base, interventions, *how)) as walks:
        # A GPU walks on while what it has walked is read.
        for one in _one_ahead(walks) if vlm.device.type == "cuda" else walks:
            changes = [interventions[place] for place in one.places]
            found = outcomes_of(one.base, changes, one.ld, one.likeliest(), one.more)
            for place, outcome in zip(one.places, found, strict=True):
                if place in outcomes:
                    continue
                outcomes[place] = outcome
                if on_outcome:
                    on_outcome(outcome)
                if on_progress:
                    on_progress(len(outcomes), len(interventions))
    return [outcomes[place] for place in range(len(interventions))]


@dataclass(frozen=True, eq=False)
class _Walked:
    """What rows of one walk gave, the untouched one first; it may not have been computed yet."""

    base: Baseline
    places: list[int]  # of the other rows, among the interventions
    ld: Float[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    among: Int[Tensor, " tokens"] | None  # the tokens that were unembedded; None: all
    more: list[tuple[float, ...]]  # of `beyond`

    def likeliest(self) -> list[int]:
        """Return each row's likeliest token; waits for it."""
        token = self.token.cpu()
        found: list[int] = (token if self.among is None else self.among[token]).tolist()
        return found


def _one_ahead(walks: Iterable[_Walked]) -> Iterator[_Walked]:
    """Yield each when the next is on its way, or cannot be: nothing that was walked is lost."""
    before, failed = None, None
    try:
        for one in walks:
            if before is not None:
                yield before
            before = one
    except Exception as error:  # too little memory for another, say
        failed = error
    if before is not None:
        yield before
    if failed is not None:
        raise failed


def _refuse(base: Baseline, interventions: Sequence[Intervention], means: ZMeans | None) -> None:
    """Refuse what would give wrong numbers without a word."""
    if means is None and averages([one.kind for one in interventions]):
        raise ValueError("kind 'mean' needs means")
    if any(one.heads.towers != {"lm"} for one in interventions):
        raise ValueError("a widening pass changes language-model heads only")
    if any(one.follows for one in interventions):
        raise ValueError("attention re-weighted in several layers takes plain passes")
    scopes = {one.positions for one in interventions if one.positions is not None}
    if len(scopes) > 1:
        raise ValueError(f"one scope of positions at a time, not {sorted(scopes)}")
    for scope in scopes:
        if suffix_start(base.prompt.spans, scope) < base.trace.prefills[0].start:
            raise ValueError(f"the baseline keeps too short a suffix for positions {scope!r}")


def _walked(
    vlm: VLM, base: Baseline, interventions: Sequence[Intervention], *how: Any
) -> Generator[_Walked, None, None]:
    """Walk the interventions of each run."""
    for run in sorted({one.run for one in interventions}):
        places = [place for place, one in enumerate(interventions) if one.run == run]
        yield from _walk_run(vlm, base, interventions, places, *how)


def _walk_run(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    left: list[int],
    means: ZMeans | None,
    rows: int | None,
    read: Read | None,
    answers_only: bool,
    known: Container[int],
) -> Iterator[_Walked]:
    """Walk one run's interventions, whose places are `left`."""
    asked = [interventions[place] for place in left]
    run = asked[0].run
    base = base.seen_from(run)
    prefill, other = base.trace.prefills[run], base.trace.prefills[1 - run]
    donor = None
    if base.donor is not None:
        donor = base.donor.trace.prefills[run], base.donor.trace.prefills[1 - run]
    scope, answers = asked[0].positions, base.prompt.answers
    assert scope is not None  # `_refuse` lets language-model heads through only
    positions = _within(base, prefill, scope)
    kinds = {way: number for number, way in enumerate(dict.fromkeys(one.way for one in asked))}
    ways = [(kind, alpha, base.keys(toward)) for kind, alpha, toward in kinds]
    source = sources(prefill, other, means["lm"] if means else None, ways, donor)
    early = _early(vlm, prefill, asked)
    rows_of = {
        place: Row(one.heads, kinds[one.way], index in early)
        for index, (place, one) in enumerate(zip(left, asked, strict=True))
    }
    wanted = torch.tensor(answers.ids) if answers_only else None
    read_answers = answers if wanted is None else answers.among_ids
    size, carried = rows or rows_that_fit(vlm, prefill), prefill.points is None
    while left:
        done, asked_rows, short = set[int](), [rows_of[place] for place in left], False
        try:
            chunks = [
                chunk
                for chunk in plan(asked_rows, vlm.lm.grid, size, vlm.device, carried)
                if not all(left[place] in known for place in chunk.order)
            ]
            for chunk, logits in walk(vlm, prefill, chunks, source, positions, wanted):
                ld, token = read_answers.ld(logits), logits.argmax(-1)
                places = [left[place] for place in chunk.order]
                done.update(places)
                yield _Walked(base, places, ld, token, wanted, beyond(read, logits))
        except torch.OutOfMemoryError:
            if size == 1:
                raise too_little(vlm.device, "one row", "one row of a widening pass") from None
            size, short = max(size // 2, 1), True
        if short:
            release()  # only here are the failed walk's tensors gone
        left = [place for place in left if place not in done and place not in known]


def _early(vlm: VLM, prefill: Prefill, asked: Sequence[Intervention]) -> frozenset[int]:
    """Return the places of rows that walk along from the first layer on, so that walks are alike.

    Over many pairs every head is changed alone in each, and beside them a few sets and null changes
    that are drawn for each pair: these would make each pair's walk another one. A walk of few rows,
    of whichever heads, is one of all sets that a search asks for.
    """
    if prefill.points is None or not is_recorded(vlm):
        return frozenset()
    if len(asked) * (prefill.tokens - prefill.start) <= _TOKENS:
        return frozenset(range(len(asked)))
    few = [place for place, one in enumerate(asked) if len(one.heads) > 1 or one.kind == "self"]
    return frozenset(few) if len(few) <= _FEW * len(asked) else frozenset()


def _within(base: Baseline, prefill: Prefill, scope: Positions) -> Tensor | None:
    """Positions to change, counted from the suffix's start; None where that is all of them."""
    found = base.prompt.spans.positions(scope) - prefill.start
    return None if len(found) == prefill.tokens - prefill.start else found


def rows_that_fit(vlm: VLM, prefill: Prefill) -> int:
    """Return how many rows a chunk may have on the fullest of the model's devices."""
    on_cuda = [device for device in vlm.devices() if device.type == "cuda"]
    each = row_bytes(vlm, prefill)
    if not on_cuda:
        few = min(_CPU_ROWS, _CPU_BYTES // each)
        return max(_CPU_TOKENS // (prefill.tokens - prefill.start), few, 1)
    return max(int(min(_CUDA_BYTES, *(_SHARE * _spare(one) for one in on_cuda)) / each), 1)


def _spare(device: torch.device) -> int:
    """Return how many bytes of a device's memory nothing lives in."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def rows_within(vlm: VLM, prefill: Prefill, budget: int) -> int:
    """Return how many rows a chunk may have in `budget` bytes, beside its untouched row."""
    each = row_bytes(vlm, prefill)
    rows = budget // each - 1
    if rows < 1:
        least = f"at least {math.ceil(2 * each / 2**20)} MiB"
        expected = f"{least}, which one row and the untouched row take"
        raise InputError("--budget", f"{budget >> 20} MiB", expected)
    return rows


def row_bytes(vlm: VLM, prefill: Prefill) -> int:
    """Return about how much memory one row takes in the widest layer, in float32."""
    config = vlm.model.config.get_text_config()
    wide = 4 * int(config.intermediate_size) + 12 * int(config.hidden_size)
    attention = 3 * vlm.lm.grid.heads * (prefill.tokens if prefill.start else 1)
    return 4 * (prefill.tokens - prefill.start) * (wide + attention)


def passes(prefill: Prefill, sets: Sequence[HeadSet], layers: int, size: int) -> float:
    """Return what widening `prefill` by `sets` costs, in forward passes of its prompt.

    What the layers' weights are multiplied with, over what a pass of the prompt multiplies them
    with: rows × layers × suffix, less q, k and v of a row in the layer that it joins, less all but
    k and v of the last layer's other positions. In float32 each chunk of `size` rows carries the
    untouched row; over low-precision weights a chunk's first attention runs on one row for nothing.

    For every head of L layers of H alone, at all positions, that is H (L - 1) / 2 passes for what
    comes after the layers where rows join, about H (1 - reading) there, and about H × remembering
    in the last layer: of 32 × 32 heads with q, k, v and the output projection at 8 % each of a
    layer, 465 + 24 + 5 = 494. The untouched rows come on top: 16 with 31 rows a chunk, 5 with 95.
    """
    suffix, reading, last = prefill.tokens - prefill.start, prefill.reading, layers - 1
    in_last = prefill.remembering * (suffix - 1)

    def walked(entry: int) -> float:  # layers entered in full, from `entry` on
        before = max(last - entry, 0) * suffix
        return before + (in_last + 1) * (entry <= last)

    def joined(entry: int) -> float:
        return (1 - reading) * (suffix if entry < last else 1) + walked(entry + 1)

    entries = sorted(min(head.layer for head in one) for one in sets)
    total = sum(map(joined, entries))
    for first in entries[::size]:
        for_nothing = reading * suffix if first < last else in_last + reading
        total += walked(first) if prefill.points is None else for_nothing
    return total / (layers * prefill.tokens)

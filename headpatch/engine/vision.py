"""Heads and whole layers of the vision tower: exact, each batch resumed at its first layer.

A change in the tower reaches every image token and so the whole language model: nothing there can
be shared between rows but the few words before the image. What lies below the change can. So the
tower's layers are run once on the untouched pair and kept; interventions are ordered by the first
layer that they change, and the layers below a batch's first one hand back what they gave before.
Everything else is the model's own forward pass, which makes each row exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Intervention, never_read, tower_of
from headpatch.engine.memory import split
from headpatch.engine.patching import (
    PLAIN_BATCH,
    Baseline,
    OnOutcome,
    OnProgress,
    Outcome,
    Read,
    ZMeans,
    beyond,
    edits_of,
    in_batches,
    outcomes_of,
    run_pair,
)
from headpatch.engine.precision import raised, swapped
from headpatch.engine.replay import Seen
from headpatch.errors import RunError
from headpatch.models.prompt import OF_TOKENS, Prompt
from headpatch.models.vlm import VLM, Stack

_AT_ONCE = 6_000  # tokens of a plain pass on a GPU


def patch_vision(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    batch: int = PLAIN_BATCH,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    resumed: bool = True,
    finished: Mapping[Intervention, Outcome] | None = None,
    read: Read | None = None,
    known: Sequence[Any] = (),
) -> list[Outcome]:
    """Do what `headpatch.engine.patching.patch` does to vision heads, without the layers below.

    Each set holds a vision head, and may hold language-model heads as well. With `resumed`, layers
    below are left out, else every batch is a whole pass. `known` is what layers gave, if `run_seen`
    has kept it. A `RunError` if the tower does not take each picture in rows of its own.
    """
    tower = tower_of(vlm)
    if not all("vision" in one.heads.towers for one in interventions):
        raise ValueError("a set without a vision head goes through `widen` or `patch`")
    if not interventions:
        return []
    kept: list[Any] = []

    def passes(asked: list[Intervention]) -> list[Outcome]:
        return _run_chunk(vlm, base, asked, means, kept, read)

    told = on_progress, on_outcome, finished
    with raised(vlm):
        kept += (known or _outputs(vlm, base, tower)) if resumed else []
        return in_batches(base, interventions, _plan(vlm, interventions, batch), passes, *told)


def equivalents(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    batch: int = PLAIN_BATCH,
    resumed: bool = True,
) -> float:
    """Return what `patch_vision` costs, in plain forward passes of one run.

    Counted in operations of the layers' products and attention; where passes are resumed, the one
    over the pair that fills the cache is included.
    """
    tower = tower_of(vlm)
    vision = _operations(tower, base.trace.z["vision"][0].shape[1])
    text = _operations(vlm.lm, base.prompt.spans.length)
    skipped = vision / (vision * tower.grid.layers + text * len(vlm.lm.layers))
    total = float(base.prompt.runs * resumed)
    for chunk in _plan(vlm, interventions, batch):
        entry = _entry(interventions[chunk[0]]) if resumed else 0
        passes = 2 if never_read(vlm, interventions[chunk[0]].heads) else 1
        total += passes * (len(chunk) + 1) * (1 - skipped * entry)
    return total


def _operations(stack: Stack, tokens: int) -> float:
    """Multiplications of a layer of `stack`: of its weights, and of attention."""
    weights = sum(parameter.numel() for parameter in stack.layers[0].parameters())
    return float(tokens * (weights + 2 * tokens * stack.grid.heads * stack.head_dim))


def _entry(intervention: Intervention) -> int:
    """Return the first vision layer that it changes."""
    return min(head.layer for head in intervention.heads if head.tower == "vision")


def _plan(vlm: VLM, interventions: Sequence[Intervention], batch: int) -> list[list[int]]:
    """Cut interventions into chunks that start as late as they can: of one run, controls apart."""
    members: dict[tuple[int, bool], list[int]] = {}
    for index in sorted(range(len(interventions)), key=lambda i: _entry(interventions[i])):
        one = interventions[index]
        members.setdefault((one.run, never_read(vlm, one.heads)), []).append(index)
    return [chunk for key in sorted(members) for chunk in split(members[key], batch - 1)]


def batch_of(vlm: VLM, prompt: Prompt) -> int:
    """Return how many rows of a plain pass are run together."""
    if vlm.device.type == "cpu":
        return PLAIN_BATCH
    # A GPU waits for launches: many rows take it little more time than a few.
    return max(PLAIN_BATCH, _AT_ONCE // prompt.spans.length)


def run_seen(vlm: VLM, prompt: Prompt) -> tuple[Baseline, Sequence[Any]]:
    """Run a pair for changes of vision heads; return what layers of the tower gave as well.

    Nothing where that is more than a layer's one output, as of prompts of several lengths.
    """
    with _keeping(tower_of(vlm)) as kept:
        base = run_pair(vlm, prompt, Keep(z=("vision",)), exact=True)
    return base, () if prompt.each else _of_each(vlm, base, kept)


def _outputs(vlm: VLM, base: Baseline, tower: Stack) -> Sequence[Any]:
    """Run the pair untouched; return what each vision layer gave."""
    with _keeping(tower) as kept:
        forward(vlm, _pictures(base), exact=True)
    if not (outputs := _of_each(vlm, base, kept)):
        raise RunError(f"{vlm.name}: a vision layer does not run once, picture after picture")
    return outputs


@contextmanager
def _keeping(tower: Stack) -> Iterator[list[Seen]]:
    """Keep what each layer gives whenever it runs."""
    kept = [Seen() for _ in tower.layers]
    with ExitStack() as stack:
        for layer, outputs in zip(tower.layers, kept, strict=True):
            stack.callback(layer.register_forward_hook(outputs).remove)
        yield kept


def _of_each(vlm: VLM, base: Baseline, kept: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Return what each layer gave; nothing unless each ran once, picture after picture."""
    at, runs = _dimension(vlm), base.prompt.runs
    if any(len(outputs) != 1 or _hidden(outputs[0]).shape[at] % runs for outputs in kept):
        return []
    return [outputs[0] for outputs in kept]


def _pictures(base: Baseline) -> Prompt:
    """Return a batch of both pictures: if prompts are of several lengths, both with the first."""
    if not base.prompt.each:
        return base.prompt
    first, other = base.prompt.each
    own = first.inputs
    inputs = {
        key: torch.cat([value, value if key in OF_TOKENS else other.inputs[key]])
        for key, value in own.items()
    }
    return replace(first, inputs=inputs, runs=2)


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _run_chunk(
    vlm: VLM,
    base: Baseline,
    asked: Sequence[Intervention],
    means: ZMeans | None,
    kept: Sequence[Any],
    read: Read | None,
) -> list[Outcome]:
    """Run interventions of one run in one batch behind an untouched row."""
    # Layers that do not reach the language model are a control, whose effect must be exactly 0.
    # What a row's place in a batch does to rounding would hide that: each of their rows is compared
    # with itself in a batch of the same shape that is left untouched.
    run, at = asked[0].run, _dimension(vlm)
    base = base.seen_from(run)
    prompt = base.prompt.select(run).repeat(len(asked) + 1)
    edits = edits_of(vlm, asked, base, means)
    below = [_rows(one, run, base.prompt, prompt, at) for one in kept[: _entry(asked[0])]]
    with _resumed(vlm.stack("vision"), below):
        trace = forward(vlm, prompt, edits, exact=True)
        before = forward(vlm, prompt, exact=True) if never_read(vlm, asked[0].heads) else None
    untouched = None if before is None else before.ld(prompt)
    tokens = trace.logits.argmax(-1).tolist()
    more = beyond(read, trace.logits)
    return outcomes_of(base, asked, trace.ld(prompt), tokens, more, untouched)


def _dimension(vlm: VLM) -> int:
    """Along which of a layer's output the pictures follow each other: rows, or patches of one."""
    return -2 if vlm.family.one_row else 0


def _rows(output: Any, run: int, pair: Prompt, batch: Prompt, at: int) -> Any:
    """Return a layer's output for one run of a pair, for every row; what is no tensor stays."""
    if isinstance(output, tuple):
        return tuple(_rows(one, run, pair, batch, at) for one in output)
    if not isinstance(output, Tensor):
        return output
    each = output.shape[at] // pair.runs
    return torch.cat([output.narrow(at, run * each, each)] * batch.runs, at)


@contextmanager
def _resumed(tower: Stack, below: Sequence[Any]) -> Iterator[None]:
    """Let the first layers of a tower hand back `below` instead of running."""
    layers = zip(tower.layers, below, strict=False)
    with swapped([(layer, lambda *_, out=out, **__: out) for layer, out in layers]):
        yield

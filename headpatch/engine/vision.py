"""Heads and whole layers of the vision tower: exact, each batch resumed at its first layer.

A change in the tower reaches every image token and so the whole language model: nothing there can
be shared between rows but the few words before the image. What lies below the change can. So the
tower's layers are run once on the untouched pair and kept; interventions are ordered by the first
layer that they change, and the layers below a batch's first one hand back what they gave before.
Everything else is the model's own forward pass, which makes each row exact.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from headpatch.engine.forward import forward
from headpatch.engine.interventions import Intervention, ZEdit
from headpatch.engine.patching import (
    PLAIN_BATCH,
    WITH,
    Baseline,
    OnOutcome,
    OnProgress,
    Outcome,
    ZMeans,
    base_run,
    z_edits,
)
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM, Stack

VisionPositions = Literal["class", "patches", "all"]
"""Tokens of the vision tower: its class token, every other token, or both."""


def patch_vision(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    positions: VisionPositions = "all",
    means: ZMeans | None = None,
    batch: int = PLAIN_BATCH,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
) -> list[Outcome]:
    """Do what `headpatch.engine.patching.patch` does to vision heads, without the layers below.

    Parameters
    ----------
    base
        Must keep z of the vision tower.
    interventions
        Vision heads only. Their own positions speak of the prompt and are not read.
    positions
        Where in the tower z is changed.
    means
        Mean z, needed for kind ``mean``.
    batch
        Rows of a batch, its untouched row included. Out of memory halves it and goes on.

    Returns
    -------
    One outcome for each intervention, in order.

    Raises
    ------
    RunError
        If the tower does not take each picture in rows of its own.
    InputError
        If the tower has no class token for positions ``class``, or not even two rows fit.
    ValueError
        If a head is none of the vision tower's, or means are needed and missing.
    """
    tower = _tower(vlm)
    if any(head.tower != "vision" for one in interventions for head in one.heads):
        raise ValueError("vision heads only; language-model heads go through `widen` or `patch`")
    if not interventions:
        return []
    kept = _outputs(vlm, base, tower)
    where = vision_positions(vlm, base, positions, tiles=len(_hidden(kept[0])) // base.prompt.runs)
    outcomes: dict[int, Outcome] = {}
    pending = _plan(vlm, interventions, batch)
    while pending:
        chunk = pending[0]
        asked = [interventions[index] for index in chunk]
        try:
            found = _run_chunk(vlm, base, asked, where, means, kept)
        except torch.OutOfMemoryError:
            if len(chunk) == 1:
                raise InputError(
                    "--device",
                    f"{vlm.device} has too little memory for two rows",
                    "room for the untouched row and one more",
                    "Use --device cpu or a smaller --dtype.",
                ) from None
            pending = [part for one in pending for part in _split(one, (len(chunk) + 1) // 2)]
            torch.cuda.empty_cache()
            continue
        outcomes.update(zip(chunk, found, strict=True))
        pending = pending[1:]
        if on_outcome:
            for outcome in found:
                on_outcome(outcome)
        if on_progress:
            on_progress(len(outcomes), len(interventions))
    return [outcomes[index] for index in range(len(interventions))]


def refused(vlm: VLM) -> str:
    """Say why the layers of this vision tower cannot be resumed one by one; "" if they can."""
    if not vlm.family.vision:
        return "headpatch cannot change the vision tower of this family"
    if vlm.family.one_row or vlm.family.crossed:
        return (
            "this vision tower takes several pictures or tiles in one row, so its layers cannot be "
            "resumed one by one"
        )
    return ""


def single_heads(vlm: VLM) -> list[HeadSet]:
    """Return every vision head as a set of its own."""
    return [HeadSet.of(head) for head in _tower(vlm).grid]


def whole_layers(vlm: VLM) -> list[HeadSet]:
    """Return, for each vision layer, the set of all its heads."""
    return list(_tower(vlm).grid.whole_layers())


def vision_positions(
    vlm: VLM, base: Baseline, positions: VisionPositions, tiles: int = 1
) -> Int[Tensor, " positions"]:
    """Return the positions of a scope among the tower's tokens of one run, tile after tile.

    Raises
    ------
    InputError
        If the tower has no class token and it is asked for.
    """
    tokens = base.trace.z["vision"][0].shape[1]
    each = torch.arange(tokens)
    if positions == "all":
        return each
    if not vlm.family.class_token:
        if positions == "class":
            raise InputError("--positions", "class: the tower has no class token", "patches or all")
        return each
    is_class = each % (tokens // tiles) == 0
    return each[is_class if positions == "class" else ~is_class]


def equivalents(
    vlm: VLM, base: Baseline, interventions: Sequence[Intervention], batch: int = PLAIN_BATCH
) -> float:
    """Return what `patch_vision` costs, in plain forward passes of one run.

    Counted in operations of the layers' products and attention; the pass over the pair that fills
    the cache is included.
    """
    tower = _tower(vlm)
    vision = _operations(tower, base.trace.z["vision"][0].shape[1])
    skipped = vision / (
        vision * tower.grid.layers
        + _operations(vlm.lm, base.prompt.spans.length) * len(vlm.lm.layers)
    )
    total = float(base.prompt.runs)
    for chunk in _plan(vlm, interventions, batch):
        entry = _entry(interventions[chunk[0]])
        passes = 2 if _is_control(vlm, interventions[chunk[0]]) else 1
        total += passes * (len(chunk) + 1) * (1 - skipped * entry)
    return total


def _operations(stack: Stack, tokens: int) -> float:
    """Multiplications of a layer of `stack`: of its weights, and of attention."""
    weights = sum(parameter.numel() for parameter in stack.layers[0].parameters())
    return float(tokens * (weights + 2 * tokens * stack.grid.heads * stack.head_dim))


def _entry(intervention: Intervention) -> int:
    return min(head.layer for head in intervention.heads)


def _is_control(vlm: VLM, intervention: Intervention) -> bool:
    """Whether it changes only layers that do not reach the language model."""
    return vlm.feature_layer is not None and _entry(intervention) > vlm.feature_layer


def _plan(vlm: VLM, interventions: Sequence[Intervention], batch: int) -> list[list[int]]:
    """Cut interventions into chunks that start as late as they can: of one run, controls apart."""
    members: dict[tuple[int, bool], list[int]] = {}
    for index in sorted(range(len(interventions)), key=lambda i: _entry(interventions[i])):
        one = interventions[index]
        members.setdefault((base_run(one.direction), _is_control(vlm, one)), []).append(index)
    return [chunk for key in sorted(members) for chunk in _split(members[key], batch - 1)]


def _split(indices: list[int], size: int) -> list[list[int]]:
    size = max(size, 1)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _tower(vlm: VLM) -> Stack:
    if why := refused(vlm):
        raise RunError(f"{vlm.name}: {why}")
    return vlm.stack("vision")


def _outputs(vlm: VLM, base: Baseline, tower: Stack) -> list[Any]:
    """Run the pair untouched; return what each vision layer gave."""
    kept: list[list[Any]] = [[] for _ in tower.layers]
    with ExitStack() as stack:
        for layer, outputs in zip(tower.layers, kept, strict=True):
            handle = layer.register_forward_hook(
                lambda _, __, output, outputs=outputs: outputs.append(output)
            )
            stack.callback(handle.remove)
        forward(vlm, base.prompt, exact=True)
    if any(len(outputs) != 1 or len(_hidden(outputs[0])) % base.prompt.runs for outputs in kept):
        raise RunError(f"{vlm.name}: a vision layer does not run once, with the pictures in rows")
    return [outputs[0] for outputs in kept]


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _run_chunk(
    vlm: VLM,
    base: Baseline,
    asked: Sequence[Intervention],
    where: Tensor,
    means: ZMeans | None,
    kept: Sequence[Any],
) -> list[Outcome]:
    """Run interventions of one run in one batch behind an untouched row.

    Layers that do not reach the language model are a control, whose effect must be exactly 0. What
    a row's place in a batch does to rounding would hide that: each of their rows is compared with
    itself in a batch of the same shape that is left untouched.
    """
    run = base_run(asked[0].direction)
    prompt = base.prompt.select(run).repeat(len(asked) + 1)
    edits = [
        _at(edit, where)
        for row, intervention in enumerate(asked, start=1)
        for edit in z_edits(row, intervention, base, means)
    ]
    below = kept[: _entry(asked[0])]
    with _resumed(vlm.stack("vision"), [_rows(one, run, base.prompt, prompt) for one in below]):
        trace = forward(vlm, prompt, edits, exact=True)
        before = forward(vlm, prompt, exact=True) if _is_control(vlm, asked[0]) else None
    ld, tokens = trace.ld(prompt).cpu(), trace.logits.argmax(-1).cpu()
    reference = ld[:1].expand_as(ld) if before is None else before.ld(prompt).cpu()
    untouched = base.ld_with if run == WITH else base.ld_without
    effects = (ld - reference).tolist()
    return [
        Outcome(
            intervention, untouched + effects[row], effects[row], int(tokens[row]), int(tokens[0])
        )
        for row, intervention in enumerate(asked, start=1)
    ]


def _at(edit: ZEdit, where: Tensor) -> ZEdit:
    """Restrict an edit of all positions to some."""
    value = edit.value if edit.value is None else edit.value[where.to(edit.value.device)]
    return replace(edit, positions=where, value=value)


def _rows(output: Any, run: int, pair: Prompt, batch: Prompt) -> Any:
    """Return a layer's output for one run of a pair, for every row; what is no tensor stays."""
    if isinstance(output, tuple):
        return tuple(_rows(one, run, pair, batch) for one in output)
    if not isinstance(output, Tensor):
        return output
    each = len(output) // pair.runs
    return output[run * each : (run + 1) * each].repeat(batch.runs, *[1] * (output.ndim - 1))


@contextmanager
def _resumed(tower: Stack, below: Sequence[Any]) -> Iterator[None]:
    """Let the first layers of a tower hand back `below` instead of running."""
    layers: list[tuple[nn.Module, Any]] = [
        (layer, layer.__dict__.get("forward")) for layer in tower.layers[: len(below)]
    ]
    try:
        for (layer, _), output in zip(layers, below, strict=True):
            layer.__dict__["forward"] = lambda *_, output=output, **__: output
        yield
    finally:
        for layer, before in layers:
            layer.__dict__.pop("forward")
            if before is not None:  # Accelerate puts one there
                layer.__dict__["forward"] = before

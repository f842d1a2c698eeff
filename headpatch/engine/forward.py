"""One forward pass with interventions, the plain way: the oracle of every faster path.

Every row of a batch is a whole forward pass; edits say which rows differ from the model as it is.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.attention import Tap, tapped
from headpatch.engine.delta_forward import Points, quick_norms, watched
from headpatch.engine.interventions import Cut, ZEdit, edges_by_layer
from headpatch.engine.launched import Kept, launched
from headpatch.engine.precision import answer_logits, is_low, raised, swapped
from headpatch.engine.prefill import Capture, Prefill
from headpatch.engine.replay import is_recorded, replays_of
from headpatch.engine.shared_prefix import known
from headpatch.engine.softcap import cap_of
from headpatch.engine.taps import AnswerRows, Site, at_outputs
from headpatch.engine.tower_taps import Received, tower_sites
from headpatch.errors import RunError
from headpatch.heads import Head, Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM, Stack

T = TypeVar("T")
VisionRows = Float[Tensor, "images vision_layers vision_heads vision_tokens"]


@dataclass(frozen=True)
class Keep:
    """What a pass should keep."""

    lm_rows: bool = False  # the answer position's attention rows of every language-model head
    # Of every vision head: the class token's row, and the mean row of the patch queries; where the
    # tower takes a picture in tiles, means over the tiles' tokens (`headpatch.engine.taps`).
    vision_rows: bool = False
    z: tuple[Tower, ...] = ()  # towers whose z is kept, at every position
    suffix: int | None = None  # keep what a widening pass needs to change z from this position on


@dataclass(frozen=True, eq=False)
class Trace:
    """What a pass gave."""

    logits: Float[Tensor, "batch vocabulary"]  # at the answer position, float32
    # On the model's device; NaN for layers that do not attend to tokens (cross-attention).
    lm_rows: Float[Tensor, "batch layers heads tokens"] | None = None
    # Keys are all of a run's tokens, tile after tile; class tokens (if any) are among them.
    vision_class_rows: VisionRows | None = None
    vision_patch_rows: VisionRows | None = None
    # by tower and layer: ``[batch, tokens, heads, head_dim]``
    z: dict[Tower, list[Tensor]] = field(default_factory=dict)
    prefills: tuple[Prefill, ...] = ()  # one a row of the batch, if a suffix was kept
    z_from: int = 0  # the position of the first token whose z of the language model is kept

    def ld(self, prompt: Prompt) -> Float[Tensor, " batch"]:
        """Logit(Yes) - logit(No) of each row."""
        return prompt.answers.ld(self.logits)


@torch.no_grad()
def forward(
    vlm: VLM,
    prompt: Prompt,
    edits: Sequence[ZEdit] = (),
    cuts: Sequence[Cut] = (),
    keep: Keep | None = None,
    exact: bool = False,
) -> Trace:
    """Run one batch, as many runs as rows are wanted.

    `edits` and `cuts` say what differs in which row. `exact` computes in float32 over low-precision
    weights too (see `headpatch.engine.precision`). A `RunError` if a logit is not a number. Runs of
    several lengths (`Prompt.each`) take a pass each, untouched, and are put side by side.
    """
    if prompt.each:
        assert not edits and not cuts  # of one run
        starts = suffix_starts(prompt, keep.suffix if keep else None)
        keeps = [replace(keep or Keep(), suffix=start) for start in starts]
        return joined([forward(vlm, one, keep=own, exact=exact)
                       for one, own in zip(prompt.each, keeps, strict=True)])  # fmt: skip
    keep, raise_it = keep or Keep(), exact and is_low(vlm)
    received = _received(vlm, prompt, keep)
    sites = _sites(vlm, prompt, edits, cuts, keep, received)
    rows = prompt.spans.answer, vlm.lm.grid.layers, len(vlm.lm.grid.without)
    recorded = AnswerRows(*rows) if keep.lm_rows else None
    with ExitStack() as stack:
        capture = points = None
        unembedded: list[Tensor] = []
        if raise_it:
            stack.enter_context(raised(vlm))
        replays = replays_of(vlm)  # before anything of this pass hangs on the layers
        if keep.suffix is not None:
            keep_last = vlm.unembedding.register_forward_hook(
                lambda _, __, output: unembedded.append(output[:, -1].float())
            )
            stack.callback(keep_last.remove)
            capture, points = _capturing(vlm, prompt, keep.suffix, sites, raise_it)
            if points is not None:
                stack.enter_context(capture.hooked(vlm))
        # A CPU does not wait for launches.
        norms = quick_norms(vlm) if raise_it and vlm.device.type == "cuda" else []
        stack.enter_context(swapped(norms))
        if raise_it and points is not None:
            stack.enter_context(watched(vlm, points))
        idle = set(_idle(vlm, sites))
        stack.enter_context(swapped([(one, _unchanged) for one in idle]))
        stacks = [vlm.lm] if vlm.vision is None else [vlm.lm, vlm.vision]
        stack.enter_context(at_outputs(stacks, sites))
        stack.enter_context(tapped(vlm.parts, _with_rows(vlm, sites, recorded)))
        # Autograd's bookkeeping of views costs a pass that waits for its launches about 4 %. What
        # is kept of a layer may meet a backward pass later, which refuses tensors made without it.
        if not keep.z and keep.suffix is None:  # inference_mode(False) would record gradients
            stack.enter_context(torch.inference_mode())
        for tower in stacks:
            own = (capture, points, recorded) if tower is vlm.lm else ()
            run = [one for one in tower.layers if one not in idle]
            kept = Kept(tower, sites, prompt.runs, *own)
            stack.enter_context(launched(replays, kept, run, keep, raise_it, len(norms)))
        logits = answer_logits(vlm, prompt, torch.float32 if raise_it else vlm.dtype)
        finite = torch.isfinite(logits).all()
        lm_rows = recorded.stacked(prompt.spans.length) if recorded is not None else None
    if not finite:  # asked for only when all is launched: the answer waits for the device
        way_out = "try --dtype float32, and check" if is_low(vlm) else "check"
        raise RunError(
            f"the model's logits are not finite ({vlm.name}, {vlm.dtype}): {way_out} the weights"
        )
    cap = cap_of(vlm, unembedded[0], logits) if unembedded else None
    return Trace(
        _ordinary(logits),
        lm_rows=None if lm_rows is None else _ordinary(lm_rows),
        vision_class_rows=_stacked([one.class_row for one in received]),
        vision_patch_rows=_stacked([one.patch_row for one in received]),
        z={
            tower: _kept(
                vlm.stack(tower), [sites[one].kept() for one in vlm.stack(tower).attentions]
            )
            for tower in keep.z
        },
        prefills=_prefills(vlm, capture, points, len(logits), cap),
    )


def _capturing(
    vlm: VLM, prompt: Prompt, start: int, sites: Mapping[nn.Module, Site], raise_it: bool
) -> tuple[Capture, Points | None]:
    """Return what collects a suffix for widening passes; None if passes are never resumed."""
    prepare = partial(known, low=vlm.dtype) if raise_it else None
    capture = Capture(start, prompt.spans.length, prepare, refused=_why_whole(vlm))
    if capture.refused:
        return capture, None
    for index, module in enumerate(vlm.lm.attentions):
        sites[module].layer, sites[module].capture = index, capture
    return capture, Points(start, vlm.dtype, prompt.spans.length)


def suffix_starts(prompt: Prompt, start: int | None) -> list[int | None]:
    """Say from where on each run is kept, if the first is from `start` on."""
    if start is None:
        return [None] * len(prompt.each)
    there = prompt.partners(0)
    alike = int((there == torch.arange(len(there))).long().cumprod(0).sum())
    other = int(there[start])
    return [start, start if start <= alike else alike if other < 0 else other]


def joined(traces: Sequence[Trace]) -> Trace:
    """Put traces of one run each side by side; of shorter ones, 0 stands for missing tokens."""

    def rows(parts: Sequence[Tensor | None]) -> Tensor | None:
        there = [one for one in parts if one is not None]
        return side_by_side(there, -1) if there else None

    return Trace(
        torch.cat([one.logits for one in traces]),
        rows([one.lm_rows for one in traces]),
        rows([one.vision_class_rows for one in traces]),
        rows([one.vision_patch_rows for one in traces]),
        layers_of([one.z for one in traces]),
        tuple(prefill for one in traces for prefill in one.prefills),
    )


def layers_of(runs: Sequence[Mapping[Tower, Sequence[Tensor]]]) -> dict[Tower, list[Tensor]]:
    """Put what is of each tower's layers, ``[1, tokens, heads, head_dim]``, side by side."""
    return {
        tower: [side_by_side(parts, 1) for parts in zip(*(one[tower] for one in runs), strict=True)]
        for tower in runs[0]
    }


def side_by_side(parts: Sequence[Tensor], tokens: int) -> Tensor:
    """Join parts of one run each, 0 in the place of tokens that one does not have."""
    longest = max(one.shape[tokens] for one in parts)
    found = []
    for one in parts:
        missing = list(one.shape)
        missing[tokens] = longest - one.shape[tokens]
        found.append(torch.cat([one, one.new_zeros(missing)], tokens) if missing[tokens] else one)
    return torch.cat(found)


def _sites(
    vlm: VLM,
    prompt: Prompt,
    edits: Sequence[ZEdit],
    cuts: Sequence[Cut],
    keep: Keep,
    received: Sequence[Received],
) -> dict[nn.Module, Site]:
    """Say what is read and edited at which attention module."""
    sites: dict[nn.Module, Site] = defaultdict(Site)
    changed = any(head.tower == "vision" for head in _changed(edits, cuts))
    if received or "vision" in keep.z or changed:
        sites.update(tower_sites(vlm, prompt, received))
    for edit in edits:
        sites[vlm.attention(edit.head)].edits.append(edit)
    if edits and is_recorded(vlm):  # where any head may be changed (`headpatch.engine.launched`)
        sites.update({one: sites[one] for one in vlm.lm.attentions})
    for cut in cuts:
        for tower, layer, numbers in edges_by_layer(vlm, cut):
            sites[vlm.stack(tower).attentions[layer]].cuts.append((cut, numbers))
    for tower in keep.z:
        for layer in vlm.stack(tower).grid.with_heads:
            sites[vlm.stack(tower).attentions[layer]].keep_z = True
    return sites


def _received(vlm: VLM, prompt: Prompt, keep: Keep) -> list[Received]:
    """Make room for what the tokens of each vision layer receive; none if that is not kept."""
    # A tower that is looked at across (Mllama's) holds the class tokens of all tiles in one row.
    keeps = keep.vision_rows and not vlm.family.crossed
    layers = vlm.vision.attentions if keeps and vlm.vision is not None else ()
    return [Received(prompt.runs, vlm.family.class_token) for _ in layers]


def _with_rows(
    vlm: VLM, sites: Mapping[nn.Module, Site], recorded: AnswerRows | None
) -> dict[nn.Module, Tap]:
    """Let every language-model layer record; one that does nothing else gets the lighter tap."""
    taps: dict[nn.Module, Tap] = dict(sites)
    if recorded is not None:
        for index, module in enumerate(vlm.lm.attentions):
            if module in sites:
                sites[module].layer, sites[module].answer_rows = index, recorded
            else:
                taps[module] = recorded.tap(index)
    return taps


def _idle(vlm: VLM, sites: Mapping[nn.Module, Site]) -> Iterator[nn.Module]:
    """Vision layers that need not run: nothing reads their output, and nobody looks inside."""
    if vlm.vision is None or vlm.feature_layer is None:
        return
    first = vlm.feature_layer + 1
    layers = zip(vlm.vision.layers, vlm.vision.attentions, strict=True)
    for layer, attention in islice(layers, first, None):
        used = attention in sites and sites[attention].used
        if not used and "forward" not in layer.__dict__:
            yield layer


def _unchanged(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _changed(edits: Sequence[ZEdit], cuts: Sequence[Cut]) -> Iterator[Head]:
    yield from (edit.head for edit in edits)
    for cut in cuts:
        yield from [cut.heads] if isinstance(cut.heads, Head) else cut.heads


def _prefills(
    vlm: VLM, capture: Capture | None, points: Points | None, runs: int, cap: float | None
) -> tuple[Prefill, ...]:
    if capture is None:
        return ()
    layers, low = capture.layers(len(vlm.lm.layers)), points is not None and bool(points.inputs)
    found = []
    for index in range(runs):
        kept = tuple(layer.run(index, runs) for layer in layers)
        stood = points.run(index) if low and points is not None else None
        seen = capture.refused, _reading(vlm), cap
        found.append(Prefill(capture.start, capture.tokens, kept, stood, *seen))
    return tuple(found)


def _why_whole(vlm: VLM) -> str:
    """Say why passes of this model are never resumed; "" if they may be."""
    if vlm.lm.grid.without:
        return "layers without attention heads carry the prompt in a state of their own"
    return "something lies between attention and its projection" if vlm.lm.at_output else ""


def _kept(stack: Stack, z: Sequence[Tensor | None]) -> list[Tensor]:
    """Return z of each layer; of one without heads, as many of width 0."""
    there = [_there(z[layer]) for layer in stack.grid.with_heads]
    nothing = there[0][..., :0]
    return [nothing if one is None else one for one in z]


def _reading(vlm: VLM) -> float:
    """Return which part of a decoder layer's weights makes q, k and v."""

    def count(module: nn.Module) -> int:
        return sum(one.numel() for one in module.parameters())

    layer, attention, output = vlm.lm.layers[0], vlm.lm.attentions[0], vlm.lm.outputs[0]
    return (count(attention) - count(output)) / max(count(layer), 1)


def _there(kept: T | None) -> T:
    if kept is None:
        raise RunError("an attention module never ran through headpatch's attention function")
    return kept


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Stack the layers' rows, ``[batch, heads, tokens]`` each, along dimension 1."""
    if not parts or all(part is None for part in parts):
        return None
    whole = [_there(part) for part in parts]
    return _to_host(torch.stack([part.to(whole[0].device) for part in whole], 1))


def _ordinary(found: Tensor) -> Tensor:
    """Copy what inference mode has made: it could not be changed, nor meet autograd, outside."""
    return found.clone() if found.is_inference() else found


def _to_host(rows: Tensor) -> Tensor:
    """Copy rows to where tables are made."""
    if rows.device.type != "cuda":
        return rows.cpu()
    # Into memory that the device can write to by itself: pageable memory takes ten times as long.
    there = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    return there.copy_(rows)

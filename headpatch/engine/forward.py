"""One forward pass with interventions, the plain way: the oracle of every faster path.

Every row of a batch is a whole forward pass; edits say which rows differ from the model as it is.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headpatch.engine.attention import attention_rows, plain_attention, tapped, weigh
from headpatch.engine.interventions import Cut, ZEdit
from headpatch.engine.precision import Points, is_low, raised
from headpatch.engine.prefill import Capture, Prefill, split
from headpatch.errors import RunError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

_BLOCK = 64  # queries at a time when rows are averaged, so that no N×N map is ever held


@dataclass(frozen=True)
class Keep:
    """What a pass should keep.

    Attributes
    ----------
    lm_rows
        The answer position's attention rows of every language-model head.
    vision_rows
        For every vision head: the class token's row, and the mean row of the patch queries.
    z
        Towers whose z is kept, at every position.
    suffix
        Keep what a widening pass needs to change z from this position on.
    """

    lm_rows: bool = False
    vision_rows: bool = False
    z: tuple[Tower, ...] = ()
    suffix: int | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """What a pass gave.

    Attributes
    ----------
    logits
        Shape ``[batch, vocabulary]``: at the answer position, float32.
    lm_rows
        Shape ``[batch, layers, heads, tokens]``; NaN for layers that do not attend to tokens
        (cross-attention).
    vision_class_rows, vision_patch_rows
        Shape ``[images, vision layers, vision heads, vision tokens]``, the class token (if any)
        included as a key.
    z
        By tower and layer: shape ``[batch, tokens, heads, head_dim]``.
    prefills
        One a row of the batch, if a suffix was kept.
    """

    logits: Float[Tensor, "batch vocabulary"]
    lm_rows: Float[Tensor, "batch layers heads tokens"] | None = None
    vision_class_rows: Float[Tensor, "images vision_layers vision_heads vision_tokens"] | None = (
        None
    )
    vision_patch_rows: Float[Tensor, "images vision_layers vision_heads vision_tokens"] | None = (
        None
    )
    z: dict[Tower, list[Tensor]] = field(default_factory=dict)
    prefills: tuple[Prefill, ...] = ()

    def ld(self, prompt: Prompt) -> Float[Tensor, " batch"]:
        """Logit(Yes) - logit(No) of each row."""
        return self.logits[:, prompt.answers.yes] - self.logits[:, prompt.answers.no]


def allowed_edges(
    cuts: Sequence[tuple[Cut, list[int]]],
    queries: Int[Tensor, " queries"],
    shape: tuple[int, int, int, int],
) -> tuple[Bool[Tensor, "rows heads queries keys"], Bool[Tensor, "rows queries heads"]]:
    """Say which edges cuts leave at one layer, and which queries of which heads they concern.

    Parameters
    ----------
    cuts
        Each with its heads' numbers in this layer.
    queries
        Their positions in the prompt, ascending.
    shape
        Rows, heads, queries, keys.
    """
    device = queries.device
    allowed = torch.ones(shape, dtype=torch.bool, device=device)
    touched = torch.zeros(shape[0], shape[2], shape[1], dtype=torch.bool, device=device)
    for cut, numbers in cuts:
        keys, heads = cut.keys.to(device), torch.tensor(numbers, device=device)
        where = torch.isin(queries, cut.queries.to(device)).nonzero()[:, 0]
        edges = cut.row, heads[:, None, None], where[:, None], keys
        if cut.own:
            allowed[edges] = False
        else:
            allowed[edges] &= keys == queries[where, None]
        touched[cut.row, where[:, None], heads] = True
    return allowed, touched


@dataclass(eq=False)
class _Site:
    """A tap that reads and edits one attention module in the plain pass."""

    edits: list[ZEdit] = field(default_factory=list)
    cuts: list[tuple[Cut, list[int]]] = field(default_factory=list)
    answer: int | None = None
    class_and_patches: bool = False
    class_token: bool = False
    keep_z: bool = False
    capture: Capture | None = None
    layer: int = 0
    row: Tensor | None = None
    class_row: Tensor | None = None
    patch_row: Tensor | None = None
    z: Tensor | None = None

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        z = plain_attention(module, query, key, value, mask, **options)
        if self.cuts:
            z = self._cut(z, module, query, key, value, mask, options)
        if self.keep_z:
            self._take(z)
        if self.capture is not None:
            self.capture.keep(self.layer, query, key, value, mask, z)
        if self.edits:
            z = self._replace(z)
        if self.answer is not None:
            chosen = torch.tensor([self.answer], device=query.device)
            self.row = attention_rows(module, query, key, mask, chosen, **options)[:, :, 0]
        if self.class_and_patches:
            self._average(module, query, key, mask, options)
        return z

    def _take(self, z: Tensor) -> None:
        self.z = z

    def kept(self) -> Tensor | None:
        """Z of all runs, ``[runs, tokens, heads, dim]``."""
        return self.z

    def _replace(self, z: Tensor) -> Tensor:
        z = z.clone()
        for edit in self.edits:
            where = edit.positions.to(z.device)
            z[edit.row, where, edit.head.head] = (
                0.0 if edit.value is None else edit.value.to(z.device, z.dtype)
            )
        return z

    def _cut(
        self,
        z: Tensor,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        queries = torch.cat([cut.queries for cut, _ in self.cuts]).unique().to(z.device)
        shape = len(z), z.shape[2], len(queries), key.shape[2]
        allowed, touched = allowed_edges(self.cuts, queries, shape)
        rows = attention_rows(module, query, key, mask, queries, allowed, **options)
        z = z.clone()
        z[:, queries] = torch.where(touched[..., None], weigh(rows, value), z[:, queries])
        return z

    def _average(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> None:
        first = int(self.class_token)
        total = query.new_zeros(*query.shape[:2], key.shape[2], dtype=torch.float32)
        for block in torch.arange(first, query.shape[2], device=query.device).split(_BLOCK):
            total += attention_rows(module, query, key, mask, block, **options).sum(2)
        self.patch_row = total / (query.shape[2] - first)
        if self.class_token:
            chosen = torch.zeros(1, dtype=torch.long, device=query.device)
            self.class_row = attention_rows(module, query, key, mask, chosen, **options)[:, :, 0]


@dataclass(eq=False)
class _TowerSite(_Site):
    """A tap of the vision tower, whose tokens of one run may lie in several rows or calls.

    A run's tokens are counted through: tile after tile, or in the order in which the tower takes
    them.

    Attributes
    ----------
    runs
        Of the batch.
    patches
        Tokens of one run, where the tower takes those of all runs in one row, in one or several
        calls.
    """

    runs: int = 1
    patches: int | None = None
    seen: int = 0
    parts: list[Tensor] = field(default_factory=list)

    def _take(self, z: Tensor) -> None:
        self.parts.append(z.flatten(0, 1))

    def kept(self) -> Tensor | None:
        return torch.cat(self.parts).unflatten(0, (self.runs, -1)) if self.parts else None

    def _replace(self, z: Tensor) -> Tensor:
        z = z.clone(memory_format=torch.contiguous_format)
        flat = z.view(-1, *z.shape[2:])
        each = self.patches or len(flat) // self.runs
        for edit in self.edits:
            at = edit.row * each + edit.positions.to(z.device) - self.seen
            here = (at >= 0) & (at < len(flat))
            flat[at[here], edit.head.head] = (
                0.0 if edit.value is None else edit.value.to(z.device, z.dtype)[here]
            )
        self.seen += len(flat)
        return z

    def _cut(self, z: Tensor, *arguments: Any) -> Tensor:
        if len(z) != self.runs:
            raise RunError("edges of this vision tower cannot be cut: it sees a run in parts")
        return super()._cut(z, *arguments)


def _tower_sites(vlm: VLM, prompt: Prompt) -> dict[nn.Module, _Site]:
    if vlm.vision is None:
        return {}
    pixels = prompt.inputs.get("pixel_values")
    flat = vlm.family.one_row and pixels is not None and pixels.ndim == 2
    patches = len(pixels) // prompt.runs if flat and pixels is not None else None
    return {
        module: _TowerSite(runs=prompt.runs, patches=patches) for module in vlm.vision.attentions
    }


@torch.no_grad()
def forward(
    vlm: VLM,
    prompt: Prompt,
    edits: Sequence[ZEdit] = (),
    cuts: Sequence[Cut] = (),
    keep: Keep | None = None,
    exact: bool = False,
) -> Trace:
    """Run one batch.

    Parameters
    ----------
    prompt
        As many runs as rows are wanted.
    edits, cuts
        What differs in which row.
    keep
        What to record; nothing but the answer's logits by default.
    exact
        Over low-precision weights, compute in float32 (see `headpatch.engine.precision`).

    Raises
    ------
    RunError
        If a logit is not a number.
    """
    keep = keep or Keep()
    sites: dict[nn.Module, _Site] = defaultdict(_Site, _tower_sites(vlm, prompt))
    draws = keep.vision_rows and vlm.vision is not None and vlm.family.vision_rows
    vision = vlm.vision.attentions if draws and vlm.vision is not None else ()
    for edit in edits:
        sites[vlm.attention(edit.head)].edits.append(edit)
    for cut in cuts:
        for (tower, layer), numbers in cut.by_layer().items():
            sites[vlm.stack(tower).attentions[layer]].cuts.append((cut, numbers))
    if keep.lm_rows:
        for module in vlm.lm.attentions:
            sites[module].answer = prompt.spans.answer
    for module in vision:
        sites[module].class_and_patches = True
        sites[module].class_token = vlm.family.class_token
    for tower in keep.z:
        for module in vlm.stack(tower).attentions:
            sites[module].keep_z = True
    raise_it = exact and is_low(vlm)
    dtype = torch.float32 if raise_it else vlm.dtype
    inputs = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in prompt.inputs.items()
    }
    with ExitStack() as stack:
        capture = points = None
        if keep.suffix is not None:
            capture = Capture(keep.suffix, prompt.spans.length)
            points = Points(keep.suffix, vlm.dtype)
            stack.enter_context(capture.hooked(vlm))
            for index, module in enumerate(vlm.lm.attentions):
                sites[module].capture, sites[module].layer = capture, index
        if raise_it:
            stack.enter_context(raised(vlm, points))
        stack.enter_context(tapped(vlm.model, dict(sites)))
        output = vlm.model(**inputs, use_cache=False, logits_to_keep=1)
    logits = output.logits[:, -1].float()
    if not torch.isfinite(logits).all():
        way_out = "try --dtype float32, and check" if is_low(vlm) else "check"
        raise RunError(
            f"the model's logits are not finite ({vlm.name}, {vlm.dtype}): {way_out} the weights"
        )
    return Trace(
        logits,
        lm_rows=_stacked(
            [_over_tokens(sites[module].row, prompt) for module in vlm.lm.attentions]
            if keep.lm_rows
            else []
        ),
        vision_class_rows=_stacked([sites[module].class_row for module in vision]),
        vision_patch_rows=_stacked([sites[module].patch_row for module in vision]),
        z={
            tower: [_there(sites[module].kept()) for module in vlm.stack(tower).attentions]
            for tower in keep.z
        },
        prefills=_prefills(vlm, capture, points, len(logits)),
    )


def _prefills(
    vlm: VLM, capture: Capture | None, points: Points | None, runs: int
) -> tuple[Prefill, ...]:
    if capture is None:
        return ()
    layers = capture.layers(len(vlm.lm.layers))
    return tuple(split(layers, runs, capture.start, capture.tokens, points, capture.refused))


def _over_tokens(row: Tensor | None, prompt: Prompt) -> Tensor | None:
    """Return a row over the prompt's tokens; NaN where the layer attends to something else."""
    if row is None or row.shape[-1] == prompt.spans.length:
        return row
    return row.new_full((*row.shape[:-1], prompt.spans.length), torch.nan)


def _there(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise RunError("an attention module never ran through headpatch's attention function")
    return tensor


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Stack the layers' rows, ``[batch, heads, tokens]`` each, along dimension 1."""
    if not parts or all(part is None for part in parts):
        return None
    return torch.stack([_there(part).cpu() for part in parts], 1)

"""TransformerLens: hand the model over to it, and check headpatch's numbers against it.

TransformerLens 4 bridges a LLaVA with hooks of its own on every part; `to_lens` gives such a bridge
for notebooks and tools written for it. It is no engine for headpatch: it runs eager attention, so
that every head's whole N×N pattern is held, and one forward pass for each head. What to know when
using a bridge by hand:

- Pass the picture and the mask each time (``bridge(ids, pixel_values=…, attention_mask=…)``). The
  helpers of ``transformer_lens.patching`` drop the picture without a word.
- Both towers have hooks whose names end in ``attn.hook_z``: filter by `hook_name`, not by ending.
- Edits of a vision head's pattern are ignored; edits of its z are not.
"""

from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.models.prompt import Prompt
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM

if TYPE_CHECKING:
    import pandas

Hook = Callable[..., Tensor | None]

_BLOCKS = {"lm": "blocks", "vision": "vision_encoder.encoder_layers"}
_DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


def to_lens(vlm: VLM) -> Any:
    """Return a ``TransformerBridge`` around a copy of the model, whose weights it holds once more.

    A copy, because the bridge changes the model it is given in place. An `InputError` if
    TransformerLens is not installed or does not know the architecture.
    """
    build = _builder()
    model = deepcopy(vlm.model)
    kind = type(model).__name__
    try:
        return build(
            model, kind, hf_config=model.config, tokenizer=_as_is(vlm), model_name=vlm.name
        )
    except ValueError as error:
        found = f"TransformerLens does not take a {kind} ({error})"
        expected = "an architecture that it knows, such as LlavaForConditionalGeneration"
        raise InputError("--model", found, expected) from error


def hook_name(head: Head, activation: Literal["z", "pattern"] = "z") -> str:
    """Return the bridge's name for the z (or the attention pattern) of `head`'s layer.

    z has shape ``[batch, position, head, d_head]``, a pattern ``[batch, head, query, key]``.
    """
    return f"{_BLOCKS[head.tower]}.{head.layer}.attn.hook_{activation}"


@dataclass(frozen=True, eq=False)
class CrossCheck:
    """headpatch's numbers beside TransformerLens's; LD is of the with-run and of the without-run.

    `effects` has a row for each head × direction, resampled: ``heads``, ``direction``,
    ``positions``, ``effect`` and ``lens_effect``, both in logits. `row_difference` is the largest
    of an attention weight at the answer position, over all language-model heads and both runs; NaN
    if no rows are kept.
    """

    effects: "pandas.DataFrame"
    ld: tuple[float, float]
    lens_ld: tuple[float, float]
    row_difference: float

    @property
    def worst(self) -> float:
        """Largest difference of an LD or an effect, in logits."""
        differences = [abs(a - b) for a, b in zip(self.ld, self.lens_ld, strict=True)]
        differences += (self.effects["effect"] - self.effects["lens_effect"]).abs().tolist()
        return max(differences)


def cross_check(
    vlm: VLM,
    base: Baseline,
    heads: Sequence[Head],
    positions: Positions = "answer",
    bridge: Any = None,
) -> CrossCheck:
    """Resample each head in both directions, with headpatch and with TransformerLens.

    TransformerLens reads its own z and runs its own passes: only the prompt's tensors are shared.
    Float32 models agree to about 1e-5 logits; lower precision says nothing. `base` must keep z of
    the heads' towers. A vision head is changed everywhere. `bridge` is made by `to_lens` if left
    out.
    """
    import pandas

    bridge = bridge if bridge is not None else to_lens(vlm)
    asked = [
        Intervention(HeadSet.of(head), "resample", direction, positions)
        for head in heads
        for direction in _DIRECTIONS
    ]
    runs = [_run(bridge, base.prompt.select(run), heads) for run in (WITH, WITHOUT)]
    rows = []
    for one, outcome in zip(asked, patch(vlm, base, asked), strict=True):
        (head,) = one.heads
        run, name = one.run, hook_name(head)
        hook = _replace(head, _places(base, head, positions), runs[1 - run].z[name])
        ld = _ld(_logits(bridge, base.prompt.select(run), [(name, hook)]), base)
        effect = ld - _ld(runs[run].logits, base)
        rows.append([str(head), one.direction, positions, outcome.effect, effect])
    columns = ["heads", "direction", "positions", "effect", "lens_effect"]
    effects = pandas.DataFrame(rows, columns=columns)
    lds = base.ld_with, base.ld_without
    theirs = _ld(runs[WITH].logits, base), _ld(runs[WITHOUT].logits, base)
    return CrossCheck(effects, lds, theirs, _row_difference(base, runs))


@dataclass(frozen=True, eq=False)
class _Run:
    """An untouched run of the bridge: z by hook name, rows as ``[layers, heads, tokens]``."""

    logits: Float[Tensor, " vocabulary"]
    z: dict[str, Tensor]
    rows: Float[Tensor, "layers heads tokens"]


def _run(bridge: Any, prompt: Prompt, heads: Sequence[Head]) -> _Run:
    z: dict[str, Tensor] = {}
    rows: list[Tensor] = []

    def keep_z(name: str) -> Hook:
        def keep(value: Tensor, hook: Any) -> None:
            z[name] = value[0].detach().clone()

        return keep

    def keep_row(value: Tensor, hook: Any) -> None:
        rows.append(value[0, :, prompt.spans.answer].detach().float().cpu())

    wanted = dict.fromkeys(hook_name(head) for head in heads)
    layers = [hook_name(Head(layer, 0), "pattern") for layer in range(bridge.cfg.n_layers)]
    hooks: list[tuple[str, Hook]] = [(name, keep_z(name)) for name in wanted]
    hooks += [(name, keep_row) for name in layers]
    logits = _logits(bridge, prompt, hooks)
    return _Run(logits, z, torch.stack(rows))


def _replace(head: Head, positions: Tensor, source: Tensor) -> Hook:
    def hook(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        value[:, positions, head.head] = source[positions, head.head]
        return value

    return hook


@torch.no_grad()
def _logits(bridge: Any, prompt: Prompt, hooks: Sequence[tuple[str, Hook]]) -> Tensor:
    inputs = dict(prompt.inputs)
    logits: Tensor = bridge.run_with_hooks(
        inputs.pop("input_ids"), fwd_hooks=list(hooks), return_type="logits", **inputs
    )
    return logits[0, -1].float()


def _ld(logits: Tensor, base: Baseline) -> float:
    return float(base.prompt.answers.ld(logits))


def _places(base: Baseline, head: Head, positions: Positions) -> Tensor:
    if head.tower == "lm":
        return base.prompt.spans.positions(positions)
    return torch.arange(base.trace.z["vision"][head.layer].shape[1])


def _row_difference(base: Baseline, runs: Sequence[_Run]) -> float:
    if base.trace.lm_rows is None:
        return float("nan")
    theirs = torch.stack([run.rows for run in runs])
    return float((base.trace.lm_rows - theirs).abs().max())


def _as_is(vlm: VLM) -> Any:
    """The tokenizer, said to add its first token already; else the bridge would load it anew."""
    tokenizer = copy(vlm.processor.tokenizer)
    given = {"name_or_path": vlm.name, **tokenizer.init_kwargs}
    tokenizer.init_kwargs = {**given, "add_bos_token": True}
    return tokenizer


def _builder() -> Callable[..., Any]:
    try:
        from transformer_lens.model_bridge.sources import build_bridge_from_module
    except ImportError as error:
        found = f"TransformerLens cannot be imported ({error})"
        hint = "Install it: pip install 'headpatch[lens]'."
        raise InputError("headpatch.interop.lens", found, "the extra `lens`", hint) from None
    return build_bridge_from_module  # type: ignore[no-any-return]

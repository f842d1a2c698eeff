"""Any family run the plain way: transformers' own eager attention, hooks on output projections.

It finds the projections by their names alone and knows nothing of `headpatch.models.families`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headpatch.heads import Head
from headpatch.models.vlm import VLM

_PROJECTIONS = {
    "lm": (
        r"\.(language_model|text_model)\.layers\.\d+\."
        r"(self_attn|cross_attn|attention)\.(o_proj|dense)$"
    ),
    "vision": (
        r"\.(vision_tower|vision_model|visual)\..*\b(layers|layer|blocks)\.\d+\."
        r"(self_attn|attention|attn)\.(out_proj|o_proj|projection_layer|proj)$"
    ),
}


@dataclass(frozen=True)
class Change:
    """z of one head at some positions, counted through all of a run's tokens; None is zero."""

    head: Head
    positions: Sequence[int] | Tensor
    value: Tensor | None


class Oracle:
    """A copy of a model, one run at a time."""

    def __init__(self, vlm: VLM) -> None:
        self.model = deepcopy(vlm.model)
        self.model.set_attn_implementation("eager")
        self.outputs = {
            tower: [
                module for name, module in self.model.named_modules() if re.search(pattern, name)
            ]
            for tower, pattern in _PROJECTIONS.items()
        }
        config = self.model.config
        self.heads = {
            "lm": config.get_text_config().num_attention_heads,
            "vision": config.vision_config.num_attention_heads,
        }

    def logits(self, inputs: dict[str, Tensor], changes: Sequence[Change] = ()) -> Tensor:
        """Logits at the last position of every row."""
        with _held([self._replace(change) for change in changes]), torch.no_grad():
            return self.model(**inputs).logits[:, -1]

    def rows(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """By layer: all attention maps of the language model."""
        with torch.no_grad():
            return self.model(**inputs, output_attentions=True).attentions

    def z(self, inputs: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        """By tower and layer: ``[tokens of the run, heads, head_dim]``."""
        found: dict[str, list[Tensor]] = {"lm": [], "vision": []}

        def keep(tower: str) -> Callable[..., None]:
            def hook(_: nn.Module, arguments: tuple[Tensor]) -> None:
                flat = arguments[0].reshape(-1, arguments[0].shape[-1])
                found[tower].append(flat.unflatten(-1, (self.heads[tower], -1)))

            return hook

        hooks = [
            module.register_forward_pre_hook(keep(tower))
            for tower, modules in self.outputs.items()
            for module in modules
        ]
        with _held(hooks), torch.no_grad():
            self.model(**inputs)
        return found

    def _replace(self, change: Change) -> "torch.utils.hooks.RemovableHandle":
        module = self.outputs[change.head.tower][change.head.layer]
        width = module.in_features // self.heads[change.head.tower]
        start = change.head.head * width

        def hook(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            flat = arguments[0].reshape(-1, arguments[0].shape[-1]).clone()
            value = 0.0 if change.value is None else change.value.to(flat)
            flat[torch.as_tensor(change.positions), start : start + width] = value
            return (flat.view(arguments[0].shape),)

        return module.register_forward_pre_hook(hook)


@contextmanager
def _held(hooks: Sequence["torch.utils.hooks.RemovableHandle"]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

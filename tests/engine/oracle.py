"""The slow obvious twin of the engine: plain transformers with hooks, knowing nothing of it.

A fresh copy of the model runs with transformers' own attention; z is what enters an output
projection, read and replaced by pre-hooks there; rows are ``output_attentions=True``; edges are
cut by adding to the mask that eager attention adds to its scores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from headpatch.heads import Head
from headpatch.models.vlm import VLM

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Change:
    """z of one head at some positions; None is zero."""

    head: Head
    positions: Sequence[int]
    value: Tensor | None


@dataclass(frozen=True)
class Edges:
    """Keys that some queries of one head may no longer see."""

    head: Head
    queries: Sequence[int]
    keys: Sequence[int]


class Oracle:
    """A copy of a model, run the plain way."""

    def __init__(self, vlm: VLM, attention: str = "eager") -> None:
        self.model: LlavaForConditionalGeneration = deepcopy(vlm.model)
        self.model.set_attn_implementation(attention)
        text, vision = self.model.config.text_config, self.model.config.vision_config
        self.head_dim = {
            "lm": text.head_dim,
            "vision": vision.hidden_size // vision.num_attention_heads,
        }
        self.attentions = {
            "lm": [layer.self_attn for layer in self.model.model.language_model.layers],
            "vision": [layer.self_attn for layer in self.model.model.vision_tower.encoder.layers],
        }

    def logits(
        self, inputs: Inputs, changes: Sequence[Change] = (), edges: Sequence[Edges] = ()
    ) -> Tensor:
        """Logits at the last position of every row; changes apply to every row."""
        hooks = [self._replace(change) for change in changes]
        hooks += [
            self._cut(self.attentions[tower][layer], members)
            for (tower, layer), members in _by_module(edges)
        ]
        with _held(hooks), torch.no_grad():
            return self.model(**inputs).logits[:, -1]

    def rows(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """All attention maps: of the language model and of the vision tower.

        Each of shape ``[batch, layers, heads, queries, keys]``.
        """
        with torch.no_grad():
            lm = self.model(**inputs, output_attentions=True).attentions
            vision = self.model.model.vision_tower(
                inputs["pixel_values"], output_attentions=True
            ).attentions
        return torch.stack(lm, 1), torch.stack(vision, 1)

    def z(self, inputs: Inputs) -> dict[str, list[Tensor]]:
        """By tower and layer: ``[batch, tokens, heads, head_dim]``."""
        found: dict[str, list[Tensor]] = {"lm": [], "vision": []}

        def keep(tower: str) -> Callable[..., None]:
            def hook(_: nn.Module, arguments: tuple[Tensor]) -> None:
                found[tower].append(arguments[0].unflatten(-1, (-1, self.head_dim[tower])))

            return hook

        hooks = [
            _projection(module).register_forward_pre_hook(keep(tower))
            for tower, modules in self.attentions.items()
            for module in modules
        ]
        with _held(hooks), torch.no_grad():
            self.model(**inputs)
        return found

    def _replace(self, change: Change) -> "torch.utils.hooks.RemovableHandle":
        width = self.head_dim[change.head.tower]
        start = change.head.head * width

        def hook(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            mixed = arguments[0].clone()
            value = 0.0 if change.value is None else change.value.to(mixed)
            mixed[:, list(change.positions), start : start + width] = value
            return (mixed,)

        module = self.attentions[change.head.tower][change.head.layer]
        return _projection(module).register_forward_pre_hook(hook)

    def _cut(
        self, module: nn.Module, edges: Sequence[Edges]
    ) -> "torch.utils.hooks.RemovableHandle":
        def hook(
            _: nn.Module, arguments: tuple[Tensor, ...], options: dict[str, Tensor]
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            x = arguments[0] if arguments else options["hidden_states"]
            heads = module.q_proj.out_features // module.head_dim
            blocked = x.new_zeros(len(x), heads, x.shape[1], x.shape[1])
            for one in edges:
                rows = torch.tensor(one.queries)[:, None]
                blocked[:, one.head.head, rows, torch.tensor(one.keys)] = torch.finfo(x.dtype).min
            if len(arguments) > 1:  # the vision layer passes its mask by position
                mask = arguments[1]
                return (x, blocked if mask is None else blocked + mask, *arguments[2:]), options
            mask = options.get("attention_mask")
            return arguments, {
                **options,
                "attention_mask": blocked if mask is None else blocked + mask,
            }

        return module.register_forward_pre_hook(hook, with_kwargs=True)


def _projection(module: nn.Module) -> nn.Module:
    return module.o_proj if hasattr(module, "o_proj") else module.out_proj


def _by_module(edges: Sequence[Edges]) -> Iterator[tuple[tuple[str, int], list[Edges]]]:
    places = sorted({(one.head.tower, one.head.layer) for one in edges})
    for place in places:
        yield place, [one for one in edges if (one.head.tower, one.head.layer) == place]


@contextmanager
def _held(hooks: Sequence["torch.utils.hooks.RemovableHandle"]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

"""The slow obvious twin of the engine: plain transformers with hooks, knowing nothing of it.

A fresh copy of a model of any family runs with transformers' own attention. Output projections are
found by their names alone; z is what enters one, read and replaced by pre-hooks there; rows are
``output_attentions=True``; edges are cut by adding to the mask that eager attention adds to its
scores.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, ZMeans
from headpatch.heads import Head
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Inputs = dict[str, Tensor]
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
    """z of one head at some of a run's tokens, tiles one after another; None is zero."""

    head: Head
    positions: Sequence[int] | Tensor
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
        self.model: Any = deepcopy(vlm.model)
        self.model.set_attn_implementation(attention)
        config, named = self.model.config, dict(self.model.named_modules())
        self.heads = {
            "lm": config.get_text_config().num_attention_heads,
            "vision": config.vision_config.num_attention_heads,
        }
        names = {t: [n for n in named if re.search(p, n)] for t, p in _PROJECTIONS.items()}
        self.outputs = {t: [named[n] for n in names[t]] for t in names}
        self.attentions = {t: [named[n.rpartition(".")[0]] for n in names[t]] for t in names}

    def logits(
        self, inputs: Inputs, changes: Sequence[Change] = (), edges: Sequence[Edges] = ()
    ) -> Tensor:
        """Logits at the last position of every row; changes are those of a single run."""
        hooks = [self._replace(change) for change in changes]
        for tower, layer in {(one.head.tower, one.head.layer) for one in edges}:
            members = [one for one in edges if (one.head.tower, one.head.layer) == (tower, layer)]
            hooks.append(_cut(self.attentions[tower][layer], members))
        with _held(hooks), torch.no_grad():
            return self.model(**inputs).logits[:, -1]

    def ld(
        self, prompt: Prompt, run: int, changes: Sequence[Change] = (), edges: Sequence[Edges] = ()
    ) -> float:
        """LD of one of a pair's runs."""
        logits = self.logits(prompt.select(run).inputs, changes, edges)[0]
        return float(logits[prompt.answers.yes] - logits[prompt.answers.no])

    def lm_rows(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """By layer: all attention maps of the language model."""
        with torch.no_grad():
            return self.model(**inputs, output_attentions=True).attentions

    def vision_rows(self, inputs: Inputs) -> Tensor:
        """All attention maps of the vision tower: ``[batch, layers, heads, queries, keys]``."""
        tower, pixels = self.model.model.vision_tower, inputs["pixel_values"]
        with torch.no_grad():
            return torch.stack(tower(pixels, output_attentions=True).attentions, 1)

    def tower_maps(self, inputs: Inputs) -> list[Tensor]:
        """All attention maps of one run's vision tower, by layer: ``[heads, tokens, tokens]``.

        Tiles, or whatever each call of the attention function sees, are blocks of one map; they are
        what eager attention returns in that call.
        """
        found: dict[int, list[Tensor]] = {id(one): [] for one in self.attentions["vision"]}

        def record(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
            eager = sys.modules[type(module).__module__].eager_attention_forward
            z, rows = eager(module, *args, **{"dropout": 0.0, **options})
            found.get(id(module), []).extend(rows)
            return z, rows

        AttentionInterface.register("recorded", record)
        AttentionMaskInterface.register("recorded", eager_mask)
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("recorded")
        try:
            with torch.no_grad():
                self.model(**inputs)
        finally:
            self.model.set_attn_implementation(before)
        return [
            torch.stack([torch.block_diag(*heads) for heads in zip(*tiles, strict=True)])
            for tiles in found.values()
        ]

    def z(self, inputs: Inputs, changes: Sequence[Change] = ()) -> dict[str, list[Tensor]]:
        """By tower and layer: ``[batch or tiles, tokens, heads, head_dim]``."""
        found: dict[str, list[Tensor]] = {"lm": [], "vision": []}

        def keep(tower: str) -> Callable[..., None]:
            def hook(_: nn.Module, arguments: tuple[Tensor]) -> None:
                found[tower].append(arguments[0].unflatten(-1, (self.heads[tower], -1)))

            return hook

        hooks = [self._replace(change) for change in changes]
        for tower, modules in self.outputs.items():
            hooks += [module.register_forward_pre_hook(keep(tower)) for module in modules]
        with _held(hooks), torch.no_grad():
            self.model(**inputs)
        return found

    def _replace(self, change: Change) -> RemovableHandle:
        module = self.outputs[change.head.tower][change.head.layer]
        width = module.in_features // self.heads[change.head.tower]
        start = change.head.head * width

        def hook(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            flat = arguments[0].reshape(-1, arguments[0].shape[-1]).clone()
            value = 0.0 if change.value is None else change.value.to(flat)
            flat[torch.as_tensor(change.positions), start : start + width] = value
            return (flat.view(arguments[0].shape),)

        return module.register_forward_pre_hook(hook)


def _cut(module: Any, edges: Sequence[Edges]) -> RemovableHandle:
    def hook(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
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
        return arguments, {**options, "attention_mask": blocked if mask is None else blocked + mask}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


@contextmanager
def _held(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Twin:
    """Interventions on a pair of a tiny LLaVA (4 × 4 patches), by the oracle."""

    def __init__(self, vlm: VLM, base: Baseline, means: ZMeans | None = None) -> None:
        self.oracle, self.prompt, self.means = Oracle(vlm), base.prompt, means or {}
        self.z = self.oracle.z(base.prompt.inputs)

    def logits(self, one: Intervention) -> Tensor:
        """Of the run that is changed."""
        run = WITH if one.direction == "noising" else WITHOUT
        changes = []
        for head in one.heads:
            runs, places = self.z[head.tower][head.layer], self._places(head, one)
            if one.kind == "mean":
                value = self.means[head.tower][head.layer]
            else:
                value = {
                    "self": runs[run],
                    "resample": runs[1 - run],
                    "zero": 0 * runs[run],
                    "scale": (one.alpha or 0) * runs[run],
                }[one.kind]
            changes.append(Change(head, places, value[places, head.head]))
        return self.oracle.logits(self.prompt.select(run).inputs, changes)[0]

    def ld(self, one: Intervention) -> float:
        logits, answers = self.logits(one), self.prompt.answers
        return float(logits[answers.yes] - logits[answers.no])

    def _places(self, head: Head, one: Intervention) -> list[int]:
        """The positions of a scope, from the token ids alone."""
        length, image = len(self.prompt.input_ids), self.prompt.spans.image
        every = {
            "vision": {"class": [0], "patches": range(1, 17), "all": range(17)},
            "lm": {
                "answer": [length - 1],
                "image": image.tolist(),
                "question": range(int(image[-1]) + 1, length),
                "all": range(length),
            },
        }[head.tower]
        return list(every[one.vision_positions if head.tower == "vision" else one.positions])


def blend(z: dict[str, list[Tensor]]) -> ZMeans:
    """Means of the right shape, of which any will do: neither run, and not half of both."""
    return {t: [0.3 * one[WITH] + 0.7 * one[WITHOUT] + 0.1 for one in z[t]] for t in z}

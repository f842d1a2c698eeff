"""`VLM`: a loaded vision-language model and the parts of it that can be looked into."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from headpatch.errors import InputError
from headpatch.heads import Grid, Head, Tower
from headpatch.models.families import DECODERS, FAMILIES, LIKE_LLAMA, TOWERS, Family
from headpatch.models.joined import numbered_alone
from headpatch.pairs.framing import Framing
from headpatch.text import spelling


@dataclass(frozen=True, eq=False)
class Stack:
    """The layers of one tower, and in each layer its attention and output projection."""

    layers: Sequence[nn.Module]
    attentions: Sequence[nn.Module]
    outputs: Sequence[nn.Module]
    grid: Grid  # layers × heads
    head_dim: int  # width of one head's z, the widest layer's; not always hidden size / heads
    # Whether something lies between attention and its projection, so that z, which is what enters
    # the projection, is not what the attention function gives.
    at_output: bool = False

    def devices(self) -> list[torch.device]:
        """Where each layer computes."""
        return [device_of(layer) for layer in self.layers]


@dataclass(frozen=True, eq=False)
class VLM:
    """A loaded model with its processor.

    Attributes
    ----------
    name
        What the user called it: ``demo``, a folder or a hub id.
    fingerprint
        The hub commit, or a hash of the weight files (see `headpatch.models.load`).
    unused
        How many weights of the checkpoint the model has no place for.
    settings
        The hub commit, or a hash of the config, processor, tokenizer and chat template.
    found
        Where things are in a model that no table lists (see `headpatch.models.discovery`).
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    fingerprint: str
    unused: int = 0
    settings: str = ""
    found: Family | None = None

    def __repr__(self) -> str:
        """Return a line: name, class, heads and where they are."""
        layers, heads = self.lm.grid.layers, self.lm.grid.heads
        kind = f"{type(self.model).__name__}, {layers} layers × {heads} heads"
        return f"<VLM {self.name}: {kind}, on {self.device}>"

    @cached_property
    def prompts(self) -> dict[tuple[str, str, Framing], str]:
        """Prompts by chat template, question and study's template, as first asked.

        A template may hold the time: what is finished is known by the words of the first question.
        """
        return {}

    @cached_property
    def spellings(self) -> dict[str, tuple[int, ...]]:
        """Tokens of the vocabulary by their `spelling`, but for those that are space alone."""
        tokenizer: Any = self.processor.tokenizer
        tokens = min(len(tokenizer), int(self.model.config.get_text_config().vocab_size))
        texts = tokenizer.batch_decode([[token] for token in range(tokens)])
        found: dict[str, tuple[int, ...]] = {}
        for token, text in enumerate(texts):
            if word := spelling(text):
                found[word] = (*found.get(word, ()), token)
        return found

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return device_of(self.model.get_input_embeddings())

    def devices(self) -> list[torch.device]:
        """Where anything of the language model computes, each once."""
        if not getattr(self.model, "hf_device_map", None):  # not spread by Accelerate
            return [self.device]
        ends = self.model.get_input_embeddings(), self.final_norm, self.unembedding
        return list(dict.fromkeys([*self.lm.devices(), *map(device_of, ends)]))

    @property
    def unembedding(self) -> nn.Module:
        """What makes logits of the last hidden state."""
        found: nn.Module = self.model.get_output_embeddings()
        return found

    @property
    def image_processor(self) -> str:
        """The class that makes pixels of pictures; there is one for torchvision and one for PIL."""
        return type(getattr(self.processor, "image_processor", None)).__name__

    @property
    def identity(self) -> dict[str, str]:
        """Whatever of the model its numbers depend on, but for the device it is on."""
        return {
            "weights": self.fingerprint,
            "settings": self.settings,
            "image_processor": self.image_processor,
            "dtype": str(self.dtype),
        }

    @cached_property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.model.dtype  # type: ignore[no-any-return]

    @cached_property
    def parts(self) -> tuple[PreTrainedModel, ...]:
        """Every model within the model: each has a config of its own."""
        return tuple(parts(self.model))

    @cached_property
    def family(self) -> Family:
        """Where things are in this model."""
        if self.found is not None:
            return self.found
        kind = str(self.model.config.model_type)
        if kind not in FAMILIES:
            found = f"{self.name} is of family {kind!r}"
            raise InputError("--model", found, f"one of {', '.join(FAMILIES)}")
        tower = str(getattr(self.model.config.vision_config, "model_type", ""))
        decoder = str(self.model.config.get_text_config().model_type)
        return replace(FAMILIES[kind], **TOWERS.get(tower, {}), **DECODERS.get(decoder, {}))

    @cached_property
    def decoder(self) -> nn.Module:
        """The text model: its ``layers`` and final ``norm``."""
        return _first(self.model, self.family.decoder)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the text model's last layer and the unembedding."""
        return (
            _first(self.decoder, (self.family.lm_norm,)) if self.family.lm_norm else nn.Identity()
        )

    @cached_property
    def lm(self) -> Stack:
        """The language model's layers."""
        family, config = self.family, self.model.config.get_text_config()
        layers = list(_first(self.decoder, (family.layers,)).children())
        heads = family.lm_heads or int(config.num_attention_heads)
        names = [name for name in (family.lm_attention, family.cross_attention) if name]
        try:
            self.final_norm  # noqa: B018  part of the layout
            grid = Grid(len(layers), heads, without=family.lm_without)
            return _stack(layers, names, family.lm_output, grid, family.lm_at_output)
        except (InputError, AttributeError) as error:
            missing = error.found if isinstance(error, InputError) else str(error)
            raise InputError(
                "--model",
                f"{self.name}: its decoder is of type {config.model_type!r}, whose parts are "
                f"not where they are looked for ({missing})",
                f"a decoder such as {', '.join((*LIKE_LLAMA, *DECODERS))}",
            ) from None

    @cached_property
    def crossing(self) -> frozenset[int]:
        """Language-model layers that look at the image across, and at no token of the prompt."""
        name = self.family.cross_attention
        return frozenset(
            index for index, layer in enumerate(self.lm.layers) if name and hasattr(layer, name)
        )

    @cached_property
    def vision(self) -> Stack | None:
        """The vision tower's layers, if headpatch can change them in this family."""
        if not self.family.vision:
            return None
        layers = [
            layer
            for part in zip(*(path.split("+") for path in self.family.vision), strict=True)
            for layer in _first(self.model, part).children()
        ]
        heads = self.family.vision_heads or int(self.model.config.vision_config.num_attention_heads)
        grid = Grid(len(layers), heads, "vision")
        family = self.family
        names = family.vision_attention, family.vision_output, family.vision_at_output
        return _stack(layers, names[:1], names[1], grid, names[2])

    @cached_property
    def feature_layer(self) -> int | None:
        """The last vision layer whose output reaches the language model; the last unless set.

        ``hidden_states[0]`` is the embedding, so ``vision_feature_layer=-2`` of 24 layers is
        hidden state 23, the output of layer 22: layer 23 never reaches the language model.
        """
        if self.vision is None:
            return None
        read = self.family.vision_read
        return named_layer(self.model.config, self.vision.grid.layers) if read is None else read

    def stack(self, tower: Tower) -> Stack:
        """Return the layers of `tower`; an `InputError` if this family's cannot be changed."""
        if tower == "lm":
            return self.lm
        if self.vision is None:
            raise InputError("--heads", "a vision head", "language-model heads in this model")
        return self.vision

    def attention(self, head: Head) -> nn.Module:
        """Return the attention module that `head` belongs to."""
        return self.stack(head.tower).attentions[head.layer]


def named_layer(config: PretrainedConfig, layers: int) -> int:
    """Return the last of a tower's layers that a config names to be read; the last of all unless.

    See `VLM.feature_layer`.
    """
    names = ("vision_feature_layer", "vision_feature_layers")
    named = (getattr(config, name, None) for name in names)
    chosen = next((one for one in named if one is not None), -1)
    indices = [chosen] if isinstance(chosen, int) else list(chosen)
    return max(index % (layers + 1) for index in indices) - 1


def parts(module: nn.Module) -> Iterator[PreTrainedModel]:
    """Yield every model within a model, itself first; layers, which are many, hold none."""
    if isinstance(module, PreTrainedModel):
        yield module
    if not isinstance(module, nn.ModuleList):
        for child in module.children():
            yield from parts(child)


@contextmanager
def implemented(parts: Iterable[PreTrainedModel], name: str) -> Iterator[None]:
    """Run every part of a model with an attention implementation, by transformers' name.

    Each run of a batch is read as if it were alone; see `headpatch.models.joined`.
    """
    parts = list(parts)
    before = [(part.config, part.config._attn_implementation) for part in parts]
    try:
        # Set directly: the public setter looks at every module, and would push a parent's choice
        # down to its children.
        for config, _ in before:
            config._attn_implementation_internal = name
        with numbered_alone(parts):
            yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def device_of(module: nn.Module) -> torch.device:
    """Return where a module computes: its weights may lie elsewhere until they are needed.

    Accelerate brings what enters it there, and its weights if they are offloaded.
    """
    for part in module.modules():
        hook: Any = part.__dict__.get("_hf_hook")
        for one in getattr(hook, "hooks", (hook,)):  # of several, in their order
            if getattr(one, "execution_device", None) is not None:
                return torch.device(one.execution_device)
    return next(module.parameters()).device


def _first(root: nn.Module, paths: Sequence[str]) -> nn.Module:
    for path in paths:
        found: Any = root
        for name in filter(None, path.split(".")):
            found = getattr(found, name, None)
        if isinstance(found, nn.Module):
            return found
    raise InputError("--model", f"no module {' or '.join(paths)}", "the layout of its family")


def _stack(
    layers: Sequence[nn.Module],
    attention: Sequence[str],
    output: str,
    grid: Grid,
    at_output: bool = False,
) -> Stack:
    # a layer without heads stands for its own attention, which is then never called as one
    attentions = [
        layer if index in grid.without else _first(layer, attention)
        for index, layer in enumerate(layers)
    ]
    outputs = [
        module if index in grid.without else module.get_submodule(output)
        for index, module in enumerate(attentions)
    ]
    widths = [int(outputs[layer].in_features) for layer in grid.with_heads]  # type: ignore[arg-type]
    return Stack(layers, attentions, outputs, grid, max(widths) // grid.heads, at_output)

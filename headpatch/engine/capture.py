"""Taking from an ordinary pass, while it runs, what a widening pass starts from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from headpatch.engine.prefill import LayerState
from headpatch.errors import RunError
from headpatch.models.vlm import VLM


@dataclass(eq=False)
class Capture:
    """Collects `LayerState`s while a pass runs.

    Attributes
    ----------
    start, tokens
        First position that may change, and length of the prompt.
    inputs, attention, added
        By layer; see `LayerState`.
    refused
        Why the pass cannot be widened, if so. Seen from the pass itself, since a small effect may
        hide a wrong one from any comparison of numbers.
    """

    start: int
    tokens: int
    inputs: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    attention: dict[int, dict[str, Any]] = field(default_factory=dict)
    added: dict[int, Tensor] = field(default_factory=dict)
    refused: str = ""
    _outputs: dict[int, Tensor] = field(default_factory=dict, init=False)
    _last_mask: Tensor | None = field(default=None, init=False)
    _crossing: frozenset[int] = field(default=frozenset(), init=False)
    _adds: bool = field(default=False, init=False)

    def keep(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        z: Tensor,
        options: Mapping[str, Any],
    ) -> None:
        """Take what the attention function saw at `layer`."""
        crossing = layer in self._crossing
        if not crossing and key.shape[2] != self.tokens:
            self.refused = f"layer {layer} attends to more than the prompt"
        if mask is not None:
            if not crossing:
                self._look_ahead(mask)
            mask = mask[..., self.start :, : key.shape[2]]
        shared = key.shape[2] if crossing else self.start  # the image's keys stay as they are
        before, after = slice(0, shared), slice(shared, None)
        self.attention[layer] = {
            "key": key[:, :, before],
            "value": value[:, :, before],
            "own_key": key[:, :, after],
            "own_value": value[:, :, after],
            "mask": mask,
            "z": z[:, self.start :],
            "query": _own(query[:, :, self.start :], self.start),
            "scoring": {name: options.get(name) for name in ("scaling", "softcap")},
        }

    def _look_ahead(self, mask: Tensor) -> None:
        """Refuse a prompt whose earlier positions see those that change."""
        if mask is self._last_mask:  # layers share it
            return
        self._last_mask = mask
        ahead = mask[..., : self.start, self.start : self.tokens]
        least = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min / 2
        if bool((ahead > least).any()):
            self.refused = "the prompt is not read causally: earlier tokens see those that change"

    @contextmanager
    def hooked(self, vlm: VLM) -> Iterator[None]:
        """Watch the decoder layers' inputs for the length of one pass."""
        self._crossing, self._adds = vlm.crossing, vlm.family.adds_between_layers
        with ExitStack() as stack:
            for index, layer in enumerate(vlm.lm.layers):
                handle = layer.register_forward_pre_hook(self._before(index), with_kwargs=True)
                stack.callback(handle.remove)
                handle = layer.register_forward_hook(self._after(index))
                stack.callback(handle.remove)
            yield

    def _after(self, index: int) -> Callable[..., None]:
        def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._outputs = {index: output[0] if isinstance(output, tuple) else output}

        return keep

    def _before(self, index: int) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            left = self._outputs.get(index - 1)
            if left is not None and left is not hidden:
                self._compare(index, left[:, self.start :], hidden[:, self.start :])
            self.inputs[index] = (_own(hidden[:, self.start :], self.start), dict(kwargs))

        return keep

    def _compare(self, index: int, left: Tensor, entering: Tensor) -> None:
        """See what the model does to the stream between two layers."""
        if torch.equal(left, entering):
            return
        if self._adds:
            self.added[index - 1] = entering - left
        else:
            self.refused = f"the model changes the stream itself before layer {index}"

    def layers(self, count: int) -> tuple[LayerState, ...]:
        """Return what was collected, layer by layer; nothing if the pass cannot be widened."""
        if self.refused:
            return ()
        if len(self.attention) != count or len(self.inputs) != count:
            raise RunError("a decoder layer did not run through headpatch's attention function")
        return tuple(
            LayerState(
                hidden=self.inputs[index][0],
                options=self._options(index),
                added=self.added.get(index),
                **self.attention[index],
            )
            for index in range(count)
        )

    def _options(self, index: int) -> dict[str, Any]:
        options = _suffix_options(self.inputs[index][1], self.start)
        if index in self._crossing:
            # Without the image's states such a layer takes its keys from a cache. Here it finds
            # none: those that it attends to are in the layer's state.
            kept = self.attention[index]
            none = SimpleNamespace(keys=kept["own_key"][:1], values=kept["own_value"][:1])
            name = next(name for name in _CACHES if name in self.inputs[index][1])
            options[name] = SimpleNamespace(layers={index: none}, get_seq_length=lambda *_: 1)
        return options


def _own(part: Tensor, start: int) -> Tensor:
    """Return a part that does not hold on to the whole."""
    return part.clone() if start else part


# Dimensions of the arguments that run over positions, counted from the end: rotary models pass
# [..., batch, tokens, dim] embeddings and [..., batch, tokens] ids; crossing ones
# [batch, 1, tokens, 1] masks.
_TOKENS = {
    "position_embeddings": -2,
    "position_ids": -1,
    "cache_position": -1,
    "full_text_row_masked_out_mask": -2,
}
_CACHES = ("cache", "past_key_values")  # its name, by the release of transformers
_DROPPED = {"hidden_states", "attention_mask", "use_cache", *_CACHES}
_OF_THE_IMAGE = {"cross_attention_states", "cross_attention_mask"}  # kept as keys, values, mask


def _suffix_options(options: Mapping[str, Any], start: int) -> dict[str, Any]:
    return {
        name: None
        if name in _OF_THE_IMAGE
        else _cut(value, start, _TOKENS[name])
        if name in _TOKENS
        else value
        for name, value in options.items()
        if name not in _DROPPED
    }


def _cut(value: Any, start: int, dim: int) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_cut(one, start, dim) for one in value)
    if isinstance(value, Tensor):
        return value.narrow(dim, start, value.shape[dim] - start)
    return value

"""What one ordinary pass leaves behind for the widening pass to start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.delta_forward import Points
from headpatch.engine.devices import on_tensors
from headpatch.engine.interventions import replacement
from headpatch.engine.reweighting import reweighted
from headpatch.errors import RunError
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Known:
    """What all rows of a walk have of the untouched run at one layer.

    Its attention, float32, queries ordered by key-value head, then its heads, then positions; the
    scaled `scores` on the prefix; and the prefix's keys and values in low precision: what
    deviations are multiplied with. Of a layer of several runs, the runs come first.
    """

    weights: Float[Tensor, "*runs kv_heads queries tokens"]
    scores: Float[Tensor, "*runs kv_heads queries prefix"]
    key: Float[Tensor, "*runs kv_heads prefix head_dim"]
    value: Float[Tensor, "*runs kv_heads prefix dim"]

    def run(self, index: int) -> "Known":
        """Return that of one run."""
        return Known(self.weights[index], self.scores[index], self.key[index], self.value[index])


@dataclass(frozen=True, eq=False)
class LayerState:
    """One decoder layer of a pass, cut at the first position that may change.

    All of it lies where the layer computes (see `headpatch.engine.devices`).
    """

    hidden: Float[Tensor, "runs suffix width"]  # the layer's input from that position on
    # What those positions attend to: before the cut, and from it on (`own`). In a layer that
    # attends to the image across, the image's are the first and there are no others.
    key: Float[Tensor, "runs kv_heads prefix head_dim"]
    value: Float[Tensor, "runs kv_heads prefix dim"]
    own_key: Float[Tensor, "runs kv_heads own head_dim"]
    own_value: Float[Tensor, "runs kv_heads own dim"]
    # As transformers passed it, rows of the suffix only: ``[runs or 1, heads or 1, suffix,
    # tokens]``; None where it is plainly causal.
    mask: Tensor | None
    z: Float[Tensor, "runs suffix heads dim"]
    query: Float[Tensor, "runs heads suffix head_dim"]
    # the layer's other arguments (rotary embeddings and such), cut likewise
    options: dict[str, Any]
    # What the model itself adds to the stream after the layer, whatever is in it; None if nothing.
    added: Float[Tensor, "runs suffix width"] | None = None
    # ``scaling`` and ``softcap``, as transformers passes them
    scoring: dict[str, Any] = field(default_factory=dict)
    known: Known | None = None  # over low-precision weights

    def run(self, index: int, runs: int) -> "LayerState":
        """Return one run of the batch."""
        one, mask = slice(index, index + 1), self.mask
        names = ("hidden", "key", "value", "own_key", "own_value", "z", "query")
        parts = {name: getattr(self, name)[one] for name in names}
        parts["added"] = None if self.added is None else self.added[one]
        parts["known"] = None if self.known is None else self.known.run(index)
        parts["mask"] = mask[one] if mask is not None and len(mask) == runs else mask
        parts["options"] = {
            name: _pick(value, index, runs, _BATCH.get(name))
            for name, value in self.options.items()
        }
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class Prefill:
    """A pass of one run, ready to be widened."""

    start: int  # first position that may change
    tokens: int  # length of the prompt
    layers: tuple[LayerState, ...]  # empty if the pass cannot be widened: `refused` says why
    # where the linear layers stood, over low-precision weights; None in float32
    points: Points | None = None
    refused: str = ""
    # The part of a layer's weights that makes q, k and v: what a row need not multiply in the layer
    # that it joins.
    reading: float = 0.0
    cap: float | None = None  # the soft cap that the pass put on its logits, if any

    @property
    def remembering(self) -> float:
        """The part that makes k and v: all that the last layer does for the other positions."""
        heads, kv_heads = self.layers[0].query.shape[1], self.layers[0].key.shape[1]
        return self.reading * 2 * kv_heads / (heads + 2 * kv_heads)


# Dimensions of the arguments that run over the batch, counted from the end.
_BATCH = {
    "position_embeddings": -3,
    "position_ids": -2,
    "full_text_row_masked_out_mask": -4,
    "per_layer_input": -3,
}


def _pick(value: Any, run: int, runs: int, dim: int | None) -> Any:
    if dim is None:
        return value

    def pick(one: Tensor) -> Tensor:
        alike = one.ndim >= -dim and one.shape[dim] == runs
        return one.narrow(dim, run, 1) if alike else one

    return on_tensors(value, pick)


def sources(
    prefill: Prefill,
    other: Prefill,
    means: list[Tensor] | None,
    kinds: Sequence[tuple[str, float | None, Tensor | None]],
    donor: tuple[Prefill, Prefill] | None = None,
) -> list[Float[Tensor, "sources suffix heads dim"]]:
    """Stack, layer by layer, what each kind puts in the place of z.

    Each comes with its alpha, and with the keys to which it re-weights attention. `donor` is
    another pair's same run and other run. A ValueError if the pass cannot be widened, or what a
    kind needs is missing.
    """
    if prefill.refused:
        raise ValueError(prefill.refused)
    stacked = []
    for index, (own, away) in enumerate(zip(prefill.layers, other.layers, strict=True)):
        z, mean, given = own.z[0], None, None
        if means is not None:
            mean = means[index][prefill.start : prefill.tokens].to(z)
        if donor is not None:
            same, another = (one.layers[index].z[0] for one in donor)
            given = same, another
        parts = [
            replacement(kind, alpha, z, away.z[0], mean, given)
            if keys is None or alpha is None
            else reweighted(own, keys, alpha)
            for kind, alpha, keys in kinds
        ]
        stacked.append(torch.stack(parts))
    return stacked


@dataclass(eq=False)
class Capture:
    """Collects `LayerState`s while a pass runs, from position `start` on, the first to change.

    `refused` says why the pass cannot be widened, if so: seen from the pass itself, since a small
    effect may hide a wrong one from any comparison of numbers.
    """

    start: int
    tokens: int
    prepare: Callable[..., Known] | None = None  # over low-precision weights
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
            if mask.ndim == 4 and mask.shape[1] > 1:
                self.refused = f"layer {layer} adds to the scores of each head what tokens say"
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
        if self.prepare is not None and shared:
            self.attention[layer]["known"] = self.prepare(**self.attention[layer])

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
        def keep(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if args[1:]:  # by place, as Gemma 4 hands them on
                names = islice(signature(layer.forward).parameters, 1, None)
                kwargs = kwargs | dict(zip(names, args[1:], strict=False))
            left = self._outputs.get(index - 1)
            if left is not None and left is not hidden:
                self._compare(index, left[:, self.start :], hidden[:, self.start :])
            self.inputs[index] = (_own(hidden[:, self.start :], self.start), kwargs)

        return keep

    def _compare(self, index: int, left: Tensor, entering: Tensor) -> None:
        """See what the model does to the stream between two layers."""
        entering = entering.to(left.device)  # the next layer may compute elsewhere
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
    "per_layer_input": -2,  # Gemma 4's
}
_CACHES = ("cache", "past_key_values")  # its name, by the release of transformers
_DROPPED = {"hidden_states", "attention_mask", "use_cache", *_CACHES}
_OF_THE_IMAGE = {"cross_attention_states", "cross_attention_mask"}  # kept as keys, values, mask


def _cut(start: int, dim: int, value: Tensor) -> Tensor:
    return value.narrow(dim, start, value.shape[dim] - start)


def _suffix_options(options: Mapping[str, Any], start: int) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if name not in _DROPPED}
    for name in kept.keys() & _TOKENS:
        kept[name] = on_tensors(kept[name], partial(_cut, start, _TOKENS[name]))
    return kept | dict.fromkeys(kept.keys() & _OF_THE_IMAGE)

"""Where the parts of a model are that no table lists, seen in one run of it.

The model runs once, on two pictures, with an attention function of transformers' registry that
notes who calls it, with how many heads, and which linear layer z enters next. From the modules'
names comes the `Family` that `headpatch.models.families` would list. What is found is no promise:
`headpatch.engine.control` compares it with plain hooks before any head is changed.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from headpatch.models.joined import joined
from headpatch.models.vlm import implemented, parts

_NAME = "headpatch_discovery"
_NOTE = "_headpatch_note"
_NUMBERED = re.compile(r"(.+)\.(\d+)\.(.+)")
SINKS = ("s_aux", "sinks")  # by the class; Inkling 2 computes its own from the stream
_CHANGES = (*SINKS, "softcap")  # which sdpa cannot do, and no module's place hangs on
Inputs: TypeAlias = Mapping[str, Tensor]
Options: TypeAlias = Mapping[str, Any]


@dataclass(eq=False)
class Call:
    """One call of the attention function, and the linear layer that its z enters."""

    module: nn.Module
    path: str  # dotted, from the model
    rows: int
    heads: int
    queries: int
    keys: int
    depth: int  # of a head's query
    width: int  # of a head's z
    ahead: bool  # whether a query sees keys after it, where it is after the image
    constant: tuple[int, ...]  # tokens that are the same in the first and the last row
    z: Tensor | None = None
    output: nn.Module | None = None
    exact: bool = False  # whether z enters as it is

    @property
    def place(self) -> tuple[str, int, str]:
        """The stack of layers, the layer's number, and the attention's name in it."""
        match = _NUMBERED.fullmatch(self.path)
        if match is None:
            return "", 0, self.path
        stack, layer, name = match.groups()
        return stack, int(layer), name


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    note: Callable[..., None] | None = module.__dict__.get(_NOTE)
    plain = {name: value for name, value in options.items() if name not in _CHANGES}
    z: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **plain)[0]
    if note is not None:
        note(module, query, key, value, attention_mask, z, options)
    return z, None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@dataclass(eq=False)
class Run:
    """What one run showed."""

    calls: list[Call]
    # children of the text model that ran, and how many calls of attention there were before
    entered: list[tuple[str, int]]
    added: bool  # whether the stream is changed between two layers
    failed: str  # why it did not run to its end
    sinks: bool


def watch(model: PreTrainedModel, inputs: Inputs, root: nn.Module, after: int) -> Run:
    """Run a model, and note its calls of attention; `after` is the first token of the question."""
    run = Run([], [], False, "", False)
    waiting: list[Call] = []

    def note(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        z: Tensor,
        options: Options,
    ) -> None:
        run.sinks |= any(options.get(name) is not None for name in SINKS)
        if waiting and waiting[-1].module is not module:
            waiting.clear()
        ahead = _sees_ahead(module, query, key, mask, after, options)
        call = Call(module, names[module], len(query), query.shape[1], query.shape[2], key.shape[2],
                    query.shape[3], value.shape[3], ahead, _constant(value), z)  # fmt: skip
        run.calls.append(call)
        waiting.append(call)

    def enter(linear: nn.Module, args: tuple[Any, ...]) -> None:
        if not waiting or not args or not isinstance(args[0], Tensor):
            return
        found = torch.cat([one.z.flatten(0, -3).flatten(1) for one in waiting if one.z is not None])
        given = args[0].flatten(0, -2)
        if given.shape != found.shape:
            return
        exact = torch.equal(given, found.to(given))
        # What comes in another form has been changed on its way: by a gate, which may be a linear
        # layer that takes as much itself, so the last one counts.
        if exact or names[linear].startswith(f"{waiting[-1].path}."):
            for one in waiting:
                one.output, one.exact, one.z = linear, exact, None if exact else one.z
        if exact:
            waiting.clear()

    names = {module: name for name, module in model.named_modules()}
    last: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for module in model.modules():
            if hasattr(module, "in_features"):
                stack.callback(module.register_forward_pre_hook(enter).remove)
            module.__dict__[_NOTE] = note
            stack.callback(module.__dict__.pop, _NOTE, None)
        for name, child in root.named_children():
            hook = child.register_forward_hook(
                lambda *_, name=name: run.entered.append((name, len(run.calls)))
            )
            stack.callback(hook.remove)
            for layer in child if isinstance(child, nn.ModuleList) else ():
                stack.callback(
                    layer.register_forward_pre_hook(_compare(run, last), with_kwargs=True).remove
                )
                stack.callback(layer.register_forward_hook(_keep(last)).remove)
        try:
            with implemented(parts(model), _NAME), torch.no_grad():
                model(**joined(inputs), use_cache=False)
        except Exception as error:  # whatever the model raises
            run.failed = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return run


def reaches(model: PreTrainedModel, inputs: Inputs, layer: nn.Module) -> bool:
    """Whether anything of what a layer hands on comes to the logits."""

    def spoil(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] * torch.nan, *output[1:])
        return output * torch.nan

    # before transformers' own hook, which keeps hidden states
    handle = layer.register_forward_hook(spoil, prepend=True)
    try:
        with implemented(parts(model), _NAME), torch.no_grad():
            return bool(model(**joined(inputs), use_cache=False).logits.isnan().any())
    finally:
        handle.remove()


def _keep(last: dict[str, Tensor]) -> Callable[..., None]:
    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        last["left"] = output[0] if isinstance(output, tuple) else output

    return keep


def _compare(run: Run, last: dict[str, Tensor]) -> Callable[..., None]:
    def compare(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering, left = args[0] if args else kwargs.get("hidden_states"), last.pop("left", None)
        if isinstance(left, Tensor) and isinstance(entering, Tensor) and left is not entering:
            run.added |= not torch.equal(left, entering.to(left.device))

    return compare


def _sees_ahead(
    module: nn.Module, query: Tensor, key: Tensor, mask: Any, after: int, options: Options
) -> bool:
    """Whether a query after the image sees a later key."""
    length = query.shape[2]
    if length != key.shape[2] or length <= after:
        return False
    if mask is None:
        causal = options.get("is_causal")
        return not (getattr(module, "is_causal", True) if causal is None else causal)
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return bool(seen[..., after:, :].triu(after + 1).any())


def _constant(value: Tensor) -> tuple[int, ...]:
    if len(value) < 2:
        return ()
    alike = (value[0] == value[-1]).all(-1).all(0)
    return tuple(alike.nonzero().flatten().tolist())

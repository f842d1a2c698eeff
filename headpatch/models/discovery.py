"""The `Family` of a model that no table lists, found by running it once.

A row of `headpatch.models.families` says by names where the towers are. Here the names are those of
the modules that called the attention function (`headpatch.models.observed`), and the flags are what
the run showed. What cannot be seen in a run stays as `Family` has it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from headpatch.errors import InputError
from headpatch.models.described import another_way
from headpatch.models.families import FAMILIES, Family
from headpatch.models.observed import Call, Inputs, Run, reaches, watch
from headpatch.models.prompt import picture_inputs
from headpatch.models.spans import find_spans
from headpatch.models.vlm import VLM, named_layer
from headpatch.models.wording import image_token_id

_THROUGH = "go through transformers' attention function"
_UNSEEN = ("layout", "template", "suffix", "needs")  # what no run shows


class _Unlike(Exception):
    """Why a stack of layers is not a grid of heads; refused, or a tower that is left alone."""


def with_family(vlm: VLM) -> VLM:
    """Return a model with its parts known: by the table, or discovered in a run of it.

    An `InputError` if they are neither.
    """
    kind = str(vlm.model.config.model_type)
    if kind in FAMILIES:
        try:
            vlm.lm  # noqa: B018
            if vlm.vision is not None:
                return vlm
        except InputError:
            pass
    listed = FAMILIES.get(kind, Family(layout="traced"))
    pictures = [Image.new("RGB", (448, 448), (level,) * 3) for level in (64, 192)]
    inputs = picture_inputs(replace(vlm, found=listed), pictures)
    image = find_spans(inputs["input_ids"][0], image_token_id(vlm)).image.tolist()
    found = discover(vlm.model, inputs, image, vlm.name)
    return replace(vlm, found=replace(found, **{name: getattr(listed, name) for name in _UNSEEN}))


def discover(model: PreTrainedModel, inputs: Inputs, image: Sequence[int], name: str) -> Family:
    """Run a model on the inputs of two pictures, and return what a table would say of it.

    `image` are the positions of image tokens in the prompt. An `InputError` if its language model
    is no grid of heads that headpatch can change, with the reason.
    """
    try:
        return _discovered(model, inputs, image)
    except _Unlike as error:
        expected = "a decoder whose layers have attention heads, which see the prompt's tokens"
        raise InputError("--model", f"{name}: {error}", expected) from None


def _discovered(model: PreTrainedModel, inputs: Inputs, image: Sequence[int]) -> Family:
    across = bool(getattr(model.config, "is_encoder_decoder", False))
    if why := another_way(across, [type(model).__name__]):
        raise _Unlike(why)
    root = text_model(model)
    runs, length = inputs["input_ids"].shape
    run = watch(model, _noise(inputs), root, after=max(image, default=-1) + 1)
    if run.sinks:
        raise _Unlike("its attention has sinks, which headpatch cannot run")
    inside = next(path for path, module in model.named_modules() if module is root)
    own = [
        call
        for call in run.calls
        if call.path.startswith(inside) and (call.rows, call.queries) == (runs, length)
    ]
    stacks = _stacks(own)
    if not stacks:
        raise _Unlike(_no_stack(root, run, length, inside))
    if len(stacks) > 1:
        raise _Unlike(f"its language model has {len(stacks)} stacks of layers with attention")
    ((path, calls),) = stacks.items()
    lm = _Stack.of(model, path, calls, "its language model")
    before = run.calls[: run.calls.index(calls[0])]
    return Family(
        decoder=(inside,),
        layers=path.removeprefix(f"{inside}."),
        lm_attention=lm.attention,
        lm_query=_query(calls[0]),
        lm_output=lm.output,
        lm_heads=calls[0].heads,
        lm_norm=_norm(run),
        lm_without=lm.without,
        lm_at_output=lm.at_output,
        cross_attention=lm.crossing,
        adds_between_layers=run.added,
        layout="traced",
        both_ways=any(call.ahead for call in calls),
        **_tower(model, inputs, before, len(image)),
    )


def _noise(inputs: Inputs) -> Inputs:
    """Put noise in the place of both pictures: what is the same in both is no part of a picture."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=draw).to(value)
        if name.startswith("pixel_values") and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }


def text_model(model: PreTrainedModel) -> nn.Module:
    """Return the module that holds the input embeddings, and layers."""
    embedding = model.get_input_embeddings()
    modules: dict[str, nn.Module] = dict(model.named_modules())
    path = next(path for path, module in modules.items() if module is embedding)
    while path:
        path = path.rpartition(".")[0]
        if any(isinstance(module, nn.ModuleList) for module in modules[path].modules()):
            break
    return modules[path]


def _stacks(calls: Iterable[Call]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.place[0], []).append(call)
    return found


@dataclass(frozen=True)
class _Stack:
    """What the parts of a stack's layers are called."""

    attention: str
    crossing: str  # the attention that looks at something else than the layer's own tokens
    output: str
    without: tuple[int, ...]  # layers without heads
    at_output: bool  # whether what heads give is changed before it enters the projection

    @classmethod
    def of(cls, model: PreTrainedModel, path: str, calls: Sequence[Call], where: str) -> "_Stack":
        """Name the parts; `_Unlike` if layers are no grid of heads."""
        layers: dict[int, set[str]] = {}
        for call in calls:
            layers.setdefault(call.place[1], set()).add(call.place[2])
        for layer, names in layers.items():
            if len(names) > 1:
                both = " and ".join(sorted(names))
                raise _Unlike(f"in {where} layer {layer} has {len(names)} attentions ({both})")
        if len(kinds := sorted({call.heads for call in calls})) > 1:
            raise _Unlike(f"in {where} layers have {' or '.join(map(str, kinds))} heads")
        for call in calls:
            if call.output is None:
                raise _Unlike(
                    f"in {where} no linear layer takes what the heads of layer {call.place[1]} give"
                )
        crossing = {call.place[2] for call in calls if call.queries != call.keys}
        names = {call.place[2] for call in calls} - crossing
        outputs = {_within(call) for call in calls}
        if len(names) != 1 or len(crossing) > 1 or len(outputs) > 1 or outputs == {""}:
            forms = ", ".join(sorted(names | crossing | outputs))
            raise _Unlike(f"in {where} attentions are of several forms ({forms})")
        count = len(list(model.get_submodule(path).children()))
        without = tuple(sorted(set(range(count)) - set(layers)))
        changed = any(not call.exact for call in calls)
        return cls(names.pop(), next(iter(crossing), ""), outputs.pop(), without, changed)


def _within(call: Call) -> str:
    named = call.module.named_modules()
    return next((name for name, part in named if part is call.output), "")


def _query(call: Call) -> str:
    """Return the name of what makes the queries and nothing else; "" if there is no such."""
    for name, child in call.module.named_children():
        plain = name.startswith("q") and "k" not in name and child is not call.output
        if plain and getattr(child, "out_features", None) == call.heads * call.depth:
            return name
    return ""


def _norm(run: Run) -> str:
    """Return the child of the text model that runs last, after its layers; "" if none does."""
    name, called = run.entered[-1] if run.entered else ("", 0)
    return name if called == len(run.calls) else ""


def _tower(
    model: PreTrainedModel, inputs: Inputs, calls: Sequence[Call], image: int
) -> Mapping[str, Any]:
    """Return what a table says of the tower: of the stack with most layers before the text."""
    runs = len(inputs["input_ids"])
    stacks = {path: own for path, own in _stacks(calls).items() if path}
    if not stacks:
        return {"why_no_vision": f"no attention of its vision tower is seen to {_THROUGH}"}
    sizes = {path: len({call.place[1] for call in own}) for path, own in stacks.items()}
    main = max(sizes, key=sizes.__getitem__)
    first = stacks[main][0]
    joined = [path for path in stacks if _same_tower(model, path, main, stacks)]
    try:
        parts = [_Stack.of(model, path, stacks[path], "its vision tower") for path in joined]
        if any(part != parts[0] for part in parts) or parts[0].without or parts[0].crossing:
            raise _Unlike("its vision tower has layers of several forms")
        tokens = _tokens_of(stacks[main])
    except _Unlike as error:
        return {"why_no_vision": str(error)}
    views = sum(call.rows for call in stacks[main] if call.place[1] == first.place[1])
    class_token, one_row = _first_of_each(first), first.rows % runs != 0
    whole = views == runs and tokens // runs - image in (0, int(class_token))
    return {
        "vision": ("+".join(joined),),
        "vision_attention": parts[0].attention,
        "vision_output": parts[0].output,
        "vision_heads": first.heads,
        "vision_at_output": parts[0].at_output,
        "vision_read": _read_on(model, inputs, joined),
        "class_token": class_token,
        "one_row": one_row,
        "one_view": whole and not one_row,
    }


def _tokens_of(calls: Sequence[Call]) -> int:
    """Return how many tokens of all runs each layer of a tower has; `_Unlike` if they differ."""
    layers: dict[int, int] = {}
    for call in calls:
        layers[call.place[1]] = layers.get(call.place[1], 0) + call.rows * call.queries
    if len(counts := sorted(set(layers.values()), reverse=True)) > 1:
        raise _Unlike("its vision tower merges tokens between layers that headpatch would change")
    return counts[0]


def _read_on(model: PreTrainedModel, inputs: Inputs, paths: Sequence[str]) -> int | None:
    """Return the last layer of a tower that is read, if it is past the one that the config names.

    Granite Vision hands several layers on, and says so in settings of its own.
    """
    layers = [layer for path in paths for layer in model.get_submodule(path).children()]
    past = range(named_layer(model.config, len(layers)) + 1, len(layers))
    return next((one for one in reversed(past) if reaches(model, inputs, layers[one])), None)


def _same_tower(
    model: PreTrainedModel, path: str, main: str, stacks: Mapping[str, Sequence[Call]]
) -> bool:
    """Whether layers are of one model within the model, with heads alike."""
    shapes = ({(call.heads, call.width) for call in stacks[one]} for one in (path, main))
    return len(set(map(frozenset, shapes))) == 1 and _owner(model, path) is _owner(model, main)


def _first_of_each(call: Call) -> bool:
    """Whether the first token of each tile, and no other, is no part of the picture."""
    tiles = len(call.constant)
    return tiles > 0 and call.constant == tuple(range(0, call.queries, -(-call.queries // tiles)))


def _owner(model: PreTrainedModel, path: str) -> nn.Module:
    found: nn.Module = model
    for part in _along(model, path):
        found = part if isinstance(part, PreTrainedModel) else found
    return found


def _along(model: nn.Module, path: str) -> Iterator[nn.Module]:
    for name in path.split("."):
        model = getattr(model, name)
        yield model


def _no_stack(root: nn.Module, run: Run, length: int, inside: str) -> str:
    """Say why no stack of the language model was seen."""
    if run.failed:
        return f"it does not run on what its processor gives ({run.failed})"
    if seen := sorted({call.queries for call in run.calls if call.path.startswith(inside)}):
        reads = " or ".join(map(str, seen))
        return f"its decoder reads {reads} tokens where the prompt has {length}"
    names = {type(one).__name__ for one in root.modules()}
    kinds = sorted(name for name in names if "attention" in name.lower())
    return f"its decoder's attention ({', '.join(kinds) or 'none'}) does not {_THROUGH}"

"""The residual stream of one run put into the other, to find what tells the two apart.

A swap replaces the stream at some positions of one layer by the other run's stream there, and lets
everything after it run on (causal tracing, Meng, Bau, Andonian & Belinkov, *Locating and Editing
Factual Associations in GPT*, 2022, arXiv:2202.05262, with the other run in place of noise). A
language-model layer's stream is taken as it *enters* the layer; a vision layer's as it *leaves* it.
Swapping every position of a language-model layer gives the other run exactly, and the effect 1.

Two paths give the same numbers. The plain one is whole forward passes, in any family and both
towers. The resumed one, for the language model, starts at the swapped layer from what the untouched
run left there, and carries only the positions from the first swapped one on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headpatch.engine.forward import forward
from headpatch.engine.from_layer import (
    ResumedSite,
    answer_of,
    apart,
    refusal,
    resuming,
    run_in_order,
)
from headpatch.engine.patching import Baseline, OnProgress, Outcome
from headpatch.engine.precision import swapped
from headpatch.engine.prefill import Prefill
from headpatch.engine.widening import step
from headpatch.errors import RunError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Streams = dict[Tower, list[Tensor]]  # by tower and layer: ``[runs, positions, width]``


@dataclass(frozen=True, eq=False)
class Swap:
    """The stream at some positions of one layer of one run, replaced.

    Entering a layer of ``lm``, leaving one of ``vision``; positions are of the prompt, or of the
    vision tower's tokens of one run. `source` is the run whose stream is put in; the run itself
    changes nothing, which measures the noise floor.
    """

    run: int
    tower: Tower
    layer: int
    positions: Int[Tensor, " positions"]
    source: int


def record(vlm: VLM, prompt: Prompt) -> Streams:
    """Run a batch untouched; return the stream entering each layer and leaving each vision layer.

    A `RunError` if a layer does not run once.
    """
    found: dict[Tower, list[list[Tensor]]] = {"lm": [[] for _ in vlm.lm.layers]}
    if vlm.vision is not None:
        found["vision"] = [[] for _ in vlm.vision.layers]

    def keep(tower: Tower, layer: int) -> Callable[[Tensor], Tensor]:
        def take(hidden: Tensor) -> Tensor:
            found[tower][layer].append(hidden.reshape(prompt.runs, -1, hidden.shape[-1]).clone())
            return hidden

        return take

    where = {
        (tower, layer): keep(tower, layer) for tower in found for layer in range(len(found[tower]))
    }
    with edited(vlm, where):
        forward(vlm, prompt, exact=True)
    if any(len(kept) != 1 for layers in found.values() for kept in layers):
        raise RunError(f"{vlm.name}: a layer does not run once a pass, so it cannot be swapped")
    return {tower: [kept[0] for kept in layers] for tower, layers in found.items()}


def swap(
    vlm: VLM,
    base: Baseline,
    streams: Streams | None,
    swaps: Sequence[Swap],
    on_progress: OnProgress | None = None,
) -> list[Outcome[Swap]]:
    """Run swaps, several to a batch.

    `streams` of `record` give whole passes. None resumes the language model's at the swapped layer:
    swaps join the walk where they happen, so that a chunk of them shares the
    untouched row. Then `base` must keep prefills from the first swapped position on, else it is a
    ValueError.
    """
    prefills = base.trace.prefills

    def logits(rows: list[Swap]) -> Tensor:
        run, puts = rows[0].run, []
        if streams is None:
            return _resumed(vlm, prefills, run, rows)
        prompt = base.prompt.select(run).repeat(len(rows) + 1)
        for row, one in enumerate(rows, start=1):
            stream = streams[one.tower][one.layer][one.source]
            values = stream[one.positions.to(stream.device)]
            puts.append(Put(row, one.tower, one.layer, one.positions, values))
        with putting(vlm, prompt.runs, puts):
            return forward(vlm, prompt, exact=True).logits

    refused = partial(_refusal, prefills) if streams is None else None
    return run_in_order(vlm, base, swaps, _place, logits, refused, on_progress)


def _place(one: Swap) -> tuple[bool, int]:
    return one.tower != "vision", one.layer


@dataclass(frozen=True, eq=False)
class Put:
    """What is put into the stream of one row of a batch; see `Swap`."""

    row: int
    tower: Tower
    layer: int
    positions: Int[Tensor, " positions"]
    values: Float[Tensor, "positions width"]


@contextmanager
def putting(vlm: VLM, rows: int, puts: Sequence[Put]) -> Iterator[None]:
    """Put values into the stream of a batch of `rows` for as long as the context is open.

    The vision tower may hold one row's tokens in one or in several rows of its own.
    """
    places: dict[tuple[Tower, int], list[Put]] = {}
    for one in puts:
        places.setdefault((one.tower, one.layer), []).append(one)

    def put(there: Sequence[Put]) -> Callable[[Tensor], Tensor]:
        def change(hidden: Tensor) -> Tensor:
            changed = hidden.clone(memory_format=torch.contiguous_format)
            flat = changed.view(rows, -1, hidden.shape[-1])
            for one in there:
                flat[one.row, one.positions.to(flat.device)] = one.values.to(flat)
            return changed

        return change

    with edited(vlm, {place: put(there) for place, there in places.items()}):
        yield


@contextmanager
def edited(vlm: VLM, where: dict[tuple[Tower, int], Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change the stream where it enters decoder layers and leaves vision layers."""
    # The layers' forward is replaced, not hooked: transformers records the vision tower's hidden
    # states in a place that hooks come after. On leaving, also after an exception, all is as
    # before.

    def entering(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        run = module.forward

        def enter(*args: Any, **kwargs: Any) -> Any:
            if args:
                return run(change(args[0]), *args[1:], **kwargs)
            return run(**{**kwargs, "hidden_states": change(kwargs["hidden_states"])})

        return enter

    def leaving(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        run = module.forward

        def leave(*args: Any, **kwargs: Any) -> Any:
            output = run(*args, **kwargs)
            if isinstance(output, tuple):
                return (change(output[0]), *output[1:])
            return change(output)

        return leave

    runs = []
    for (tower, layer), change in where.items():
        module = vlm.stack(tower).layers[layer]
        wrap = entering if tower == "lm" else leaving
        runs.append((module, wrap(module, change)))
    with swapped(runs):
        yield


def disagreement(vlm: VLM, base: Baseline, streams: Streams, probes: Sequence[Swap]) -> float:
    """Return how far resumed and whole passes lie apart on `probes`, in logits.

    Infinite where a pass cannot be resumed; otherwise rounding, if resuming is exact.
    """
    if any(_refusal(base.trace.prefills, one) for one in probes):
        return float("inf")
    return apart(lambda: swap(vlm, base, None, probes), lambda: swap(vlm, base, streams, probes))


def _refusal(prefills: Sequence[Prefill], one: Swap) -> str:
    if one.tower != "lm":
        return "only the language model's passes are resumed"
    return refusal(prefills, int(one.positions.min()))


@torch.no_grad()
def _resumed(
    vlm: VLM, prefills: Sequence[Prefill], run: int, rows: Sequence[Swap]
) -> Float[Tensor, "rows_ vocabulary"]:
    """Return the answer logits of every row, the untouched one first; rows by their layers."""
    prefill = prefills[run]
    sites = [ResumedSite(prefill, layer) for layer in range(len(prefill.layers))]
    hidden = prefill.layers[rows[0].layer].hidden
    with resuming(vlm, sites):
        for layer in range(rows[0].layer, len(sites)):
            joining = [one for one in rows if one.layer == layer]
            if joining:
                new = hidden[:1].repeat(len(joining), 1, 1)
                for place, one in enumerate(joining):
                    at = one.positions.to(new.device) - prefill.start
                    new[place, at] = prefills[one.source].layers[layer].hidden[0, at]
                hidden = torch.cat([hidden, new])
            hidden = step(vlm, prefill, layer, hidden)
        return answer_of(vlm, hidden, prefill)

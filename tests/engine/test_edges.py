"""Edges between heads: against hooks on a plain model, and against a gradient's limit."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headpatch.engine.attribution import points_between
from headpatch.engine.edges import Edge, edge_effects, edge_scores, refused
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import WITH, WITHOUT
from headpatch.engine.patching import Baseline, run_pair
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from tests.families import builders
from tests.tiny import SHAPES, tiny_pair, tiny_prompt, tiny_vlm

CLOSE = 1e-4  # logits, float32


def edges_of(vlm: VLM) -> list[Edge]:
    grid = vlm.lm.grid
    last, heads = grid.layers - 1, range(grid.heads)
    return [
        Edge(run, Head(0, sender), Head(layer, receiver))
        for run, sender, receiver in product((WITH, WITHOUT), heads, heads)
        for layer in {1, last}
    ]


@torch.no_grad()
def by_hooks(vlm: VLM, base: Baseline, edge: Edge) -> float:
    """What the edge does, by hooks on attention modules and output projections alone."""
    width, both = vlm.lm.head_dim, [base.prompt.select(run) for run in (WITH, WITHOUT)]
    sends, hears = (
        slice(one.head * width, (one.head + 1) * width) for one in (edge.sender, edge.receiver)
    )
    sender, receiver = (vlm.lm.outputs[one.layer] for one in (edge.sender, edge.receiver))

    def run(which: int, hooks: list[tuple[nn.Module, object]]) -> float:
        handles = [
            one.register_forward_pre_hook(hook, with_kwargs=True)  # type: ignore[arg-type]
            for one, hook in hooks
        ]
        try:
            logits = vlm.model(**both[which].inputs, use_cache=False).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()
        return float(both[which].answers.ld(logits)[0])

    seen: list[Tensor] = []
    take = lambda _, args, kwargs: seen.append(args[0].clone())  # noqa: E731
    for which in (edge.run, 1 - edge.run):
        run(which, [(sender, take)])
    moved = (seen[1] - seen[0])[..., sends] @ sender.weight[:, sends].T
    layer = vlm.lm.layers[edge.receiver.layer]
    norm = next(one for name, one in layer.named_children() if name == "input_layernorm")

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:  # type: ignore[type-arg]
        return args, {**kwargs, "hidden_states": norm(stream[0] + moved)}

    stream: list[Tensor] = []
    keep = lambda _, args, kwargs: stream.append(  # noqa: E731
        (args[0] if args else kwargs["hidden_states"]).clone()
    )
    heard: list[Tensor] = []
    hear = lambda _, args, kwargs: heard.append(args[0].clone())  # noqa: E731
    untouched = run(edge.run, [(layer, keep)])
    run(edge.run, [(vlm.lm.attentions[edge.receiver.layer], enter), (receiver, hear)])

    def put(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:  # type: ignore[type-arg]
        z = args[0].clone()
        z[:, -1, hears] = heard[0][:, -1, hears]
        return (z, *args[1:]), kwargs

    return run(edge.run, [(receiver, put)]) - untouched


@pytest.mark.parametrize("name", ["grouped-query", "plain", "qwen2_5_vl", "phi3", "internvl"])
def test_an_edge_is_what_hooks_on_a_plain_model_make_of_it(name: str) -> None:
    made = {**builders.BUILDERS, **builders.DECODERS}
    vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else builders.make(made[name]())
    prompt = tiny_prompt(vlm) if name in SHAPES else builders.prompt_of(vlm)
    base = run_pair(vlm, prompt, Keep(z=("lm",)), exact=True)
    assert refused(vlm, prompt) == ""
    edges = edges_of(vlm)[:: max(1, len(edges_of(vlm)) // 12)]
    expected = [by_hooks(vlm, base, one) for one in edges]
    assert max(map(abs, expected)) > 10 * CLOSE
    assert edge_effects(vlm, base, edges) == pytest.approx(expected, abs=CLOSE)


def test_estimates_are_exact_in_the_limit_of_small_changes() -> None:
    """Of two pictures that differ by a hundredth of what they do."""
    vlm, base = tiny_pair("grouped-query", "lm")
    present, absent = (base.prompt.select(run).inputs["pixel_values"] for run in (WITH, WITHOUT))
    near = torch.cat([absent + 0.01 * (present - absent), absent])
    prompt = replace(base.prompt, inputs={**base.prompt.inputs, "pixel_values": near})
    base = run_pair(vlm, prompt, Keep(z=("lm",)), exact=True)
    scores, edges = edge_scores(vlm, base), edges_of(vlm)
    exact = np.array(edge_effects(vlm, base, edges))
    found = np.array([of(scores, one) for one in edges])
    assert np.abs(exact).max() > 1e-5
    assert np.corrcoef(found, exact)[0, 1] > 0.999
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def of(scores: Tensor, edge: Edge) -> float:
    sender, receiver = edge.sender, edge.receiver
    return float(scores[edge.run, sender.layer, sender.head, receiver.layer, receiver.head])


def test_integrated_gradients_are_the_mean_over_points() -> None:
    vlm, base = tiny_pair("plain", "lm")
    found = edge_scores(vlm, base, 4)
    z = base.trace.z["lm"]
    total = edge_scores(vlm, base)
    for points in points_between(base.prompt, 4):
        for row in range(points.runs):
            one = points.select(row)
            inputs = {key: torch.cat([value] * 2) for key, value in one.inputs.items()}
            trace = replace(base.trace, z={"lm": z})
            at = replace(base, prompt=replace(one, inputs=inputs, runs=2), trace=trace)
            total = total + edge_scores(vlm, at)
    torch.testing.assert_close(found, total / 4, atol=1e-5, rtol=1e-4)
    assert float((found - edge_scores(vlm, base)).abs().max()) > 1e-3
    layers = torch.arange(vlm.lm.grid.layers)
    assert found.movedim(3, 2)[:, layers[:, None] >= layers].eq(0).all()  # none goes back


def test_models_whose_edges_cannot_be_told_apart_are_refused() -> None:
    for name, words in (("gemma3", "do not add what heads write"), ("mllama", "look at the image")):
        vlm, prompt = builders.built(name)
        assert words in refused(vlm, prompt)

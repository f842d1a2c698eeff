"""Passes that are launched again as CUDA graphs; skipped where there is no GPU."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from headpatch.engine import replay
from headpatch.engine.patching import run_pair
from headpatch.engine.replay import recorded
from headpatch.models.vlm import VLM
from tests.engine.test_replay import WHAT, apart, keeps, other, patches_agree, walks_agree
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)
EXACT = 1e-6  # logits: kernels are the same, but for what lies elsewhere in memory


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a graph was launched."""
    launches, play = [0], replay._CudaGraph.play

    def counted(graph: replay._CudaGraph) -> None:
        launches[0] += 1
        play(graph)

    monkeypatch.setattr(replay._CudaGraph, "play", counted)
    return launches


def on_gpu(shape: str, dtype: torch.dtype) -> VLM:
    vlm = tiny_vlm(SHAPES[shape])
    return replace(vlm, model=deepcopy(vlm.model).to("cuda", dtype))


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_keeps_what_the_pass_itself_would(
    shape: str, dtype: torch.dtype, what: str, played: list[int]
) -> None:
    vlm = on_gpu(shape, dtype)
    prompt = tiny_prompt(vlm)
    keep, prompts = keeps(prompt)[what], [other(prompt, step) for step in range(5)]
    run_pair(vlm, prompt, keep, exact=True)  # formulas of norms are found in the first pass
    expected = [run_pair(vlm, one, keep, exact=True) for one in prompts]
    with recorded(vlm):
        found = [run_pair(vlm, one, keep, exact=True) for one in prompts]
    assert played[0] == 6  # two towers, three times
    for one, wanted in zip(found, expected, strict=True):
        assert apart(one.trace, wanted.trace) < EXACT


@pytest.mark.parametrize("positions", ["answer", "question", "all"])
@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_a_graph_walks_as_the_walk_itself_would(
    shape: str, positions: str, played: list[int]
) -> None:
    walks_agree(on_gpu(shape, torch.bfloat16), positions, 1e-2)
    assert played[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_a_graph_changes_whichever_heads_are_asked_for(
    shape: str, dtype: torch.dtype, played: list[int]
) -> None:
    patches_agree(on_gpu(shape, dtype), "answer")
    assert played[0]

"""What can be shown of captured walks without CUDA: copying one prefill over another."""

import pytest
import torch

from benchmarks.graphs import GraphedWalk
from headpatch.engine.memory import tensors_in
from headpatch.engine.prefill import Prefill, sources
from headpatch.engine.widening import Row, plan, walk
from headpatch.heads import HeadSet
from headpatch.models.spans import Positions
from tests.tiny import tiny_pair, tiny_vlm


class Replayed:
    """A graph that does what a captured one does: run again over the captured tensors."""

    def replay(self) -> None:
        pass


def prefills(scope: Positions = "answer") -> tuple[Prefill, ...]:
    fresh = tiny_pair.__wrapped__  # walks write over what they are given
    return fresh("plain", "lm", suffix=scope)[1].trace.prefills


def test_copying_a_prefill_makes_the_walk_its_own() -> None:
    vlm = tiny_vlm()
    first, second = prefills()
    copied = next(iter(prefills()))
    walked = GraphedWalk(Replayed(), copied, [], torch.zeros(1, 1))
    walked.replay(second)
    rows = [Row(HeadSet.of(head), 0) for head in vlm.lm.grid]
    chunks = plan(rows, len(vlm.lm.layers), len(rows), torch.device("cpu"))
    source = sources(second, first, None, torch.device("cpu"), [("resample", None)])
    ((_, wanted),) = walk(vlm, second, chunks, source)
    ((_, found),) = walk(vlm, copied, chunks, source)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_prefill_of_another_length_is_refused() -> None:
    (answer, _), (question, _) = prefills("answer"), prefills("question")
    assert len(list(tensors_in(answer))) == len(list(tensors_in(question)))
    walked = GraphedWalk(Replayed(), answer, [], torch.zeros(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="capture the walk again"):
        walked.replay(question)

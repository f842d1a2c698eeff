"""Memory that runs out: a batch is halved and the run goes on, with the same numbers."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch

from headpatch.engine import knockout, patching, residual
from headpatch.engine.forward import forward
from headpatch.engine.interventions import Intervention
from headpatch.engine.knockout import Knockout, disagreement, knock_out
from headpatch.engine.memory import halving, split
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch
from headpatch.engine.residual import Swap, record, swap
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from tests.tiny import tiny_pair

ROUNDING = 2e-5
CPU = torch.device("cpu")


def opened() -> tuple[VLM, Baseline]:
    return tiny_pair("plain", "lm", "vision", suffix=0, exact=True)


def patched(vlm: VLM, base: Baseline) -> list[float]:
    asked = [
        Intervention(HeadSet.parse(heads), "resample", way)  # type: ignore[arg-type]
        for heads in ("0.0", "1.1", "2.2", "v1.0", "v0.1+0.2")
        for way in ("noising", "denoising")
    ]
    found = patch(vlm, base, asked)
    assert [one.intervention for one in found] == asked
    return [one.effect for one in found]


def cuts(vlm: VLM, base: Baseline) -> list[Knockout]:
    spans = base.prompt.spans
    sets = [HeadSet(tuple(head for head in vlm.lm.grid if head.layer == i)) for i in range(3)]
    return [
        Knockout(run, one, spans.question, spans.image) for run in (WITH, WITHOUT) for one in sets
    ]


def cut(vlm: VLM, base: Baseline) -> list[float]:
    return [one.effect for one in knock_out(vlm, base, cuts(vlm, base))]


def swapped(vlm: VLM, base: Baseline) -> list[float]:
    places = base.prompt.spans.image
    asked = [Swap(run, "lm", i, places, 1 - run) for run in (WITH, WITHOUT) for i in range(3)]
    return [one.effect for one in swap(vlm, base, _streams(), asked)]


@lru_cache
def _streams() -> residual.Streams:
    vlm, base = opened()
    return record(vlm, base.prompt)


@pytest.mark.parametrize(
    ("module", "run"), [(patching, patched), (knockout, cut), (residual, swapped)]
)
def test_plain_passes_go_on_in_smaller_batches(
    module: Any, run: Callable[[VLM, Baseline], Sequence[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, base = opened()
    expected, room, rows = run(vlm, base), 2, []

    def small(vlm: VLM, prompt: Prompt, *rest: Any, **more: Any) -> Any:
        rows.append(prompt.runs)
        if prompt.runs > room:
            raise torch.OutOfMemoryError("as asked")
        return forward(vlm, prompt, *rest, **more)

    monkeypatch.setattr(module, "forward", small)
    assert run(vlm, base) == pytest.approx(expected, abs=ROUNDING)
    assert rows[0] > 2 == min(rows)
    room = 1
    line = "--device: cpu has too little memory for two rows; expected room for the untouched row"
    with pytest.raises(InputError, match=line):
        run(vlm, base)


def test_resuming_that_runs_out_of_memory_is_not_called_inexact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm, base = opened()

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("as asked")

    monkeypatch.setattr(knockout, "_resumed", full)
    with pytest.raises(InputError, match="too little memory for two rows"):
        disagreement(vlm, base, cuts(vlm, base))


def test_batches_once_halved_stay_so() -> None:
    tried: list[list[int]] = []

    def run(batch: list[int]) -> int:
        tried.append(batch)
        if len(batch) > 2:
            raise torch.OutOfMemoryError("as asked")
        return sum(batch)

    found = list(halving([[1], *split(range(10), 5)], run, CPU))
    assert tried == [[1], [0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2], [3, 4], [5, 6], [7], [8, 9]]
    assert found == [([1], 1), ([0, 1], 1), ([2], 2), ([3, 4], 7), ([5, 6], 11), ([7], 7),
                     ([8, 9], 17)]  # fmt: skip


def test_batches_hold_one_at_least() -> None:
    assert split("abcde", 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert split("ab", 0) == [["a"], ["b"]]

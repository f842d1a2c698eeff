"""Passes that are launched again from a recording, against passes that run as ever.

The recorder here calls the recorded operations again, on the tensors that they were recorded with,
and refuses what a CUDA graph would (`tests.engine.test_cuda_replay` has those).
"""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from headpatch.engine import at_once, replay
from headpatch.engine import widen as widen_module
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.memory import release
from headpatch.engine.patching import patch, run_pair
from headpatch.engine.replay import recorded
from headpatch.engine.trees import tensors_in
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import HeadSet
from headpatch.models.prompt import Prompt
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.families.builders import BUILDERS, built
from tests.families.measure import DIRECTIONS
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
"""Operations that would wait for the device, which a recording cannot."""


class Again(TorchDispatchMode):
    """Records operations and the tensors that they were called with; calls them again."""

    played = 0

    def __init__(self, _: Any) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._inference = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() in _WAITS:
            raise RuntimeError(f"{func.name()} is not permitted when a stream is capturing")
        made = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, made))
        return made

    def record(self, run: Callable[[], Any]) -> Any:
        self._inference = torch.is_inference_mode_enabled()
        with self:
            return run()

    def play(self) -> None:
        Again.played += 1
        with torch.inference_mode(self._inference), torch.no_grad():
            for func, args, kwargs, made in self._calls:
                again = func(*args, **kwargs)
                for place, one in zip(tensors_in(made), tensors_in(again), strict=True):
                    if place is not one:
                        place.copy_(one)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(replay.RECORDERS, "cpu", Again)
    Again.played = 0


def other(prompt: Prompt, step: int) -> Prompt:
    """The same question of other pictures."""
    rng = torch.Generator().manual_seed(step)
    inputs = {
        name: value + 0.3 * torch.randn(value.shape, generator=rng).to(value)  # drawn on the host
        if value.is_floating_point()
        else value
        for name, value in prompt.inputs.items()
    }
    return replace(prompt, inputs=inputs)


def apart(found: Any, expected: Any) -> float:
    """The largest difference of any number in two results of the same make."""
    ours, theirs = list(tensors_in(found)), list(tensors_in(expected))
    assert [one.shape for one in ours] == [one.shape for one in theirs]
    return max(
        float((a.double() - b.double()).nan_to_num().abs().max())
        for a, b in zip(ours, theirs, strict=True)
        if a.numel()
    )


def keeps(prompt: Prompt) -> dict[str, Keep]:
    start = suffix_start(prompt.spans, "answer")
    return {
        "nothing": Keep(),
        "rows": Keep(lm_rows=True),
        "rows, z, suffix": Keep(lm_rows=True, z=("lm", "vision"), suffix=start),
        "all of it": Keep(lm_rows=True, z=("lm",), suffix=0),
    }


DTYPES = torch.float32, torch.bfloat16
WHAT = ("nothing", "rows", "rows, z, suffix", "all of it")


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_recorded_pass_keeps_what_the_pass_itself_would(shape: str, low: bool, what: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    if low:
        vlm = replace(vlm, model=deepcopy(vlm.model).to(torch.bfloat16))
    agree(vlm, tiny_prompt(vlm), what, played=True)


class Stale(Again):
    """A recording that goes on giving what it gave first."""

    def play(self) -> None:
        Again.played += 1


@pytest.mark.parametrize("what", WHAT)
def test_a_recording_that_gives_something_else_is_not_used(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(replay.RECORDERS, "cpu", Stale)
    vlm = tiny_vlm(SHAPES["plain"])
    with pytest.warns(UserWarning, match="not used, which is slower"):
        agree(vlm, tiny_prompt(vlm), what, played=True)
    assert Again.played == 2  # of each tower, once


def test_a_walk_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(replay.RECORDERS, "cpu", Stale)
    vlm = tiny_vlm(SHAPES["plain"])
    with pytest.warns(UserWarning, match="not used, which is slower"):
        walks_agree(replace(vlm, model=deepcopy(vlm.model).to(torch.bfloat16)), "answer")


@pytest.mark.parametrize("limit", ["memory", "tokens"])
def test_what_takes_too_much_memory_or_does_not_wait_is_not_recorded(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "memory":
        monkeypatch.setattr(replay, "_MOST", 0)
    else:
        monkeypatch.setattr(at_once, "_TOKENS", 1)
    vlm = tiny_vlm(SHAPES["plain"])
    agree(vlm, tiny_prompt(vlm), "rows", played=False)


def test_where_there_is_room_for_no_more_recordings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter(range(100))
    monkeypatch.setattr(replay, "_reserved", lambda _: next(taken))  # each takes a byte
    monkeypatch.setattr(replay, "_MOST", 1)
    vlm = tiny_vlm(SHAPES["plain"])
    prompt = tiny_prompt(vlm)
    with recorded(vlm):
        for step in range(5):
            run_pair(vlm, other(prompt, step))
    assert Again.played == 3  # of the tower alone, which came first


def test_where_memory_runs_out_recordings_go() -> None:
    vlm = tiny_vlm(SHAPES["plain"])
    prompt = tiny_prompt(vlm)
    with recorded(vlm):
        for step in range(4):
            run_pair(vlm, other(prompt, step))
        assert (played := Again.played)
        release()
        for step in range(4):
            run_pair(vlm, other(prompt, step))
    assert Again.played == played


class Waits(Again):
    """Refuses one operation."""

    calls, refused = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Waits.calls += 1
        if Waits.calls == Waits.refused:
            raise RuntimeError("not permitted when a stream is capturing")
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("refused", [60, 180], ids=["in the tower", "in the decoder"])
@pytest.mark.parametrize("what", ["rows", "rows, z, suffix", "all of it"])
def test_a_pass_that_cannot_be_recorded_runs_as_ever(
    what: str, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(replay.RECORDERS, "cpu", Waits)
    Waits.calls, Waits.refused = 0, refused
    vlm = tiny_vlm(SHAPES["plain"])
    agree(vlm, tiny_prompt(vlm), what, played=True)  # the other of the two
    assert Waits.calls >= refused


@pytest.mark.parametrize("where", ["linear", "layer", "forward", "global"])
def test_nothing_is_recorded_where_somebody_looks_in(where: str) -> None:
    vlm = tiny_vlm(SHAPES["plain"])
    prompt, seen = tiny_prompt(vlm), list[int]()
    layer = vlm.lm.layers[1]
    projection = vlm.lm.outputs[1]

    def look(*_: Any) -> None:
        seen.append(1)

    with ExitStack() as stack, recorded(vlm):
        if where == "forward":
            own = projection.forward
            projection.forward = lambda x: (look(), own(x))[1]
            stack.callback(projection.__dict__.pop, "forward")
        elif where == "global":
            stack.callback(register_module_forward_hook(look).remove)
        else:
            module = layer if where == "layer" else projection
            stack.callback(module.register_forward_hook(look).remove)
        for step in range(4):
            run_pair(vlm, other(prompt, step), Keep(lm_rows=True))
    assert not Again.played
    assert len(seen) == 4 or where == "global"


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("family", BUILDERS)
def test_every_family_is_recorded_or_runs_as_ever(family: str, what: str) -> None:
    agree(*built(family), what, played=None)
    print(family, what, Again.played)


@pytest.mark.parametrize("together", [0, widen_module._TOKENS], ids=["joining", "together"])
@pytest.mark.parametrize("positions", ["answer", "question", "all"])
@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_a_recorded_walk_gives_what_the_walk_itself_would(
    shape: str, positions: Positions, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widen_module, "_TOKENS", together)
    vlm = tiny_vlm(SHAPES[shape])
    walks_agree(replace(vlm, model=deepcopy(vlm.model).to(torch.bfloat16)), positions)
    assert Again.played


@pytest.mark.parametrize("positions", ["answer", "question"])
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_a_recorded_plain_pass_changes_whichever_heads_are_asked_for(
    shape: str, low: bool, positions: Positions
) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    patches_agree(replace(vlm, model=deepcopy(vlm.model).to(DTYPES[low])), positions)
    assert Again.played


@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_one_recording_serves_all_walks_of_a_few_sets(shape: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    vlm = replace(vlm, model=deepcopy(vlm.model).to(torch.bfloat16))
    prompt, heads = tiny_prompt(vlm), list(vlm.lm.grid)
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, "answer"))
    base, rng = run_pair(vlm, prompt, keep, exact=True), np.random.default_rng(0)

    def drawn(count: int) -> list[Intervention]:
        sizes = rng.integers(1, len(heads), count)
        members = [tuple(heads[i] for i in rng.choice(len(heads), size, False)) for size in sizes]
        return [Intervention(HeadSet(one), "resample", "noising", "answer") for one in members]

    asked = [drawn(count) for count in (5, 8, 1, 7, 3)]
    expected = [widen(vlm, base, one) for one in asked]
    with recorded(vlm):
        found = [widen(vlm, base, one) for one in asked]
    assert Again.played == len(asked) - 2  # the first runs as ever, the second is recorded
    for ours, theirs in zip(found, expected, strict=True):
        for one, wanted in zip(ours, theirs, strict=True):
            assert one.effect == pytest.approx(wanted.effect, rel=2e-3, abs=1e-5)


def patches_agree(vlm: VLM, positions: Positions) -> None:
    """Compare plain passes over some pairs, each of other heads, some together."""
    prompt, heads = tiny_prompt(vlm), list(vlm.lm.grid)
    bases = [run_pair(vlm, other(prompt, step), Keep(z=("lm",)), exact=True) for step in range(6)]
    rng = np.random.default_rng(0)

    def drawn(kind: str) -> Intervention:
        members = tuple(heads[i] for i in rng.choice(len(heads), rng.integers(1, 5), False))
        return Intervention(HeadSet(members), kind, "noising", positions)

    asked = [[drawn(kind) for kind in ("resample", "zero", "self")] for _ in bases]
    expected = [patch(vlm, base, one) for base, one in zip(bases, asked, strict=True)]
    with recorded(vlm):
        found = [patch(vlm, base, one) for base, one in zip(bases, asked, strict=True)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs
        assert ours[0].effect != 0 and ours[2].effect == pytest.approx(0, abs=1e-5)


def walks_agree(vlm: VLM, positions: Positions, share: float = 2**-7) -> None:
    """Compare walks over some pairs, of every head, some sets and null changes.

    Rows are others in each batch, and lie elsewhere, so that products round otherwise: by a `share`
    of an effect, two units in the last place of bfloat16.
    """
    prompt, grid = tiny_prompt(vlm), vlm.lm.grid
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, positions))
    bases = [run_pair(vlm, other(prompt, step), keep, exact=True) for step in range(6)]
    every = [
        Intervention(HeadSet.of(head), kind, way, positions)
        for kind in ("resample", "zero")
        for way in DIRECTIONS
        for head in grid
    ]
    rng = np.random.default_rng(0)

    def drawn() -> list[Intervention]:
        heads = list(grid)
        sets = [HeadSet(tuple(heads[i] for i in rng.choice(len(heads), 5, False))) for _ in "ab"]
        own = Intervention(
            HeadSet.of(heads[rng.integers(len(heads))]), "self", "noising", positions
        )
        return [*(Intervention(one, "resample", "noising", positions) for one in sets), own]

    asked = [[*every, *drawn()] for _ in bases]
    expected = [widen(vlm, base, one) for base, one in zip(bases, asked, strict=True)]
    with recorded(vlm):
        found = [widen(vlm, base, one) for base, one in zip(bases, asked, strict=True)]
    for ours, theirs in zip(found, expected, strict=True):
        for one, wanted in zip(ours, theirs, strict=True):
            assert one.intervention == wanted.intervention and one.token == wanted.token
            assert one.effect == pytest.approx(wanted.effect, abs=share * abs(wanted.effect) + 1e-5)
            if one.intervention.kind == "self":
                assert abs(one.effect) < 1e-5


def agree(vlm: VLM, prompt: Prompt, what: str, played: bool | None) -> None:
    keep = keeps(prompt)[what]
    prompts = [other(prompt, step) for step in range(5)]
    expected = [run_pair(vlm, one, keep, exact=True) for one in prompts]
    with recorded(vlm):
        found = [run_pair(vlm, one, keep, exact=True) for one in prompts]
    for one, wanted in zip(found, expected, strict=True):
        assert apart(one.trace, wanted.trace) == 0
        assert (one.ld_with, one.ld_without) == (wanted.ld_with, wanted.ld_without)
    if played is not None:
        assert bool(Again.played) == played

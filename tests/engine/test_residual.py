"""Swaps of the stream against eager transformers with hooks, against the other run, by hand."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from headpatch.engine import residual
from headpatch.engine.forward import Keep
from headpatch.engine.patching import WITH, WITHOUT, Baseline, Outcome, run_pair
from headpatch.engine.residual import Streams, Swap, disagreement, record, swap
from headpatch.models.vlm import VLM
from tests.engine.oracle import Oracle
from tests.families import builders
from tests.families.builders import BUILDERS, built
from tests.planted import planted
from tests.tiny import SHAPES, every_shape, tiny_model, tiny_pair, tiny_prompt, tiny_vlm

CLOSE = 2e-5  # logits; float32 with two implementations of attention
# These get image features again after the first layers, so their stream does not hold all.
ELSEWHERE = {"qwen3_vl", "mllama"}


@lru_cache
def opened(shape: str = "plain", start: int = 0) -> tuple[VLM, Baseline, Streams]:
    vlm, base = tiny_pair(shape, suffix=start, exact=True)
    return vlm, base, record(vlm, base.prompt)


def lm(run: int, layer: int, positions: Sequence[int] | torch.Tensor) -> Swap:
    return Swap(run, "lm", layer, torch.as_tensor(positions), 1 - run)


def various(base: Baseline, layers: int) -> list[Swap]:
    spans = base.prompt.spans
    places = [spans.image[2:9], spans.image[::3], spans.question, torch.tensor([spans.answer])]
    return [
        lm(run, layer, positions)
        for run in (WITH, WITHOUT)
        for layer in range(layers)
        for positions in places
    ]


def by_hooks(vlm: VLM, base: Baseline, asked: Sequence[Swap]) -> list[float]:
    """Effects by an eager copy: a layer's input is read in one run and put into the other."""
    oracle, prompt = Oracle(vlm), base.prompt
    plain = [oracle.ld(prompt, run) for run in (WITH, WITHOUT)]

    def effect(one: Swap) -> float:
        kept: list[torch.Tensor] = []

        def read(_, args, kwargs):
            kept.append(args[0] if args else kwargs["hidden_states"])

        def write(_, args, kwargs):
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            hidden[:, one.positions] = kept[0][:, one.positions]
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        layer = oracle.model.model.language_model.layers[one.layer]
        for hook, run in ((read, one.source), (write, one.run)):
            handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            ld = oracle.ld(prompt, run)
            handle.remove()
        return ld - plain[one.run]

    return [effect(one) for one in asked]


def effects(outcomes: Sequence[Outcome[Swap]]) -> list[float]:
    return [one.effect for one in outcomes]


def by_both(vlm: VLM, base: Baseline, streams: Streams, asked: Sequence[Swap]) -> list[list[float]]:
    """Effects by whole passes, and by resumed ones."""
    return [effects(swap(vlm, base, one, asked)) for one in (streams, None)]


@every_shape
def test_both_paths_equal_hooks_on_eager_transformers(shape: str) -> None:
    vlm, base, streams = opened(shape)
    asked = various(base, vlm.lm.grid.layers)
    expected = by_hooks(vlm, base, asked)
    assert sum(abs(one) > 1e-3 for one in expected) > len(expected) // 2
    for found in (swap(vlm, base, streams, asked), swap(vlm, base, None, asked)):
        assert effects(found) == pytest.approx(expected, abs=CLOSE)
        for one, shift in zip(asked, found, strict=True):
            untouched = base.ld_with if one.run == WITH else base.ld_without
            assert shift.ld == pytest.approx(untouched + shift.effect, abs=1e-9)


@lru_cache
def family(name: str) -> tuple[VLM, Baseline, Streams]:
    vlm, prompt = built(name)
    base = run_pair(vlm, prompt, Keep(suffix=0), exact=True)
    return vlm, base, record(vlm, prompt)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ELSEWHERE])
def test_the_whole_stream_is_the_other_run(name: str) -> None:
    vlm, base, streams = family(name)
    every = torch.arange(base.prompt.spans.length)
    last = vlm.lm.grid.layers - 1
    asked = [lm(run, layer, every) for run in (WITH, WITHOUT) for layer in (0, last // 2, last)]
    gap = base.ld_without - base.ld_with
    expected = [gap] * 3 + [-gap] * 3
    for found in by_both(vlm, base, streams, asked):
        assert found == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_resuming_equals_whole_passes_where_the_image_comes_in_again(name: str) -> None:
    vlm, base, streams = family(name)
    asked = [one for one in various(base, vlm.lm.grid.layers) if len(one.positions)]
    slow, fast = by_both(vlm, base, streams, asked)
    assert max(map(abs, slow)) > 0.01
    assert fast == pytest.approx(slow, abs=CLOSE)


@pytest.mark.parametrize("name", BUILDERS)
def test_vision_layers_carry_all_up_to_the_feature_layer(name: str) -> None:
    """Where features of one layer are read: else a later layer's swap leaves the earlier ones'."""
    vlm, base, streams = family(name)
    layers, last = len(streams["vision"]), vlm.feature_layer
    assert last is not None
    asked = [
        Swap(WITH, "vision", layer, torch.arange(streams["vision"][layer].shape[1]), WITHOUT)
        for layer in range(layers)
    ]
    found = effects(swap(vlm, base, streams, asked))
    gap = base.ld_without - base.ld_with
    assert found[0] == pytest.approx(gap, abs=CLOSE)
    if name not in ("vipllava", *ELSEWHERE):
        assert found[: last + 1] == pytest.approx([gap] * (last + 1), abs=CLOSE)
    assert found[last + 1 :] == pytest.approx([0] * (layers - last - 1), abs=5e-6)


@lru_cache
def circuit() -> tuple[VLM, Baseline, Streams]:
    made = planted()
    base = run_pair(made.vlm, made.prompt, Keep(suffix=0), exact=True)
    return made.vlm, base, record(made.vlm, made.prompt)


@pytest.mark.parametrize(
    ("layer", "where", "noising", "denoising"),
    [
        (0, "image", 8, 8),
        (0, "answer", 0, 0),
        # Layer 0 has written: the blind writer's one vote and redundant a's red at the answer,
        # the note at the question mark, the pool at the last patch.
        (1, "answer", 1, 1 + 4),
        (1, "words", 1, 1),
        (1, "last patch", 1, 1),
        (1, "region", 2 - 1, 2 - 1 + 4),
        # Layer 1: looker, suppressor and redundant b have written, too.
        (2, "answer", 1 + 2 - 1 + 4, 1 + 2 - 1 + 4),
        (2, "region", 0, 0),
        (2, "words", 1, 1),
        (3, "answer", 8, 8),
        (3, "words", 0, 0),
    ],
)
def test_planted_information_moves_when_it_is_read(
    layer: int, where: str, noising: float, denoising: float
) -> None:
    vlm, base, streams = circuit()
    spans, image = base.prompt.spans, base.prompt.image_positions
    positions = {
        "image": image,
        "region": image[[0, 1, 4, 5]],
        "last patch": image[[15]],
        "words": spans.question[:-1],
        "answer": torch.tensor([spans.answer]),
    }[where]
    asked = [lm(WITH, layer, positions), lm(WITHOUT, layer, positions)]
    for found in by_both(vlm, base, streams, asked):
        assert found == pytest.approx([-noising, denoising], abs=1e-3)


def test_a_stream_put_in_its_own_place_changes_nothing() -> None:
    vlm, base, streams = opened()
    asked = [replace(one, source=one.run) for one in various(base, 3)]
    vision = torch.arange(streams["vision"][0].shape[1])
    whole = [*asked, Swap(WITH, "vision", 0, vision, WITH)]
    found = effects((*swap(vlm, base, streams, whole), *swap(vlm, base, None, asked)))
    assert found == pytest.approx([0] * len(found), abs=5e-6)


def test_a_late_start_is_a_start_from_the_beginning() -> None:
    vlm, whole, _ = opened()
    question = whole.prompt.spans.question
    late = run_pair(vlm, whole.prompt, Keep(suffix=int(question[0])), exact=True)
    asked = [one for one in various(whole, 3) if one.positions.min() >= question[0]]
    expected = effects(swap(vlm, whole, None, asked))
    assert effects(swap(vlm, late, None, asked)) == pytest.approx(expected, abs=CLOSE)


def test_rows_of_a_batch_do_not_feel_each_other() -> None:
    vlm, base, streams = opened()
    asked = various(base, 3)
    seen: list[tuple[int, int]] = []
    for kept in (streams, None):
        together = effects(swap(vlm, base, kept, asked, lambda *call: seen.append(call)))
        alone = [swap(vlm, base, kept, [one])[0].effect for one in asked]
        assert together == pytest.approx(alone, abs=5e-6)
        assert seen[-1] == (len(asked), len(asked))


def test_a_wrong_resumption_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base, streams = opened()
    asked = various(base, 3)
    assert disagreement(vlm, base, streams, asked) < CLOSE

    def broken(*_: object) -> torch.Tensor:
        raise TypeError("a layer that takes something else")

    monkeypatch.setattr(residual, "_resumed", broken)
    assert disagreement(vlm, base, streams, asked) == float("inf")


def test_what_cannot_be_resumed_is_refused() -> None:
    vlm, base, streams = opened(start=20)
    early = lm(WITH, 0, [5])
    with pytest.raises(ValueError, match="too short a suffix"):
        swap(vlm, base, None, [early])
    assert disagreement(vlm, base, streams, [early]) == float("inf")
    with pytest.raises(ValueError, match="only the language model"):
        swap(vlm, base, None, [replace(early, tower="vision")])


@pytest.mark.parametrize("name", ["grouped-query", "qwen3_vl", "gemma3", "internvl"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_passes_resume_exactly(name: str, dtype: torch.dtype) -> None:
    """At every layer; Qwen3-VL adds to the stream between layers, Gemma3 norms what they write."""
    vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else builders.build(name)
    prompt = tiny_prompt(vlm) if name in SHAPES else builders.prompt_of(vlm)
    vlm.model.to(dtype)
    streams, at = record(vlm, prompt), prompt.spans.image[:2]
    for start, positions in ((0, at), (prompt.spans.answer, prompt.spans.positions("answer"))):
        base = run_pair(vlm, prompt, Keep(suffix=start), exact=True)
        layers = range(vlm.lm.grid.layers)
        asked = [lm(run, layer, positions) for run in (WITH, WITHOUT) for layer in layers]
        slow = np.array([one.effect for one in swap(vlm, base, streams, asked)])
        fast = np.array([one.effect for one in swap(vlm, base, None, asked)])
        np.testing.assert_allclose(fast, slow, atol=2e-5, rtol=0)
        assert np.abs(slow).max() > 1e-3


@pytest.mark.parametrize("resumed", [False, True])
def test_low_precision_swaps_are_computed_in_float32(resumed: bool) -> None:
    low = VLM(tiny_model(dtype=torch.bfloat16), tiny_vlm().processor, "tiny", "")
    rounded = VLM(tiny_model(dtype=torch.bfloat16).float(), low.processor, "tiny", "")
    found = []
    for vlm in (low, rounded):
        base = run_pair(vlm, tiny_prompt(vlm), Keep(suffix=0), exact=True)
        asked = [lm(WITH, 1, base.prompt.spans.image[:6])]
        streams = None if resumed else record(vlm, base.prompt)
        found.append(swap(vlm, base, streams, asked)[0].effect)
    assert found[0] == pytest.approx(found[1], abs=1e-4)

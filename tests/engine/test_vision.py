"""The resumed passes of the vision tower: against eager transformers, and against whole passes."""

from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import get_args

import pytest
import torch

import headpatch.engine.vision as vision
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import (
    Direction,
    Intervention,
    VisionPositions,
    ZEdit,
    tower_of,
    vision_positions,
    whole_layers,
)
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch, run_pair, z_edits
from headpatch.engine.vision import equivalents, patch_vision
from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from tests.engine.oracle import Twin, blend
from tests.families import builders
from tests.tiny import PLAIN, SHAPES, every_shape, tiny_pair

KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(VisionPositions)
PLACES = {"class": [0], "patches": list(range(1, 17)), "all": list(range(17))}  # 4 × 4 patches
NAMES = ("plain", "deep-vision", "class-token-kept")
ROUNDING = 2e-5  # float32 through six layers, batches of different shapes


def pair_of(shape: str) -> tuple[VLM, Baseline]:
    return tiny_pair(shape, "vision")


@lru_cache
def family(name: str) -> tuple[VLM, Baseline]:
    vlm, prompt = builders.built(name)
    return vlm, run_pair(vlm, prompt, Keep(z=("vision",)))


def single_heads(vlm: VLM) -> list[HeadSet]:
    return [HeadSet.of(head) for head in tower_of(vlm).grid]


def everything(sets: list[HeadSet], scope: VisionPositions = "all") -> list[Intervention]:
    ways = product(sets, KINDS, DIRECTIONS)
    return [Intervention(*one, vision_positions=scope) for one in ways]


def some_sets(vlm: VLM) -> list[HeadSet]:
    """A head of each layer, each whole layer, and heads of two layers together."""
    grid = tower_of(vlm).grid
    picked = [HeadSet.parse(f"v{i}.{(i + 1) % grid.heads}") for i in range(grid.layers)]
    return [*picked, *whole_layers(vlm), HeadSet.parse("v0.2+v1.0")]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_direction_and_scope_equals_eager_transformers(name: str) -> None:
    vlm, base = pair_of(name)
    means = blend(base.trace.z)
    twin, sets, answers = Twin(vlm, base, means), some_sets(vlm), base.prompt.answers
    for scope in SCOPES:
        for outcome in patch_vision(vlm, base, everything(sets, scope), means, batch=6):
            logits = twin.logits(outcome.intervention)
            ld = float(logits[answers.yes] - logits[answers.no])
            assert outcome.ld == pytest.approx(ld, abs=ROUNDING), outcome.intervention
            assert outcome.token == int(logits.argmax())


def agree(vlm: VLM, base: Baseline, asked: list[Intervention]) -> float:
    """Hold resumed passes against whole ones; return the largest effect."""
    means = blend(base.trace.z)
    fast, slow = patch_vision(vlm, base, asked, means), patch(vlm, base, asked, means)
    assert [outcome.intervention for outcome in fast] == asked
    for ours, theirs in zip(fast, slow, strict=True):
        assert (ours.effect, ours.ld) == pytest.approx((theirs.effect, theirs.ld), abs=ROUNDING)
        assert (ours.token, ours.token_before) == (theirs.token, theirs.token_before)
    return max(abs(outcome.effect) for outcome in slow)


@every_shape
def test_every_head_equals_whole_passes(shape: str) -> None:
    vlm, base = pair_of(shape)
    assert agree(vlm, base, everything(single_heads(vlm))) > 0.1


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "idefics3", "internvl"])
def test_a_picture_in_several_tiles(name: str) -> None:
    vlm, base = family(name)
    assert agree(vlm, base, everything(some_sets(vlm))) > 0.01


@pytest.mark.parametrize("scope", ["class", "patches"])
def test_each_tile_has_a_class_token(scope: VisionPositions) -> None:
    vlm, base = family("llava_next")
    assert base.trace.z["vision"][0].shape[1] == 5 * 17  # the whole picture and four tiles
    each = [position + 17 * tile for tile in range(5) for position in PLACES[scope]]
    assert vision_positions(vlm, base, scope).tolist() == each
    asked = everything(some_sets(vlm), scope)
    means = blend(base.trace.z)
    for outcome in patch_vision(vlm, base, asked, means)[::5]:
        one = replace(outcome.intervention, vision_positions="all")
        prompt = base.prompt.select(WITH if one.direction == "noising" else WITHOUT)
        edits = [
            replace(
                edit, positions=torch.tensor(each), value=value if value is None else value[each]
            )
            for edit in z_edits(vlm, 0, one, base, means)
            for value in [edit.value]
        ]
        ld = float(forward(vlm, prompt, edits).ld(prompt))
        assert outcome.ld == pytest.approx(ld, abs=ROUNDING)


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("name", ["plain", "vipllava", "llava_next"])
def test_layers_past_the_feature_layer_change_nothing_at_all(name: str, batch: int) -> None:
    """A free control: exactly 0, whatever a row's place in a batch does to rounding."""
    vlm, base = pair_of(name) if name in SHAPES else family(name)
    assert vlm.feature_layer == tower_of(vlm).grid.layers - 2
    asked = everything([*single_heads(vlm), *whole_layers(vlm)])
    for outcome in patch_vision(vlm, base, asked, means=blend(base.trace.z), batch=batch):
        one = outcome.intervention
        if min(head.layer for head in one.heads) > vlm.feature_layer:
            assert outcome.effect == 0
        elif one.kind == "zero" and len(one.heads) > 1:
            assert abs(outcome.effect) > 1e-3
        elif one.kind == "self":
            assert abs(outcome.effect) < 1e-5


def test_the_class_token_of_the_feature_layer_is_dropped_or_kept() -> None:
    for name, reaches in (("plain", False), ("class-token-kept", True)):
        vlm, base = pair_of(name)
        asked = [
            Intervention(whole_layers(vlm)[layer], "zero", "noising", vision_positions="class")
            for layer in (vlm.feature_layer or 0, 0)
        ]
        found = [abs(patch_vision(vlm, base, [one])[0].effect) > 1e-4 for one in asked]
        assert found == [reaches, True]


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    vlm, base = pair_of("deep-vision")
    asked = everything(single_heads(vlm), "patches")[::-3]  # directions alternate, layers fall
    means, calls, told = blend(base.trace.z), [], []
    outcomes = patch_vision(
        vlm, base, asked, means, batch,
        lambda done, total: calls.append((done, total)), told.append,
    )  # fmt: skip
    assert sorted(map(id, told)) == sorted(map(id, outcomes))
    assert [outcome.intervention for outcome in outcomes] == asked
    for ours, theirs in zip(outcomes, patch_vision(vlm, base, asked, means), strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)
    assert calls == sorted(calls)
    assert calls[-1] == (len(asked), len(asked))


def test_layers_below_a_batch_do_not_run_again() -> None:
    vlm, base = pair_of("deep-vision")
    layers, ran = tower_of(vlm).layers, list[int]()
    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            count = layer.mlp.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
            stack.callback(count.remove)
        asked = [Intervention(one, "zero", "noising") for one in whole_layers(vlm)]
        patch_vision(vlm, base, asked, batch=2)  # one layer a batch
    # The last one is not read: it runs when it is changed.
    assert [ran.count(index) for index in range(4)] == [1 + 1, 1 + 2, 1 + 3, 1]


def test_the_cost_is_counted_in_passes_of_one_run() -> None:
    vlm, base = pair_of("deep-vision")
    asked = [Intervention(one, "zero", "noising") for one in whole_layers(vlm)]
    first, second, third, control = (equivalents(vlm, base, [one], batch=2) for one in asked)
    assert first == 2 + 2  # the pair; the untouched row and one more
    assert first - second == pytest.approx(second - third)  # one layer more is left out
    assert 2 < third < second < first
    share = (first - second) / 2  # of a layer in a pass
    assert control == pytest.approx(2 + 2 * 2 * (1 - 3 * share))
    tokens, length = 17, base.prompt.spans.length
    layer = tokens * (4 * 40 * 41 + 2 * 40 * 40 + 40 + 40 + 4 * 40 + 2 * tokens * 40)
    lm = length * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32 + 2 * length * 32)
    assert share == pytest.approx(layer / (4 * layer + 2 * lm))


def test_a_layers_own_forward_is_put_back() -> None:
    """Accelerate leaves one at the module."""
    vlm, base = pair_of("plain")
    layer = vlm.stack("vision").layers[0]
    layer.__dict__["forward"] = own = layer.forward
    try:
        patch_vision(vlm, base, everything(whole_layers(vlm)), blend(base.trace.z))
        assert layer.__dict__["forward"] is own
    finally:
        layer.__dict__.pop("forward", None)


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of("plain")
    asked = everything(single_heads(vlm))
    means, sizes = blend(base.trace.z), []
    expected = patch_vision(vlm, base, asked, means=means)
    whole = vision._run_chunk

    def small(vlm: VLM, base: Baseline, asked: list[Intervention], *rest: object) -> object:
        sizes.append(len(asked))
        if len(asked) > limit:
            raise torch.OutOfMemoryError("as asked")
        return whole(vlm, base, asked, *rest)

    monkeypatch.setattr(vision, "_run_chunk", small)
    limit = 3
    outcomes = patch_vision(vlm, base, asked, means=means, batch=14)
    assert sizes[:4] == [13, 7, 4, 2]
    assert max(sizes[3:]) == 2
    for ours, theirs in zip(outcomes, expected, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)
    limit = 0
    with pytest.raises(InputError, match="too little memory for two rows"):
        patch_vision(vlm, base, asked, means=means)


def test_low_precision_runs_in_float32_as_the_plain_path() -> None:
    vlm, base = tiny_pair("plain", "vision", dtype=torch.bfloat16, exact=True)
    agree(vlm, base, everything(some_sets(vlm)[2:5]))


def test_an_unknown_tower_is_refused() -> None:
    vlm, base = builders.build(builders.STRANGE), pair_of("plain")[1]
    asked = [Intervention(HeadSet.parse("v0.0"), "zero", "noising")]
    with pytest.raises(RunError, match="cannot change the vision tower of this family"):
        patch_vision(vlm, base, asked)
    with pytest.raises(RunError, match="cannot change"):
        whole_layers(vlm)


@pytest.mark.parametrize(
    ("name", "tiles", "tokens"),
    [("llava", 1, 17), ("internvl", 3, 17), ("mllama", 4, 24)],  # Mllama pads 17 to 24
)
def test_a_class_token_in_each_tile(name: str, tiles: int, tokens: int) -> None:
    """Also where all tiles lie in one row, as Mllama's."""
    vlm, base = family(name)
    assert base.trace.z["vision"][0].shape[1] == tiles * tokens
    every = torch.arange(tiles * tokens)
    first = every % tokens == 0
    for scope, places in (("class", every[first]), ("patches", every[~first])):
        assert vision_positions(vlm, base, scope).equal(places)
        for layer in range(3):
            head = Head(layer, 1, "vision")
            asked = Intervention(HeadSet.of(head), "resample", "noising", vision_positions=scope)
            value = base.trace.z["vision"][layer][WITHOUT, places, 1]
            edited = forward(vlm, base.prompt, [ZEdit(WITH, head, places, value)])
            expected = float(edited.ld(base.prompt)[WITH]) - base.ld_with
            (found,) = patch_vision(vlm, base, [asked])
            assert found.effect == pytest.approx(expected, abs=1e-5)


def test_a_tower_without_a_class_token() -> None:
    vlm, base = family("llava (siglip)")
    layers, means = whole_layers(vlm), blend(base.trace.z)
    with pytest.raises(InputError, match="class: the tower has no class token"):
        patch_vision(vlm, base, everything(layers, "class"), means)
    patches = patch_vision(vlm, base, everything(layers, "patches"), means)
    every = patch_vision(vlm, base, everything(layers), means)
    assert [one.effect for one in patches] == [one.effect for one in every]


def test_what_would_give_wrong_numbers_is_refused() -> None:
    vlm, base = pair_of("plain")
    with pytest.raises(ValueError, match="without a vision head"):
        patch_vision(vlm, base, [Intervention(HeadSet.parse("0.0"), "zero", "noising")])
    with pytest.raises(ValueError, match="means"):
        patch_vision(vlm, base, [Intervention(HeadSet.parse("v0.0"), "mean", "noising")])
    assert patch_vision(vlm, base, []) == []
    assert [str(one) for one in whole_layers(vlm)][1] == "v1.0+v1.1+v1.2"
    assert all(head.tower == "vision" for one in whole_layers(vlm) for head in one)


@pytest.mark.parametrize("name", ["plain", "grouped-query"])
def test_heads_of_both_towers_together_equal_eager_transformers(name: str) -> None:
    vlm, base = tiny_pair(name, "vision", "lm")
    means = blend(base.trace.z)
    twin = Twin(vlm, base, means)
    sets = [HeadSet.parse(text) for text in ("v0.1+1.2", "v1.0+v1.2+0.3+2.1", "v2.0+1.0")]
    asked = [replace(one, positions="question") for one in everything(sets, "patches")]
    for one, outcome in zip(asked, patch_vision(vlm, base, asked, means, batch=5), strict=True):
        assert outcome.ld == pytest.approx(twin.ld(one), abs=ROUNDING), one
    unread = [Intervention(HeadSet.parse("v2.0"), "zero", "noising")]
    assert vision.never_read(vlm, unread[0].heads)
    assert not vision.never_read(vlm, sets[2])  # the other head is read
    assert patch_vision(vlm, base, unread)[0].effect == 0

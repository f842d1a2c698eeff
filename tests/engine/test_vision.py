"""The resumed passes of the vision tower: against eager transformers, and against whole passes."""

from collections.abc import Iterator
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
from headpatch.engine.patching import WITH, WITHOUT, Baseline, ZMeans, patch, run_pair, z_edits
from headpatch.engine.vision import equivalents, patch_vision
from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from tests.engine.oracle import Change, Oracle
from tests.families import builders
from tests.tiny import PLAIN, SHAPES, Shape, tiny_prompt, tiny_vlm

KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(VisionPositions)
PLACES = {"class": [0], "patches": list(range(1, 17)), "all": list(range(17))}  # 4 × 4 patches
NAMES = ("plain", "deep-vision", "class-token-kept")
ROUNDING = 2e-5  # float32 through six layers, batches of different shapes


@lru_cache
def pair_of(shape: Shape) -> tuple[VLM, Baseline]:
    vlm = tiny_vlm(shape)
    return vlm, run_pair(vlm, tiny_prompt(vlm), Keep(z=("vision",)))


@lru_cache
def family(name: str) -> tuple[VLM, Baseline]:
    vlm = builders.build(name)
    return vlm, run_pair(vlm, builders.prompt_of(vlm), Keep(z=("vision",)))


def means_of(base: Baseline) -> ZMeans:
    return {"vision": [0.3 * z[WITH] + 0.7 * z[WITHOUT] + 0.1 for z in base.trace.z["vision"]]}


def single_heads(vlm: VLM) -> list[HeadSet]:
    return [HeadSet.of(head) for head in tower_of(vlm).grid]


def everything(sets: list[HeadSet], scope: VisionPositions = "all") -> list[Intervention]:
    ways = product(sets, KINDS, DIRECTIONS)
    return [Intervention(*one, vision_positions=scope) for one in ways]


def some_sets(vlm: VLM) -> list[HeadSet]:
    """A head of each layer, each whole layer, and heads of two layers together."""
    assert vlm.vision is not None
    heads = vlm.vision.grid.heads
    picked = [HeadSet.parse(f"v{i}.{(i + 1) % heads}") for i in range(vlm.vision.grid.layers)]
    return [*picked, *whole_layers(vlm), HeadSet.parse("v0.2+v1.0")]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_direction_and_scope_equals_eager_transformers(name: str) -> None:
    vlm, base = pair_of(SHAPES[name])
    means, oracle = means_of(base), Oracle(vlm)
    z = oracle.z(base.prompt.inputs)["vision"]
    sets, answers = some_sets(vlm), base.prompt.answers
    for scope in SCOPES:
        here = PLACES[scope]
        for outcome in patch_vision(vlm, base, everything(sets, scope), means, batch=6):
            one = outcome.intervention
            run = WITH if one.direction == "noising" else WITHOUT
            source = {
                "zero": lambda layer: 0 * z[layer][0],
                "mean": lambda layer: means["vision"][layer],
                "resample": lambda layer, run=run: z[layer][1 - run],
                "self": lambda layer, run=run: z[layer][run],
            }[one.kind]
            changes = [
                Change(head, here, source(head.layer)[here, head.head]) for head in one.heads
            ]
            logits = oracle.logits(base.prompt.select(run).inputs, changes)[0]
            ld = float(logits[answers.yes] - logits[answers.no])
            assert outcome.ld == pytest.approx(ld, abs=ROUNDING), (scope, one)
            assert outcome.token == int(logits.argmax())


@pytest.mark.parametrize("name", SHAPES)
def test_every_head_equals_whole_passes(name: str) -> None:
    vlm, base = pair_of(SHAPES[name])
    means = means_of(base)
    asked = everything(single_heads(vlm))
    fast, slow = patch_vision(vlm, base, asked, means=means), patch(vlm, base, asked, means)
    assert [outcome.intervention for outcome in fast] == asked
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=ROUNDING)
        assert ours.ld == pytest.approx(theirs.ld, abs=ROUNDING)
        assert (ours.token, ours.token_before) == (theirs.token, theirs.token_before)
    assert max(abs(outcome.effect) for outcome in slow) > 0.1


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "idefics3", "internvl"])
def test_a_picture_in_several_tiles(name: str) -> None:
    vlm, base = family(name)
    asked = everything(some_sets(vlm))
    means = means_of(base)
    fast, slow = patch_vision(vlm, base, asked, means=means), patch(vlm, base, asked, means)
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=ROUNDING)
    assert max(abs(outcome.effect) for outcome in slow) > 0.01


@pytest.mark.parametrize("scope", ["class", "patches"])
def test_each_tile_has_a_class_token(scope: VisionPositions) -> None:
    vlm, base = family("llava_next")
    assert base.trace.z["vision"][0].shape[1] == 5 * 17  # the whole picture and four tiles
    each = [position + 17 * tile for tile in range(5) for position in PLACES[scope]]
    assert vision_positions(vlm, base, scope).tolist() == each
    asked = everything(some_sets(vlm), scope)
    means = means_of(base)
    for outcome in patch_vision(vlm, base, asked, means)[::5]:
        one = replace(outcome.intervention, vision_positions="all")
        prompt = base.prompt.select(WITH if one.direction == "noising" else WITHOUT)
        edits = [
            replace(
                edit,
                positions=torch.tensor(each),
                value=None if edit.value is None else edit.value[each],
            )
            for edit in z_edits(vlm, 0, one, base, means)
        ]
        ld = float(forward(vlm, prompt, edits).ld(prompt))
        assert outcome.ld == pytest.approx(ld, abs=ROUNDING)


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("name", ["plain", "vipllava", "llava_next"])
def test_layers_past_the_feature_layer_change_nothing_at_all(name: str, batch: int) -> None:
    """A free control: exactly 0, whatever a row's place in a batch does to rounding."""
    vlm, base = pair_of(SHAPES[name]) if name in SHAPES else family(name)
    assert vlm.vision is not None
    assert vlm.feature_layer == vlm.vision.grid.layers - 2
    asked = everything([*single_heads(vlm), *whole_layers(vlm)])
    for outcome in patch_vision(vlm, base, asked, means=means_of(base), batch=batch):
        one = outcome.intervention
        if min(head.layer for head in one.heads) > vlm.feature_layer:
            assert outcome.effect == 0
        elif one.kind == "zero" and len(one.heads) > 1:
            assert abs(outcome.effect) > 1e-3
        elif one.kind == "self":
            assert abs(outcome.effect) < 1e-5


def test_the_class_token_of_the_feature_layer_is_dropped_or_kept() -> None:
    for name, reaches in (("plain", False), ("class-token-kept", True)):
        vlm, base = pair_of(SHAPES[name])
        layers = whole_layers(vlm)
        last, earlier = (
            Intervention(layers[layer], "zero", "noising", vision_positions="class")
            for layer in (vlm.feature_layer or 0, 0)
        )
        (outcome,) = patch_vision(vlm, base, [last])
        assert (abs(outcome.effect) > 1e-4) is reaches
        assert abs(patch_vision(vlm, base, [earlier])[0].effect) > 1e-4


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    vlm, base = pair_of(SHAPES["deep-vision"])
    asked = everything(single_heads(vlm), "patches")[::-3]  # directions alternate, layers fall
    means, calls, told = means_of(base), [], []
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
    vlm, base = pair_of(SHAPES["deep-vision"])
    assert vlm.vision is not None
    ran = [0] * vlm.vision.grid.layers
    with ExitStack() as stack:
        for index, layer in enumerate(vlm.vision.layers):

            def count(_: object, __: object, index: int = index) -> None:
                ran[index] += 1

            stack.callback(layer.mlp.register_forward_pre_hook(count).remove)
        asked = [Intervention(one, "zero", "noising") for one in whole_layers(vlm)]
        patch_vision(vlm, base, asked, batch=2)  # one layer a batch
    assert ran == [1 + 1, 1 + 2, 1 + 3, 1]  # the last one is not read: it runs when it is changed


def test_the_cost_is_counted_in_passes_of_one_run() -> None:
    vlm, base = pair_of(SHAPES["deep-vision"])
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


def state(vlm: VLM) -> list[object]:
    found: list[object] = []
    for module in vlm.model.modules():
        found.append(sorted(module.__dict__))
        found.append(getattr(getattr(module, "config", None), "_attn_implementation", None))
        found.append((len(module._forward_hooks), len(module._forward_pre_hooks)))
    return found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pass that fails in its decoder, once the tower has run."""
    vlm, _ = pair_of(SHAPES["plain"])

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("as asked")

    monkeypatch.setattr(vlm.decoder.layers[1].mlp, "forward", fail)
    yield
    monkeypatch.undo()


def test_the_model_is_left_as_it_was() -> None:
    vlm, base = pair_of(SHAPES["plain"])
    before, weights = state(vlm), [(one, one._version) for one in vlm.model.parameters()]
    layer = vlm.stack("vision").layers[0]
    layer.__dict__["forward"] = own = layer.forward  # as Accelerate leaves one there
    try:
        patch_vision(vlm, base, everything(whole_layers(vlm)), means=means_of(base))
        assert layer.__dict__.pop("forward") is own
    finally:
        layer.__dict__.pop("forward", None)
    assert state(vlm) == before
    assert all(one._version == version for one, version in weights)
    assert float(forward(vlm, base.prompt).ld(base.prompt)[WITH]) == base.ld_with


@pytest.mark.usefixtures("broken")
def test_the_model_is_left_as_it_was_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of(SHAPES["plain"])
    before = state(vlm)
    asked = [Intervention(whole_layers(vlm)[1], "zero", "noising")]
    with pytest.raises(RuntimeError, match="as asked"):
        patch_vision(vlm, base, asked)  # while the tower's outputs are kept
    assert state(vlm) == before
    outputs = [torch.zeros(2, 17, 24)] * 3
    monkeypatch.setattr(vision, "_outputs", lambda *_: outputs)
    with pytest.raises(RuntimeError, match="as asked"):
        patch_vision(vlm, base, asked)  # while layers are left out
    assert state(vlm) == before


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of(SHAPES["plain"])
    asked = everything(single_heads(vlm))
    means, sizes = means_of(base), []
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
    vlm = tiny_vlm(dtype=torch.bfloat16)
    base = run_pair(vlm, tiny_prompt(vlm), Keep(z=("vision",)), exact=True)
    asked = everything(some_sets(vlm)[2:5])
    means = means_of(base)
    for ours, theirs in zip(
        patch_vision(vlm, base, asked, means=means), patch(vlm, base, asked, means), strict=True
    ):
        assert ours.effect == pytest.approx(theirs.effect, abs=ROUNDING)


def test_an_unknown_tower_is_refused() -> None:
    vlm, base = builders.build(builders.STRANGE), pair_of(SHAPES["plain"])[1]
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
    scopes: tuple[tuple[VisionPositions, torch.Tensor], ...]
    scopes = ("class", every[first]), ("patches", every[~first])
    for scope, places in scopes:
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
    layers, means = whole_layers(vlm), means_of(base)
    with pytest.raises(InputError, match="class: the tower has no class token"):
        patch_vision(vlm, base, everything(layers, "class"), means)
    patches = patch_vision(vlm, base, everything(layers, "patches"), means)
    every = patch_vision(vlm, base, everything(layers), means)
    assert [one.effect for one in patches] == [one.effect for one in every]


def test_what_would_give_wrong_numbers_is_refused() -> None:
    vlm, base = pair_of(SHAPES["plain"])
    with pytest.raises(ValueError, match="without a vision head"):
        patch_vision(vlm, base, [Intervention(HeadSet.parse("0.0"), "zero", "noising")])
    with pytest.raises(ValueError, match="means"):
        patch_vision(vlm, base, [Intervention(HeadSet.parse("v0.0"), "mean", "noising")])
    assert patch_vision(vlm, base, []) == []


def test_sets_of_the_tower() -> None:
    vlm, _ = pair_of(SHAPES["plain"])
    assert [str(one) for one in whole_layers(vlm)][1] == "v1.0+v1.1+v1.2"
    assert all(head.tower == "vision" for one in whole_layers(vlm) for head in one)


@pytest.mark.parametrize("name", ["plain", "grouped-query"])
def test_heads_of_both_towers_together_equal_eager_transformers(name: str) -> None:
    vlm = tiny_vlm(SHAPES[name])
    prompt = tiny_prompt(vlm)
    base = run_pair(vlm, prompt, Keep(z=("vision", "lm")))
    means = means_of(base) | {"lm": [z.mean(0) for z in base.trace.z["lm"]]}
    oracle, answers = Oracle(vlm), prompt.answers
    z = oracle.z(prompt.inputs)
    sets = [HeadSet.parse(text) for text in ("v0.1+1.2", "v1.0+v1.2+0.3+2.1", "v2.0+1.0")]
    asked = [replace(one, positions="question") for one in everything(sets, "patches")]
    places = {"vision": PLACES["patches"], "lm": prompt.spans.positions("question").tolist()}
    for outcome in patch_vision(vlm, base, asked, means, batch=5):
        one = outcome.intervention
        run = WITH if one.direction == "noising" else WITHOUT

        def source(head: Head, one: Intervention = one, run: int = run) -> torch.Tensor:
            here, heads = places[head.tower], z[head.tower][head.layer]
            value = {
                "zero": 0 * heads[0],
                "mean": means[head.tower][head.layer],
                "resample": heads[1 - run],
                "self": heads[run],
            }[one.kind]
            return value[here, head.head]

        changes = [Change(head, places[head.tower], source(head)) for head in one.heads]
        logits = oracle.logits(prompt.select(run).inputs, changes)[0]
        ld = float(logits[answers.yes] - logits[answers.no])
        assert outcome.ld == pytest.approx(ld, abs=ROUNDING), one
    unread = [Intervention(HeadSet.parse("v2.0"), "zero", "noising")]
    assert vision.never_read(vlm, unread[0].heads)
    assert not vision.never_read(vlm, sets[2])  # the other head is read
    assert patch_vision(vlm, base, unread)[0].effect == 0

"""The circuits of harder kinds are what their tables say, by plain patching."""

from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch

from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Baseline, patch, run_pair
from headpatch.engine.vision import patch_vision
from headpatch.heads import HeadSet
from headpatch.models.prompt import Prompt, encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.planted_kinds import (
    CARRIERS,
    DIFFERENCES,
    GAP,
    HEADS,
    DrawnPair,
    diffuse,
    drawn_pairs,
    kinds,
)
from tests.tiny import QUESTION

CLOSE = 1e-4  # share of the gap; what the norms leave, and float32
KINDS_OF_PAIR = {(one.disc, one.left, one.upper): one for one in reversed(drawn_pairs())}
every_kind_of_pair = pytest.mark.parametrize(
    "drawn", KINDS_OF_PAIR.values(), ids=lambda one: one.name
)


@lru_cache
def vlm_of(name: str) -> VLM:
    return {"kinds": kinds, "diffuse": diffuse}[name]()


@lru_cache
def runs(drawn: DrawnPair, name: str = "kinds") -> tuple[Prompt, Baseline]:
    vlm = vlm_of(name)
    prompt = encode(vlm, [drawn.picture(True), drawn.picture(False)], QUESTION)
    return prompt, run_pair(vlm, prompt, Keep(lm_rows=True, z=("lm", "vision")))


def effects(
    drawn: DrawnPair, sets: Sequence[HeadSet], positions: Positions = "answer", name: str = "kinds"
) -> list[tuple[float, float]]:
    """Necessity and sufficiency of each set."""
    _, base = runs(drawn, name)
    ways = ("noising", "denoising")
    asked = [Intervention(one, "resample", way, positions) for one in sets for way in ways]
    found = [one.effect / GAP for one in patch(vlm_of(name), base, asked)]
    return list(zip([-one for one in found[::2]], found[1::2], strict=True))


def named(*names: str) -> HeadSet:
    return HeadSet.of(*(HEADS[one] for one in names))


def approx(*expected: tuple[float, float]) -> list[object]:
    return [pytest.approx(two, abs=CLOSE) for two in expected]


@every_kind_of_pair
def test_every_head_does_in_every_kind_of_pair_what_was_planted(drawn: DrawnPair) -> None:
    _, base = runs(drawn)
    assert [base.ld_with, base.ld_without] == pytest.approx([GAP / 2, -GAP / 2], abs=GAP * CLOSE)
    found = effects(drawn, [HeadSet.of(head) for head in HEADS.values()])
    for name, two in zip(HEADS, found, strict=True):
        assert two == pytest.approx(drawn.effects.get(name, (0, 0)), abs=CLOSE), name


@every_kind_of_pair
def test_attention_to_the_region(drawn: DrawnPair) -> None:
    prompt, base = runs(drawn)
    assert base.trace.lm_rows is not None
    image = base.trace.lm_rows.double()[..., prompt.image_positions]
    shares = image[..., [0, 1, 4, 5]].sum(-1) / image.sum(-1)
    for name, head in HEADS.items():
        with_it, without = shares[:, head.layer, head.head].tolist()
        # The flicker's difference of 9.4e-6 is far above the rounding of float32
        assert with_it - without == pytest.approx(DIFFERENCES[name], abs=5e-7), name


def test_what_heads_do_together() -> None:
    drawn = drawn_pairs()[0]
    together = {
        ("or a", "or b"): (0, 0.08),
        ("or a", "or b", "or c"): (0.08, 0.08),
        ("and a", "and b"): (0.08, 0.08),
        ("main", "backup"): (0.10, 0.10),
        ("main", "lamp"): (0.20, 0.10),
        ("backup", "lamp"): (0.10, 0.06),
        ("main", "backup", "lamp"): (0.20, 0.10),
        ("opposite", "lamp"): (0.05, 0.05),
    }
    found = effects(drawn, [named(*names) for names in together])
    assert found == approx(*together.values())


def test_the_writer_acts_at_the_image_and_its_reader_at_the_answer() -> None:
    heads = list(HEADS)
    found = effects(drawn_pairs()[0], [named(name) for name in heads], "image")
    expected = {"pool writer": (0.06, 0.06)}
    assert found == approx(*(expected.get(name, (0, 0)) for name in heads))


def test_one_head_of_the_vision_tower_acts_and_so_does_its_layer() -> None:
    vlm, (_, base) = vlm_of("kinds"), runs(drawn_pairs()[0])
    heads = vlm.stack("vision").grid
    sets = [*(HeadSet.of(head) for head in heads), *heads.whole_layers()]
    ways = ("noising", "denoising")
    asked = [Intervention(one, "resample", way, None, "all") for one in sets for way in ways]
    found = [abs(one.effect) / GAP for one in patch_vision(vlm, base, asked)]
    acting = {HeadSet.parse("v1.0"), list(heads.whole_layers())[1]}
    assert found == pytest.approx([0.06 * (one in acting) for one in sets for _ in ways], abs=CLOSE)


def test_many_heads_carry_a_small_share_each() -> None:
    """Any k of them k/48; heads by attention are in order."""
    drawn = drawn_pairs()[0]
    prompt, base = runs(drawn, "diffuse")
    assert [base.ld_with, base.ld_without] == pytest.approx([GAP / 2, -GAP / 2], abs=GAP * CLOSE)
    grid = list(vlm_of("diffuse").lm.grid)
    found = effects(drawn, [HeadSet.of(head) for head in grid], name="diffuse")
    assert found == approx(*([(1 / CARRIERS,) * 2] * CARRIERS + [(0, 0)] * (len(grid) - CARRIERS)))
    sets = [HeadSet(tuple(grid[:16])), HeadSet(tuple(grid[40:56])), HeadSet(tuple(grid))]
    found = effects(drawn, sets, name="diffuse")
    assert found == approx((1 / 3, 1 / 3), (8 / 48, 8 / 48), (1, 1))
    assert base.trace.lm_rows is not None
    image = base.trace.lm_rows[:, 0][..., prompt.image_positions]
    shares = image[..., [0, 1, 4, 5]].sum(-1) / image.sum(-1)
    looks = (shares[0] - shares[1])[:CARRIERS]
    assert torch.equal(looks.argsort(descending=True), torch.arange(CARRIERS))


def test_pictures_of_pairs_differ_and_those_of_a_pair_by_the_object_alone() -> None:
    drawn = drawn_pairs()
    pictures = {one.picture(found).tobytes() for one in drawn for found in (True, False)}
    assert len(pictures) == 2 * len(drawn)

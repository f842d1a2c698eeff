"""TransformerLens, a third implementation, agrees; and asking it leaves the model alone."""

import sys

import pytest
import torch

from headpatch.core.study.study import Study
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import Baseline, run_pair
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.interop.lens import cross_check, hook_name, to_lens
from headpatch.models.load import DEMO, load
from headpatch.models.prompt import encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.test_attention import state_of
from tests.planted import HEADS, LD_WITH, LD_WITHOUT, planted
from tests.tiny import SHAPES, Shape, tiny_prompt, tiny_vlm

AGREE = 1e-4  # logits, and attention weights
KEEP = Keep(lm_rows=True, z=("lm", "vision"))


def tiny_pair(shape: Shape) -> tuple[VLM, Baseline]:
    vlm = tiny_vlm(shape)
    return vlm, run_pair(vlm, tiny_prompt(vlm), KEEP)


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("plain", "answer"), ("plain", "all"), ("grouped-query", "question"),
        ("wide-heads", "image"), ("class-token-kept", "all"),
    ],
)  # fmt: skip
def test_a_tiny_model_agrees(name: str, positions: Positions) -> None:
    vlm, base = tiny_pair(SHAPES[name])
    assert vlm.vision is not None
    heads = [*vlm.lm.grid, Head(0, 1, "vision"), Head(1, 0, "vision")]
    check = cross_check(vlm, base, heads, positions)
    assert check.worst < AGREE
    assert check.row_difference < AGREE
    assert len(check.effects) == 2 * len(heads)
    assert set(check.effects["direction"]) == {"noising", "denoising"}
    in_vision = check.effects["heads"].str.startswith("v")
    for tower in (in_vision, ~in_vision):
        assert check.effects[tower]["lens_effect"].abs().max() > 100 * AGREE


def test_the_planted_circuit_agrees() -> None:
    made = planted()
    base = run_pair(made.vlm, made.prompt, KEEP)
    expected = {str(one.head): one for one in HEADS.values() if one.scope == "answer"}
    check = cross_check(made.vlm, base, [one.head for one in expected.values()])
    assert check.lens_ld == pytest.approx((LD_WITH, LD_WITHOUT), abs=AGREE)
    assert check.worst < AGREE
    assert check.row_difference < AGREE
    for _, row in check.effects.iterrows():
        one = expected[row["heads"]]
        effect = -8 * one.necessity if row["direction"] == "noising" else 8 * one.sufficiency
        assert row["lens_effect"] == pytest.approx(effect, abs=AGREE)


@pytest.mark.skipif(not (DEMO / "model.safetensors").is_file(), reason="no trained weights here")
def test_the_bundled_model_agrees() -> None:
    """On its strongest heads, a weak one and a last one; the widening pass agrees as well."""
    vlm, pair = load("demo"), Study().pair()
    prompt = encode(vlm, [pair.with_image, pair.without_image], pair.question)
    suffix = suffix_start(prompt.spans, "answer")
    base = run_pair(vlm, prompt, Keep(lm_rows=True, z=("lm",), suffix=suffix))
    directions: tuple[Direction, ...] = ("noising", "denoising")
    each = [HeadSet.of(head) for head in vlm.lm.grid]
    asked = [Intervention(one, "resample", way) for one in each for way in directions]
    found = zip(asked, widen(vlm, base, asked), strict=True)
    swept = {(str(one.heads), one.direction): outcome.effect for one, outcome in found}
    strongest = sorted(swept, key=lambda key: -abs(swept[key]))
    names = dict.fromkeys([strongest[0][0], strongest[1][0], strongest[2][0], strongest[-1][0]])
    check = cross_check(vlm, base, [Head.parse(name) for name in [*names, "0.1"]])
    assert check.worst < AGREE
    assert check.row_difference < AGREE
    assert check.effects["lens_effect"].abs().max() > 0.1
    for _, row in check.effects.iterrows():
        assert row["lens_effect"] == pytest.approx(swept[row["heads"], row["direction"]], abs=AGREE)


def test_the_model_is_left_alone() -> None:
    vlm, base = tiny_pair(SHAPES["plain"])
    before = state_of(vlm.model)
    bridge = to_lens(vlm)
    cross_check(vlm, base, [Head(0, 0)], bridge=bridge)
    assert state_of(vlm.model) == before
    assert torch.is_grad_enabled()
    again = run_pair(vlm, base.prompt, KEEP)
    assert (again.ld_with, again.ld_without) == (base.ld_with, base.ld_without)


def test_a_bridge_can_be_asked_twice() -> None:
    """No hook stays on it."""
    vlm, base = tiny_pair(SHAPES["plain"])
    bridge = to_lens(vlm)
    first = cross_check(vlm, base, [Head(1, 1), Head(0, 0, "vision")], bridge=bridge).effects
    second = cross_check(vlm, base, [Head(1, 1), Head(0, 0, "vision")], bridge=bridge).effects
    assert first.equals(second)


def test_hook_names_tell_the_towers_apart() -> None:
    vlm, base = tiny_pair(SHAPES["plain"])
    bridge, one = to_lens(vlm), base.prompt.select(0)
    shapes = {
        hook_name(Head(2, 1)): (1, 30, 4, 8),
        hook_name(Head(2, 1), "pattern"): (1, 4, 30, 30),
        hook_name(Head(2, 1, "vision")): (1, 17, 3, 8),
        hook_name(Head(2, 1, "vision"), "pattern"): (1, 3, 17, 17),
    }
    assert len(shapes) == 4
    inputs = dict(one.inputs)
    _, cache = bridge.run_with_cache(inputs.pop("input_ids"), names_filter=list(shapes), **inputs)
    assert {name: tuple(cache[name].shape) for name in shapes} == shapes


def test_rows_need_not_be_kept() -> None:
    vlm = tiny_vlm()
    base = run_pair(vlm, tiny_prompt(vlm), Keep(z=("lm",)))
    check = cross_check(vlm, base, [Head(0, 0)])
    assert check.row_difference != check.row_difference
    assert check.worst < AGREE


def test_without_transformer_lens_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformer_lens.model_bridge.sources", None)
    with pytest.raises(InputError, match=r"headpatch\[lens\]") as caught:
        to_lens(tiny_vlm())
    assert "\n" not in str(caught.value)

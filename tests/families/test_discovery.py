"""What is discovered in a run of a model, against the table, and on classes that no table lists."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headpatch.engine.answers import answer_ids
from headpatch.engine.control import why_not
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITH, WITHOUT, patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.widen import suffix_start
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from headpatch.models import families
from headpatch.models.discovery import discover
from headpatch.models.families import Family
from headpatch.models.load import load
from headpatch.models.reach import image_tokens, patch_behind, reach
from headpatch.models.traced import _refuse_mixed
from tests.families import builders
from tests.families.builders import BUILDERS, DECODERS, UNLISTED, build, built, prompt_of
from tests.families.measure import TOWERS

NOT_SEEN = {
    "decoder",
    "vision",
    "layout",
    "template",
    "suffix",
    "needs",
    "lm_heads",
    "vision_heads",
}


NO_TOWER = {
    "minicpmv4_6": "its vision tower merges tokens between layers that headpatch would change"
}


@pytest.mark.parametrize("name", [*BUILDERS, *DECODERS])
def test_what_is_discovered_is_what_the_table_says(name: str) -> None:
    if name in BUILDERS:
        vlm, prompt = built(name)
    else:
        vlm = builders.make(DECODERS[name]())
        prompt = prompt_of(vlm)
    found = discover(vlm.model, prompt.inputs, prompt.spans.image.tolist(), name)
    table, seen = asdict(vlm.family), asdict(found)
    unlike = {key for key in table if table[key] != seen[key]} - NOT_SEEN
    # its tiles of padding are the same in both pictures, too
    assert unlike == ({"class_token"} if name == "mllama" else set())
    other = replace(vlm, found=replace(found, class_token=vlm.family.class_token))
    for tower in TOWERS:
        assert other.stack(tower).outputs == vlm.stack(tower).outputs
        assert other.stack(tower).grid == vlm.stack(tower).grid
    assert other.final_norm is vlm.final_norm


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "mllama"])
def test_traced_places_are_those_of_the_layouts(name: str) -> None:
    vlm, prompt = built(name)
    traced = prompt_of(replace(vlm, found=replace(vlm.family, layout="traced")))
    assert traced.patches.unknown is None
    assert torch.equal(traced.image_positions, prompt.image_positions)
    np.testing.assert_allclose(traced.patches.boxes, prompt.patches.boxes, atol=1e-9)
    assert traced.patches.grid == prompt.patches.grid


@pytest.mark.parametrize("name", UNLISTED)
def test_heads_of_unlisted_classes_are_changed_as_hooks_change_them(name: str) -> None:
    """Every layer that has heads, in both towers, against a plain hook on its projection."""
    vlm = build(name)
    assert vlm.family.why_no_vision == NO_TOWER.get(name, "")
    prompt, towers = prompt_of(vlm), TOWERS if vlm.vision else TOWERS[:1]
    base = run_pair(vlm, prompt, Keep(z=towers))
    assert [why_not(vlm, base, tower) for tower in towers] == [""] * len(towers)
    run = prompt.select(WITHOUT)
    for tower in towers:
        stack = vlm.stack(tower)
        for layer in stack.grid.with_heads:
            head = Head(layer, stack.grid.heads - 1, tower)
            (found,) = patch(
                vlm, base, [Intervention(HeadSet.of(head), "zero", "denoising", "answer")]
            )
            where = slice(None) if tower == "vision" else slice(-1, None)
            effect = _by_hook(vlm, run, stack.outputs[layer], stack.grid, head, where)
            assert abs(found.effect - effect) < 2e-5
            assert abs(effect) > 1e-4 or tower == "vision"


def _by_hook(vlm, run, output, grid: Grid, head: Head, where: slice) -> float:  # type: ignore[no-untyped-def]
    def zero(_: object, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].unflatten(-1, (grid.heads, -1)).clone()
        z[..., where, head.head, :] = 0
        return (z.flatten(-2),)

    def ld() -> float:
        with torch.no_grad():
            return float(run.answers.ld(vlm.model(**run.inputs).logits[:, -1])[0])

    before = ld()
    handle = output.register_forward_pre_hook(zero)
    try:
        return ld() - before
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["gemma4", "hunyuan_vl"])
def test_unlisted_classes_widen(name: str) -> None:
    """Gemma 4 hands its layers an input of each token beside the stream."""
    vlm = build(name)
    prompt = prompt_of(vlm)
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, "answer"))
    assert check(vlm, run_pair(vlm, prompt, keep), "answer").exact


@pytest.mark.parametrize("name", ["hunyuan_vl", "minicpmv4_6"])
def test_a_run_is_read_alike_in_every_row(name: str) -> None:
    """HunYuan-VL counts pictures, MiniCPM-V patches through the batch, also as they generate."""
    vlm = build(name)
    prompt = prompt_of(vlm)
    both = run_pair(vlm, prompt).trace.logits
    for run in (WITH, WITHOUT):
        alone = prompt.select(run)
        with torch.no_grad():
            logits = vlm.model(**alone.inputs).logits[0, -1]
        torch.testing.assert_close(both[run], logits, rtol=0, atol=1e-5)
        assert answer_ids(vlm, prompt, 6)[run] == answer_ids(vlm, alone, 6)[0]
    assert "get_rope_index" not in vlm.model.model.__dict__


def test_lines_of_tokens_are_where_the_model_has_them() -> None:
    vlm = build("hunyuan_vl")
    prompt = prompt_of(vlm)
    one = prompt.select(0).inputs
    pixels, (_, rows, columns) = one["pixel_values"], one["image_grid_thw"][0].tolist()
    row, column = (torch.arange(count) // 2 for count in (rows, columns))
    number = (row[:, None] * (columns // 2) + column).reshape(-1, 1)  # of the merged patch

    def features(changed: Tensor) -> Tensor:
        return image_tokens(vlm, {**one, "pixel_values": changed}, prompt.spans.image)

    behind = patch_behind(pixels, features, number)
    placed = np.flatnonzero(behind >= 0)
    assert behind[placed].tolist() == list(range(rows * columns // 4))
    assert prompt.spans.image[placed].equal(prompt.image_positions)
    assert prompt.patches.grid == (rows // 2, columns // 2)


def test_vision_layers_past_the_one_that_the_config_names_are_read() -> None:
    """Granite Vision names layers in settings of its own; LLaVA's last layer is never read."""
    vlm = build("granite4_vision")
    assert vlm.model.config.vision_feature_layer == -2
    assert vlm.feature_layer == vlm.family.vision_read == 2
    assert _by_run("llava").vision_read is None


def _by_run(name: str) -> Family:
    vlm, prompt = built(name)
    return discover(vlm.model, prompt.inputs, prompt.spans.image.tolist(), name)


def test_layers_without_heads_have_none() -> None:
    vlm = build("qwen3_5")
    prompt, grid = prompt_of(vlm), vlm.lm.grid
    keep = Keep(lm_rows=True, z=("lm",), suffix=suffix_start(prompt.spans, "answer"))
    base = run_pair(vlm, prompt, keep)
    assert grid.without == (0, 2) and {head.layer for head in grid} == {1, 3}
    assert [z.shape[-1] for z in base.trace.z["lm"]] == [0, 12, 0, 12]
    empty = base.trace.lm_rows.isnan().flatten(2).all(-1)
    assert empty.tolist() == [[True, False, True, False]] * 2
    assert "state of their own" in check(vlm, base, "answer").reason
    with pytest.raises(InputError, match="layer 2 of this model has no attention heads"):
        grid.check(Head(2, 0))
    assert {head.layer for head in Selection.parse("layer:0-3").resolve(grid)} == {1, 3}


def test_latents_that_look_at_the_whole_picture_have_no_places() -> None:
    prompt = prompt_of(build("idefics2"))
    assert prompt.patches.unknown is not None
    assert "mix parts of the picture" in prompt.patches.unknown.found


def test_tokens_that_share_the_picture_are_told_from_those_that_mix_it() -> None:
    pixels = torch.zeros(1, 3, 8, 8)

    def apart(shown: Tensor) -> Tensor:
        return shown[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).flatten(0, 1)

    found = reach(pixels, apart, 2)
    assert found.rows.sum(1).tolist() == found.columns.sum(1).tolist() == [2] * 4
    assert found.columns[1].tolist() == [False, False, True, True]
    with pytest.raises(InputError, match="4 by 4 patches each"):
        _refuse_mixed(reach(pixels, lambda shown: shown.sum((0, 1)).sum() * torch.ones(4, 1), 2))


def test_an_unlisted_class_loads_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, prompt = built("llava")
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    monkeypatch.delitem(families.FAMILIES, "llava")
    found = load(str(tmp_path))
    assert found.found is not None and found.lm.grid == vlm.lm.grid
    again = prompt_of(found)
    np.testing.assert_allclose(again.patches.boxes, prompt.patches.boxes, atol=1e-9)


def test_a_listed_family_on_an_unlisted_decoder_is_discovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = builders.make(DECODERS["gpt_neox"]())
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    outputs = len(vlm.lm.outputs)
    monkeypatch.setattr("headpatch.models.vlm.DECODERS", {})
    found = load(str(tmp_path))
    assert found.family.lm_output == "dense" and len(found.lm.outputs) == outputs
    assert found.family.layout == "crop"


def test_why_a_class_is_refused() -> None:
    vlm, prompt = builders.build("llava"), built("llava")[1]
    image = prompt.spans.image.tolist()
    vlm.model.config.is_encoder_decoder = True
    with pytest.raises(InputError, match="an encoder reads the prompt"):
        discover(vlm.model, {}, [], "m")
    vlm.model.config.is_encoder_decoder = False
    for layer in vlm.lm.attentions:
        layer.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(InputError, match=r"attention \(LlamaAttention\) does not go through"):
        discover(vlm.model, prompt.inputs, image, "m")
    with pytest.raises(InputError, match="does not run on what its processor gives"):
        discover(vlm.model, {**prompt.inputs, "pixel_values": torch.zeros(1)}, image, "m")

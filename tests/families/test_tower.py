"""Places of the vision tower's tokens, in every family: a token changes with its box alone."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headpatch.core.session import open_session
from headpatch.core.tower import in_tower
from headpatch.models.prompt import encode
from headpatch.models.tower_patches import TowerPatches, tower_patches
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import make_pair
from headpatch.questions.rank.question import rank
from tests.datasets import tiny_study
from tests.families.builders import BUILDERS, QUESTION, TALL, UNLISTED, WIDE, build, built
from tests.tiny import noise_image

DRAWN = [name for name in (*BUILDERS, "aya_vision", "qwen3_5") if name != "mllama"]
SQUARE = 22  # pixels
BLUR = 6  # pixels: the three lobes of Lanczos' filter, where two pixels of the picture become one


def vlm_of(name: str) -> VLM:
    return build(name) if name in UNLISTED else built(name)[0]


def entering(vlm: VLM, image: Image.Image) -> torch.Tensor:
    """The tower's tokens before its first layer."""
    found: list[torch.Tensor] = []
    keep: Callable[..., None] = lambda _, args, options: found.append(  # noqa: E731
        args[0] if args else options["hidden_states"]
    )
    handle = vlm.stack("vision").layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        vlm.model(**encode(vlm, [image], QUESTION).inputs)
    handle.remove()
    (hidden,) = found
    return hidden.flatten(0, -2)


def places(vlm: VLM, image: Image.Image) -> TowerPatches:
    return tower_patches(vlm, image, encode(vlm, [image], QUESTION))


@pytest.mark.parametrize("size", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("name", DRAWN)
def test_a_token_changes_with_the_part_of_the_picture_in_its_box(
    name: str, size: tuple[int, int]
) -> None:
    vlm, image = vlm_of(name), noise_image(0, size)
    found, before = places(vlm, image), entering(vlm, image)
    assert not found.unknown and len(found.boxes) == len(before)
    boxes = found.boxes[found.placed] * (size * 2)
    for left, top in ((0, 0), (size[0] - SQUARE, size[1] - SQUARE), (30, 20)):
        pixels = np.array(image)
        pixels[top : top + SQUARE, left : left + SQUARE] ^= 128
        moved = (entering(vlm, Image.fromarray(pixels)) - before).abs().amax(-1)
        changed = (moved > 1e-6).numpy()
        inner = np.minimum(boxes[:, 2:], (left + SQUARE, top + SQUARE))
        inner = inner - np.maximum(boxes[:, :2], (left, top))  # what both share, if above 0
        sharing = (inner > 2).all(1)
        assert changed[found.placed][sharing].all()
        assert not changed[found.placed][(inner < -BLUR).any(1)].any()
        unplaced = np.setdiff1d(np.arange(len(before)), found.placed)
        assert not changed[unplaced].any()  # class tokens, and padding


def test_views_cover_the_picture_and_padding_has_no_place() -> None:
    """Two tiles of a wide picture show it whole, beside the whole squashed to one."""
    for name, views in {"llava": 1, "gemma3": 1, "internvl": 2, "llava_next": 2, "qwen2_vl": 1,
                        "idefics3": 2, "mistral3": 1}.items():  # fmt: skip
        vlm, image = vlm_of(name), noise_image(0, WIDE)
        found = places(vlm, image)
        boxes = found.boxes[found.placed]
        area = float((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
        shown = 0.6 if name == "llava" else views  # LLaVA's processor crops to a square
        assert area == pytest.approx(shown, abs=0.05 * views), name


def look_at_bright(vlm: VLM, image: Image.Image, plain: Image.Image) -> VLM:
    """A copy whose first vision layer looks, in every head, at tokens like those that differ."""
    made = replace(vlm, model=deepcopy(vlm.model))
    layer = made.stack("vision").attentions[0]
    keys: list[torch.Tensor] = []
    handle = layer.k_proj.register_forward_hook(lambda _, __, key: keys.append(key.flatten(0, -2)))
    lit = (entering(made, image) - entering(made, plain)).abs().amax(-1) > 1e-6
    with torch.no_grad():
        made.model(**encode(made, [image], QUESTION).inputs)
        handle.remove()
        key = keys[-1]
        apart = key[lit].mean(0) - key[~lit].mean(0)
        layer.q_proj.weight.zero_()
        bias = 60 * apart / apart.norm()
        layer.q_proj.bias = torch.nn.Parameter(bias, requires_grad=False)
    return made


@pytest.mark.parametrize(
    "name", ["llava_next", "llava_onevision", "idefics3", "gemma3", "mistral3"]
)
def test_a_planted_look_at_bright_tokens_is_drawn_where_the_picture_is_bright(
    name: str, tmp_path: Path
) -> None:
    """A white corner on dark grey draws the first layer's heads, whose queries are constant."""
    pixels = np.random.default_rng(0).integers(60, 80, (200, 320, 3), dtype=np.uint8)
    without = Image.fromarray(pixels)
    pixels = pixels.copy()
    pixels[100:, 160:] = 250
    pair = make_pair(Image.fromarray(pixels), without, QUESTION, "bottom-right")
    vlm = look_at_bright(vlm_of(name), *pair.images)
    session = open_session(tiny_study(tmp_path, region="bottom-right"), vlm, pair=pair)
    ranking = rank(session)
    present, absent = (ranking.spatial[f"vision_patch_{run}"][0] for run in ("with", "without"))
    views = session.prompt.select(0).inputs["pixel_values"].shape[:-3].numel()
    moved = (entering(vlm, pair.with_image) - entering(vlm, pair.without_image)).abs().amax(-1)
    lit = moved > 0.3 * moved.max()  # less is ringing of the resize, beside the corner
    most = lit.view(views, -1).any(1).double().mean()  # a dark tile's queries see no bright token
    assert present > 0.7 * most and present - absent > 0.08
    rows, boxes = ranking.with_run["vision_patch_rows"], ranking.with_run["vision_boxes"]
    assert rows.shape[-1] == len(boxes)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = rows[0][:, (centres > 0.5).all(1)].sum(-1) / rows[0].sum(-1)
    torch.testing.assert_close(inside.mean(), present)


def test_merged_tokens_are_the_boxes_around_their_patches() -> None:
    for name, merge in {"qwen2_vl": 2, "qwen2_5_vl": 2, "mistral3": 2, "gemma3": 4}.items():
        vlm, image = vlm_of(name), noise_image(0, WIDE)
        prompt, found = encode(vlm, [image], QUESTION), places(vlm, image)
        centres = found.boxes[:, :2] + np.diff(found.boxes.reshape(-1, 2, 2), axis=1)[:, 0] / 2
        for box in prompt.patches.boxes:
            inside = ((centres > box[:2]) & (centres < box[2:])).all(1)
            assert inside.sum() == merge**2
            own = found.boxes[inside]
            around = np.concatenate([own[:, :2].min(0), own[:, 2:].max(0)])
            np.testing.assert_allclose(around, box, atol=1e-9)


def test_a_tower_that_shows_no_places_says_why() -> None:
    reasons = {
        "mllama": "by cross-attention", "gemma4": "loose patches", "idefics2": "mix parts",
    }  # fmt: skip
    for name, reason in reasons.items():
        found = places(vlm_of(name), noise_image(0, WIDE))
        assert reason in found.unknown and not len(found.boxes)


def test_a_region_without_the_centre_of_a_patch_is_told(tmp_path: Path) -> None:
    """One that holds the centre of an image token, where four patches meet."""
    vlm, pictures = vlm_of("qwen2_vl"), [noise_image(seed, WIDE) for seed in (0, 1)]
    left, top, right, bottom = encode(vlm, pictures, QUESTION).patches.boxes[0]
    across, down = (left + right) / 2, (top + bottom) / 2
    region = ",".join(map(str, (across - 0.005, down - 0.005, across + 0.005, down + 0.005)))
    pair = make_pair(*pictures, QUESTION, region)
    session = open_session(tiny_study(tmp_path, region=region), vlm, pair=pair)
    with pytest.warns(UserWarning, match="is not drawn: the region holds the centre of none"):
        assert in_tower(session) is None

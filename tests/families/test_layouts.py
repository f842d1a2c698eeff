"""Where each image token comes from, in every family.

Three oracles, none of which knows how `headpatch.models.patches` finds it: pictures of their
own coordinates through the real image processors (and, where tiles become one grid, through the
model's own `pack_image_features`); a picture changed inside one box, through the real model; and
transformers' own functions that choose tiles.
"""

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from headpatch.errors import InputError
from headpatch.models.measured import Measured
from headpatch.models.patches import LAYOUTS, Seen, _nearest_grid
from headpatch.models.prompt import Prompt, encode
from headpatch.models.vlm import VLM
from headpatch.stats.attention_mass import quadrant_masks
from tests.families import builders
from tests.families.builders import BUILDERS, QUESTION
from tests.tiny import noise_image

NAMES = [name for name in BUILDERS if name != "mllama"]
SIZES = [(300, 180), (180, 300), (256, 256), (500, 140), (131, 390)]


@lru_cache
def model(name: str) -> VLM:
    """A tower that looks at each patch almost alone: what a patch shows stays in its token."""
    if name == "llava_onevision, shrunk":
        vlm = builders.make(builders.llava_onevision(limit=2))
    else:
        vlm = builders.build(name)
    assert vlm.vision is not None
    for output in vlm.vision.outputs:
        output.weight.mul_(0.02)
    if name == "gemma4":  # whose norm after attention makes it as large as ever
        for layer in vlm.vision.layers:
            layer.post_attention_layernorm.weight.mul_(0.02)
    return vlm


def test_every_layout_is_some_familys() -> None:
    assert {model(name).family.layout for name in NAMES} | {"none", "traced"} == set(LAYOUTS)


# Pictures of their own coordinates.


def coordinates(size: tuple[int, int]) -> Image.Image:
    """Red = x, green = y, both from 0 at the left or top edge to 255 at the other; full blue."""
    x, y = np.meshgrid(*((np.arange(count) + 0.5) / count for count in size))
    return Image.fromarray((np.stack([x, y, np.ones_like(x)], -1) * 255).round().astype(np.uint8))


def moments(vlm: VLM, prompt: Prompt) -> Tensor:
    """Of every image token's pixels: means of red, green, blue, red² and green²; NaN if placeless.

    Padding is black, blue too: the mean of blue is the share of the picture.
    """
    pixels = prompt.inputs["pixel_values"]
    images = vlm.processor.image_processor
    mean, std = (torch.tensor(x)[:, None, None] for x in (images.image_mean, images.image_std))
    if pixels.ndim == 2:  # Qwen: merged patches one after another, each of two equal frames
        side = images.patch_size
        flat = pixels.view(-1, images.merge_size**2, 3, 2, side, side)[:, :, :, 0]
        return _moments((flat * std + mean).permute(0, 2, 1, 3, 4).flatten(2))
    tiles = pixels.flatten(0, -4) * std + mean
    patch = vlm.model.config.vision_config.patch_size
    cut = model_merge(vlm) * patch if isinstance(patch, int) else 28
    rows, columns = (side // cut for side in tiles.shape[-2:])
    cells = tiles[..., : rows * cut, : columns * cut].unflatten(2, (rows, cut))
    found = _moments(cells.unflatten(4, (columns, cut)).permute(0, 2, 4, 1, 3, 5).flatten(4))
    if not hasattr(vlm.model.model, "pack_image_features"):
        return found.flatten(0, 2)
    line_end = torch.full((5,), torch.nan)
    ratio = getattr(vlm.model.config, "vision_aspect_ratio", None)
    options = (
        {"vision_aspect_ratio": ratio} if ratio else {"vision_feature_select_strategy": "default"}
    )
    packed, _ = vlm.model.model.pack_image_features(
        [found.flatten(1, 2)], prompt.inputs["image_sizes"], image_newline=line_end, **options
    )
    return packed[0]


def _moments(pixels: Tensor) -> Tensor:
    """Of pixels ``[..., 3, pixels]``."""
    return torch.cat([pixels.mean(-1), pixels[..., :2, :].square().mean(-1)], -1)


def model_merge(vlm: VLM) -> int:
    """How many patches a side a token stands for, in the config's own words."""
    config = vlm.model.config
    if hasattr(config, "mm_tokens_per_image"):
        vision = config.vision_config
        return vision.image_size // vision.patch_size // int(config.mm_tokens_per_image**0.5)
    return int(getattr(config, "scale_factor", getattr(config, "spatial_merge_size", 1)))


RAMPS = [*NAMES, "llava_onevision, shrunk"]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", RAMPS)
def test_boxes_are_where_the_tokens_come_from(name: str, size: tuple[int, int]) -> None:
    vlm = model(name)
    prompt = encode(vlm, [coordinates(size)], QUESTION)
    found = moments(vlm, prompt).double().numpy()
    assert len(found) == len(prompt.spans.image)
    shows = found[:, 2] > 1e-6  # neither a line's end (NaN) nor padding alone
    placed = np.isin(prompt.spans.image.numpy(), prompt.image_positions.numpy())
    assert (placed == shows).all()
    boxes, share = prompt.patches.boxes, found[placed, 2]
    x, y, _, xx, yy = found[placed].T / share
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    much = share > 0.3  # resampling blurs the edge to the padding
    np.testing.assert_allclose(((boxes[:, 0] + boxes[:, 2]) / 2)[much], x[much], atol=0.012)
    np.testing.assert_allclose(((boxes[:, 1] + boxes[:, 3]) / 2)[much], y[much], atol=0.012)
    if "shrunk" in name:
        return  # interpolated from several
    for low, high, mean, square in ((0, 2, x, xx), (1, 3, y, yy)):  # a ramp's spread is w / √12
        width = np.sqrt(12 * np.maximum(square - mean**2, 0))
        np.testing.assert_allclose((boxes[:, high] - boxes[:, low])[much], width[much], atol=0.02)


VIEWS = {"idefics3": 2, "smolvlm": 2, "internvl": 2, "llava_next": 2, "llava_onevision": 2}


@pytest.mark.parametrize("name", [*NAMES, "gemma4"])
def test_each_view_covers_the_picture_and_each_token_lies_in_one_quadrant(name: str) -> None:
    for size in SIZES:
        boxes = encode(model(name), [noise_image(0, size)], QUESTION).patches.boxes
        assert (quadrant_masks(boxes).sum(0) == 1).all()
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()
        if name in ("llava", "vipllava"):  # they crop the middle square
            assert area == pytest.approx(min(size) / max(size), abs=0.05)
        elif name == "llava_onevision":  # 4 of a tile's 60 pixels go unseen
            assert area == pytest.approx(2 * (56 / 60) ** 2, abs=0.1)
        elif name == "llava_next":  # so do rows that are padding but for a strip
            assert 1.8 < area <= 2 + 1e-6
        else:
            assert area == pytest.approx(VIEWS.get(name, 1))


@pytest.mark.parametrize("name", ["internvl", "idefics3"])
def test_a_picture_that_is_not_cut_up_is_one_view(name: str) -> None:
    vlm = model(name)
    if name == "idefics3":
        vlm = replace(vlm, processor=builders.idefics3().processor)
        vlm.processor.image_processor.do_image_splitting = False
    patches = encode(vlm, [noise_image(0, (40, 40))], QUESTION).patches
    assert patches.grid == (2, 2)
    assert patches.boxes[3] == pytest.approx([0.5, 0.5, 1, 1])


@settings(max_examples=15)
@given(name=st.sampled_from(NAMES), width=st.integers(30, 400), height=st.integers(30, 400))
def test_any_shape_gives_a_box_a_token(name: str, width: int, height: int) -> None:
    """The processor's number of tokens and the layout's agree, or `encode` would refuse."""
    prompt = encode(model(name), [noise_image(0, (width, height))], QUESTION)
    assert len(prompt.patches.boxes) == len(prompt.image_positions) > 0
    assert np.isfinite(prompt.patches.boxes).all()


# Pictures changed inside one box.


@pytest.mark.parametrize("name", [*RAMPS, "gemma4"])
def test_a_change_inside_a_box_reaches_the_tokens_that_lie_there(name: str) -> None:
    vlm, size = model(name), (448, 336)
    grey = Image.new("RGB", size, (90, 110, 130))
    before = encode(vlm, [grey], QUESTION)
    boxes = before.patches.boxes
    placed = torch.isin(before.spans.image, before.image_positions).numpy()
    features = seen_by_lm(vlm, before)
    rng = np.random.default_rng(0)
    for token in rng.choice(len(boxes), size=min(len(boxes), 8), replace=False):
        left, top, right, bottom = inner(boxes[token])
        spot = (inner(boxes[token]) * (*size, *size)).round().astype(int).tolist()
        noise = noise_image(int(token), (spot[2] - spot[0], spot[3] - spot[1]))
        planted = grey.copy()
        planted.paste(noise, spot[:2])
        moved = (seen_by_lm(vlm, encode(vlm, [planted], QUESTION)) - features).norm(dim=-1).numpy()
        over = (
            (boxes[:, 0] < right) & (boxes[:, 2] > left)
            & (boxes[:, 1] < bottom) & (boxes[:, 3] > top)
        )  # fmt: skip
        assert moved[~placed].max(initial=0) < 0.02 * moved.max()
        inside = moved[placed]
        # Every token whose box the change touches moves more than any that it does not touch.
        if "shrunk" in name:
            assert over[inside.argmax()]
        else:
            assert inside[over].min() > inside[~over].max(initial=0)


def inner(box: np.ndarray) -> np.ndarray:
    """The middle of a box, half as wide and high."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 4
    return np.concatenate([centre - half, centre + half])


def seen_by_lm(vlm: VLM, prompt: Prompt) -> Tensor:
    """What the first decoder layer is given at the image tokens."""
    kept: list[Tensor] = []

    def hook(_: nn.Module, arguments: tuple, options: dict) -> None:
        kept.append(arguments[0] if arguments else options["hidden_states"])

    handle = vlm.lm.layers[0].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.no_grad():
            vlm.model(**prompt.inputs)
    finally:
        handle.remove()
    return kept[0][0, prompt.spans.image]


# Transformers' own choices.


@given(width=st.integers(20, 3000), height=st.integers(20, 3000), most=st.integers(1, 12))
def test_internvls_grid_is_its_processors(width: int, height: int, most: int) -> None:
    processor = SimpleNamespace(size={"height": 448, "width": 448}, min_patches=1, max_patches=most)
    image = Image.new("1", (width, height))
    unasked = Measured(lambda _: torch.empty(0), image.size)
    seen = Seen(image, processor, None, {}, 1, unasked)
    columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, most)
    assert _nearest_grid(seen) == (rows, columns)


# What is refused.


def test_tiles_that_are_not_the_nearest_grid_are_refused() -> None:
    vlm = model("internvl")
    odd = builders.internvl().processor
    odd.image_processor.max_patches = 3
    forced = replace(vlm, processor=odd)
    encode(forced, [noise_image(0, (300, 100))], QUESTION)
    real = odd.image_processor.crop_image_to_patches
    odd.image_processor.crop_image_to_patches = lambda image, *a, **k: real(image, *a, **k)[:-1]
    assert "300x100 shown in 3 parts; expected 4" in why_unknown(forced, (300, 100))


def why_unknown(vlm: VLM, size: tuple[int, int]) -> str:
    """Why no token has a place: all else can still be measured."""
    prompt = encode(vlm, [noise_image(0, size)], QUESTION)
    assert len(prompt.patches.boxes) == len(prompt.image_positions) == 0
    assert isinstance(prompt.patches.unknown, InputError)
    assert len(prompt.spans.image) > 0
    return str(prompt.patches.unknown)


def test_pan_and_scan_is_refused() -> None:
    """Gemma3's crops are off by default, and have no boxes here."""
    vlm = model("gemma3")
    panned = builders.gemma3().processor
    images = panned.image_processor
    real, asked = images.preprocess, {
        "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16,
        "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2,
    }  # fmt: skip
    images.preprocess = lambda *a, **k: real(*a, **{**k, **asked})  # its processor's own say no
    unknown = why_unknown(replace(vlm, processor=panned), (300, 100))
    assert "300x100 shown in 4 parts; expected 1" in unknown

"""Two runs of one prompt, with random pictures, in the form that a class of models takes."""

import inspect
import re
from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.shrunk import PATCH, SIDE
from headpatch.models.joined import joined
from headpatch.models.patches import Patches
from headpatch.models.prompt import Prompt
from headpatch.models.seen import pixel_name
from headpatch.models.spans import Spans
from headpatch.models.wording import AnswerTokens

RUNS, BEFORE, AFTER = 2, 3, 6
_ROW_BY_ROW = ("hunyuan_vl", "muse_glimmer", "muse_spark")  # what their processors give
Inputs = dict[str, Tensor]


class Tokenless(LookupError):
    """No token of the prompt stands for the picture."""


def vision_config(config: Any) -> Any:
    names = ("vision_config", "vision_model_config", "vq_config", "vision_encoder_config")
    return next(
        (getattr(config, one) for one in names if getattr(config, one, None) is not None), config
    )


def forms(model: Any) -> Iterator[Inputs]:
    """Pictures in the forms that a class may take, of which its signature leaves few."""
    takes = set(inspect.signature(model.forward).parameters)
    tower = vision_config(model.config)
    side, patch = _one(tower, "image_size", SIDE), _one(tower, "patch_size", PATCH)
    more: Inputs = {}
    for form in (_of_grids, _of_patches, _of_tiles):
        yield from form(takes, tower, side, patch)
    if "image_sizes" in takes:
        more["image_sizes"] = torch.tensor([[side, side]] * RUNS)
    if "image_embeds_position_mask" in takes:
        more["image_embeds_position_mask"] = torch.zeros(RUNS, 0)
    if "high_res_pixel_values" in takes:
        big = model.config.high_res_vision_config.image_size
        more["high_res_pixel_values"] = _draw(1, 3, big, big)
    if "qformer_input_ids" in takes:
        more["qformer_input_ids"] = torch.ones(RUNS, 4, dtype=torch.long)
        more["qformer_attention_mask"] = torch.ones(RUNS, 4, dtype=torch.long)
    if "num_local_patches" in takes:
        more["num_local_patches"] = torch.zeros(RUNS, dtype=torch.long)
    name = "pixel_values_images" if "pixel_values_images" in takes else "pixel_values"
    yield {name: _draw(1, 3, side, side), **more}
    if "image_sizes" in more:
        yield {name: _draw(1, 3, side, side)}
    for views in (1, 2, 3):
        yield {name: _draw(1, views, 3, side, side), **more}
    if side != 4 * patch:
        yield {name: _draw(1, 3, 4 * patch, 4 * patch), **more}


def _one(config: Any, name: str, otherwise: int) -> int:
    value = getattr(config, name, None) or otherwise
    return int(value if isinstance(value, int) else value[0])


def _draw(*shape: int) -> Tensor:
    """Draw `shape` numbers for each run, one run after the other in the first dimension."""
    return torch.randn(RUNS * shape[0], *shape[1:])


def _of_grids(takes: set[str], tower: Any, _: int, patch: int) -> Iterator[Inputs]:
    """Loose patches, and how many there are down and across."""
    if "image_grid_thw" in takes:
        grid = torch.tensor([[1, 4, 4]] * RUNS)
        sizes = {"image_merge_sizes": torch.ones(RUNS, dtype=torch.long)}
        sizes = sizes if "image_merge_sizes" in takes else {}
        whole = patch * _one(tower, "spatial_merge_size", 1)
        frames = getattr(tower, "temporal_patch_size", None) or _one(tower, "patch_temporal", 1)
        for depth in (frames, 1, 2):
            for shape in (
                (3 * depth * patch * patch,),
                (3, patch, patch),
                (3, depth, patch, patch),
                (whole, whole, 3),
            ):
                yield {"pixel_values": _draw(16, *shape), "image_grid_thw": grid, **sizes}
    if "image_grid_hw" in takes:
        yield {
            "pixel_values": _draw(16, 3 * patch * patch),
            "image_grid_hw": torch.tensor([[4, 4]] * RUNS),
        }
    if "spatial_shapes" in takes:
        yield {
            "pixel_values": _draw(1, 16, 3 * patch * patch),
            "spatial_shapes": torch.tensor([[4, 4]] * RUNS),
            "pixel_attention_mask": torch.ones(RUNS, 16, dtype=torch.long),
        }
    if "target_sizes" in takes:
        yield {
            "pixel_values": _draw(1, 3, patch, patch * 16),
            "target_sizes": torch.tensor([[4, 4]] * RUNS),
        }


def _of_patches(takes: set[str], tower: Any, side: int, patch: int) -> Iterator[Inputs]:
    """Loose patches, and where each is from."""
    if "image_position_ids" in takes:
        line = torch.arange(6)
        places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, 36, 2)
        for width in (patch, patch * _one(tower, "pooling_kernel_size", 1)):
            yield {
                "pixel_values": _draw(1, 36, 3 * width * width),
                "image_position_ids": places.repeat(RUNS, 1, 1),
            }
    elif "image_grid_thw" not in takes and (frames := _one(tower, "temporal_patch_size", 0)):
        yield {"pixel_values": _draw(4, frames, patch, patch, 3)}
    if "image_patches" in takes:
        yield {"pixel_values": _draw(1, 16, 3 * patch * patch)}
    if "image_token_pooling" in takes:
        rows = side // patch
        block = torch.arange(rows * rows).view(rows // 2, 2, rows // 2, 2).transpose(1, 2)
        yield {
            "pixel_values": _draw(1, rows * rows, 3 * patch * patch),
            "image_token_pooling": torch.cat([block.reshape(-1, 4)] * RUNS),
            "image_grids": torch.tensor([[rows // 2, rows // 2, 0, 0]] * RUNS),
            "image_num_crops": torch.ones(RUNS, dtype=torch.long),
        }
    if "flattened_patches" in takes:
        line = torch.arange(4.0)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(1, 16, 2) + 1
        width = _one(tower, "patch_embed_hidden_size", 3 * patch * patch)
        yield {
            "flattened_patches": torch.cat([places.repeat(RUNS, 1, 1), _draw(1, 16, width)], -1),
            "image_embeds_position_mask": torch.zeros(RUNS, 0),
            "width": torch.full((RUNS,), 4.0),
            "height": torch.full((RUNS,), 4.0),
        }


def _of_tiles(takes: set[str], _: Any, side: int, patch: int) -> Iterator[Inputs]:
    """Tiles of a picture, and which of them are there."""
    if "pixel_attention_mask" in takes and "spatial_shapes" not in takes:
        tiles = _draw(1, 1, 3, side, side)
        for shape in ((1, side, side), (1,)):
            mask = torch.ones(RUNS, *shape, dtype=torch.bool)
            yield {"pixel_values": tiles, "pixel_attention_mask": mask}
    if "aspect_ratio_ids" in takes:
        yield {
            "pixel_values": _draw(1, 1, 4, 3, side, side),
            "aspect_ratio_ids": torch.ones(RUNS, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.tensor([1, 0, 0, 0]).repeat(RUNS, 1, 1),
        }


def count(model: Any, pictures: Inputs, said: list[str]) -> list[int]:
    """How many image tokens a run's picture gives: by the model, else whatever may be.

    None, and why in `said`, if the model takes no pictures in this form.
    """
    found: list[int] = []
    function = getattr(model, "get_image_features", None) or getattr(
        getattr(model, "model", None), "get_image_features", None
    )
    if function is not None:
        takes = inspect.signature(function).parameters
        ids = {"input_ids": torch.empty(RUNS, 0)}
        given = joined({**pictures, **ids})
        del given["input_ids"]
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
            given = {name: value for name, value in given.items() if name in takes}
        if "pixel_values_images" in given and "pixel_values_images" not in takes:
            given["pixel_values"] = given.pop("pixel_values_images")
        name = "vision_feature_select_strategy"  # which older releases want
        named = {name: getattr(model.config, name, None) or "default"} if name in takes else {}
        try:
            with torch.no_grad():
                output = function(**given, **named)
        except Exception as error:  # not in this form
            said.append(f"{type(error).__name__}: {str(error).strip()[:200]}")
            return []
        features = getattr(output, "pooler_output", None)
        features = output if features is None else features
        features = getattr(features, "last_hidden_state", features)
        parts = features if isinstance(features, list | tuple) else [features]
        parts = [one for one in parts if isinstance(one, Tensor)]
        if parts:
            found.append(sum(one.numel() // one.shape[-1] for one in parts) // RUNS)
    return found + [n for n in (16, 4, 17, 1, 64, 9, 36, 8, 32) if n not in found]


def prompt_of(model: Any, image: int, pictures: Inputs) -> Prompt:
    """A prompt of some words, a run's image tokens, and some words."""
    config = model.config
    names = (
        "image_token_id",
        "image_token_index",
        "media_placeholder_token_id",
        "img_token_id",
        "im_patch_id",
        "image_patch_id",
    )
    token = next(
        (getattr(config, one) for one in names if getattr(config, one, None) is not None), None
    )
    vocabulary = getattr(config, "vocabulary_map", None) or {}
    token = vocabulary.get("<image>") if token is None else token
    masked = "image_embeds_position_mask" in pictures
    token = 300 if masked else token
    if token is None:
        raise Tokenless("its config names no image token, so no prompt position is the picture's")
    words = torch.arange(100, 100 + BEFORE + AFTER)
    extra: Inputs = {}
    ids = torch.cat([words[:BEFORE], torch.full((image,), int(token)), words[BEFORE:]]).repeat(
        RUNS, 1
    )
    takes = inspect.signature(model.forward).parameters
    types = (ids == token).long()
    for name in ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids"):
        if name in takes:
            extra[name] = types
    if masked:
        pictures = {**pictures, "image_embeds_position_mask": types.bool()}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **extra, **pictures}
    spans = Spans(ids.shape[1], torch.arange(BEFORE, BEFORE + image))
    return Prompt(
        inputs,
        RUNS,
        spans,
        Patches(np.empty((0, 4)), (0, 0)),
        torch.empty(0, dtype=torch.long),
        AnswerTokens(5, 6),
        "",
    )


def runs_at_all(model: Any) -> Prompt | str:
    """Return a prompt that the class runs on, and whose picture matters; or why there is none."""
    said: list[str] = []
    for pictures in forms(model):
        counts = count(model, pictures, said)
        for image in counts:
            try:
                prompt = prompt_of(model, image, pictures)
                with torch.no_grad():
                    logits = model(**joined(prompt.inputs), use_cache=False).logits[:, -1]
            except Tokenless:
                raise
            except Exception as error:
                said.append(f"{type(error).__name__}: {str(error).strip()[:200]}")
                wanted = re.search(r"features: (\d+)", str(error))  # says how many it has
                if wanted and (own := int(wanted[1]) // RUNS) not in counts:
                    counts.append(own)
                continue
            if not torch.isfinite(logits).all():
                said.append("logits are not finite")
            elif torch.equal(logits[0], logits[1]):
                said.append("the answer does not depend on the picture")
            else:
                return prompt
    return said[0] if said else "no form of pictures"


def shown(config: Any, inputs: Inputs, picture: Image.Image) -> Tensor:
    """Return pixel values of one run, of the form that its `inputs` have, that show a picture."""
    pixels, tower = inputs[pixel_name(inputs)], vision_config(config)
    patch = _one(tower, "patch_size", PATCH)

    def resized(side: int) -> Tensor:
        squashed = np.asarray(picture.resize((side, side)), np.float32) / 255
        return torch.from_numpy(squashed).permute(2, 0, 1)

    def cut(rows: int, side: int) -> Tensor:
        """Cut it in patches: ``[rows, columns, 3, side, side]``."""
        whole = resized(rows * side).unflatten(2, (rows, side)).unflatten(1, (rows, side))
        return whole.permute(1, 3, 0, 2, 4)

    if "flattened_patches" in inputs:  # each behind its row and column
        loose = cut(4, isqrt((pixels.shape[-1] - 2) // 3)).permute(0, 1, 3, 4, 2)
        return torch.cat([pixels[..., :2], loose.reshape(1, 16, -1)], -1)
    if "target_sizes" in inputs:
        return cut(4, patch).permute(2, 3, 0, 1, 4).reshape(pixels.shape)
    if "image_position_ids" in inputs:
        side = isqrt(pixels.shape[-1] // 3)
        return cut(6, side).permute(0, 1, 3, 4, 2).reshape(pixels.shape)
    if "image_grid_thw" not in inputs and pixels.shape[-1] == 3:  # frames of patches
        loose = (
            cut(isqrt(len(pixels)), patch).permute(0, 1, 3, 4, 2).reshape(-1, 1, patch, patch, 3)
        )
        return loose.expand(pixels.shape).clone()
    if pixels.ndim > 3 and "image_grid_thw" not in inputs and pixels.shape[-3] == 3:
        return resized(pixels.shape[-1]).expand(pixels.shape).clone()
    if "image_grid_thw" not in inputs:
        rows = isqrt(pixels.numel() // (3 * patch * patch))
        return cut(rows, patch).reshape(pixels.shape)
    merge = inputs.get("image_merge_sizes")
    names = ("spatial_merge_size", "merge_size", "merge_kernel_size")
    sizes = (_one(tower, name, 0) for name in names)
    block = int(merge[0]) if merge is not None else next(filter(None, sizes), 1)
    block = 1 if config.model_type in _ROW_BY_ROW else block
    patches = cut(4, patch).unflatten(1, (4 // block, block)).unflatten(0, (4 // block, block))
    patches = patches.transpose(1, 2).reshape(16, 3, 1, patch, patch)
    frames = pixels[0].numel() // patches[0].numel()
    return patches.expand(-1, -1, frames, -1, -1).reshape(pixels.shape)

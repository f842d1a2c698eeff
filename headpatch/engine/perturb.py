"""Pictures with some patches replaced, and what the answer becomes.

Patches are replaced where the model takes them: in the processed picture, whose squares are exactly
one token's each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from einops import reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from headpatch.engine.forward import forward
from headpatch.engine.patching import PLAIN_BATCH, OnProgress
from headpatch.errors import InputError
from headpatch.models.prompt import Prompt
from headpatch.models.seen import pixel_name
from headpatch.models.vlm import VLM

Picture = Float[Tensor, "1 channels height width"]


def pictures(vlm: VLM, prompt: Prompt) -> list[Picture]:
    """Return each run's picture as the vision tower takes it.

    An `InputError` if it takes it in parts, or not patch for patch as the language model does.
    """
    pixels = prompt.inputs.get(pixel_name(prompt.inputs))
    rows, columns = prompt.patches.grid
    whole = pixels is not None and pixels.ndim == 4 and len(pixels) == prompt.runs
    if not whole or rows * columns != len(prompt.patches.boxes) or not rows:
        raise InputError(
            "--model",
            f"{vlm.name} takes a picture in parts or with padding, or patches that are not one "
            "token each",
            "a family whose vision tower sees the whole picture once, such as LLaVA-1.5",
        )
    assert pixels is not None
    return list(pixels.split(1))


def mean_colour(picture: Picture) -> Picture:
    """Return a picture of one colour: the mean of this one."""
    return picture.mean((2, 3), keepdim=True).expand_as(picture)


def patch_side(vlm: VLM, prompt: Prompt) -> int:
    """Return the side of what one image token stands for, in pixels of the processed picture."""
    config, (rows, _) = vlm.model.config.vision_config, prompt.patches.grid
    size = config.patch_size
    side = int(size if isinstance(size, int) else size[0])
    height = prompt.inputs[pixel_name(prompt.inputs)].shape[2]
    return side * (height // side // rows)  # several, if they are pooled


def differing(
    picture: Picture, fill: Picture, grid: tuple[int, int], patch: int
) -> Bool[Tensor, " patches"]:
    """Say which patches are not the same in both pictures."""
    (rows, columns), apart = grid, (picture != fill).any(1)[0].cpu()
    cells = apart[: rows * patch, : columns * patch]
    return reduce(cells, "(y p) (x q) -> (y x)", "any", p=patch, q=patch)


def replaced_patches(
    picture: Picture,
    fill: Picture,
    chosen: Bool[Tensor, "pictures patches"],
    grid: tuple[int, int],
    patch: int,
) -> Float[Tensor, "pictures channels height width"]:
    """Put `fill` in the place of the chosen patches, a picture a row.

    `grid` is rows and columns of patches of side `patch` (pixels); what is left over at the right
    and bottom stays as it was.
    """
    cells = chosen.unflatten(1, grid).to(picture.device)
    squares = repeat(cells, "n y x -> n 1 (y p) (x q)", p=patch, q=patch)
    height, width = picture.shape[2:]
    over = (0, width - squares.shape[3], 0, height - squares.shape[2])
    return torch.where(torch.nn.functional.pad(squares, over), fill, picture)


def lds(
    vlm: VLM,
    prompt: Prompt,
    shown: Sequence[Callable[[], Picture]],
    on_progress: OnProgress | None = None,
    batch: int = PLAIN_BATCH,
) -> list[float]:
    """Ask the question of a prompt of one run of each picture, made when needed; return LDs."""
    found: list[float] = []
    for start in range(0, len(shown), batch):
        pixels = torch.cat([make() for make in shown[start : start + batch]])
        many = prompt.repeat(len(pixels))
        many = replace(many, inputs={**many.inputs, pixel_name(many.inputs): pixels})
        found += forward(vlm, many, exact=True).ld(many).tolist()
        if on_progress:
            on_progress(len(found), len(shown))
    return found

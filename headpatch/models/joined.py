"""What a model takes of several runs where it wants the patches of all pictures as one."""

from collections.abc import Mapping

import torch
from torch import Tensor


def joined(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a forward pass's keyword arguments of runs that are joined along the first dimension.

    They stay as they are but for two classes' pictures. MiniCPM-V takes one strip of all patches,
    ``[1, 3, patch, runs × patches × patch]``, where a run has a strip of its own. Molmo2's
    ``image_token_pooling`` holds numbers of patches that count on from picture to picture, where a
    run's start at 0; -1 is no patch.
    """
    made, runs = dict(inputs), len(inputs["input_ids"])
    if runs > 1 and "target_sizes" in made:
        made["pixel_values"] = torch.cat(made["pixel_values"].unbind(0), -1)[None]
    if runs > 1 and (pooled := made.get("image_token_pooling")) is not None:
        patches = made["pixel_values"].shape[:-1].numel() // runs
        before = torch.arange(runs, device=pooled.device) * patches
        moved = pooled + before.repeat_interleave(len(pooled) // runs)[:, None]
        made["image_token_pooling"] = torch.where(pooled < 0, pooled, moved)
    return made

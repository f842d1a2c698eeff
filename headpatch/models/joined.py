"""What a model takes of several runs where it would not read each as if it were alone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NAME = "get_rope_index"
_COUNTING = "HunYuanVLModel"  # it numbers pictures through all runs, and positions hang on it


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


@contextmanager
def numbered_alone(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Let models number the pictures of each run from 0, as they do of a run alone.

    HunYuan-VL's rotary positions hold the number of the picture, counted through the whole batch:
    the same run would get another answer in another row.
    """
    with ExitStack() as stack:
        for part in parts:
            if type(part).__name__ == _COUNTING and _NAME not in part.__dict__:  # a pass in a pass
                part.__dict__[_NAME] = _by_run(part)
                stack.callback(part.__dict__.pop, _NAME)
        yield


def _by_run(part: Any) -> Any:
    whole = getattr(type(part), _NAME)

    def positions(
        input_ids: Tensor,
        mm_token_type_ids: Tensor,
        image_grid_thw: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        runs = len(input_ids)
        given = input_ids, mm_token_type_ids, image_grid_thw, attention_mask
        each = [[None] * runs if one is None else one.tensor_split(runs) for one in given]
        found = [whole(part, *one, **options) for one in zip(*each, strict=True)]
        return torch.cat([ids for ids, _ in found], 1), torch.cat([shift for _, shift in found])

    return positions

"""What the training teaches beside the next token, and how it roughens pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headpatch.pairs.scene import COLOURS, SHAPES
from training.batches import IGNORED


class Probes(nn.Module):
    """Linear read-outs that make the model see: a loss while it trains, thrown away afterwards.

    On each projected patch: what it shows (`thing_class`), its row and its column. On the residual
    stream half-way up, at the answer position: shape and colour of what is at the place asked for.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.what = nn.Linear(width, 1 + len(SHAPES) * len(COLOURS))
        self.row, self.column = nn.Linear(width, 3), nn.Linear(width, 3)
        self.shape, self.colour = (nn.Linear(width, 1 + len(n)) for n in (SHAPES, COLOURS))
        thirds = torch.arange(patches) * 3 // patches
        self.register_buffer("rows", thirds.repeat_interleave(patches), persistent=False)
        self.register_buffer("columns", thirds.repeat(patches), persistent=False)

    def patches(self, image: Tensor, classes: Tensor) -> Tensor:
        """Mean loss of projected patches [b, patches, width] with classes [b, patches].

        The few patches that show a thing weigh as much as all the others.
        """
        each = F.cross_entropy(
            self.what(image).float().flatten(0, 1), classes.flatten(), reduction="none"
        )
        shown = classes.flatten() > 0
        loss = (masked_mean(each, shown) + masked_mean(each, ~shown)) / 2
        for head, third in ((self.row, self.rows), (self.column, self.columns)):
            logits = head(image).float().flatten(0, 1)
            loss = loss + F.cross_entropy(logits, third.repeat(len(image)))
        return loss

    def asked(self, middle: Tensor, seen: Tensor) -> Tensor:
        """Mean loss of the residual stream [b, n, width] with seen [b, n], IGNORED mostly."""
        x, target = F.rms_norm(middle.float(), middle.shape[-1:]).flatten(0, 1), seen.flatten()
        thing, skip = target > 0, target == IGNORED
        shape = torch.where(thing, 1 + (target - 1) // len(COLOURS), 0).masked_fill(skip, IGNORED)
        colour = torch.where(thing, 1 + (target - 1) % len(COLOURS), 0).masked_fill(skip, IGNORED)
        return F.cross_entropy(self.shape(x).float(), shape, ignore_index=IGNORED) + (
            F.cross_entropy(self.colour(x).float(), colour, ignore_index=IGNORED)
        )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 if it is nowhere."""
    mean: Tensor = (values * mask).sum() / mask.sum().clamp(min=1)
    return mean


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels [b, 3, h, w] in 0..1, a little brighter or darker, blurred or sharpened, noisy."""

    def uniform(low: float, high: float, off: float = 0.0) -> Tensor:
        """[b, 1, 1, 1]; zero with chance `off`."""
        value, coin = torch.rand(2, len(pixels), 1, 1, 1, device=pixels.device, generator=generator)
        scaled: Tensor = (low + (high - low) * value) * (coin >= off)
        return scaled

    kernel = torch.tensor([1.0, 2.0, 1.0], device=pixels.device)
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    pixels = pixels + uniform(-0.5, 1.0, off=0.5) * (blurred - pixels)
    pixels = pixels * uniform(0.85, 1.1) + uniform(-0.04, 0.04)
    noise = torch.randn(pixels.shape, device=pixels.device, generator=generator)
    return (pixels + uniform(0.0, 0.04, off=0.5) * noise).clamp(0, 1)

"""The positions that an edge joins, and as many random ones to compare a cut with."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.study import EdgeEnd, edge_ends
from headpatch.errors import InputError


@dataclass(frozen=True, eq=False)
class Ends:
    """The positions of an edge; `at` says which of the two ends are the region."""

    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    at: tuple[bool, bool]

    @classmethod
    def of(cls, session: Session, edge: str) -> "Ends":
        """Find the positions that an edge such as ``answer-region`` names."""
        start, end = edge_ends(edge)
        at = start == "region", end == "region"
        return cls(end_positions(session, start), end_positions(session, end), at)

    @property
    def has_region(self) -> bool:
        """Whether an end is the region."""
        return any(self.at)

    def moved(self, tokens: Int[Tensor, " tokens"]) -> "Ends":
        """Put `tokens` where the region is."""
        queries, keys = self.at
        return Ends(tokens if queries else self.queries, tokens if keys else self.keys, self.at)


def end_positions(session: Session, end: EdgeEnd) -> Int[Tensor, " positions"]:
    """Return the positions that one end of an edge names; an error if there are none.

    ``other`` is every image token outside the region, those that stand for no place (a class token,
    ends of lines) included.
    """
    prompt, spans = session.prompt, session.prompt.spans
    if end in ("answer", "question", "all"):
        return spans.positions(end)
    if end == "words":
        return spans.question[:-1]
    if spans.crossed:
        found = f"{end}: {session.vlm.name} looks at the image by cross-attention"
        raise InputError("--edges", found, "a model whose image is among the prompt's tokens")
    image = spans.image.cpu()
    if end == "image":
        return image
    region = prompt.image_positions.cpu()[torch.from_numpy(session.region_tokens)]
    if end == "region":
        return region
    other = image[~torch.isin(image, region)]
    if len(other) == 0:
        found = f"other: the region {session.pair.region.name} is the whole image"
        raise InputError("--edges", found, "a region smaller than the image")
    return other


def random_tokens(session: Session, count: int) -> list[Int[Tensor, " region"]]:
    """Draw sets of image tokens outside the region, each as large; none if it is larger.

    Seeded by the study; the same sets serve every place, edge and run.
    """
    prompt = session.prompt
    if prompt.spans.crossed:
        return []
    mask, placed = session.region_tokens, prompt.image_positions.cpu().numpy()
    outside, size = placed[~mask], int(mask.sum())
    if len(outside) < size:
        return []
    rng = np.random.default_rng([session.study.seed % 2**64, 0xC07])  # numpy takes no negatives
    draws = (rng.choice(outside, size, replace=False) for _ in range(count))
    return [torch.from_numpy(np.sort(drawn)) for drawn in draws]

"""Which image tokens a pair's region has, and what the processor cuts away of the picture."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from headpatch.errors import InputError
from headpatch.models.prompt import Prompt
from headpatch.pairs.region import whole_picture
from headpatch.stats.attention_mass import Box, region_mask, visible_share

if TYPE_CHECKING:
    from headpatch.pairs.pair import Pair


class ShownRegion(ABC):
    """The part of a session that knows where its region is among the image tokens."""

    pair: "Pair"

    @property
    @abstractmethod
    def prompt(self) -> Prompt:
        """Both runs as a batch of two."""

    @property
    def region_tokens(self) -> Bool[np.ndarray, " tokens"]:
        """Which image tokens belong to the pair's region.

        Raises
        ------
        InputError
            If none does: the region is too small, or cut away by the processor; or it is not known
            where the patches are.
        """
        patches, region = self.prompt.patches, self.pair.region
        if patches.unknown is not None:
            raise patches.unknown.again()
        mask = region_mask(patches.boxes, region.box)
        if mask.any():
            return mask
        if self.region_shown == 0:
            raise InputError(
                "--region",
                f"{region.name} is cut away: the processor shows the model "
                f"{self.picture_shown:.0%} of the picture, and nothing of the region",
                "a region that the model sees",
                "Crop or pad the two pictures to the shape that the model takes, such as a square.",
            )
        raise InputError(
            "--region",
            f"{region.name} holds no patch centre{self.cut_away and f' ({self.cut_away})'}",
            f"a box around at least one of the {len(patches.boxes)} patches the model sees",
        )

    def check_region(self) -> None:
        """Refuse a region of which the model sees nothing, where it is known what it sees.

        Raises
        ------
        InputError
            As `region_tokens`.
        """
        if len(self.prompt.patches.boxes):
            _ = self.region_tokens

    @property
    def picture_shown(self) -> float:
        """Share of the picture that the model is shown; NaN if it is not known."""
        return self._shown((0.0, 0.0, 1.0, 1.0))

    @property
    def region_shown(self) -> float:
        """Share of the region that the model is shown; NaN if it is not known."""
        return self._shown(self.pair.region.box)

    def _shown(self, box: Box) -> float:
        patches = self.prompt.patches
        return visible_share(patches.boxes, box) if patches.unknown is None else math.nan

    @property
    def cut_away(self) -> str:
        """What the processor does not show of the picture and the region; empty if it shows all."""
        picture, cut = f"{self.picture_shown:.0%}", f"{1 - self.region_shown:.0%}"
        if self.prompt.patches.unknown is not None or (picture, cut) == ("100%", "0%"):
            return ""
        cut = "nothing" if cut == "0%" else cut
        return (
            f"the processor shows the model {picture} of the picture; {cut} of the region is cut "
            "away"
        )

    @property
    def compared_tokens(self) -> Bool[np.ndarray, " tokens"]:
        """Which image tokens belong to the pair's region, where heads are compared by their share.

        Raises
        ------
        InputError
            If none does, or all do: each head's share is then 1, and differences are rounding.
        """
        mask = self.region_tokens
        if mask.all():
            name = self.pair.region.name
            raise whole_picture("--region", f"{name} holds all {len(mask)} patches the model sees")
        return mask

    @property
    def compares(self) -> bool:
        """Whether heads can be compared by the share of image attention the region gets."""
        return len(self.prompt.patches.boxes) > 0 and not self.region_tokens.all()

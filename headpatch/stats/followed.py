"""What a claim needs beside a verdict: further changes of some pairs, and what came of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from headpatch.heads import Head, HeadSet

Kind = Literal["together", "interaction", "vision heads", "vision span", "stream", "cut"]


@dataclass(frozen=True)
class Ask:
    """One thing to do to a pair of pictures.

    Attributes
    ----------
    kind
        ``together``: noise a set of heads, what is left of it without each of its heads, and each
        alone. ``interaction``: noise, and denoise, two heads together and each alone. ``vision
        heads``: noise all heads of a vision layer. ``vision span``: noise all heads of vision
        layers together, and those of as many other layers that the language model reads.
        ``stream``: swap the residual stream at the region's patches, leaving a vision layer.
        ``cut``: cut attention to the region, and to as many random image tokens, in layers of the
        language model.
    heads, layers, queries
        Which heads; first and last layer; from where attention is cut.
    """

    kind: Kind
    heads: tuple[Head, ...] = ()
    layers: tuple[int, int] = (0, 0)
    queries: str = ""

    @property
    def name(self) -> str:
        """Say in words what is done; no two asks have the same."""
        first, last = self.layers
        span = f"layer {first}" if first == last else f"layers {first}-{last}"
        match self.kind:
            case "together":
                return f"heads {HeadSet(self.heads)} changed together"
            case "interaction":
                return f"heads {HeadSet(self.heads)} changed both ways, together and alone"
            case "vision heads":
                return f"all heads of vision {span} changed"
            case "vision span":
                return f"all heads of vision {span} changed, and of as many other layers"
            case "stream":
                return f"the region's patches swapped, leaving vision {span}"
            case "cut":
                return f"{self.queries} to region cut in {span}"


@dataclass(frozen=True, eq=False)
class Followed:
    """What came of an ask.

    Attributes
    ----------
    figures
        By name: normalized effects, one a pair.
    why_not
        Why it could not be done; empty if it was.
    """

    figures: Mapping[str, Float[np.ndarray, " pairs"]]
    why_not: str = ""

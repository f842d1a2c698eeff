"""Frozen descriptions of what to change in a pass.

`Intervention` is what a researcher asks for; `ZEdit` and `Cut` are what the attention function
does, one row of a batch at a time.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from headpatch.heads import Head, HeadSet, Tower
from headpatch.models.spans import Positions

Kind = Literal["zero", "mean", "resample", "self"]
Direction = Literal["noising", "denoising"]
VisionPositions = Literal["class", "patches", "all"]
"""Tokens of the vision tower: its class token, every other token, or both."""


@dataclass(frozen=True)
class Intervention:
    """Heads × kind × positions × direction: all that there is to say of a change.

    Attributes
    ----------
    heads
        Changed together.
    kind
        What z becomes: ``zero``; ``mean`` over a reference set; ``resample``, the z of the other
        run of the pair, which is activation patching; ``self``, its own z, which changes nothing
        and so measures the noise floor.
    direction
        ``noising`` changes the with-run (is the head necessary?), ``denoising`` the without-run
        (is it sufficient?).
    positions
        Tokens of the prompt at which its language-model heads are changed; None if it has none.
    vision_positions
        Tokens of the vision tower at which its vision heads are changed; None if it has none.

    Raises
    ------
    ValueError
        If it is not said where heads are changed.
    """

    heads: HeadSet
    kind: Kind
    direction: Direction
    positions: Positions | None = "answer"
    vision_positions: VisionPositions | None = "all"

    def __post_init__(self) -> None:
        for tower, name in (("lm", "positions"), ("vision", "vision_positions")):
            if all(head.tower != tower for head in self.heads):
                object.__setattr__(self, name, None)
            elif getattr(self, name) is None:
                raise ValueError(f"heads of tower {tower!r} are changed, but not where")

    @property
    def scope(self) -> str:
        """Where heads are changed, as tables name it: ``answer``, ``patches``, ``answer+v:all``."""
        if self.positions and self.vision_positions:
            return f"{self.positions}+v:{self.vision_positions}"
        return self.positions or self.vision_positions or ""


@dataclass(frozen=True, eq=False)
class ZEdit:
    """One head's z in one row of a batch, replaced.

    Attributes
    ----------
    row
        Row of the batch.
    positions
        Shape ``[positions]``.
    value
        Shape ``[positions, head_dim]``, or None for zero.
    """

    row: int
    head: Head
    positions: Int[Tensor, " positions"]
    value: Float[Tensor, "positions head_dim"] | None


@dataclass(frozen=True, eq=False)
class Cut:
    """Edges of heads in one row of a batch, removed: queries no longer see keys.

    The remaining attention is renormalised; a query that keeps no key gets z = 0.

    Attributes
    ----------
    row
        Row of the batch.
    heads
        One head, or several that lose the same edges.
    queries, keys
        Every query loses every key.
    own
        Whether a query that is among the keys loses its own position too.
    """

    row: int
    heads: Head | HeadSet
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    own: bool = True

    def by_layer(self) -> dict[tuple[Tower, int], list[int]]:
        """Return the heads' numbers, by tower and layer."""
        heads = [self.heads] if isinstance(self.heads, Head) else self.heads
        found: dict[tuple[Tower, int], list[int]] = {}
        for head in heads:
            found.setdefault((head.tower, head.layer), []).append(head.head)
        return found

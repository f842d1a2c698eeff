"""Frozen descriptions of what to change in a pass.

`Intervention` is what a researcher asks for; `ZEdit` and `Cut` are what the attention function
does, one row of a batch at a time.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from headpatch.heads import Head, HeadSet
from headpatch.models.spans import Positions

Kind = Literal["zero", "mean", "resample", "self"]
Direction = Literal["noising", "denoising"]


@dataclass(frozen=True)
class Intervention:
    """Heads × kind × positions × direction.

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
        Where z is changed.
    """

    heads: HeadSet
    kind: Kind
    direction: Direction
    positions: Positions = "answer"


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
    """Edges of one head in one row of a batch, removed: queries no longer see keys.

    The remaining attention is renormalised; a query that keeps no key gets z = 0.
    """

    row: int
    head: Head
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]

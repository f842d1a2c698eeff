r"""What an interaction of heads means, in words.

With Δ(S) the normalized effect of changing the heads S together,

.. math:: I(a, b) = Δ(a, b) - Δ(a) - Δ(b).

What its sign means depends on the direction. Noising (is it necessary?): I > 0 if each stands in
for the other, so that neither is missed alone (either-or); I < 0 if losing one is already losing
both (both needed, or in series). Denoising (is it sufficient?): I > 0 if only both together bring
the answer (both needed); I < 0 if one brings what the other would (either-or, or in series). So:

- ``redundancy``: either would do. I > 0 noising, I < 0 denoising.
- ``synergy``: both are needed. I < 0 noising, I > 0 denoising.
- ``opposed``: of two that interact, one is shown to carry the answer (Δ > δ) and the other to work
  against it (Δ < -δ): neither word fits.
- ``independence``: I is *shown* to lie within ±δ.
- ``undecided``: neither is shown.

The two directions together tell more (`together`): redundancy in both, either would do; synergy in
both, both are needed; redundancy noising and synergy denoising, a threshold that neither crosses
alone; synergy noising and redundancy denoising, in series (one reads what the other writes) or two
copies of one thing. Where heads work against the answer (Δ < 0), the signs turn round.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

Word = Literal["redundancy", "synergy", "opposed", "independence", "undecided"]
_Direction: TypeAlias = Literal["noising", "denoising"]


def word(direction: _Direction, sign: int, small: bool, against: bool, opposed: bool) -> Word:
    """Name an interaction; see the module.

    Parameters
    ----------
    sign
        Of an interaction that is shown to lie beyond ±δ; 0 if neither is shown.
    small
        Whether it is shown to lie within ±δ.
    against
        Whether the heads work against the answer: Δ together plus Δ alone is negative.
    opposed
        Whether they are shown to work in opposite directions.
    """
    if sign == 0:
        return "independence" if small else "undecided"
    if opposed:
        return "opposed"
    either = sign * _EITHER[direction] * (-1 if against else 1)
    return "redundancy" if either > 0 else "synergy"


def together(noising: Word, denoising: Word) -> str:
    """Say in words what the two directions show of a pair of heads; empty if nothing together."""
    return _TOGETHER.get((noising, denoising), "")


_TOGETHER: Mapping[tuple[Word, Word], str] = {
    ("redundancy", "redundancy"): "either would do",
    ("synergy", "synergy"): "both are needed",
    ("redundancy", "synergy"): "a threshold: the answer turns only when both are changed",
    ("synergy", "redundancy"): "in series, or the same thing twice",
    ("independence", "independence"): "independent",
}
_EITHER: Mapping[_Direction, int] = {"noising": 1, "denoising": -1}  # sign of I if either would do

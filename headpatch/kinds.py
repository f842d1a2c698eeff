"""Kinds of change: what stands in the place of a head's z, and how that is named and drawn.

A new kind is one entry of `KINDS`. Options, help texts, the engine, stored rows, tables and figures
read it from there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from headpatch.errors import InputError

Source: TypeAlias = Literal[
    "nothing", "mean", "other", "own", "other of donor", "same of donor", "reweighted"
]
"""Whose z it is: nobody's (0), the mean over a reference set, the other run's, the run's own; of
another pair of the dataset, the donor, the other run's or the same run's; or what the run's own
attention gives once some of it is re-weighted (`headpatch.engine.reweighting`)."""


Line: TypeAlias = str | tuple[int, tuple[int, ...]]
"""Matplotlib's: a name, or an offset and the lengths of dashes and gaps."""


@dataclass(frozen=True)
class Kind:
    """What a kind puts in the place of z, and how it is shown."""

    source: Source
    doing: str = ""  # first word of a sentence about it; empty for a kind that no study can name
    help: str = ""  # what z becomes, for ``--help``
    place: int = 0  # among kinds of which one is listed first
    color: str = ""
    marker: str = ""
    line: Line | None = None  # in figures; without one of its own it has the direction's
    default: bool = False  # whether it is run where a study names no kinds
    alpha: bool = False  # whether a number that the study names says how far it goes
    neutral: float = 1.0  # that number where it changes nothing
    note: str = ""  # what a legend must say of its effects

    @property
    def donated(self) -> bool:
        """Whether z is of another pair of the dataset."""
        return self.source.endswith("of donor")


_DASHES, _DOTS = (0, (6, 1, 1, 1, 1, 1)), (0, (1, 2))
KINDS: Final[Mapping[str, Kind]] = {
    "zero": Kind("nothing", "Zeroing", "0", 3, "#0072B2", "s", ":", default=True),
    "mean": Kind(
        "mean", "Mean-ablating", "its mean", 2, "#009E73", "^", "-.", default=True,
        note="mean: z averaged over runs with and without the object, so that 1 is not its "
        "ceiling: even all heads together move the answer part of the way."
    ),
    "resample": Kind(
        "other", "Resampling", "that of the other run", 1, "#D55E00", "o", default=True
    ),
    "resample-other": Kind(
        "other of donor", "Resampling from another pair", "over pairs: that of a random other "
        "pair's run with the other answer", 4, "#E69F00", "v",
        note="resample-other: z of a random other pair's run with the other answer, which differs "
        "in more than one object.",
    ),
    "resample-same": Kind(
        "same of donor", "Resampling the same answer", "over pairs: that of a random other "
        "pair's run with the same answer", 5, "#56B4E9", "P",
        note="resample-same: z of a random other pair's run with the same answer, a control; a "
        "head that carries nothing but the answer does little.",
    ),
    "scale": Kind("own", "Scaling", "alpha times itself", 6, "#CC79A7", "D", _DASHES, alpha=True),
    "reweight": Kind(
        "reweighted", "Re-weighting the attention of", "what its attention gives with that to the "
        "image, or --toward, times 1 + alpha, renormalised", 7, "#404040", "X", _DOTS, alpha=True,
        neutral=0.0
    ),
    "self": Kind("own"),  # changes nothing, and so measures the noise floor
}  # fmt: skip
"""By name, in the order of figures."""
ASKED: Final = tuple(name for name, kind in KINDS.items() if kind.doing)
"""Kinds that a study can name."""
REWEIGHTED: Final = tuple(name for name in ASKED if KINDS[name].source == "reweighted")
"""Those of them that change attention, of which z follows."""
OF_ONE_PAIR: Final = tuple(
    name for name in ASKED if not KINDS[name].donated and name not in REWEIGHTED
)
"""Those that put a z in the place of another, and take a pair alone."""
DONATED: Final = tuple(name for name in ASKED if KINDS[name].donated)
DEFAULT: Final = tuple(name for name in ASKED if KINDS[name].default)


def kinds_help(names: Collection[str]) -> str:
    """Say of some kinds, for ``--help``, what z becomes."""
    each = ", ".join(f"{name} ({KINDS[name].help})" for name in names)
    return f"What z becomes, comma-separated: {each}."


WITH_ALPHA: Final = tuple(name for name in ASKED if KINDS[name].alpha)
ALPHA: Final = 0.5
"""Halfway between a head that is gone (0) and one that is left (1): there an effect shows whether
it grows with what the head writes."""
BY_PLACE: Final = tuple(sorted(ASKED, key=lambda name: KINDS[name].place))

if TYPE_CHECKING:
    AskedKind: TypeAlias = str
    KindOfOnePair: TypeAlias = str
else:
    AskedKind = Literal[ASKED]
    KindOfOnePair = Literal[OF_ONE_PAIR]


def averages(kinds: Collection[str]) -> bool:
    """Whether one of these kinds needs mean z."""
    return any(KINDS[kind].source == "mean" for kind in kinds)


def donated(kinds: Collection[str]) -> bool:
    """Whether one of these kinds takes z of another pair of the dataset."""
    return any(KINDS[kind].donated for kind in kinds)


def first_of(kinds: Collection[str]) -> str:
    """Return the kind by which heads are listed: resample, if it was run."""
    return next(kind for kind in BY_PLACE if kind in kinds)


def notes(kinds: Collection[str]) -> str:
    """Say what a legend must say of the effects of these kinds; empty if nothing."""
    return " ".join(kind.note for name, kind in KINDS.items() if name in kinds and kind.note)


def kind_label(kind: str, found: Any) -> str:
    """Name a kind as figures and tables for readers do: with its alpha, where it has one.

    `found` is a row, a table or saved tensors, which hold ``alpha`` where such a kind was run.
    """
    alpha = found.get("alpha") if kind in KINDS and KINDS[kind].alpha else None
    if alpha is None:
        return kind
    toward = found.get("toward") if kind in REWEIGHTED else None
    if hasattr(alpha, "max"):
        alpha, toward = alpha.max(), None if toward is None else toward.max()
    return f"{kind} {float(alpha):g}" + (f" ({toward})" if toward else "")


def refuse_alphas(kinds: Collection[str], alphas: Collection[float]) -> None:
    """Refuse to multiply attention by less than 0."""
    names = [kind for kind in kinds if kind in REWEIGHTED]
    if names and min(alphas) < -1:
        found = f"{min(alphas):g} with kind {names[0]}"
        raise InputError("--alpha", found, "at least -1, which takes that attention away")

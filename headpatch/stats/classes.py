"""The classes of a verdict; `headpatch.stats.verdicts` states by what rule a head gets one."""

from typing import Literal, get_args

Verdict = Literal[
    "necessary+sufficient",
    "necessary",
    "sufficient",
    "redundant",
    "inhibitory",
    "watches",
    "inert",
    "undecided",
]
CAUSAL: tuple[Verdict, ...] = get_args(Verdict)[:5]
"""The classes of a head that is shown to act."""

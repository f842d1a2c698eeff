"""Test causally which attention heads of a vision-language model decide a Yes/No answer.

>>> import headpatch as hp
>>> session = hp.open_session(hp.Study(), positions="answer")
>>> hp.rank(session).heads.head()
>>> hp.ablate(session, [hp.Head(24, 17)], hp.mean_z(session)).effects
>>> hp.sweep(session).saved["normalized"]["resample_noising"]  # layers × heads
"""

from typing import TYPE_CHECKING, Any

from headpatch.errors import HeadpatchError, InputError, RunError
from headpatch.heads import Head, HeadSet

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headpatch.analyses.ablate import Ablation, ablate
    from headpatch.analyses.rank import Ranking, rank
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.session import Session, open_session
    from headpatch.analyses.sweep import Sweep, sweep
    from headpatch.models.load import load
    from headpatch.models.vlm import VLM
    from headpatch.pairs.pair import Pair, make_pair
    from headpatch.pairs.region import Region
    from headpatch.study import Study

_HOMES = {
    "Ablation": "analyses.ablate",
    "ablate": "analyses.ablate",
    "Ranking": "analyses.rank",
    "rank": "analyses.rank",
    "mean_z": "analyses.reference",
    "Session": "analyses.session",
    "open_session": "analyses.session",
    "Sweep": "analyses.sweep",
    "sweep": "analyses.sweep",
    "load": "models.load",
    "VLM": "models.vlm",
    "Pair": "pairs.pair",
    "make_pair": "pairs.pair",
    "Region": "pairs.region",
    "Study": "study",
}

__all__ = [
    "VLM",
    "Ablation",
    "Head",
    "HeadSet",
    "HeadpatchError",
    "InputError",
    "Pair",
    "Ranking",
    "Region",
    "RunError",
    "Session",
    "Study",
    "Sweep",
    "ablate",
    "load",
    "make_pair",
    "mean_z",
    "open_session",
    "rank",
    "sweep",
]


def __getattr__(name: str) -> Any:  # torch is imported only when it is needed
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"headpatch.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'headpatch' has no attribute {name!r}")

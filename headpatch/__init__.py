"""Test causally which attention heads of a vision-language model decide a Yes/No answer.

A study names a model, two pictures and a question; a session holds its two untouched runs; one
call asks each question of it. Tables are pandas DataFrames, figures matplotlib's. Nothing prints
but a bar, on a terminal or in a notebook, while something long runs (``on_progress=False`` or the
environment's ``TQDM_DISABLE=1`` turn it off); nothing is written but where a folder is given.

>>> import headpatch as hp
>>> session = hp.open_session(hp.Study())  # the bundled model and pair
>>> session.valid  # the two answers differ
True
>>> hp.rank(session).heads.columns[3]  # who looks: with - without, of the image attention
'diff'
>>> swept = hp.sweep(session, kinds=["resample"], directions=["noising"])  # who decides
>>> swept.saved["normalized"]["resample_noising"].shape  # layers, heads
torch.Size([32, 32])
>>> figure = hp.plot(swept)
"""

from typing import TYPE_CHECKING, Any

from headpatch.errors import HeadpatchError, InputError, RunError
from headpatch.heads import Head, HeadSet

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headpatch.analyses.ablate import Ablation
    from headpatch.analyses.combined import Combined
    from headpatch.analyses.cut import Cuts
    from headpatch.analyses.dataset import sessions
    from headpatch.analyses.path import FollowedPath
    from headpatch.analyses.rank import Ranking
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.rollout import Rolled
    from headpatch.analyses.session import Session, open_session
    from headpatch.analyses.sweep import Sweep
    from headpatch.analyses.trace import Traced
    from headpatch.api.figures import plot
    from headpatch.api.follow_ups import combine, path, rollout, trace
    from headpatch.api.many_pairs import Verdict, draw_pairs, verdict
    from headpatch.api.one_pair import ablate, cut, rank, sweep
    from headpatch.api.runs import Run, read_run
    from headpatch.models.load import load
    from headpatch.models.vlm import VLM
    from headpatch.pairs.manifest import Manifest
    from headpatch.pairs.pair import Pair, make_pair
    from headpatch.pairs.region import Region
    from headpatch.study import Study

_HOMES = {
    "Ablation": "analyses.ablate",
    "Combined": "analyses.combined",
    "Cuts": "analyses.cut",
    "FollowedPath": "analyses.path",
    "Manifest": "pairs.manifest",
    "Pair": "pairs.pair",
    "Ranking": "analyses.rank",
    "Region": "pairs.region",
    "Rolled": "analyses.rollout",
    "Run": "api.runs",
    "Session": "analyses.session",
    "Study": "study",
    "Sweep": "analyses.sweep",
    "Traced": "analyses.trace",
    "VLM": "models.vlm",
    "Verdict": "api.many_pairs",
    "ablate": "api.one_pair",
    "combine": "api.follow_ups",
    "cut": "api.one_pair",
    "draw_pairs": "api.many_pairs",
    "load": "models.load",
    "make_pair": "pairs.pair",
    "mean_z": "analyses.reference",
    "open_session": "analyses.session",
    "path": "api.follow_ups",
    "plot": "api.figures",
    "rank": "api.one_pair",
    "read_run": "api.runs",
    "rollout": "api.follow_ups",
    "sessions": "analyses.dataset",
    "sweep": "api.one_pair",
    "trace": "api.follow_ups",
    "verdict": "api.many_pairs",
}
"""The room of each public name; ``:name`` where it is called otherwise there."""

__all__ = [
    "VLM",
    "Ablation",
    "Combined",
    "Cuts",
    "FollowedPath",
    "Head",
    "HeadSet",
    "HeadpatchError",
    "InputError",
    "Manifest",
    "Pair",
    "Ranking",
    "Region",
    "Rolled",
    "Run",
    "RunError",
    "Session",
    "Study",
    "Sweep",
    "Traced",
    "Verdict",
    "ablate",
    "combine",
    "cut",
    "draw_pairs",
    "load",
    "make_pair",
    "mean_z",
    "open_session",
    "path",
    "plot",
    "rank",
    "read_run",
    "rollout",
    "sessions",
    "sweep",
    "trace",
    "verdict",
]


def __getattr__(name: str) -> Any:  # torch is imported only when it is needed
    if name in _HOMES:
        from importlib import import_module
        from warnings import catch_warnings, filterwarnings

        with catch_warnings():  # transformers' bars complain in notebooks without ipywidgets
            filterwarnings("ignore", "IProgress not found")
            import_module("tqdm.auto")
        room, _, there = _HOMES[name].partition(":")
        return getattr(import_module(f"headpatch.{room}"), there or name)
    raise AttributeError(f"module 'headpatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Test causally which attention heads of a vision-language model decide a Yes/No answer.

A study names a model, two pictures and a question; a session holds its two untouched runs; one
call asks each question of it. Many pairs are opened alike: the same calls then answer with means
and intervals over the pairs, and a verdict judges every head.

Tables are pandas DataFrames, figures matplotlib's. Nothing prints but a bar, on a terminal or in a
notebook, while something long runs (``on_progress=False`` or the environment's ``TQDM_DISABLE=1``
turn it off); nothing is written but where a folder is given.

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
>>> pairs = hp.open_pairs(n=2, vlm=session.vlm)  # drawn; or your own: pairs="pairs/manifest.csv"
>>> found = hp.ablate(pairs, "20.18", kinds=["resample"], controls=0)
>>> [name for name in found.means.columns if name.startswith("effect")]
['effect', 'effect_low', 'effect_high']
>>> figure = hp.plot(found)
"""

from typing import TYPE_CHECKING, Any

from headpatch.errors import HeadpatchError, InputError, RunError, Unfinished
from headpatch.heads import Head, HeadSet

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headpatch.api import Run, plot, read_run, report
    from headpatch.core.converted_pairs import Converted, convert_pairs
    from headpatch.core.corrupted_pairs import corrupt
    from headpatch.core.dataset import Pairs, open_pairs
    from headpatch.core.drawn_pairs import draw_pairs
    from headpatch.core.gate import sessions
    from headpatch.core.mean_activations import mean_z
    from headpatch.core.session import Session, open_session
    from headpatch.core.study.study import Study
    from headpatch.models.load import load
    from headpatch.models.vlm import VLM
    from headpatch.pairs.manifest import Manifest
    from headpatch.pairs.pair import Pair, make_pair
    from headpatch.pairs.region import Region
    from headpatch.questions.ablate.question import AblatedPairs, Ablation, ablate
    from headpatch.questions.check.question import Report, check
    from headpatch.questions.claims.question import Claims, claims
    from headpatch.questions.combine.question import Combined, CombinedPairs, combine
    from headpatch.questions.compare.question import Compared, compare
    from headpatch.questions.cut.question import Cuts, cut
    from headpatch.questions.evaluate.question import Evaluation, evaluate
    from headpatch.questions.path.question import FollowedPath, FollowedPaths, path
    from headpatch.questions.rank.question import RankedPairs, Ranking, rank
    from headpatch.questions.rollout.question import Rolled, RolledPairs, rollout
    from headpatch.questions.sweep.question import Sweep, Sweeps, sweep
    from headpatch.questions.trace.question import trace
    from headpatch.questions.trace.results import Traced, TracedPairs
    from headpatch.questions.verdict.question import Verdict, verdict

_HOMES = {
    name: room
    for room, names in {
        "api": "Run plot read_run report",
        "core.corrupted_pairs": "corrupt",
        "core.converted_pairs": "Converted convert_pairs",
        "core.dataset": "Pairs open_pairs",
        "core.drawn_pairs": "draw_pairs",
        "core.gate": "sessions",
        "core.mean_activations": "mean_z",
        "core.session": "Session open_session",
        "core.study.study": "Study",
        "models.load": "load",
        "models.vlm": "VLM",
        "pairs.manifest": "Manifest",
        "pairs.pair": "Pair make_pair",
        "pairs.region": "Region",
        "questions.ablate.question": "AblatedPairs Ablation ablate",
        "questions.check.question": "Report check",
        "questions.claims.question": "Claims claims",
        "questions.combine.question": "Combined CombinedPairs combine",
        "questions.compare.question": "Compared compare",
        "questions.cut.question": "Cuts cut",
        "questions.evaluate.question": "Evaluation evaluate",
        "questions.path.question": "FollowedPath FollowedPaths path",
        "questions.rank.question": "RankedPairs Ranking rank",
        "questions.rollout.question": "Rolled RolledPairs rollout",
        "questions.sweep.question": "Sweep Sweeps sweep",
        "questions.trace.question": "trace",
        "questions.trace.results": "Traced TracedPairs",
        "questions.verdict.question": "Verdict verdict",
    }.items()
    for name in names.split()
}
"""The module of each public name."""

__all__ = [
    "VLM", "AblatedPairs", "Ablation", "Claims", "Combined", "CombinedPairs", "Compared",
    "Converted", "Cuts", "Evaluation", "FollowedPath", "FollowedPaths", "Head", "HeadSet",
    "HeadpatchError", "InputError", "Manifest", "Pair", "Pairs", "RankedPairs", "Ranking",
    "Region", "Report", "Rolled", "RolledPairs", "Run", "RunError", "Session", "Study",
    "Sweep", "Sweeps", "Traced", "TracedPairs", "Unfinished", "Verdict",
    "ablate", "check", "claims", "combine", "compare", "convert_pairs", "corrupt", "cut",
    "draw_pairs", "evaluate", "load", "make_pair", "mean_z", "open_pairs", "open_session",
    "path", "plot", "rank", "read_run", "report", "rollout", "sessions", "sweep", "trace",
    "verdict",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # torch is imported only when it is needed
    if name in _HOMES:
        from importlib import import_module
        from warnings import catch_warnings, filterwarnings

        with catch_warnings():  # transformers' bars complain in notebooks without ipywidgets
            filterwarnings("ignore", "IProgress not found")
            import_module("tqdm.auto")
        found = getattr(import_module(f"headpatch.{_HOMES[name]}"), name)
        if name.islower():  # a call
            found = import_module("headpatch.core.signatures").with_options_listed(found)
        return found
    raise AttributeError(f"module 'headpatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

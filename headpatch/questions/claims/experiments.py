"""What is measured beside a verdict for claims: further changes of some pairs.

Each experiment does one thing to every pair; ``followed.csv`` keeps what came of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.baseline_runs import Opener
from headpatch.core.edge_cuts import Cutting, cut_edges
from headpatch.core.effects import intervene, noise_sets, noise_vision, normalized
from headpatch.core.fast_paths import decide
from headpatch.core.pair_units import Keys, each_unit
from headpatch.core.ranking import random_sets
from headpatch.core.session import Session
from headpatch.core.store import Store
from headpatch.core.stream_swaps import normalized as shares
from headpatch.core.stream_swaps import vision_classes
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction, Intervention, refused, whole_layers
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.residual import Swap, record, swap
from headpatch.engine.selfcheck import Checks
from headpatch.errors import HeadpatchError, RunError
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.claims.columns import MEASURED
from headpatch.stats.interactions import leave_one_out

Kind = Literal[
    "together", "interaction", "joint", "span", "vision heads", "vision span", "stream", "cut"
]
Figures: TypeAlias = Mapping[str, Float[np.ndarray, " pairs"]]
"""By name: normalized effects, one a pair."""
PairFigures: TypeAlias = dict[str, float]
"""By name: normalized effects on one pair."""
_OF_VISION: tuple[Kind, ...] = ("vision heads", "vision span")
_NAMES: Mapping[Kind, str] = {
    "together": "heads {heads} changed together",
    "interaction": "heads {heads} changed both ways, together and alone",
    "joint": "heads {heads} changed both ways, together, and as many others of their layers",
    "span": "all heads of {span} changed, and of as many other layers",
    "vision heads": "all heads of vision {span} changed",
    "vision span": "all heads of vision {span} changed, and of as many other layers",
    "stream": "the region's patches swapped, leaving vision {span}",
    "cut": "{queries} to {keys} cut in {span}",
}


@dataclass(frozen=True)
class Experiment:
    """One thing to do to a pair of pictures: to heads, or in first to last layer."""

    kind: Kind
    heads: tuple[Head, ...] = ()
    layers: tuple[int, int] = (0, 0)
    queries: str = ""  # from where attention is cut, and to what
    keys: str = "region"

    @property
    def name(self) -> str:
        """Say in words what is done; no two experiments have the same."""
        first, last = self.layers
        span = f"layer {first}" if first == last else f"layers {first}-{last}"
        heads = HeadSet(self.heads)
        ends = {"queries": self.queries, "keys": self.keys}
        return _NAMES[self.kind].format(heads=heads, span=span, **ends)

    def passes(self, study: Study, vlm: VLM) -> int:
        """Return how many forward passes it takes at most, on one pair."""
        match self.kind:
            case "together":
                return 2 * len(self.heads) + 1
            case "interaction":
                return 2 * (len(self.heads) + 1)
            case "joint":
                return 2 + study.cut.controls
            case "span":
                first, last = self.layers
                return 1 + vlm.lm.grid.layers // (last + 1 - first)
            case "vision span":
                first, last = self.layers
                layers = 0 if vlm.vision is None else vlm.vision.grid.layers
                return 1 + layers // (last + 1 - first)
            case "cut":
                return 2 * (2 + study.cut.controls)
            case "vision heads" | "stream":
                return 1


Experiments: TypeAlias = Sequence[Experiment]


@dataclass(frozen=True, eq=False)
class Measured:
    """What came of an experiment; `why_not` says why nothing did, and is empty if something did."""

    figures: Figures
    why_not: str = ""


def run_experiments(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    experiments: Experiments,
    store: Store,
    on_progress: OnProgress | None = None,
) -> dict[str, Measured]:
    """Run experiments on every pair that is not in the store; return what came of each, by name.

    `on_progress` is called with (done, total), in pairs.
    """
    names, where = [one.name for one in experiments], study.verdict.positions
    vision = any(one.kind in _OF_VISION for one in experiments) and not refused(vlm)
    checks = decide(study, vlm, (entry.pair() for entry in entries), where, vision)
    asked = {"followed": names, "positions": where, "controls": study.cut.controls}
    opened = Opener(study, vlm, where, checks=checks)

    def run(session: Session, _: OnProgress) -> PairMeasured:
        return _measure_pair(session, experiments, checks)

    def keys() -> list[str]:
        return Keys(vlm).of(study, entries, asked)

    what = "Following claims up"
    measured = list(each_unit(entries, opened, what, keys, run, on_progress, store=store))
    pairs = [one.figures for one in measured]
    why_not = {name: why for one in measured for name, why in one.why_not.items()}
    return {
        name: Measured({}, why_not[name])
        if name in why_not
        else Measured(_columns([figures[name] for figures in pairs]))
        for name in names
    }


def _columns(pairs: Sequence[PairFigures]) -> Figures:
    everywhere = [name for name in pairs[0] if all(name in figures for figures in pairs)]
    return {name: np.array([figures[name] for figures in pairs]) for name in everywhere}


def table_of(experiments: Mapping[str, Measured], pairs: Sequence[Entry]) -> pd.DataFrame:
    """Return the columns of ``followed.csv``: a row for each pair and figure."""
    rows: list[tuple[str, str, str, float, str]] = []
    for what, one in experiments.items():
        for figure, values in one.figures.items():
            each = zip(pairs, values.tolist(), strict=True)
            rows += [(what, figure, pair.name, value, "") for pair, value in each]
        if one.why_not:
            rows.append((what, "", "", float("nan"), one.why_not))
    return pd.DataFrame(rows, columns=list(MEASURED))


def from_table(table: pd.DataFrame) -> dict[str, Measured]:
    """Read back what `table_of` gave."""
    texts = table.astype({"figure": object, "why_not": object})  # an empty column is read as NaN
    experiments = {}
    for what, rows in texts.fillna({"figure": "", "why_not": ""}).groupby("what", sort=False):
        figures = {
            str(name): one["value"].to_numpy(dtype=np.float64)
            for name, one in rows.groupby("figure", sort=False)
            if name
        }
        experiments[str(what)] = Measured(figures, str(rows["why_not"].iloc[0]))
    return experiments


@dataclass(frozen=True, eq=False)
class PairMeasured:
    """What came of each experiment on one pair, by its name; or why it cannot be run."""

    figures: Mapping[str, PairFigures]
    why_not: Mapping[str, str]


def _measure_pair(session: Session, experiments: Experiments, checks: Checks) -> PairMeasured:
    """Run every experiment on one pair."""
    figures: dict[str, PairFigures] = {}
    why_not: dict[str, str] = {}
    for kind, run in _RUNS.items():
        alike = [one for one in experiments if one.kind == kind]
        names = [one.name for one in alike]
        try:
            figures |= dict(zip(names, run(session, alike, checks) if alike else (), strict=True))
        except HeadpatchError as error:
            why_not |= dict.fromkeys(names, str(error))
    return PairMeasured(figures, why_not)


def _together(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Noise sets: how necessary each is, and what each head adds beyond what it does alone."""
    for members in (HeadSet(one.heads) for one in experiments):
        without = dict(zip(members, leave_one_out(members), strict=True))
        alone = {head: HeadSet.of(head) for head in members}
        sets = list(dict.fromkeys([members, *without.values(), *alone.values()]))
        lost = dict(zip(sets, noise_sets(session, sets).tolist(), strict=True))
        excess = {
            f"excess of {head}": lost[members] - lost[without[head]] - lost[alone[head]]
            for head in members
        }
        yield {"joint necessity": lost[members], **excess}


def _interaction(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Noise and denoise two heads together, and each alone."""
    for both in (HeadSet(one.heads) for one in experiments):
        named = {"both": both} | {str(head): HeadSet.of(head) for head in both}
        changes = {
            f"{way} {name}": Intervention(heads, "resample", way, session.study.verdict.positions)
            for way in get_args(Direction)
            for name, heads in named.items()
        }
        outcomes = intervene(session, list(changes.values()), answers_only=True)
        yield dict(zip(changes, normalized(session, outcomes).tolist(), strict=True))


def _joint(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Noise and denoise heads together; noise random sets with as many heads of each layer."""
    study, positions = session.study, session.study.verdict.positions
    for members in (HeadSet(one.heads) for one in experiments):
        others = random_sets(members, study.cut.controls, study.seed, session.vlm.lm.grid)
        asked = [Intervention(one, "resample", "noising", positions) for one in (members, *others)]
        asked.append(Intervention(members, "resample", "denoising", positions))
        outcomes = intervene(session, asked, answers_only=True)
        lost, *elsewhere, gained = normalized(session, outcomes).tolist()
        yield {"necessity": lost, "sufficiency": gained, **_mean(elsewhere)}


def _span(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Noise all heads of layers together, and of as many others, in turn."""
    grid = session.vlm.lm.grid
    layers = grid.whole_layers()  # those that have heads
    for one in experiments:
        inside = np.flatnonzero(np.isin(grid.with_heads, range(one.layers[0], one.layers[1] + 1)))
        span = int(inside[0]), int(inside[-1])
        spans = [span, *_spans_beside(span, len(layers))]
        sets = [HeadSet(tuple(chain(*layers[first : last + 1]))) for first, last in spans]
        lost, *elsewhere = noise_sets(session, sets).tolist()
        yield {"necessity": lost, **_mean(elsewhere)}


def _spans_beside(span: tuple[int, int], layers: int) -> list[tuple[int, int]]:
    """Return spans of as many layers on either side, as often as they fit among `layers`."""
    first, last = span
    count = last + 1 - first
    starts = *range(first - count, -1, -count), *range(last + 1, layers + 1 - count, count)
    return [(start, start + count - 1) for start in starts]


def _mean(elsewhere: Sequence[float]) -> PairFigures:
    return {"elsewhere": float(np.mean(elsewhere))} if elsewhere else {}


def _vision_heads(
    session: Session, experiments: Experiments, checks: Checks
) -> Iterator[PairFigures]:
    """Noise all heads of a vision layer."""
    for lost in _noised(session, [one.layers for one in experiments], checks):
        yield {"necessity": lost}


def _vision_span(
    session: Session, experiments: Experiments, checks: Checks
) -> Iterator[PairFigures]:
    """Noise all heads of vision layers together, and of as many others that are read, in turn.

    As many layers again lie on either side, as often as they fit among those that are read: whose
    output, or that of a later one, the language model takes.
    """
    for span in (one.layers for one in experiments):
        assert session.vlm.vision is not None
        feature = session.vlm.feature_layer
        read = session.vlm.vision.grid.layers if feature is None else feature + 1
        lost, *elsewhere = _noised(session, [span, *_spans_beside(span, read)], checks)
        yield {"necessity": lost, **_mean(elsewhere)}


def _noised(session: Session, spans: Sequence[tuple[int, int]], checks: Checks) -> list[float]:
    """Noise all heads of each span of vision layers together."""
    if why := refused(session.vlm):
        raise RunError(why)
    layers = whole_layers(session.vlm)
    sets = [
        HeadSet(tuple(head for layer in layers[first : last + 1] for head in layer))
        for first, last in spans
    ]
    outcomes, _ = noise_vision(session, sets, checks)
    lost: list[float] = normalized(session, outcomes).tolist()
    return lost


def _streams(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Put the with-run's stream at the region's patches into the without-run."""
    kept = record(session.vlm, session.prompt)
    tokens = vision_classes(session, kept["vision"][0].shape[1]) if "vision" in kept else {}
    if "region" not in tokens:
        raise RunError("the region has no tokens of its own in the vision tower")
    swaps = [Swap(WITHOUT, "vision", one.layers[0], tokens["region"], WITH) for one in experiments]
    shifts = np.array([one.effect for one in swap(session.vlm, session.base, kept, swaps)])
    for gained in shares(session, shifts, "denoising").tolist():
        yield {"sufficiency": gained}


def _cut(session: Session, experiments: Experiments, _: Checks) -> Iterator[PairFigures]:
    """Cut attention in the with-run: to the region, and to random image tokens as many; or else."""
    for one in experiments:
        (first, last), controls = one.layers, session.study.cut.controls
        cutting = Cutting(
            (f"{one.queries}-{one.keys}",), layers=f"{first}-{last}", controls=controls
        )
        table = cut_edges(session, cutting).table
        lost = table[table["run"] == "with"].groupby("role")["normalized"].mean()
        elsewhere = {"elsewhere": float(lost["control"])} if "control" in lost else {}
        yield {one.keys: float(lost["layers"]), **elsewhere}


_Run: TypeAlias = Callable[[Session, Experiments, Checks], Iterator[PairFigures]]
_RUNS: Mapping[Kind, _Run] = {
    "together": _together, "interaction": _interaction, "joint": _joint, "span": _span,
    "vision heads": _vision_heads, "vision span": _vision_span, "stream": _streams, "cut": _cut,
}  # fmt: skip

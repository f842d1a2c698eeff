"""What claims need beside a verdict, measured pair by pair: see `headpatch.measures.followed`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypedDict

import numpy as np
import pandas as pd

from headpatch.analyses.cut.one import cut
from headpatch.analyses.dataset.measured import measured
from headpatch.analyses.finished import Finished, key
from headpatch.analyses.path.stream import normalized as shares
from headpatch.analyses.path.stream import vision_classes
from headpatch.analyses.session import Session
from headpatch.analyses.verdict.halves import halve
from headpatch.analyses.verdict.measured_pair import noise_sets, noise_vision, normalized
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.residual import Swap, record, swap
from headpatch.engine.tower import refused, whole_layers
from headpatch.errors import HeadpatchError, RunError
from headpatch.heads import HeadSet
from headpatch.measures.followed import Ask, Followed, Kind
from headpatch.measures.redundancy import rests
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.study import CutOptions, Study

Figures: TypeAlias = dict[str, float]
"""What came of an ask on one pair, by name."""
_COLUMNS = ("what", "figure", "pair", "value", "why_not")


class _Pair(TypedDict):
    """What came of every ask on one pair; why, by name, where nothing did."""

    figures: dict[str, Figures]
    why_not: dict[str, str]


def pairs_followed(study: Study, passed: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the pairs on which claims are followed up: the first of those that judge.

    Raises
    ------
    InputError
        If the pairs are too few for a verdict.
    """
    return halve(study, passed).confirmation[: study.verdict.followed]


def passes(study: Study, ask: Ask) -> int:
    """Return how many forward passes an ask takes at most, on one pair."""
    match ask.kind:
        case "together":
            return 2 * len(ask.heads) + 1
        case "cut":
            return 2 * (2 + study.cut.controls)
        case _:
            return 1


def follow(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    asks: Sequence[Ask],
    finished: Finished,
    on_progress: OnProgress | None = None,
) -> dict[str, Followed]:
    """Do to every pair what is asked; return what came of it, by the name of each ask.

    Parameters
    ----------
    finished
        Where finished pairs are kept; those that are there are not run again.
    on_progress
        Called with (done, total), in pairs.
    """
    keys = {entry.name: _key(study, vlm, entry, asks) for entry in entries}
    found: list[Mapping[str, Figures]] = []
    why_not: dict[str, str] = {}

    def measure(session: Session) -> Mapping[str, Any]:
        return dict(_measure(session, asks))

    for _, saved in measured(study, vlm, entries, keys, study.verdict.positions, finished, measure):
        found.append(saved["figures"])
        why_not |= saved["why_not"]
        if on_progress:
            on_progress(len(found), len(entries))
    return {
        one.name: Followed({}, why_not[one.name])
        if one.name in why_not
        else Followed(_columns([figures[one.name] for figures in found]))
        for one in asks
    }


def _columns(rows: Sequence[Figures]) -> dict[str, np.ndarray]:
    everywhere = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: np.array([row[name] for row in rows]) for name in everywhere}


def _key(study: Study, vlm: VLM, entry: Entry, asks: Sequence[Ask]) -> str:
    values = study.model_dump(include={"answers", "prompt", "seed"}, mode="json")
    asked = values | {
        "followed": [one.name for one in asks],
        "positions": study.verdict.positions,
        "controls": study.cut.controls,
    }
    return key(vlm, entry.pair(), asked)


def _measure(session: Session, asks: Sequence[Ask]) -> _Pair:
    done = _Pair(figures={}, why_not={})
    for kind, how in _HOW.items():
        here = [one for one in asks if one.kind == kind]
        try:
            done["figures"] |= how(session, here) if here else {}
        except HeadpatchError as error:
            done["why_not"] |= dict.fromkeys((one.name for one in here), str(error))
    return done


def _together(session: Session, asks: Sequence[Ask]) -> dict[str, Figures]:
    """Noise sets: how necessary they are, and what each head adds beyond what it does alone."""
    found = {}
    for ask in asks:
        members = HeadSet(ask.heads)
        alone = [HeadSet.of(head) for head in members]
        sets = dict.fromkeys([members, *rests(members), *alone])
        lost = dict(zip(sets, noise_sets(session, list(sets)).tolist(), strict=True))
        excess = {
            f"excess of {head}": lost[members] - lost[rest] - lost[HeadSet.of(head)]
            for head, rest in zip(members, rests(members), strict=True)
        }
        found[ask.name] = {"joint necessity": lost[members], **excess}
    return found


def _vision_heads(session: Session, asks: Sequence[Ask]) -> dict[str, Figures]:
    """Noise all heads of vision layers.

    Raises
    ------
    RunError
        If they cannot be changed.
    """
    if why := refused(session.vlm):
        raise RunError(why)
    layers = whole_layers(session.vlm)
    outcomes = noise_vision(session, [layers[ask.layers[0]] for ask in asks])
    lost = normalized(session, outcomes).tolist()
    return {ask.name: {"necessity": one} for ask, one in zip(asks, lost, strict=True)}


def _streams(session: Session, asks: Sequence[Ask]) -> dict[str, Figures]:
    """Put the with-run's stream at the region's patches into the without-run.

    Raises
    ------
    RunError
        If the tower's patches, or its layers, are not known one by one.
    """
    kept = record(session.vlm, session.prompt)
    tokens = vision_classes(session, kept["vision"][0].shape[1]) if "vision" in kept else {}
    if "region" not in tokens:
        raise RunError("the vision tower does not see the picture patch for patch as the language "
                       "model does, so the region has no patches there")  # fmt: skip
    swaps = [Swap(WITHOUT, "vision", one.layers[0], tokens["region"], WITH) for one in asks]
    shifts = np.array([one.effect for one in swap(session.vlm, session.base, kept, swaps)])
    gained = shares(session, shifts, "denoising").tolist()
    return {ask.name: {"sufficiency": one} for ask, one in zip(asks, gained, strict=True)}


def _cut(session: Session, asks: Sequence[Ask]) -> dict[str, Figures]:
    """Cut attention to the region in the with-run, and to random image tokens as many.

    Raises
    ------
    InputError
        If the image is not among the prompt's tokens.
    """
    found = {}
    for ask in asks:
        first, last = ask.layers
        options = CutOptions(
            edges=(f"{ask.queries}-region",),
            layers=f"{first}-{last}",
            controls=session.study.cut.controls,
        )
        study = session.study.model_copy(update={"cut": options})
        table = cut(replace(session, study=study)).effects
        lost = table[table["run"] == "with"].groupby("role")["normalized"].mean()
        found[ask.name] = {"region": float(lost["layers"])}
        if "control" in lost:
            found[ask.name]["elsewhere"] = float(lost["control"])
    return found


_HOW: Mapping[Kind, Callable[[Session, Sequence[Ask]], dict[str, Figures]]] = {
    "together": _together,
    "vision heads": _vision_heads,
    "stream": _streams,
    "cut": _cut,
}


def table_of(followed: Mapping[str, Followed], pairs: Sequence[str]) -> pd.DataFrame:
    """Return the columns of ``followed.csv``: a row for each pair and figure."""
    rows = []
    for what, one in followed.items():
        for figure, values in one.figures.items():
            each = zip(pairs, values.tolist(), strict=True)
            rows += [(what, figure, pair, value, "") for pair, value in each]
        if one.why_not:
            rows.append((what, "", "", float("nan"), one.why_not))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def from_table(table: pd.DataFrame) -> dict[str, Followed]:
    """Read back what `table_of` gave."""
    texts = table.astype({"figure": object, "why_not": object})  # an empty column is read as NaN
    found = {}
    for what, rows in texts.fillna({"figure": "", "why_not": ""}).groupby("what", sort=False):
        figures = {
            str(name): one["value"].to_numpy(dtype=np.float64)
            for name, one in rows.groupby("figure", sort=False)
            if name
        }
        found[str(what)] = Followed(figures, str(rows["why_not"].iloc[0]))
    return found

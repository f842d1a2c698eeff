"""What claims need beside a verdict, on one pair of pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypedDict

import numpy as np

from headpatch.core.edge_cuts import Cutting, cut_edges
from headpatch.core.session import Session, intervene
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.engine.residual import Swap, record, swap
from headpatch.engine.selfcheck import Checks
from headpatch.engine.tower import refused, whole_layers
from headpatch.errors import HeadpatchError, RunError
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from headpatch.questions.path.stream import normalized as shares
from headpatch.questions.path.stream import vision_classes
from headpatch.questions.verdict.judged_pair import DIRECTIONS
from headpatch.questions.verdict.measured_pair import noise_sets, noise_vision, normalized
from headpatch.stats.followed import Ask, Kind
from headpatch.stats.redundancy import rests

Figures: TypeAlias = dict[str, float]
"""What came of an ask on one pair, by name."""


class Pair(TypedDict):
    """What came of every ask on one pair; why, by name, where nothing did."""

    figures: dict[str, Figures]
    why_not: dict[str, str]


def measure_pair(session: Session, asks: Sequence[Ask], checks: Checks) -> Pair:
    """Do to one pair what is asked; an ask that cannot be done says why.

    Parameters
    ----------
    checks
        Which fast paths hold for the model.
    """
    done = Pair(figures={}, why_not={})
    for kind, how in _HOW.items():
        here = [one for one in asks if one.kind == kind]
        try:
            done["figures"] |= how(session, here, checks) if here else {}
        except HeadpatchError as error:
            done["why_not"] |= dict.fromkeys((one.name for one in here), str(error))
    return done


def _together(session: Session, asks: Sequence[Ask], _: Checks) -> dict[str, Figures]:
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


def _interactions(session: Session, asks: Sequence[Ask], _: Checks) -> dict[str, Figures]:
    """Noise and denoise two heads together, and each alone."""
    found: dict[str, Figures] = {}
    for ask in asks:
        both = HeadSet(ask.heads)
        named = {"both": both} | {str(head): HeadSet.of(head) for head in both}
        changes = {
            f"{way} {name}": Intervention(one, "resample", way, session.study.verdict.positions)
            for way in DIRECTIONS
            for name, one in named.items()
        }
        outcomes = intervene(session, list(changes.values()), answers_only=True)
        effects = normalized(session, outcomes).tolist()
        found[ask.name] = dict(zip(changes, effects, strict=True))
    return found


def _vision_heads(session: Session, asks: Sequence[Ask], checks: Checks) -> dict[str, Figures]:
    """Noise all heads of vision layers.

    Raises
    ------
    RunError
        If they cannot be changed.
    """
    lost = _noised(session, [ask.layers for ask in asks], checks)
    return {ask.name: {"necessity": one} for ask, one in zip(asks, lost, strict=True)}


def _vision_spans(session: Session, asks: Sequence[Ask], checks: Checks) -> dict[str, Figures]:
    """Noise all heads of vision layers together, and of as many others that are read, in turn.

    Raises
    ------
    RunError
        If they cannot be changed.
    """
    found = {}
    for ask in asks:
        lost, *others = _noised(
            session, [ask.layers, *_other_spans(session.vlm, ask.layers)], checks
        )
        found[ask.name] = {"necessity": lost}
        if others:
            found[ask.name]["elsewhere"] = float(np.mean(others))
    return found


def _other_spans(vlm: VLM, span: tuple[int, int]) -> list[tuple[int, int]]:
    """Return as many layers again on either side, as often as they fit among those that are read.

    A layer is read if the language model takes its output, or that of a later one.
    """
    assert vlm.vision is not None
    first, last = span
    count = last + 1 - first
    read = vlm.vision.grid.layers if vlm.feature_layer is None else vlm.feature_layer + 1
    below = range(first - count, -1, -count)
    above = range(last + 1, read + 1 - count, count)
    return [(start, start + count - 1) for start in (*below, *above)]


def _noised(session: Session, spans: Sequence[tuple[int, int]], checks: Checks) -> list[float]:
    """Noise all heads of each span of vision layers together.

    Raises
    ------
    RunError
        If they cannot be changed.
    """
    if why := refused(session.vlm):
        raise RunError(why)
    layers = whole_layers(session.vlm)
    sets = [
        HeadSet(tuple(head for layer in layers[first : last + 1] for head in layer))
        for first, last in spans
    ]
    found: list[float] = normalized(session, noise_vision(session, sets, checks)).tolist()
    return found


def _streams(session: Session, asks: Sequence[Ask], _: Checks) -> dict[str, Figures]:
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


def _cut(session: Session, asks: Sequence[Ask], _: Checks) -> dict[str, Figures]:
    """Cut attention to the region in the with-run, and to random image tokens as many.

    Raises
    ------
    InputError
        If the image is not among the prompt's tokens.
    """
    found = {}
    for ask in asks:
        first, last = ask.layers
        edges, controls = (f"{ask.queries}-region",), session.study.cut.controls
        table = cut_edges(
            session, Cutting(edges, layers=f"{first}-{last}", controls=controls)
        ).table
        lost = table[table["run"] == "with"].groupby("role")["normalized"].mean()
        found[ask.name] = {"region": float(lost["layers"])}
        if "control" in lost:
            found[ask.name]["elsewhere"] = float(lost["control"])
    return found


_HOW: Mapping[Kind, Callable[[Session, Sequence[Ask], Checks], dict[str, Figures]]] = {
    "together": _together,
    "interaction": _interactions,
    "vision heads": _vision_heads,
    "vision span": _vision_spans,
    "stream": _streams,
    "cut": _cut,
}

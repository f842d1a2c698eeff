"""Heads of either tower, changed together: what it does, and how far that is rounding."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from headpatch.core.session import Session, check_vision
from headpatch.engine.interventions import Intervention, never_read
from headpatch.engine.patching import (
    PLAIN_BATCH,
    OnOutcome,
    OnProgress,
    Outcome,
    Read,
    ZMeans,
    patch,
)
from headpatch.engine.selfcheck import Checks
from headpatch.engine.vision import batch_of, patch_vision, run_seen
from headpatch.engine.widen import widen
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Selection, Tower
from headpatch.kinds import REWEIGHTED, averages
from headpatch.models.vlm import VLM
from headpatch.stats.effects import noise_floor, normalized_effect


@dataclass(frozen=True)
class Unread:
    """The free control: vision layers past the last one that reaches the language model.

    `rows` are interventions on nothing else, `largest` is the largest of their effects, in logits:
    0 by construction.
    """

    layers: tuple[int, ...]
    rows: int
    largest: float

    def __add__(self, other: "Unread") -> "Unread":
        """Return the control of both, of the same model."""
        return Unread(self.layers, self.rows + other.rows, max(self.largest, other.largest))


def both(one: Unread | None, other: Unread | None) -> Unread | None:
    """Return the free control of several pairs."""
    return one + other if one and other else one or other


def unread(session: Session, outcomes: Iterable[Outcome]) -> Unread | None:
    """Return what the free control did; None if no outcome is of it alone."""
    vlm = session.vlm
    sizes = [abs(one.effect) for one in outcomes if never_read(vlm, one.intervention.heads)]
    last = vlm.feature_layer
    if not sizes or last is None:
        return None
    layers = range(last + 1, vlm.stack("vision").grid.layers)
    return Unread(tuple(layers), len(sizes), max(sizes))


def has(tower: Tower, heads: Iterable[Head]) -> bool:
    """Whether one of the heads is of this tower."""
    return any(head.tower == tower for head in heads)


def refuse_reweighting(vlm: VLM, kinds: Sequence[str]) -> None:
    """Refuse to re-weight attention to an image that is not among the prompt's tokens."""
    if {*kinds} & {*REWEIGHTED} and vlm.crossing:
        found = f"{REWEIGHTED[0]}: {vlm.name} looks at the image by cross-attention"
        raise InputError("--kinds", found, "a model whose image is among the prompt's tokens")


def check_toward(session: Session, kinds: Sequence[str], toward: str) -> None:
    """Refuse to re-weight attention to a region that is none, or of which no token is known."""
    if {*kinds} & {*REWEIGHTED} and toward == "region":
        if session.pair.region.whole:
            found, hint = "region, and none is named", "--toward image takes all of the image."
            raise InputError("--toward", found, "a region of the picture", hint)
        _ = session.region_tokens


def resolve(
    selection: Selection, vlm: VLM, order: Callable[[], Sequence[Head]] | None = None
) -> tuple[Head, ...]:
    """Return the heads that are meant, of either tower; `order` ranks the language model's."""
    vision = None
    if selection.names_vision:
        check_vision(vlm)
        vision = vlm.stack("vision").grid
    ranking = order() if order is not None and selection.needs_ranking else ()
    return selection.resolve(vlm.lm.grid, ranking, vision)


def intervene(
    session: Session,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    rows: int | None = None,
    read: Read | None = None,
    answers_only: bool = False,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> list[Outcome]:
    """Change language-model heads by widening passes where they are exact, else plainly.

    Attention that is re-weighted in several layers takes plain passes too. `rows` are run together;
    None finds how many. `answers_only`: the outcomes' tokens are of no interest
    (`headpatch.engine.widen.widen`). `finished`: see `headpatch.engine.patching.patch`.
    """
    vlm, base = session.vlm, session.base

    def run(part: Sequence[Intervention], plainly: bool, tell: OnProgress | None) -> list[Outcome]:
        if plainly:
            batch = PLAIN_BATCH if rows is None else rows + 1
            told = tell, on_outcome, read
            return patch(vlm, base, part, means, batch, *told, finished=finished)
        more = tell, on_outcome, read, answers_only, finished
        return widen(vlm, base, part, means, rows, *more)

    if not session.widens or not any(one.follows for one in interventions):
        return run(interventions, not session.widens, on_progress)
    outcomes: dict[Intervention, Outcome] = {}

    def advance(done: int, _: int) -> None:
        if on_progress is not None:
            on_progress(len(outcomes) + done, len(interventions))

    for plainly in (False, True):
        part = [one for one in interventions if one.follows == plainly]
        outcomes.update(zip(part, run(part, plainly, advance), strict=True))
    return [outcomes[one] for one in interventions]


def change(
    session: Session,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    rows: int | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
    read: Read | None = None,
) -> list[Outcome]:
    """Run interventions on heads of one tower or of both; return their outcomes in order.

    Sets of language-model heads go through `intervene`, those with a
    vision head through `headpatch.engine.vision.patch_vision`; each plainly where its fast path is
    not exact. Tables name the word that follows, so the whole vocabulary is unembedded.
    """
    seen = [one for one in interventions if has("vision", one.heads)]
    part = [one for one in interventions if not has("vision", one.heads)]
    outcomes: dict[Intervention, Outcome] = {}

    def advance(done: int, _: int) -> None:
        if on_progress is not None:
            on_progress(len(outcomes) + done, len(interventions))

    if part:
        more = advance, on_outcome, rows, read
        found = intervene(session, part, means, *more, finished=finished)
        outcomes.update(zip(part, found, strict=True))
    if seen:
        vlm, base, batch = session.vlm, session.base, (rows or PLAIN_BATCH - 1) + 1
        told = advance, on_outcome, session.resumes
        found = patch_vision(vlm, base, seen, means, batch, *told, finished=finished, read=read)
        outcomes.update(zip(seen, found, strict=True))
    return [outcomes[one] for one in interventions]


def noise_sets(session: Session, sets: Sequence[HeadSet]) -> Float[np.ndarray, " sets"]:
    """Return the normalized effect of noising each set, by resampling, as the verdict does."""
    positions = session.study.verdict.positions
    asked = [Intervention(one, "resample", "noising", positions) for one in sets]
    return normalized(session, intervene(session, asked, answers_only=True))


def normalized(session: Session, outcomes: Sequence[Outcome]) -> Float[np.ndarray, " outcomes"]:
    """Return the normalized effects of interventions."""
    ends = session.base.ld_with, session.base.ld_without
    lds = np.array([one.ld for one in outcomes], dtype=np.float64)
    noised = [one.intervention.direction == "noising" for one in outcomes]
    necessity = normalized_effect(lds, *ends, "noising")
    return np.where(noised, necessity, normalized_effect(lds, *ends, "denoising"))


def noise_vision(
    session: Session, sets: Sequence[HeadSet], checks: Checks
) -> tuple[list[Outcome], float]:
    """Noise sets of vision heads by resampling, at all tokens of the tower.

    Returns what it did, and how far resumed passes that were used (`checks` say whether they may
    be) lay from whole ones, in logits.
    """
    base, known = run_seen(session.vlm, session.prompt)
    asked = [Intervention(one, "resample", "noising") for one in sets]
    fast = checks.vision(session.vlm, base, session.pair.name)
    batch = batch_of(session.vlm, session.prompt)
    outcomes = patch_vision(session.vlm, base, asked, batch=batch, resumed=fast.exact, known=known)
    return outcomes, fast.worst if fast.exact else 0.0


MANY: Final = PLAIN_BATCH - 1
"""Effects of a run that are held against float32 arithmetic: a batch, with its untouched row."""
FEW: Final = 2
"""The same where a run measures many tokens, pairs or paths, each on its own."""
Changed: TypeAlias = tuple[Sequence[Outcome], ZMeans | None]
"""What changes of heads did, and the mean z that those of kind ``mean`` put in, if it is known."""


def floor_of(
    session: Session, outcomes: Iterable[Outcome], means: ZMeans | None = None, largest: int = MANY
) -> float:
    """Return the noise floor of changed heads, in logits; what it is, `noise_floor` says.

    `outcomes` are of all that was changed, heads patched with their own z among them; `means` was
    put in by kind ``mean``; the `largest` effects are held against float32 arithmetic where weights
    are of low precision.
    """
    (floor,) = floors_of(session, outcomes, means, largest)
    return floor


def floors_of(
    session: Session,
    outcomes: Iterable[Outcome],
    means: ZMeans | None = None,
    largest: int = MANY,
    read: Read | None = None,
) -> tuple[float, ...]:
    """Return the noise floor of LD, then that of each measure that was `read` beside it."""
    outcomes = list(outcomes)
    nothing = [one for one in outcomes if one.intervention.kind == "self"]
    return floors_over(session, nothing, [(outcomes, means)], largest, read)


def floors_over(
    session: Session,
    nothing: Sequence[Outcome],
    changed: Sequence[Changed],
    largest: int = MANY,
    read: Read | None = None,
) -> tuple[float, ...]:
    """Return the noise floors of what several mean z changed; `nothing` are null changes."""
    vision = [_is_vision(one) for outcomes, _ in changed for one in outcomes]
    fast = [0.0]
    if any(vision) and session.fast_vision is not None and session.fast_vision.exact:
        fast.append(session.fast_vision.worst)
    selves = np.array([_figures(one) for one in nothing])
    off = np.zeros(selves.shape[1])
    if not all(vision) and session.widens:
        fast.append(session.widened_off)
        if session.vlm.dtype != torch.float32:
            off = _off(session, changed, largest, read, len(off))
    return tuple(
        noise_floor(own, max(fast), low) for own, low in zip(selves.T, off.tolist(), strict=True)
    )


def _off(
    session: Session, changed: Sequence[Changed], largest: int, read: Read | None, measures: int
) -> Float[np.ndarray, " measures"]:
    """Run the largest effects again in float32 arithmetic; return how far off they were."""
    changes = [
        (one.intervention.kind, one, means)
        for outcomes, means in changed
        for one in outcomes
        if not _is_vision(one)
    ]
    # Those of which the pair alone says what was put in the heads' place; else means, if known.
    several = [each for each in changes if each[0] != "self" and not averages([each[0]])] or [
        each for each in changes if averages([each[0]]) and each[2] is not None
    ]
    chosen = sorted(several, key=lambda each: -abs(each[1].effect))[:largest]
    off = np.zeros(measures)
    for means in {id(means): means for *_, means in chosen}.values():
        low = [one for _, one, own in chosen if own is means]
        asked = [one.intervention for one in low]
        again = patch(session.vlm, session.base, asked, means, read=read)
        for one, other in zip(low, again, strict=True):
            off = np.maximum(off, np.abs(np.subtract(_figures(one), _figures(other))))
    return off


def _figures(one: Outcome) -> tuple[float, ...]:
    return one.effect, *one.read


def _is_vision(one: Outcome) -> bool:
    """Whether a vision head was among those that were changed: then no pass was widened."""
    return "vision" in one.intervention.heads.towers

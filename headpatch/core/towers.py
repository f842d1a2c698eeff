"""Heads of either tower, changed together: by which path, and where."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headpatch.core.session import Session, check_vision, intervene
from headpatch.engine.interventions import Intervention, never_read
from headpatch.engine.patching import PLAIN_BATCH, OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.engine.vision import patch_vision
from headpatch.heads import Head, Selection, Tower
from headpatch.models.vlm import VLM


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


def change(
    session: Session,
    interventions: Sequence[Intervention],
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    rows: int | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> list[Outcome]:
    """Run interventions on heads of one tower or of both; return their outcomes in order.

    Sets of language-model heads go through `headpatch.core.session.intervene`, those with a
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
        found = intervene(session, part, means, advance, on_outcome, rows, finished=finished)
        outcomes.update(zip(part, found, strict=True))
    if seen:
        vlm, base, batch = session.vlm, session.base, (rows or PLAIN_BATCH - 1) + 1
        told = advance, on_outcome, session.resumes
        found = patch_vision(vlm, base, seen, means, batch, *told, finished=finished)
        outcomes.update(zip(seen, found, strict=True))
    return [outcomes[one] for one in interventions]

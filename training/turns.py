"""Which questions a scene is asked: drawn so that no answer can be guessed from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headpatch.pairs.scene import COLOURS, MAIN_PLACES, PLACES, RANGES, SHAPES, Scene
from training.questions import SEEN, UNSEEN, YES_NO_KINDS, answer

KIND_WEIGHTS: Mapping[str, float] = {  # naming a shape is the hardest to learn
    "anything": 0.22,
    "shape": 0.27,
    "colour": 0.13,
    "both": 0.17,
    "what_shape": 0.12,
    "what_colour": 0.09,
}
EMPTY_WHAT = 0.15  # share of What questions about an empty place
WRONG_THING = 0.7  # share of No questions naming a shape or colour where another thing is


@dataclass(frozen=True)
class Turn:
    """One question about one place, and its answer. `yes` is None for a What question."""

    kind: str
    place: str
    question: str
    answer: str
    yes: bool | None


def make_turn(
    rng: np.random.Generator,
    kind: str,
    place: str,
    scene: Scene,
    *,
    yes: bool | None = None,
    shape: str = "",
    colour: str = "",
    wording: tuple[str, str] | None = None,
    unseen: bool = False,
) -> Turn:
    """Ask about `place`, naming words that make the answer `yes` where the scene allows it.

    `wording`, (template, location phrase), is drawn from the trained wordings (or the
    `unseen` ones) if not given.
    """
    thing = scene.at(place)
    if kind in ("shape", "both") and not shape:
        shape = (
            thing.shape
            if thing and yes
            else other_name(rng, SHAPES, thing.shape if thing else None)
        )
    if kind in ("colour", "both") and not colour:
        # A red triangle is refuted by its shape, its colour or both.
        same = thing is not None and (yes or (kind == "both" and rng.random() < 0.5))
        colour = (
            thing.colour
            if thing and same
            else other_name(rng, list(COLOURS), thing.colour if thing else None)
        )
        if kind == "both" and thing and not yes and colour != thing.colour and rng.random() < 0.5:
            shape = thing.shape
    choices = UNSEEN if unseen else SEEN
    template, at = wording or choices[kind, place][rng.integers(len(choices[kind, place]))]
    sentence, truth = answer(kind, place, thing, shape, colour)
    return Turn(kind, place, template.format(at=at, shape=shape, colour=colour), sentence, truth)


def other_name(rng: np.random.Generator, names: Sequence[str], not_this: str | None) -> str:
    """One of `names`, but not this one."""
    rest = [name for name in names if name != not_this]
    return rest[rng.integers(len(rest))]


def twin_turns(
    rng: np.random.Generator, scene: Scene, twin: Scene, place: str, plain: float = 0.0
) -> tuple[Turn, Turn]:
    """One Yes/No question about `place`, where the scenes differ: Yes in one, No in the other.

    `plain`: as in `sample_turns`.
    """
    here, there = scene.at(place), twin.at(place)
    named = here if there is None or (here is not None and rng.random() < 0.5) else there
    if named is None:
        raise ValueError(f"nothing at {place} in either scene")
    names = {  # shape and colour that each kind names
        "anything": ("", ""),
        "shape": (named.shape, ""),
        "colour": ("", named.colour),
        "both": (named.shape, named.colour),
    }
    fitting = [
        kind
        for kind in YES_NO_KINDS
        if answer(kind, place, here, *names[kind])[1] != answer(kind, place, there, *names[kind])[1]
    ]
    weights = np.array([KIND_WEIGHTS[kind] for kind in fitting])
    kind = fitting[rng.choice(len(fitting), p=weights / weights.sum())]
    trained = SEEN[kind, place]
    wording = trained[0] if rng.random() < plain else trained[rng.integers(len(trained))]
    shape, colour = names[kind]
    first, second = (
        make_turn(rng, kind, place, shown, shape=shape, colour=colour, wording=wording)
        for shown in (scene, twin)
    )
    return first, second


def sample_turns(
    rng: np.random.Generator,
    scene: Scene,
    count: int,
    first: Turn | None = None,
    plain: float = 0.0,
) -> list[Turn]:
    """At most `count` turns about different places, in random order.

    Different, so that no answer gives away a later one. Yes and No are equally likely: where full
    places run short, questions about empty ones are thinned out too. `first`: a turn taken for
    certain. `plain`: the chance that a question is put in the first wording of its kind.
    """
    kinds = list(KIND_WEIGHTS)
    weights = np.array(list(KIND_WEIGHTS.values()))
    free = {place: (1.0 if place in MAIN_PLACES else RANGES.edge_weight) for place in PLACES}

    def take(full: bool) -> str | None:
        fitting = [p for p in free if (scene.at(p) is not None) == full]
        if not fitting:
            return None
        chances = np.array([free[p] for p in fitting])
        place = fitting[rng.choice(len(fitting), p=chances / chances.sum())]
        del free[place]
        return place

    def ask(kind: str, place: str, yes: bool | None = None) -> Turn:
        wording = SEEN[kind, place][0] if rng.random() < plain else None
        return make_turn(rng, kind, place, scene, yes=yes, wording=wording)

    turns = []
    if first is not None:
        turns.append(first)
        del free[first.place]
    asked = [
        kinds[i] for i in rng.choice(len(kinds), size=count - len(turns), p=weights / weights.sum())
    ]
    wanted = []  # kind, whether the place must be full, whether the answer is Yes
    for kind in (kind for kind in asked if kind in YES_NO_KINDS):
        yes = bool(rng.random() < 0.5)
        wrong_thing = not yes and kind != "anything" and bool(rng.random() < WRONG_THING)
        wanted.append((kind, yes or wrong_thing, yes))
    filled = sum(scene.at(place) is not None for place in free)
    kept = min(1.0, filled / max(sum(full for _, full, _ in wanted), 1))
    for kind, full, yes in wanted:
        place = take(full) if full or rng.random() < kept else None
        if place is not None:
            turns.append(ask(kind, place, yes))
    for kind in asked:
        if (
            kind not in YES_NO_KINDS
            and (place := take(full=rng.random() >= EMPTY_WHAT)) is not None
        ):
            turns.append(ask(kind, place))
    if not turns and (place := take(full=False)) is not None:
        turns.append(ask("anything", place))
    return [turns[i] for i in rng.permutation(len(turns))]

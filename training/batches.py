"""Training batches: drawn scenes, tokenised conversations and labels, made by worker processes.

A batch is a pure function of (seed, step), so a resumed run sees exactly what an unbroken one would
have. No torch here.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from headpatch.pairs.scene import (
    COLOURS,
    RANGES,
    SHAPES,
    Scene,
    Style,
    Thing,
    colours_on,
    draw,
    mask,
    sample_places,
    sample_scene,
    sample_thing,
)
from training.questions import careless
from training.turns import KIND_WEIGHTS, Turn, other_name, sample_turns, twin_turns

IGNORED = -100  # label of a position without loss
TURNS = 6
CARELESS = 0.05  # share of questions typed without capital and question mark
# Chance of 0..7 things. Many, since only a full place can be compared with a named thing.
THINGS = np.array([1, 2, 3, 4, 6, 7, 4, 3]) / 30
SMALL = 0.25  # share of scenes with things of the least sizes alone: the hardest to name
SMALL_RANGES = replace(RANGES, size=(RANGES.size[0], 0.17))

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """Scenes and conversations of one step.

    pixels uint8 [b, side, side, 3]; tokens int32 [b, length]; labels int32 [b, length], the token
    that follows inside an answer; classes int16 [b, patches], see `thing_class`; at each answer
    position, else IGNORED: seen int16 [b, length], the class of the place that is asked about, and
    kind int16 [b, length], the question's place in KIND_WEIGHTS; verdict bool [b, length], where
    the label is a Yes or a No; names bool [b, length], where it is a shape's or a colour's name.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    seen: np.ndarray
    kind: np.ndarray
    verdict: np.ndarray
    names: np.ndarray


class Batcher:
    """Makes the batch of a step.

    `size`: rows, half of them flipped twins; `length`: tokens a row, image tokens included;
    `plain`: chance of a kind's first wording at the start, and the step at which it is 0.
    """

    def __init__(
        self,
        tokenizer: str,
        seed: int,
        size: int,
        length: int,
        side: int = 168,
        plain: tuple[float, int] = (0.0, 1),
    ) -> None:
        self.plain = plain
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.seed, self.size, self.length, self.side = seed, size, length, side
        self.patches = side // 14
        marks = ("▁ASSISTANT", ":", "</s>", "<pad>", "▁Yes", "▁No")
        names = [f"▁{name}" for name in (*SHAPES, *COLOURS)]
        ids = {token: self.tokenizer.token_to_id(token) for token in (*marks, *names)}
        if split := [token for token, number in ids.items() if number is None]:
            raise ValueError(f"the tokenizer splits {split}: train it on the whole corpus")
        self.assistant, self.colon, self.end, self.pad, self.yes, self.no = map(ids.get, marks)
        self.names = np.array([ids[name] for name in names])

    def __call__(self, step: int) -> Batch:
        """The batch of `step`."""
        rng = np.random.default_rng([self.seed, step])
        rows: list[tuple[Scene, list[Turn]]] = []
        plain = max(self.plain[0] * (1 - step / self.plain[1]), 0.0)
        for _ in range(self.size // 2):
            ranges = SMALL_RANGES if rng.random() < SMALL else RANGES
            count = int(rng.choice(len(THINGS), p=THINGS))
            scene = sample_scene(rng, count=count, ranges=ranges)
            place = sample_places(rng, 1)[0]
            twin = flip(rng, scene, place)
            asked = twin_turns(rng, scene, twin, place, plain)
            for shown, first in zip((scene, twin), asked, strict=True):
                rows.append((shown, sample_turns(rng, shown, TURNS, first, plain)))
        style = Style(self.side, self.side)
        pixels = np.stack([np.asarray(draw(scene, style)) for scene, _ in rows])
        classes = np.stack([patch_classes(scene, self.patches).ravel() for scene, _ in rows])
        tokens = np.full((self.size, self.length), self.pad, dtype=np.int32)
        labels = np.full((self.size, self.length), IGNORED, dtype=np.int32)
        seen, kind = np.full((2, self.size, self.length), IGNORED, dtype=np.int16)
        kinds = list(KIND_WEIGHTS)
        for row, (scene, turns) in enumerate(rows):
            ids = self._encode(rng, turns)
            tokens[row, : len(ids) - 1] = ids[:-1]
            labels[row, : len(ids) - 1] = np.where(self._answers(ids)[1:], ids[1:], IGNORED)
            ends = 1 + np.flatnonzero((ids[:-1] == self.assistant) & (ids[1:] == self.colon))
            for end, turn in zip(ends, turns, strict=False):  # turns that fitted
                seen[row, end] = thing_class(scene.at(turn.place))
                kind[row, end] = kinds.index(turn.kind)
        verdict = (labels == self.yes) | (labels == self.no)
        names = np.isin(labels, self.names)
        return Batch(pixels, tokens, labels, classes, seen, kind, verdict, names)

    def _encode(self, rng: np.random.Generator, turns: list[Turn]) -> np.ndarray:
        """Ids of the conversation, at most `length` + 1: turns that do not fit are left out."""
        asked = [
            (careless(t.question) if rng.random() < CARELESS else t.question, t.answer)
            for t in turns
        ]
        while True:
            ids = self.tokenizer.encode(conversation(asked, self.patches**2)).ids
            if len(ids) <= self.length + 1:
                return np.array(ids)
            asked.pop()

    def _answers(self, ids: np.ndarray) -> np.ndarray:
        """bool, like `ids`: inside an answer, its </s> included."""
        opens = np.zeros(len(ids), dtype=int)
        opens[2:] = (ids[:-2] == self.assistant) & (ids[1:-1] == self.colon)
        closed = np.zeros(len(ids), dtype=int)
        closed[1:] = ids[:-1] == self.end
        return (opens - closed).cumsum() > 0


def conversation(turns: Iterable[tuple[str, str]], image_tokens: int) -> str:
    """The text that chat template and processor make of these turns about one image."""
    text = "".join(f"USER: {question} ASSISTANT: {answer}</s>" for question, answer in turns)
    return text.replace("USER: ", "USER: " + "<image>" * image_tokens + "\n", 1)


def flip(rng: np.random.Generator, scene: Scene, place: str) -> Scene:
    """The scene with one place filled if it was empty, else emptied or its thing exchanged.

    Most exchanged things keep spot and size and change the shape or the colour alone, so that
    nothing but the comparison with a named thing tells the scenes apart.
    """
    thing, chance = scene.at(place), rng.random()
    if thing is None:
        return scene.plus(sample_thing(rng, place, scene.background))
    emptied = scene.without(place)
    if chance < 0.35:
        return emptied
    if chance < 0.75:
        other = replace(thing, shape=other_name(rng, SHAPES, thing.shape))
    elif chance < 0.9:
        other = replace(thing, colour=other_name(rng, colours_on(scene.background), thing.colour))
    else:
        other = sample_thing(rng, place, scene.background)
        if (other.shape, other.colour) == (thing.shape, thing.colour):
            return emptied
    return emptied.plus(other)


def thing_class(thing: Thing | None) -> int:
    """0 for nothing, else 1 + 5 x shape + colour."""
    if thing is None:
        return 0
    return 1 + SHAPES.index(thing.shape) * len(COLOURS) + list(COLOURS).index(thing.colour)


def patch_classes(scene: Scene, patches: int = 12, cover: float = 0.1) -> np.ndarray:
    """The `thing_class` that each patch shows, int16 [patches, patches].

    `cover`: the least part of a patch that the thing covers.
    """
    side = 14
    owner = mask(scene, Style(patches * side, patches * side))
    tiles = owner.reshape(patches, side, patches, side)
    classes = np.zeros((patches, patches), dtype=np.int16)
    for index, thing in enumerate(scene.things):  # apart, so no patch is mostly two of them
        covered = (tiles == index + 1).mean(axis=(1, 3)) >= cover
        classes[covered] = thing_class(thing)
    return classes


def ordered(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 0
) -> Generator[Result, None, None]:
    """`map(work, items)`, in order, by forked processes that stay at most `ahead` results in front.

    Take the first result early: that forks the workers, best before CUDA starts. Without workers it
    is plain `map`.
    """
    if workers == 0:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= max(ahead, 3 * workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

"""Training batches: drawn scenes, tokenised conversations and labels, made by worker processes.

A batch is a pure function of (seed, step), so a resumed run sees exactly what an unbroken one would
have. No torch here.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from headpatch.models.demo.questions import KIND_WEIGHTS, Turn, careless, sample_turns
from headpatch.pairs.scene import (
    COLOURS,
    SHAPES,
    Scene,
    Style,
    draw,
    mask,
    sample_places,
    sample_scene,
    sample_thing,
)

IGNORED = -100  # label of a position without loss
TURNS = 6
CARELESS = 0.05  # share of questions typed without capital and question mark
THINGS = np.arange(1, 7) / 21  # chance of 0..5 things: many, since a Yes needs a full place

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """Scenes and conversations of one step.

    pixels uint8 [b, side, side, 3]; tokens int32 [b, length]; labels int32 [b, length], the token
    that follows inside an answer; classes int64 [b, patches]; verdict bool [b, length], where the
    label is a Yes or a No; names bool [b, length], where it is a shape's or a colour's name.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
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
        kind_weights: Mapping[str, float] = KIND_WEIGHTS,
    ) -> None:
        self.plain, self.kind_weights = plain, kind_weights
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
            scene = sample_scene(rng, count=int(rng.choice(len(THINGS), p=THINGS)))
            place = sample_places(rng, 1)[0]
            for shown in (scene, flip(rng, scene, place)):
                rows.append(
                    (shown, sample_turns(rng, shown, TURNS, place, plain, self.kind_weights))
                )
        style = Style(self.side, self.side)
        pixels = np.stack([np.asarray(draw(scene, style)) for scene, _ in rows])
        classes = np.stack([patch_classes(scene, self.patches).ravel() for scene, _ in rows])
        tokens = np.full((self.size, self.length), self.pad, dtype=np.int32)
        labels = np.full((self.size, self.length), IGNORED, dtype=np.int32)
        for row, (_, turns) in enumerate(rows):
            ids = self._encode(rng, turns)
            tokens[row, : len(ids) - 1] = ids[:-1]
            labels[row, : len(ids) - 1] = np.where(self._answers(ids)[1:], ids[1:], IGNORED)
        verdict = (labels == self.yes) | (labels == self.no)
        return Batch(pixels, tokens, labels, classes, verdict, np.isin(labels, self.names))

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
    """The scene with one place filled if it was empty, else emptied or given another thing."""
    if scene.at(place) is None:
        return scene.plus(sample_thing(rng, place, scene.background))
    emptied = scene.without(place)
    return (
        emptied if rng.random() < 0.6 else emptied.plus(sample_thing(rng, place, scene.background))
    )


def patch_classes(scene: Scene, patches: int = 12, cover: float = 0.1) -> np.ndarray:
    """What each patch shows, int64 [patches, patches]: 0 or 1 + 5 x shape + colour of a thing.

    `cover`: the least part of a patch that the thing covers.
    """
    side = 14
    owner = mask(scene, Style(patches * side, patches * side))
    tiles = owner.reshape(patches, side, patches, side)
    classes = np.zeros((patches, patches), dtype=np.int64)
    for index, thing in enumerate(
        scene.things
    ):  # places do not overlap, so no patch is mostly two things
        covered = (tiles == index + 1).mean(axis=(1, 3)) >= cover
        classes[covered] = (
            1 + SHAPES.index(thing.shape) * len(COLOURS) + list(COLOURS).index(thing.colour)
        )
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

"""The tokens of forced answers, measured one after the other; what is finished is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.cost import widened
from headpatch.core.effects import FEW, floors_of, intervene
from headpatch.core.outlook import Stage
from headpatch.core.ranking import MASSES, masses
from headpatch.core.session import Session
from headpatch.core.store import Store, unit_key
from headpatch.core.study.study import Study
from headpatch.core.teacher_forcing import Answer, Source, check_said, word
from headpatch.engine.answers import measures, say
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, ZMeans
from headpatch.engine.precision import is_low
from headpatch.engine.widen import suffix_start
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.prompt import forced
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.trace.records import MEASURES

Maps: TypeAlias = dict[str, Float[np.ndarray, "layers heads"]]
Way: TypeAlias = tuple[str, Direction]
AnswerMeans: TypeAlias = Sequence[Sequence[Tensor]]
"""What kind ``mean`` puts in a head's place: for each token of an answer and each layer, mean z at
the position from which the token is looked at, ``[heads, head_dim]``."""
CHANGING: Final = "Changing heads, token by token"
"""The stage in which tokens are measured."""
_KEPT: Final = ("rival", "says", "measured", "attention", "effects", "floors")


@dataclass(frozen=True, eq=False)
class Token:
    """One token of a forced answer, and what every head does to it.

    By the names of `MEASURES` (without a rival, the contrast is NaN): `measured` of the untouched
    runs, `effects`, and `floors`, the largest effects of patching a head with its own z.
    `attention` has the figures of `MASSES`; NaN where the image is not in the prompt.
    """

    answer: Answer
    index: int  # its place in the answer, from 0
    rival: str  # what a run would say in its place, see `engine.answers.TokenRuns`; empty if none
    says: tuple[str, str]  # what each run would say: with, without
    measured: dict[str, Float[np.ndarray, " runs"]]
    attention: Maps
    effects: dict[Way, Maps]
    floors: dict[str, float]

    @property
    def source(self) -> Source:
        """Whose answer it is of."""
        return self.answer.source

    @property
    def text(self) -> str:
        """The token as text."""
        return self.answer.words[self.index]

    @property
    def measure(self) -> str:
        """What its heads are sorted by: the contrast, or the logit where there is no rival.

        A logit by itself also moves where all logits move together, which changes no answer.
        """
        return "contrast" if self.rival else "logit"

    @property
    def floor(self) -> float:
        """Noise floor of `measure`."""
        return self.floors[self.measure]

    def to_saved(self) -> dict[str, Any]:
        """Return what was measured, as plain tensors, numbers and texts."""
        return {name: deep(getattr(self, name), np.ndarray, _copied) for name in _KEPT}

    @classmethod
    def from_saved(cls, answer: Answer, index: int, saved: Mapping[str, Any]) -> "Token":
        """Read back, bit for bit, what `to_saved` gave of a token of this answer."""
        return cls(answer, index, **{name: deep(saved[name], Tensor, _array) for name in _KEPT})


def deep(held: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Change all that dicts of dicts hold of a kind."""
    if isinstance(held, dict):
        return {key: deep(value, kind, change) for key, value in held.items()}
    return change(held) if isinstance(held, kind) else held


def _copied(values: Float[np.ndarray, "..."]) -> Tensor:
    return torch.from_numpy(values.copy())


def _array(values: Tensor) -> Float[np.ndarray, "..."]:
    return np.asarray(values.numpy())


class TokenRunner:
    """Measures the tokens of answers, and keeps what is finished.

    `tokens` is how many there are in all, of every pair; progress counts changes of one head.
    """

    def __init__(
        self, study: Study, vlm: VLM, store: Store | None, tokens: int, on_progress: OnProgress
    ) -> None:
        self._study, self._vlm, self._store = study, vlm, store
        self._asked = _asked(study, vlm)
        self._done, self._total = 0, tokens * len(self._asked)
        self._on_progress = on_progress

    def names(self, pair: Pair, answer: Answer, reference: Any) -> list[str]:
        """Name each token of a pair's answer by all that its numbers depend on.

        `reference` names what kind ``mean`` averages over.
        """
        options = self._study.trace
        asked = {
            "trace": (answer.source, answer.ids),
            "kinds": options.kinds,
            "alpha": options.alpha,
            "directions": options.directions,
            "noise": options.noise,
            "reference": reference if averages(options.kinds) else None,
        }
        name = unit_key(self._study, self._vlm, pair, asked)
        return [f"{name}-{index}" for index in range(len(answer.ids))]

    def measured(
        self,
        opened: Callable[[], Session],
        answer: Answer,
        means: AnswerMeans | None,
        names: Sequence[str],
    ) -> Iterator[Token]:
        """Yield what was measured of each token of an answer, in order, by its `names`.

        `opened` gives the pair's session, with positions ``answer``; it is called if a token is not
        finished.
        """
        for index in range(len(answer.ids)):
            saved = None if self._store is None else self._store.get(names[index])
            if saved is not None:
                token = Token.from_saved(answer, index, saved)
            else:
                mean = None if means is None else means[index]
                token = _token(opened(), answer, index, self._asked, mean, self._advance)
                if self._store is not None:
                    self._store.put(names[index], token.to_saved())
            self._done += len(self._asked)
            self._on_progress(self._done, self._total)
            yield token

    def _advance(self, done: int, _: int) -> None:
        self._on_progress(self._done + done, self._total)


def price(study: Study, vlm: VLM, pairs: Pair | Sequence[Entry], tokens: int) -> Stage:
    """Say what so many tokens take, of all answers: both runs, then every head at one position."""
    rows = tokens * len(_asked(study, vlm))
    return Stage(CHANGING, rows, 2 * tokens + widened(study, vlm, pairs, rows))


def _asked(study: Study, vlm: VLM) -> list[Intervention]:
    """Return every head in every way, then the heads of the noise floor."""
    options, heads = study.trace, list(vlm.lm.grid)
    directions = tuple(dict.fromkeys(options.directions))
    every = [
        Intervention(HeadSet.of(head), kind, direction, alpha=options.alpha)
        for kind, direction in product(dict.fromkeys(options.kinds), directions)
        for head in heads
    ]
    rng = np.random.default_rng([study.seed % 2**64, 0x7ACE])  # numpy takes no negatives
    drawn = rng.choice(len(heads), size=min(options.noise, len(heads)), replace=False)
    return every + [
        Intervention(HeadSet.of(heads[index]), "self", direction)
        for direction in directions
        for index in sorted(drawn.tolist())
    ]


def _token(
    session: Session,
    answer: Answer,
    index: int,
    asked: Sequence[Intervention],
    mean: Sequence[Tensor] | None,
    on_progress: OnProgress,
) -> Token:
    vlm, before, token = session.vlm, answer.ids[:index], answer.ids[index]
    suffix = suffix_start(forced(vlm, session.prompt, before).spans, "answer")
    patched = not session.widens or is_low(vlm)  # what the floor is held against is
    keep = Keep(lm_rows=True, z=("lm",) if patched else (), suffix=suffix)
    said = say(vlm, session.prompt, before, token, keep)
    check_said(session, answer, index, said)
    here = replace(session, base=said.base)
    means: ZMeans | None = None
    if mean is not None:  # only the answer position's is ever looked up
        length = max(one.tokens for one in said.base.trace.prefills)
        means = {"lm": [z.expand(length, -1, -1) for z in mean]}
    read = measures(said.base.prompt.answers)
    outcomes = intervene(here, asked, means, on_progress, read=read)
    floors = floors_of(here, outcomes, means, FEW, read)
    effects: dict[Way, list[tuple[float, ...]]] = {}
    for one in outcomes:
        way = one.intervention.kind, one.intervention.direction
        if way[0] != "self":
            effects.setdefault(way, []).append((one.effect, *one.read))
    grid = vlm.lm.grid
    shape = len(MEASURES), -1, grid.heads  # by measure
    maps = {way: grid.spread(np.array(rows).T.reshape(shape)) for way, rows in effects.items()}
    contrast = np.array([said.base.ld_with, said.base.ld_without])
    if said.rival is None:
        contrast = np.full(2, np.nan)
        for values in maps.values():
            values[0] = np.nan
    untouched = contrast, *said.measured.numpy().astype(np.float64).T
    return Token(
        answer,
        index,
        "" if said.rival is None else word(session, said.rival),
        (word(session, said.first[WITH]), word(session, said.first[WITHOUT])),
        dict(zip(MEASURES, untouched, strict=True)),
        masses(here)
        if here.compares
        else dict.fromkeys(MASSES, np.full((grid.layers, grid.heads), np.nan)),
        {way: dict(zip(MEASURES, values, strict=True)) for way, values in maps.items()},
        dict(zip(MEASURES, floors, strict=True)),
    )

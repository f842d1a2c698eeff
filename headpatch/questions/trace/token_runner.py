"""The tokens of forced answers, measured one after the other; what is finished is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headpatch.core.noise_floor import FEW, floors_of
from headpatch.core.ranking import MASSES, masses
from headpatch.core.session import Session, intervene
from headpatch.core.store import Store, unit_key
from headpatch.core.study import Study
from headpatch.core.teacher_forcing import Answer, check_said, word
from headpatch.engine.answers import TokenRuns, measures, say
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, ZMeans
from headpatch.engine.precision import is_low
from headpatch.engine.widen import suffix_start
from headpatch.heads import Grid, HeadSet
from headpatch.kinds import averages
from headpatch.models.prompt import forced
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair
from headpatch.questions.trace.records import MEASURES
from headpatch.questions.trace.token_effects import Maps, Token, Way

AnswerMeans: TypeAlias = Sequence[Sequence[Tensor]]
"""What kind ``mean`` puts in a head's place: for each token of an answer and each layer, mean z at
the position from which the token is looked at, ``[heads, head_dim]``."""


class TokenRunner:
    """Measures the tokens of answers, and keeps what is finished.

    Parameters
    ----------
    store
        Where each token is kept; None keeps none.
    tokens
        How many there are in all, of every pair.
    on_progress
        Called with (done, total), in changes of one head.
    """

    def __init__(
        self,
        study: Study,
        vlm: VLM,
        store: Store | None,
        tokens: int,
        on_progress: OnProgress,
    ) -> None:
        self._study, self._vlm, self._store = study, vlm, store
        self._asked = asked(study, vlm.lm.grid)
        self._done, self._total = 0, tokens * len(self._asked)
        self._on_progress = on_progress

    def names(self, pair: Pair, answer: Answer, reference: Any) -> list[str]:
        """Name each token of a pair's answer by all that its numbers depend on.

        Parameters
        ----------
        reference
            Names what kind ``mean`` averages over.
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
        """Yield what was measured of each token of an answer, in order.

        Parameters
        ----------
        opened
            Gives the pair's session, with positions ``answer``; called if a token is not finished.
        names
            Of `names`; none if nothing is kept.
        """
        for index in range(len(answer.ids)):
            saved = None if self._store is None else self._store.get(names[index])
            if saved is not None:
                found = Token.from_saved(answer, index, saved)
            else:
                found = _token(opened(), answer, index, self._asked, means, self._advance)
                if self._store is not None:
                    self._store.put(names[index], found.to_saved())
            self._done += len(self._asked)
            self._on_progress(self._done, self._total)
            yield found

    def _advance(self, done: int, _: int) -> None:
        self._on_progress(self._done + done, self._total)


def asked(study: Study, grid: Grid) -> list[Intervention]:
    """Return every head in every way, then the heads of the noise floor."""
    options, heads = study.trace, list(grid)
    directions = tuple(dict.fromkeys(options.directions))
    found = [
        Intervention(HeadSet.of(head), kind, direction, alpha=options.alpha)
        for kind, direction in product(dict.fromkeys(options.kinds), directions)
        for head in heads
    ]
    rng = np.random.default_rng([study.seed % 2**64, 0x7ACE])  # numpy takes no negatives
    drawn = rng.choice(len(heads), size=min(options.noise, len(heads)), replace=False)
    return found + [
        Intervention(HeadSet.of(heads[index]), "self", direction)
        for direction in directions
        for index in sorted(drawn.tolist())
    ]


def _token(
    session: Session,
    answer: Answer,
    index: int,
    asked: Sequence[Intervention],
    means: AnswerMeans | None,
    on_progress: OnProgress,
) -> Token:
    before, token = answer.ids[:index], answer.ids[index]
    suffix = suffix_start(forced(session.vlm, session.prompt, before).spans, "answer")
    patched = not session.widens or is_low(session.vlm)  # what the floor is held against is
    keep = Keep(lm_rows=True, z=("lm",) if patched else (), suffix=suffix)
    said = say(session.vlm, session.prompt, before, token, keep)
    check_said(session, answer, index, said)
    here = replace(session, base=said.base)
    known = None if means is None else _everywhere(here, means[index])
    outcomes = intervene(here, asked, known, on_progress, read=measures(token))
    floors = floors_of(here, outcomes, known, FEW, measures(token))
    grid = session.vlm.lm.grid
    effects: dict[Way, list[tuple[float, ...]]] = {}
    for one in outcomes:
        way = one.intervention.kind, one.intervention.direction
        if way[0] != "self":
            effects.setdefault(way, []).append((one.effect, *one.read))
    shape = grid.layers, grid.heads, len(MEASURES)
    maps = {way: np.array(rows).reshape(shape) for way, rows in effects.items()}
    if said.rival is None:
        for values in maps.values():
            values[..., 0] = np.nan
    return Token(
        answer,
        index,
        "" if said.rival is None else word(session, said.rival),
        (word(session, said.first[WITH]), word(session, said.first[WITHOUT])),
        _measured(said),
        _attention(here),
        {way: _named(values) for way, values in maps.items()},
        dict(zip(MEASURES, floors, strict=True)),
    )


def _everywhere(session: Session, layers: Sequence[Tensor]) -> ZMeans:
    """Return mean z as interventions take it: only the answer position's is ever looked up."""
    length = session.prompt.spans.length
    return {"lm": [z.expand(length, -1, -1) for z in layers]}


def _measured(said: TokenRuns) -> dict[str, Float[np.ndarray, " runs"]]:
    contrast = np.array([said.base.ld_with, said.base.ld_without])
    logit, logprob = said.measured.numpy().astype(np.float64).T
    none = np.full(2, np.nan)
    values = none if said.rival is None else contrast, logit, logprob
    return dict(zip(MEASURES, values, strict=True))


def _named(values: Float[np.ndarray, "layers heads measures"]) -> Maps:
    return {name: values[..., place] for place, name in enumerate(MEASURES)}


def _attention(session: Session) -> Maps:
    """Each head's attention to the region from this token's answer position."""
    grid = session.vlm.lm.grid
    if not session.compares:
        return {name: np.full((grid.layers, grid.heads), np.nan) for name in MASSES}
    return masses(session)

"""The heads behind each token of an answer: where they look, and what they do to that token.

Both runs are made to say the same answer (teacher forcing). Token t is looked at from the position
before it, where the model has read the prompt and the tokens before t: that is the answer position
of this token. There every head's z is replaced by the other run's, one head at a time, and the
token's logit is watched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from headpatch.analyses.answer_token import MEASURES, Maps, Token, Way, rows, summary
from headpatch.analyses.forced import Answer, check_said, given_answer, own_answers, word
from headpatch.analyses.rank import MASSES, masses
from headpatch.analyses.session import Session, intervene
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.trace import Said, measures, say
from headpatch.heads import HeadSet
from headpatch.measures.stats import noise_floor

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""


@dataclass(frozen=True, eq=False)
class Traced:
    """What `trace` found.

    Attributes
    ----------
    tokens
        Of every forced answer, in order.
    own
        What each run says by itself: with, without.
    """

    session: Session
    tokens: tuple[Token, ...]
    own: tuple[Answer, Answer]

    @property
    def noise_floor(self) -> float:
        """Largest effect on any token's contrast or logit of patching a head with its own z."""
        return max(one.floors[one.measure] for one in self.tokens)

    def table(self) -> pd.DataFrame:
        """One row for each token × kind × direction × head: the columns of ``trace.csv``."""
        return pd.concat(
            [rows(self.session.pair.name, one, way) for one in self.tokens for way in one.effects],
            ignore_index=True,
        )

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each token: its logits, first heads and correlations."""
        return [summary(one, self.session.study.trace.top) for one in self.tokens]

    def saved(self) -> Saved:
        """Return what ``trace.pt`` holds; a tensor's first dimension is the tokens."""
        tokens = self.tokens
        found: Saved = {
            "tokens": [one.text for one in tokens],
            "token_ids": torch.tensor([one.answer.ids[one.index] for one in tokens]),
            "index": torch.tensor([one.index for one in tokens]),
            "forced": [one.answer.source for one in tokens],
            "rivals": [one.rival for one in tokens],
            "measures": [one.measure for one in tokens],
            "says_with": [one.says[WITH] for one in tokens],
            "says_without": [one.says[WITHOUT] for one in tokens],
        }
        for name in MEASURES:
            runs = torch.tensor(np.stack([one.measured[name] for one in tokens])).float()
            found[f"{name}_with"], found[f"{name}_without"] = runs.unbind(1)
            found[f"{name}_floor"] = torch.tensor([one.floors[name] for one in tokens])
        for name in MASSES:
            found[name] = torch.tensor(np.stack([one.attention[name] for one in tokens])).float()
        for name in MEASURES:
            found[f"effect_{name}"] = {
                "_".join(way): torch.tensor(
                    np.stack([one.effects[way][name] for one in tokens])
                ).float()
                for way in tokens[0].effects
            }
        session = self.session
        return found | {
            "answer_with": self.own[WITH].text,
            "answer_without": self.own[WITHOUT].text,
            "noise_floor": self.noise_floor,
            "valid": session.valid,
            "question": session.pair.question,
            "region_name": session.pair.region.name,
        }


def trace(session: Session, on_progress: OnProgress | None = None) -> Traced:
    """Trace the study's answer, or answers, through every head of the language model.

    Parameters
    ----------
    session
        Opened with positions ``answer``.

    Raises
    ------
    InputError
        If the study's own answer cannot stand after the prompt.
    RunError
        If a run made to say its own answer would not say it.
    """
    options = session.study.trace
    own = own_answers(session, options.tokens)
    chosen = {"with": own[:1], "without": own[1:], "both": own}[options.forced]
    if options.answer is not None:
        chosen = (given_answer(session, options.answer, options.tokens),)
    asked = _asked(session)
    total = sum(len(answer.ids) for answer in chosen) * len(asked)
    found: list[Token] = []
    for answer in chosen:
        for index in range(len(answer.ids)):
            start = len(found) * len(asked)

            def advance(done: int, _: int, start: int = start) -> None:
                if on_progress:
                    on_progress(start + done, total)

            found.append(_token(session, answer, index, asked, advance))
    return Traced(session, tuple(found), own)


def _asked(session: Session) -> list[Intervention]:
    """Every head in every way, then the heads of the noise floor."""
    options, grid = session.study.trace, list(session.vlm.lm.grid)
    directions = tuple(dict.fromkeys(options.directions))
    asked = [
        Intervention(HeadSet.of(head), kind, direction)
        for kind, direction in product(dict.fromkeys(options.kinds), directions)
        for head in grid
    ]
    rng = np.random.default_rng([session.study.seed % 2**64, 0x7ACE])  # numpy takes no negatives
    drawn = rng.choice(len(grid), size=min(options.noise, len(grid)), replace=False)
    return asked + [
        Intervention(HeadSet.of(grid[index]), "self", direction)
        for direction in directions
        for index in sorted(drawn.tolist())
    ]


def _token(
    session: Session,
    answer: Answer,
    index: int,
    asked: Sequence[Intervention],
    on_progress: OnProgress,
) -> Token:
    suffix = session.prompt.spans.answer + index
    keep = Keep(lm_rows=True, z=() if session.widens else ("lm",), suffix=suffix)
    before, token = answer.ids[:index], answer.ids[index]
    said = say(session.vlm, session.prompt, before, token, keep)
    check_said(session, answer, index, said)
    here = replace(session, base=said.base)
    outcomes = intervene(here, asked, on_progress=on_progress, read=measures(token))
    grid = session.vlm.lm.grid
    effects: dict[Way, list[tuple[float, ...]]] = {}
    selves: list[tuple[float, ...]] = []
    for one in outcomes:
        figures = (one.effect, *one.read)
        way = one.intervention.kind, one.intervention.direction
        (selves if way[0] == "self" else effects.setdefault(way, [])).append(figures)
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
        {name: noise_floor([row[place] for row in selves]) for place, name in enumerate(MEASURES)},
    )


def _measured(said: Said) -> dict[str, Float[np.ndarray, " runs"]]:
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
    if len(session.prompt.patches.boxes) == 0:
        return {name: np.full((grid.layers, grid.heads), np.nan) for name in MASSES}
    return masses(session)

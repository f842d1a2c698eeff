"""From a token of the answer back to the patches of the picture, and whether those patches matter.

Two maps say where a token's weight comes from: attention rollout and gradient-weighted relevance
(see `headpatch.engine.rollout`), each read at the image tokens (through the language model alone)
and at the patches (on through the vision tower). A map is a claim; the check of it is an experiment
(see `headpatch.questions.rollout.perturbation`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.teacher_forcing import (
    Answer,
    check_said,
    check_token,
    given_answer,
    own_answers,
    word,
)
from headpatch.engine.answers import TokenRuns, say
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.perturb import pictures
from headpatch.engine.rollout import Step, follow, record_attention, relevance, rollout
from headpatch.errors import InputError
from headpatch.questions.rollout.charts import regions, shares
from headpatch.questions.rollout.perturbation import RUNS, Check, check_maps
from headpatch.questions.rollout.view import title

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""

METHODS: Mapping[str, Step] = {"rollout": rollout, "relevance": relevance}
STAGES = ("tokens", "patches")
_KEPT_PIXELS = 672  # longest side of the pictures kept beside the results


@dataclass(frozen=True, eq=False)
class Map:
    """One method's weights over the patches, read at one stage.

    Attributes
    ----------
    stage
        ``tokens``: as the image tokens enter the language model; ``patches``: as the patches
        enter the vision tower.
    values
        Not negative.
    elsewhere
        What each run has at this stage on no patch: on the text's tokens, or on a class token,
        as a share of all of it.
    """

    method: str
    stage: str
    values: Float[np.ndarray, "runs patches"]
    elsewhere: Float[np.ndarray, " runs"]

    @property
    def name(self) -> str:
        """Return ``rollout_patches`` and such."""
        return f"{self.method}_{self.stage}"

    @property
    def shares(self) -> Float[np.ndarray, "runs patches"]:
        """Values as shares of the patches' sum; 0 where nothing comes from them."""
        return shares(self.values)


@dataclass(frozen=True, eq=False, repr=False)
class TokenMaps:
    """Where a token of one pair's answer comes from.

    Attributes
    ----------
    said
        The token, its rival, and both untouched runs.
    maps
        In the order of `METHODS`, each stage by stage.
    check
        None where the two runs would say the same token, or the model does not take a picture
        patch by patch.
    unchecked
        Why there is no check, if so.
    """

    session: Session
    answer: Answer
    index: int
    said: TokenRuns
    maps: tuple[Map, ...]
    check: Check | None
    unchecked: str = ""

    @property
    def token(self) -> str:
        """The token as text."""
        return self.answer.words[self.index]

    @property
    def rival(self) -> str:
        """What a run would say instead; empty if none."""
        return "" if self.said.rival is None else word(self.session, self.said.rival)

    @property
    def title(self) -> str:
        """Say which token it is, and LD of both runs."""
        return title(self._facts())

    def table(self) -> pd.DataFrame:
        """One row for each map × run × patch: the columns of ``rollout.csv``."""
        boxes, inside = self.session.prompt.patches.boxes, self.session.region_tokens
        columns = [
            {
                "pair": self.session.pair.name,
                "token": self.token,
                "run": run,
                "method": token_map.method,
                "stage": token_map.stage,
                "patch": np.arange(len(boxes)),
                **dict(zip(("left", "top", "right", "bottom"), boxes.T, strict=True)),
                "in_region": inside,
                "value": token_map.values[place],
                "share": token_map.shares[place],
            }
            for token_map in self.maps
            for place, run in RUNS.items()
        ]
        return pd.concat(map(pd.DataFrame, columns), ignore_index=True)

    def regions(self) -> list[dict[str, Any]]:
        """Return the share of each map that falls on the region, and what falls on no patch."""
        values = {one.name: one.values for one in self.maps}
        elsewhere = {one.name: one.elsewhere for one in self.maps}
        return regions(values, elsewhere, self.session.region_tokens)

    def saved(self) -> Saved:
        """Return what ``rollout.pt`` holds."""
        session = self.session
        return {
            "maps": {one.name: torch.tensor(one.values).float() for one in self.maps},
            "elsewhere": {one.name: torch.tensor(one.elsewhere).float() for one in self.maps},
            "boxes": torch.tensor(session.prompt.patches.boxes).float(),
            "grid": torch.tensor(session.prompt.patches.grid),
            "region_box": torch.tensor(session.pair.region.box),
            "in_region": torch.tensor(session.region_tokens),
            "image_with": _small(session.pair.with_image),
            "image_without": _small(session.pair.without_image),
            "fill": session.study.rollout.fill,
            "unchecked": self.unchecked,
            "valid": session.valid,
            "question": session.pair.question,
            "region_name": session.pair.region.name,
            **self._facts(),
        }

    def _facts(self) -> Saved:
        return {
            "answer": self.answer.text,
            "forced": self.answer.source,
            "index": self.index,
            "token": self.token,
            "rival": self.rival,
            "base_with": self.said.base.ld_with,
            "base_without": self.said.base.ld_without,
        }


def _small(image: Any) -> Tensor:
    small = image.copy()
    small.thumbnail((_KEPT_PIXELS, _KEPT_PIXELS))
    return torch.from_numpy(np.array(small))


def roll_out(session: Session, on_progress: OnProgress | None = None) -> TokenMaps:
    """Map where a token of the study's answer comes from, and check the maps."""
    return checked(mapped(session), on_progress)


def mapped(session: Session) -> TokenMaps:
    """Map where a token of the study's answer comes from; nothing is checked."""
    options = session.study.rollout
    if session.prompt.spans.crossed:
        raise InputError(
            "--model",
            f"{session.vlm.name} looks at the image by cross-attention",
            "a model whose image is among the prompt's tokens",
        )
    _ = session.region_tokens  # refused here, before any work
    if options.answer is None:
        present, absent = own_answers(session, options.tokens)
        answer = present if options.forced == "with" else absent
    else:
        answer = given_answer(session, options.answer, options.tokens)
    check_token(answer, options.token)
    token = answer.ids[options.token]
    said = say(session.vlm, session.prompt, answer.ids[: options.token], token)
    check_said(session, answer, options.token, said)
    return TokenMaps(session, answer, options.token, said, tuple(_maps(session, said)), None)


def checked(found: TokenMaps, on_progress: OnProgress | None = None) -> TokenMaps:
    """Check maps, or say why that cannot be."""
    session, said = found.session, found.said
    try:
        shown = pictures(session.vlm, said.base.prompt)
    except InputError as error:
        return replace(found, unchecked=str(error))
    if said.first[WITH] == said.first[WITHOUT] or said.base.ld_with == said.base.ld_without:
        same = word(session, said.first[WITH])
        return replace(found, unchecked=f"both runs would say {same!r} here")
    values = {one.name: one.values for one in found.maps}
    return replace(found, check=check_maps(session, said, values, shown, on_progress))


def _maps(session: Session, said: TokenRuns) -> Iterator[Map]:
    """Follow the token back by both methods, to both stages."""
    prompt = said.base.prompt

    def target(logits: Float[Tensor, "runs vocabulary"]) -> Float[Tensor, " runs"]:
        own, rival = prompt.answers.logits(logits)
        return own if said.rival is None else own - rival

    looked = record_attention(session.vlm, prompt, target)
    for method, step in METHODS.items():
        flow = follow(looked, prompt, step)
        tokens, placed = flow.tokens.double(), prompt.image_positions.cpu()
        yield _map(method, STAGES[0], tokens, placed)
        if flow.patches is not None:
            patches = flow.patches.double()
            yield _map(method, STAGES[1], patches, prompt.placed_in(patches.shape[1]))


def _map(method: str, stage: str, weights: Float[Tensor, "runs tokens"], placed: Tensor) -> Map:
    values = weights[:, placed]
    elsewhere = 1 - values.sum(1) / weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)
    return Map(method, stage, values.numpy(), elsewhere.numpy())

"""Single pictures with a labelled answer, opened: what pairs of pictures are elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import ImageOps
from torch import Tensor

from headpatch.core.session import Session, region_positions, towers_of
from headpatch.core.share import ALONE, Share
from headpatch.core.study.study import Study
from headpatch.engine.answers import read_answers
from headpatch.engine.control import refuse_uncontrolled
from headpatch.engine.forward import Keep, forward, joined
from headpatch.engine.patching import Baseline, Read
from headpatch.engine.selfcheck import Checks
from headpatch.engine.widen import suffix_start
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.prompt import OF_TOKENS, encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.models.wording import continuations, find_answers, text_after, variants_of
from headpatch.pairs.labelled import Labelled, Refused
from headpatch.text import spelling


@dataclass(frozen=True, eq=False)
class Rows:
    """A study's model, and labelled pictures to ask it about.

    `refused` are rows of the table that cannot be asked; `ranking` orders the heads by attention,
    where the rows allow it.
    """

    study: Study
    vlm: VLM
    entries: tuple[Labelled, ...]
    refused: tuple[Refused, ...] = ()
    of_pairs: bool = False  # whether they are both runs of pairs
    ranking: Callable[[], Sequence[Head]] | None = None
    share: Share = ALONE
    keep: Path | None = None


def open_row(
    study: Study,
    vlm: VLM,
    row: Labelled,
    positions: Positions,
    checks: Checks,
    widens: bool = True,
    vision: bool = False,
) -> Session:
    """Run a row's picture untouched, and its twin's where it has one: the other run of a pair.

    Rows are run one by one: in a batch a row's low-precision logits would hang on its neighbours,
    which differ where a run is resumed or divided, and what follows shares nothing between rows.
    A row without a twin is its own other run. `widens`: widening passes will be used, and are
    compared with plain ones; `vision`: heads of the vision tower will be changed, too. An
    `InputError` if the row cannot be asked.
    """
    pair, how = row.pair(), (positions, widens, vision)
    study = study.of_pair(pair)
    own = _run(study, vlm, row, pair.with_image, *how)
    other = own if row.twin is None else _run(study, vlm, row.twin, pair.without_image, *how)
    base = _joined(own, other)
    base = replace(base, region=region_positions(base.prompt, pair))

    def mirrored() -> Baseline:
        return _joined(own, _run(study, vlm, row, ImageOps.mirror(pair.with_image), *how))

    tokenizer: Any = vlm.processor.tokenizer
    readings = read_answers(base.trace.logits, base.prompt.answers, _asked(study, row), tokenizer)
    refuse_uncontrolled(vlm, base, "lm", positions)
    instead = mirrored if other is own else None
    fast = checks.lm(vlm, base, positions, row.name, instead) if widens else None
    fast_vision = None
    if vision:
        refuse_uncontrolled(vlm, base, "vision")
        fast_vision = checks.vision(vlm, base, row.name, instead)
    return Session(study, vlm, pair, base, readings, fast, positions, fast_vision)


def _asked(study: Study, row: Labelled) -> tuple[str, str]:
    """Return the two answers between which LD is taken: choices, or the answer and another."""
    if row.choices:
        return row.choices[0], row.choices[1]
    yes, no = study.answers
    if not row.answer:
        return study.answers
    return row.answer, no if spelling(row.answer) == spelling(yes) else yes


def _run(
    study: Study,
    vlm: VLM,
    row: Labelled,
    image: Any,
    positions: Positions,
    widens: bool,
    vision: bool,
) -> Baseline:
    # A generated text need not begin with a token of its own for each answer.
    answers = _asked(study, row) if widens else study.answers
    prompt = encode(vlm, [image], row.question, answers, study.framing, study.sum_variants)
    suffix = suffix_start(prompt.spans, positions) if widens else None
    trace = forward(
        vlm, prompt, keep=Keep(z=towers_of(positions, vision), suffix=suffix), exact=True
    )
    ld = float(trace.ld(prompt)[0])
    return Baseline(prompt, trace, ld, ld)


def _joined(own: Baseline, other: Baseline) -> Baseline:
    """Put two runs side by side, as a pair's."""
    sides = own.prompt, other.prompt
    shapes = [
        {key: one.shape for key, one in side.inputs.items() if key not in OF_TOKENS}
        for side in sides
    ]
    if shapes[0] != shapes[1] or not torch.equal(sides[0].spans.image, sides[1].spans.image):
        found = "the image lies at other tokens in the pair's other run"
        raise InputError("--kinds", found, "the image at the same tokens, for resample")
    prompt = replace(own.prompt, runs=2)
    if sides[0].spans.length != sides[1].spans.length:
        prompt = replace(prompt, each=sides)
    else:
        inputs = {key: torch.cat([one, sides[1].inputs[key]]) for key, one in prompt.inputs.items()}
        prompt = replace(prompt, inputs=inputs)
    return Baseline(prompt, joined([own.trace, other.trace]), own.ld_with, other.ld_with)


Choices = tuple[tuple[int, ...], ...]
"""The first token of each choice, and, where they are summed, its variants."""


def choice_tokens(session: Session, row: Labelled) -> Choices:
    """Find a row's choices among the tokens; an `InputError` if one is not a single token."""
    vlm, answers = session.vlm, session.prompt.answers
    found = [answers.yes, answers.no][: len(row.choices)]
    tokenizer: Any = vlm.processor.tokenizer
    before = session.prompt.text + vlm.family.suffix
    for other in row.choices[2:]:
        both = continuations(vlm, row.question, (row.choices[0], other), before)
        found.append(find_answers(tokenizer, before, both).no)
    if len(set(found)) < len(found):
        named = ", ".join(row.choices)
        raise InputError("choices", f"two of {named} begin alike", "choices that differ at once")
    if not session.study.sum_variants:
        return tuple((token,) for token in found)
    return tuple((token, *variants_of(vlm, token)) for token in found)


def read_choices(choices: Choices) -> Read:
    """Give what reads the margin of the likeliest token, then each choice's logit, from logits."""

    def read(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows measures"]:
        two = logits.topk(2, -1).values
        own = [torch.logsumexp(logits[:, list(ids)], -1) for ids in choices]
        return torch.stack([two[:, 0] - two[:, 1], *own], 1)

    return read


def token_text(session: Session, token: int) -> str:
    """Return a token as it reads after the prompt, without the space around it."""
    tokenizer: Any = session.vlm.processor.tokenizer
    return text_after(tokenizer, session.prompt.answers.yes, [token]).strip()


def counted(rows: Rows) -> Mapping[str, int]:
    """How many rows there are, their scenes, and rows that could not be asked."""
    scenes = len({one.scene for one in rows.entries})
    return {"rows": len(rows.entries), "scenes": scenes, "refused": len(rows.refused)}

"""What headpatch can and cannot control in a model, found by trying."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, get_args

import numpy as np
import torch

from headpatch.core.ask import ask, origin
from headpatch.core.cost import cost, plan
from headpatch.core.effects import change, floor_of
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.session import Session, open_session, run_both
from headpatch.core.study.study import Study
from headpatch.engine.control import HEADS_OF, uncontrolled, why_not
from headpatch.engine.forward import forward
from headpatch.engine.interventions import (
    Direction,
    Intervention,
    VisionPositions,
    refused,
    vision_positions,
)
from headpatch.engine.selfcheck import Check, check_vision
from headpatch.errors import InputError
from headpatch.heads import HeadSet, Tower
from headpatch.kinds import averages
from headpatch.models.prompt import as_run
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM, Stack
from headpatch.questions.check import VERB
from headpatch.questions.check.limits import limits

SCOPES: tuple[Positions, ...] = get_args(Positions)
VISION_SCOPES: tuple[VisionPositions, ...] = get_args(VisionPositions)
_SELVES: dict[Tower, int] = {"lm": 8, "vision": 3}  # heads patched with their own z
_TIMED = 3  # forward passes


@dataclass(frozen=True)
class Scope:
    """How heads of one tower are changed at one scope of positions.

    The fast path is the widening pass; of the vision tower, passes that are resumed at the layer
    that is changed. Where it is not exact, every row is a plain pass.
    """

    tokens: int  # positions that are changed
    suffix: int  # from the first of them on, computed anew for each row; of the vision tower, all
    exact: bool  # whether the fast path agrees with the plain one
    worst: float  # largest difference between the two, in logits; infinite if the fast cannot run
    allowed: float  # what rounding explains of it
    reason: str  # why it is not exact, where that is known
    noise_floor: float  # in logits
    passes_once: float  # cost in forward passes of every head in one kind and direction
    passes: float  # in those of the study's sweep, with its noise floor and reference pairs


Scopes: TypeAlias = dict[str, Scope | str]


@dataclass(frozen=True, eq=False, repr=False)
class Report(Result):
    """What a model lets headpatch do."""

    facts: dict[str, Any]  # about the model and the prompt: numbers, texts, and dicts of them
    scopes: Scopes  # of the language model, by name; a text says why a scope is not there
    vision: Scopes  # of the vision tower; empty where its heads cannot be changed
    seconds: float  # of one forward pass of one run: the median of `_TIMED`
    limits: tuple[str, ...]  # what cannot be done, a sentence each
    view: tuple[Any, ...] = ()  # both pictures, the boxes of their image tokens, and the region

    def files(self) -> Files:
        """Return what is shown; none of it is written."""
        sweep = self.origin.study.sweep
        each = {"kind": len(set(sweep.kinds)), "direction": len(set(sweep.directions))}
        ways = " × ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in each.items())
        return {
            "check": {
                **self.json(),
                "ways": ways,
                "means": averages(sweep.kinds),
                "view": self.view,
            }
        }

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints."""
        positions, vision = (
            {name: one if isinstance(one, str) else asdict(one) for name, one in scopes.items()}
            for scopes in (self.scopes, self.vision)
        )
        return {
            **self.facts,
            "seconds_forward": self.seconds,
            "positions": positions,
            "vision_positions": vision,
            "limits": list(self.limits),
        }


class Tried(Question[Report]):
    """Tries every scope of a model, on a pair that need not flip."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Open pictures whose answers are wrong, too."""
        return Needs(forced=True)

    def answer(self, opened: Opened, call: Call) -> Report:
        """Try every scope of positions, of either tower."""
        assert isinstance(opened, Session)
        study, vlm, session = opened.study, opened.vlm, opened
        scopes: Scopes = {}
        vision: Scopes = {}
        lost: dict[Tower, str] = {}
        total = len(SCOPES) + (0 if refused(vlm) else len(VISION_SCOPES))
        with call.stages("Trying positions") as advance:
            for done, positions in enumerate(SCOPES):
                advance(done, total)
                asked = _changed(study, sweep={"positions": positions, "tower": "lm"})
                try:
                    session = open_session(asked, vlm, positions, opened.pair)
                    scopes[positions] = _scope(session, positions)
                except InputError as error:
                    if error.argument not in ("--positions", HEADS_OF["lm"]):
                        raise
                    if error.argument == HEADS_OF["lm"]:
                        lost["lm"] = error.found
                    scopes[positions] = error.found
            if not refused(vlm):
                seeing = run_both(study, vlm, session.pair, vision=True)
                if why := why_not(vlm, seeing.base, "vision"):
                    lost["vision"] = uncontrolled(vlm, why)
                for done, tokens in enumerate(VISION_SCOPES, start=len(SCOPES)):
                    advance(done, total)
                    vision[tokens] = lost.get("vision") or _vision_scope(seeing, tokens)
        cannot = (
            *(f"{HEADS_OF[tower].capitalize()}: {why}." for tower, why in lost.items()),
            *limits(session),
            *_slow(scopes, "Positions {}: the widening pass"),
            *_slow(vision, "Vision tower, {} tokens: the resumed pass"),
        )
        seconds = _seconds(session)
        facts, made = _facts(session), origin(VERB, opened)
        return Report(facts, scopes, vision, seconds, cannot, _view(session), origin=made)


QUESTION = Tried()


def _view(session: Session) -> tuple[Any, ...]:
    images = [np.asarray(image.convert("RGB")) for image in session.pair.images]
    return images, np.asarray(session.prompt.patches.boxes, np.float64), session.pair.region.box


def _changed(study: Study, **sections: Mapping[str, str]) -> Study:
    """Change options, whether or not they go together with others."""
    update = {name: getattr(study, name).model_copy(update=new) for name, new in sections.items()}
    return study.model_copy(update=update)


def check(session: Session | Study, on_progress: Progress = None) -> Report:
    """Say what headpatch can and cannot control in a model, exactly, and at what cost.

    Parameters
    ----------
    session
        Of `headpatch.open_session`, whose answers need not flip; or a study, which is opened.

    Returns
    -------
    Report
        ``scopes`` and ``vision`` by name of the positions, ``facts``, and ``limits`` in words.

    Raises
    ------
    InputError
        If the study's input is bad.

    Examples
    --------
    >>> checked = hp.check(session)
    >>> checked.scopes["answer"].exact
    True
    """
    if isinstance(session, Study):
        session = open_session(session.override({"force": True}))
    return ask(QUESTION, session, {}, on_progress)


def _seconds(session: Session) -> float:
    took, prompt = [], session.prompt.select(0)
    for _ in range(_TIMED):
        start = time.perf_counter()
        forward(session.vlm, prompt, exact=True)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _scope(session: Session, positions: Positions) -> Scope:
    assert session.fast is not None
    prefill = session.base.trace.prefills[0]
    tokens = len(session.prompt.spans.positions(positions))
    return _tried(session, "lm", session.fast, (tokens, prefill.tokens - prefill.start))


def _vision_scope(session: Session, tokens: VisionPositions) -> Scope | str:
    """Try a scope of the tower's tokens; say so if there are none such."""
    study = _changed(session.study, sweep={"tower": "vision"}, vision={"positions": tokens})
    try:
        changed = vision_positions(session.vlm, session.base, tokens)
    except InputError as error:
        return error.found
    fast = check_vision(session.vlm, session.base, tokens)
    session = replace(session, study=study, fast_vision=fast)
    whole = session.base.trace.z["vision"][0].shape[1]
    return _tried(session, "vision", fast, (len(changed), whole))


def _tried(session: Session, tower: Tower, fast: Check, tokens: tuple[int, int]) -> Scope:
    """Measure the noise floor of the study's scope, and what sweeps cost there."""
    places = session.study.sweep.positions, session.study.vision.positions
    heads = list(session.vlm.stack(tower).grid)
    rng = np.random.default_rng(session.study.seed % 2**64)
    drawn = rng.choice(len(heads), size=min(_SELVES[tower], len(heads)), replace=False)
    selves = [
        Intervention(HeadSet.of(heads[index]), "self", direction, *places)
        for direction in get_args(Direction)
        for index in drawn
    ]
    once = [Intervention(HeadSet.of(head), "zero", "noising", *places) for head in heads]
    job = plan(session, tower=tower)
    return Scope(
        *tokens,
        exact=fast.exact,
        worst=fast.worst,
        allowed=fast.allowed,
        reason=fast.reason,
        noise_floor=floor_of(session, change(session, selves)),
        passes_once=cost(session, once, job.size, tower),
        passes=job.total,
    )


def _facts(session: Session) -> dict[str, Any]:
    vlm, prompt = session.vlm, session.prompt
    tokens, variants = (prompt.answers.yes, prompt.answers.no), prompt.answers.variants or ((), ())
    text_of = vlm.processor.tokenizer.convert_ids_to_tokens
    return {
        "model": vlm.name,
        "family": str(vlm.model.config.model_type),
        "class": type(vlm.model).__name__,
        "parameters": int(vlm.model.num_parameters()),  # two to a byte, where 4 bits are stored
        "weights": vlm.fingerprint,
        **({"unused_weights": vlm.unused} if vlm.unused else {}),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "device": str(vlm.device),
        "threads": torch.get_num_threads(),
        "language_model": _language_model(vlm),
        "vision_tower": None if vlm.vision is None else _vision(vlm, vlm.vision),
        "answers": {
            name: {
                "id": token,
                "text": text_of(token),
                **(
                    {"summed_with": dict(zip(text_of(list(more)), more, strict=True))}
                    if more
                    else {}
                ),
            }
            for name, token, more in zip(session.study.answers, tokens, variants, strict=True)
        },
        "prompt": as_run(vlm, prompt),
        "prompt_tokens": prompt.spans.length,
        "image_tokens": len(prompt.spans.image),
        "image_grid": list(map(int, prompt.patches.grid)),
        "question": session.pair.question,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "answer_probabilities": session.answer_probabilities,
        "valid": session.valid,
        "invalid_because": list(session.faults),
    }


def _language_model(vlm: VLM) -> dict[str, Any]:
    config = vlm.model.config.get_text_config()
    # Of Gemma 4, whose layers differ, most layers' number; it refuses to say one by its attribute.
    key_heads = int(config.to_dict().get("num_key_value_heads") or vlm.lm.grid.heads)
    return {
        **_stack(vlm.lm),
        "key_value_heads": key_heads,
        "grouped_query": key_heads != vlm.lm.grid.heads,
        "hidden_size": int(config.hidden_size),
    }


def _vision(vlm: VLM, tower: Stack) -> dict[str, Any]:
    own = {"class_token": vlm.family.class_token, "feature_layer": vlm.feature_layer}
    return {**_stack(tower), **own}


def _stack(tower: Stack) -> dict[str, int]:
    grid = tower.grid
    return {"layers": grid.layers, "heads": grid.heads, "head_dim": int(tower.head_dim)}


def _slow(scopes: Scopes, what: str) -> list[str]:
    return [
        what.format(name)
        + " is not exact here"
        + (f" ({scope.reason})" if scope.reason else "")
        + "; every row is a forward pass of its own."
        for name, scope in scopes.items()
        if isinstance(scope, Scope) and not scope.exact
    ]

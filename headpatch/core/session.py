"""What every analysis of one pair starts from: the model, the pair and its two untouched runs."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headpatch.core.invalid_study import invalid
from headpatch.core.study.reading import prompt_form
from headpatch.core.study.study import Study
from headpatch.engine.answers import AnswerReading, Said, read_answers
from headpatch.engine.control import refuse_uncontrolled
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import refused
from headpatch.engine.patching import Baseline, run_pair
from headpatch.engine.selfcheck import Check, Checks
from headpatch.engine.widen import suffix_start
from headpatch.errors import InputError
from headpatch.heads import Tower
from headpatch.models.load import load
from headpatch.models.prompt import Prompt, encode, unaligned
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair
from headpatch.stats.attention_mass import Box, region_mask, visible_share
from headpatch.text import html_of

RUNS: Final = ("with the object", "without it")
RIGHT: Final[tuple[Said, Said]] = ("yes", "no")
"""The right answer of each run."""


@dataclass(frozen=True, eq=False)
class Session:
    """A study's model and pair, and both runs untouched.

    Attributes
    ----------
    base
        Rows of every head, and z of the heads that can be changed.
    readings
        What each run says, with and without the object, and how likely both answers are there.
    fast, fast_vision
        How the widening pass, and resuming the vision tower, did against the plain path, if such
        heads are to be changed.
    positions
        Where language-model heads can be changed (None: nowhere): what was kept of the runs hangs
        on it.
    """

    study: Study
    vlm: VLM
    pair: Pair
    base: Baseline
    readings: tuple[AnswerReading, AnswerReading]
    fast: Check | None = None
    positions: Positions | None = None
    fast_vision: Check | None = None

    def __repr__(self) -> str:
        """Return a line: model, pair, question, and LD with and without, in logits."""
        asked = " / ".join(dict.fromkeys(self.pair.questions))
        ends = f"LD {self.base.ld_with:+.2f} / {self.base.ld_without:+.2f}"
        return f"<Session of {self.vlm.name}, {asked!r}: {ends}{'' if self.valid else ', INVALID'}>"

    def _repr_html_(self) -> str:
        """Return that line and what each run says, for notebooks."""
        import pandas as pd

        rows = ({"run": run, **asdict(one)} for run, one in zip(RUNS, self.readings, strict=True))
        return html_of(repr(self), pd.DataFrame(rows))

    @property
    def prompt(self) -> Prompt:
        """Both runs as a batch of two."""
        return self.base.prompt

    @property
    def region_tokens(self) -> Bool[np.ndarray, " tokens"]:
        """Which image tokens belong to the pair's region; an `InputError` if none does."""
        patches, region = self.prompt.patches, self.pair.region
        if patches.unknown is not None:
            raise patches.unknown.again()
        mask = region_mask(patches.boxes, region.box)
        if mask.any():
            return mask
        if self.region_shown == 0:
            found = f"the processor shows the model {self.picture_shown:.0%} of the picture"
            found = f"{region.name} is cut away: {found}, and nothing of the region"
            hint = "Crop or pad both pictures to the shape that the model takes, such as a square."
            raise InputError("--region", found, "a region that the model sees", hint)
        found = f"{region.name} holds no patch centre{self.cut_away and f' ({self.cut_away})'}"
        expected = f"a box around at least one of the {len(patches.boxes)} patches the model sees"
        raise InputError("--region", found, expected)

    def check_region(self) -> None:
        """Refuse a region of which the model sees nothing, where it is known what it sees."""
        if len(self.prompt.patches.boxes):
            _ = self.region_tokens

    @property
    def picture_shown(self) -> float:
        """Share of the picture that the model is shown; NaN if it is not known."""
        return self._shown((0.0, 0.0, 1.0, 1.0))

    @property
    def region_shown(self) -> float:
        """Share of the region that the model is shown; NaN if it is not known."""
        return self._shown(self.pair.region.box)

    def _shown(self, box: Box) -> float:
        patches = self.prompt.patches
        return visible_share(patches.boxes, box) if patches.unknown is None else math.nan

    @property
    def cut_away(self) -> str:
        """What the processor does not show of the picture and the region; empty if it shows all."""
        picture, cut = f"{self.picture_shown:.0%}", f"{1 - self.region_shown:.0%}"
        if self.prompt.patches.unknown is not None or (picture, cut) == ("100%", "0%"):
            return ""
        cut = f"{'nothing' if cut == '0%' else cut} of the region is cut away"
        return f"the processor shows the model {picture} of the picture; {cut}"

    @property
    def compared_tokens(self) -> Bool[np.ndarray, " tokens"]:
        """The `region_tokens` where heads are compared by their share; an error if it is 1."""
        mask = self.region_tokens
        if mask.all():  # differences are rounding
            found = f"{self.pair.region.name} holds all {len(mask)} patches the model sees"
            found += ": every head's share of its image attention there is 1, in both runs"
            hint = "Or region none: heads are then compared by raw image mass."
            raise InputError("--region", found, "a smaller region", hint)
        return mask

    @property
    def compares(self) -> bool:
        """Whether it is known by which tokens heads can be compared."""
        known = len(self.prompt.patches.boxes) > 0 and not self.region_tokens.all()
        return self.pair.region.whole or known

    @property
    def valid(self) -> bool:
        """Whether the runs answer with Yes and No; only a forced study may be invalid."""
        return not self.faults

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the study is not valid: its answers do not flip, or a run says neither of them."""
        found, base = self._said(_says_something_else), self.base
        if self._flips:
            return found
        lds = f"LD_with = {base.ld_with:+.3f}, LD_without = {base.ld_without:+.3f}"
        return (f"the model's two answers do not flip: {lds}", *found)

    @property
    def answer_probabilities(self) -> dict[str, dict[str, Any]]:
        """`readings` as plain numbers and texts, by run: what ``--json`` and ``run.yaml`` hold."""
        return dict(zip(("with", "without"), (one.facts() for one in self.readings), strict=True))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader should know that is no fault: doubtful answers, another prompt."""

        def doubtful(reading: AnswerReading, right: Said) -> bool:
            doubt = reading.doubtful or (self._flips and reading.said != right)
            return doubt and not _says_something_else(reading, right)

        another = self.study.reworded(prompt_form(self.prompt.text, self.pair.question))
        return (*self._said(doubtful), *another, *unaligned(self.vlm, self.prompt))

    @property
    def _flips(self) -> bool:
        """Whether LD prefers Yes with the object and No without it."""
        return self.base.ld_with > 0 > self.base.ld_without

    def _said(self, chosen: Callable[[AnswerReading, Said], bool]) -> tuple[str, ...]:
        """Say what those runs say that are `chosen` by reading and right answer."""
        return tuple(
            f"{run} the model says {reading.says(self.study.answers)}"
            for run, reading, right in zip(RUNS, self.readings, RIGHT, strict=True)
            if chosen(reading, right)
        )

    @property
    def vision(self) -> bool:
        """Whether vision heads can be changed."""
        return "vision" in self.base.trace.z

    @property
    def widens(self) -> bool:
        """Whether language-model heads are changed by widening passes."""
        return self.fast is not None and self.fast.exact

    @property
    def widened_off(self) -> float:
        """Logits by which widening passes were off in their self-check; 0 if there are none."""
        return self.fast.worst if self.fast is not None and self.widens else 0.0

    @property
    def resumes(self) -> bool:
        """Whether vision heads are changed by passes that begin at their layer."""
        return self.fast_vision is not None and self.fast_vision.exact


def _says_something_else(reading: AnswerReading, right: Said) -> bool:
    """Whether a run's answer is not right in any spelling, and neither answer is likely."""
    return not reading.answers and reading.said != right


def open_session(
    study: Study,
    vlm: VLM | None = None,
    positions: Positions | None = None,
    pair: Pair | None = None,
    vision: bool = False,
) -> Session:
    """Load the model (unless given), read the pair and run both pictures.

    Parameters
    ----------
    vlm
        Of `headpatch.load`; None loads the study's.
    positions, vision
        Where language-model heads are to be changed (None: nowhere), and whether vision heads are.
    pair
        Of `headpatch.make_pair`, instead of the study's pictures, question and region.

    Raises
    ------
    InputError
        If the study's input is bad, its two answers do not differ or are not what the model says
        (see `Study.force`), or vision heads are to be changed where they cannot be.

    Examples
    --------
    >>> opened = hp.open_session(hp.Study(), vlm, positions="answer")
    >>> opened.base.ld_with > 0 > opened.base.ld_without  # logits
    True
    >>> opened.prompt.spans.length, len(opened.prompt.patches.boxes)  # tokens, patches
    (160, 144)
    """
    if pair is None:
        pair = study.pair()  # bad pictures are refused before the model loads
    else:
        study = study.asking(pair)
    vlm = vlm or model_of(study)
    session = run_both(study, vlm, pair, positions, vision)
    if session.region_shown == 0:  # no other question mends that
        session.check_region()
    if session.faults and not study.force:
        raise invalid(session.faults, study.answers, session.prompt, session.cut_away)
    return checked(session)


def reopen(session: Session, positions: Positions | None = None, vision: bool = False) -> Session:
    """Run both pictures again, so that other heads can be changed, or elsewhere."""
    return checked(run_both(session.study, session.vlm, session.pair, positions, vision))


def ready(session: Session, positions: Positions | None, vision: bool = False) -> Session:
    """Return a session in which such heads can be changed: this one if it is, else `reopen` it."""
    here = session.positions == positions and (session.vision or not vision)
    return session if here else reopen(session, positions, vision)


def checked(session: Session, checks: Checks | None = None) -> Session:
    """Compare the fast paths with the plain one, and that with hooks, for heads to be changed.

    Unless `checks` know how they do, or the session does. Heads that cannot be controlled are an
    error.
    """
    checks, vlm, base = checks or Checks(), session.vlm, session.base
    fast, fast_vision, positions = session.fast, session.fast_vision, session.positions
    if positions is not None:
        refuse_uncontrolled(vlm, base, "lm", positions)
        fast = fast or checks.lm(vlm, base, positions, session.pair.name)
    if session.vision:
        refuse_uncontrolled(vlm, base, "vision")
        fast_vision = fast_vision or checks.vision(vlm, base, session.pair.name)
    return replace(session, fast=fast, fast_vision=fast_vision)


def model_of(study: Study) -> VLM:
    """Load the study's model."""
    more = study.device_map, study.quantize, study.allow_unused_weights
    return load(study.model, study.device, study.dtype, *more)


def run_both(
    study: Study, vlm: VLM, pair: Pair, positions: Positions | None = None, vision: bool = False
) -> Session:
    """Run both pictures of a pair, whether or not the answers flip; fast paths are not compared.

    The session's study has the pair's own answers and further pictures.
    """
    study = study.of_pair(pair)
    if vision:
        check_vision(vlm)
        study.check_one_picture("vision heads")
    asked = study.answers, study.framing, study.sum_variants
    prompt = encode(vlm, pair.images, pair.questions, *asked)
    keep = Keep(lm_rows=True)
    if positions is not None or vision:
        towers = towers_of(positions, vision)
        suffix = None if positions is None else suffix_start(prompt.spans, positions)
        keep = Keep(lm_rows=True, z=towers, suffix=suffix)
    try:
        base = run_pair(vlm, prompt, keep, exact=positions is not None or vision)
    except ValueError as error:  # transformers', of inputs that the model was not made for
        if isinstance(error, InputError):
            raise
        found = f"{vlm.name}: the model refuses what its processor makes ({error})"
        expected = "a processor and a model that belong together"
        raise InputError("--model", found, expected) from error
    base = replace(base, region=region_positions(prompt, pair))
    tokenizer: Any = vlm.processor.tokenizer
    readings = read_answers(base.trace.logits, prompt.answers, study.answers, tokenizer)
    return Session(study, vlm, pair, base, readings, positions=positions)


def region_positions(prompt: Prompt, pair: Pair) -> Int[Tensor, " tokens"] | None:
    """Return the positions of a pair's region; None where they are not known, or there are none."""
    if prompt.patches.unknown is not None or not len(prompt.patches.boxes):
        return None
    mask = region_mask(prompt.patches.boxes, pair.region.box)
    return prompt.image_positions.cpu()[torch.from_numpy(mask)] if mask.any() else None


def check_vision(vlm: VLM) -> None:
    """Refuse to change heads of a vision tower that headpatch does not know."""
    if why := refused(vlm):
        found, expected = f"{why} ({vlm.name})", "a model whose vision tower is known"
        raise InputError("vision heads", found, expected, "Change language-model heads instead.")


def towers_of(positions: Positions | None, vision: bool) -> tuple[Tower, ...]:
    """Return the towers whose heads are changed where a session is opened like this."""
    changed: dict[Tower, bool] = {"lm": positions is not None, "vision": vision}
    return tuple(tower for tower, here in changed.items() if here)

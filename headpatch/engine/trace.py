"""One token of a forced answer, in both runs of a pair.

The words before it are appended to both prompts, so that it is looked at from where the answer's
first token is in every other pass: the last position. What the engine does there (attention rows,
patching, widening passes) needs no change; only the logits are read otherwise, see `measures`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.engine.forward import Keep
from headpatch.engine.patching import WITH, WITHOUT, Baseline, Read, run_pair
from headpatch.models.answers import AnswerTokens
from headpatch.models.forced import forced
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Said:
    """A token after the words before it, in both untouched runs.

    Attributes
    ----------
    token
        Its id.
    rival
        What a run would say in its place, after the same words: the without-run if that says
        something else, or else the with-run; None if both would say the token.
    base
        Both runs; LD is logit(token) - logit(rival), or 0 without a rival.
    first
        What each run would say: with, without.
    measured
        `measures` of each run, ``[runs, 2]``.
    """

    token: int
    rival: int | None
    base: Baseline
    first: tuple[int, int]
    measured: Float[Tensor, "runs 2"]


def say(
    vlm: VLM,
    prompt: Prompt,
    before: Sequence[int],
    token: int,
    keep: Keep | None = None,
    exact: bool = True,
) -> Said:
    """Run a pair that has said `before`, and look at `token`.

    Parameters
    ----------
    prompt
        Both runs, as a batch of two.
    keep, exact
        As `headpatch.engine.forward.forward` takes them.
    """
    base = run_pair(vlm, forced(vlm, prompt, before), keep, exact)
    logits = base.trace.logits
    first = logits.argmax(-1).tolist()
    rival = next((first[run] for run in (WITHOUT, WITH) if first[run] != token), None)
    contrast = AnswerTokens(token, token if rival is None else rival)
    asked = replace(base.prompt, answers=contrast)
    ld = base.trace.ld(asked).tolist()
    read = measures(token)(logits).cpu()
    return Said(
        token,
        rival,
        Baseline(asked, base.trace, ld[WITH], ld[WITHOUT]),
        (first[WITH], first[WITHOUT]),
        read,
    )


def measures(token: int) -> Read:
    """Give what reads a token's logit and log-probability (nats) from rows of logits."""

    def read(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows 2"]:
        own = logits[:, token]
        return torch.stack([own, own - logits.logsumexp(-1)], 1)

    return read

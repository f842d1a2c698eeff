"""What a run says at the answer position, in words, and at each token of a forced answer.

LD is a difference: it may be large where neither answer is anything that the model would say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig

from headpatch.engine.attention import tapped
from headpatch.engine.forward import Keep
from headpatch.engine.patching import WITH, WITHOUT, Baseline, Read, run_pair
from headpatch.models.joined import joined
from headpatch.models.prompt import Prompt, forced
from headpatch.models.vlm import VLM
from headpatch.models.wording import AnswerTokens, text_after, variants_of, with_variants
from headpatch.stats.effects import DOUBTFUL_BELOW, NEITHER_BELOW
from headpatch.text import spelling

Said: TypeAlias = Literal["yes", "no", "neither"]
"""The first answer, the second, or another word."""
_NAMED = 0.01  # probability of a token that is named as a variant of an answer


@dataclass(frozen=True)
class AnswerReading:
    """The first token of one run's answer.

    Probabilities of the two answers' tokens (of all their spellings, where those are summed), and
    the ranks of the tokens among all; 1 is the token that the run says, `top`. `said` is which
    answer that is, in any case and with any space around it; `as_variant`, whether it is another
    token than the answer's. `variants` are tokens of probability 0.01 or more that differ from an
    answer's only in case or space.
    """

    p_yes: float
    p_no: float
    rank_yes: int
    rank_no: int
    top: str
    p_top: float
    said: Said
    as_variant: bool = False
    variants: tuple[tuple[str, float], ...] = ()

    @property
    def p_answers(self) -> float:
        """P(Yes) + P(No)."""
        return self.p_yes + self.p_no

    @property
    def answers(self) -> bool:
        """Whether the two answers, as they are spelled, have any probability to speak of."""
        return self.p_answers >= NEITHER_BELOW

    @property
    def doubtful(self) -> bool:
        """Whether the two answers together are less likely than not, or another word wins."""
        return self.said == "neither" or self.p_answers < DOUBTFUL_BELOW

    @property
    def winner(self) -> str:
        """The token that the run says, and its probability."""
        return f"{self.top!r} (p {self.p_top:.2f})"

    def says(self, words: Sequence[str]) -> str:
        """Say which token wins, how likely the two answers, `words`, are, and which variants."""
        alike = "".join(f"; {text!r} holds {share:.2g}" for text, share in self.variants)
        return (
            f"{self.top!r} (probability {self.p_top:.3g}); {' and '.join(words)} have "
            f"{self.p_answers:.3g} together{alike}"
        )

    def facts(self) -> dict[str, Any]:
        """Return plain numbers and texts, by name, as ``run.yaml`` and ``--json`` hold them."""
        return {**asdict(self), "variants": dict(self.variants)}


def read_answers(
    logits: Float[Tensor, "2 vocabulary"],
    answers: AnswerTokens,
    words: Sequence[str],
    tokenizer: Any,
) -> tuple[AnswerReading, AnswerReading]:
    """Read both runs' logits at the answer position, with `words` the two answers."""
    present, absent = (_read(run, answers, words, tokenizer) for run in logits)
    return present, absent


def _read(
    logits: Float[Tensor, " vocabulary"],
    answers: AnswerTokens,
    words: Sequence[str],
    tokenizer: Any,
) -> AnswerReading:
    logits = logits.detach().cpu().double()
    shares = logits.softmax(-1)
    yes_no, more = (answers.yes, answers.no), answers.variants or ((), ())
    each = [[token, *others] for token, others in zip(yes_no, more, strict=True)]
    p_yes, p_no = (float(shares[tokens].sum()) for tokens in each)
    rank_yes, rank_no = (1 + int((logits > logits[tokens].max()).sum()) for tokens in each)
    top = int(logits.argmax())
    likely = (shares >= _NAMED).nonzero().flatten().tolist()  # 100 at most

    def text_of(token: int) -> str:
        return text_after(tokenizer, answers.yes, [token])

    alike: dict[str, Said] = dict(zip(map(spelling, words), ("yes", "no"), strict=True))
    variants = [
        (text, float(shares[token]))
        for token in sorted(likely, key=lambda token: -float(shares[token]))
        if token not in yes_no and spelling(text := text_of(token)) in alike
    ]
    own: dict[int, Said] = {answers.yes: "yes", answers.no: "no"}
    said = own.get(top) or alike.get(spelling(text_of(top)), "neither")
    as_variant = said != "neither" and top not in yes_no
    winner = text_of(top), float(shares[top]), said, as_variant
    return AnswerReading(p_yes, p_no, rank_yes, rank_no, *winner, tuple(variants))


_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@torch.no_grad()
def generate(vlm: VLM, prompt: Prompt, max_new_tokens: int = 32) -> list[str]:
    """Return each run's greedy answer, without special tokens."""
    return [decode(vlm, row) for row in _generate(vlm, prompt, max_new_tokens)]


def answer_ids(vlm: VLM, prompt: Prompt, max_new_tokens: int = 32) -> list[list[int]]:
    """Return the tokens of each run's greedy answer, up to the first special one."""
    return up_to_the_end(vlm, _generate(vlm, prompt, max_new_tokens))


def up_to_the_end(vlm: VLM, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the tokens of each row before its first special one."""
    special = {*vlm.processor.tokenizer.all_special_ids, *_ends(vlm)}
    return [list(takewhile(lambda token: token not in special, row)) for row in rows]


def _generate(vlm: VLM, prompt: Prompt, max_new_tokens: int) -> list[list[int]]:
    if prompt.each:
        return [_generate(vlm, one, max_new_tokens)[0] for one in prompt.each]
    with tapped(vlm.parts, {}), greedily(vlm):
        ids = vlm.model.generate(
            **joined(prompt.inputs), max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )
    return [row[prompt.spans.length :].tolist() for row in ids]


@contextmanager
def greedily(vlm: VLM) -> Iterator[None]:
    """Let each word be the likeliest by the model's own logits, in which heads are measured."""
    # A checkpoint's generation config may punish repetition, suppress tokens or force some.
    model, given = vlm.model, vlm.model.generation_config
    special = {name: getattr(given, name, None) for name in _SPECIAL}
    model.generation_config = GenerationConfig(**special)
    try:
        yield
    finally:
        model.generation_config = given


def _ends(vlm: VLM) -> list[int]:
    """Tokens at which the model stops."""
    found = vlm.model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def decode(vlm: VLM, ids: list[int]) -> str:
    """Return token ids as text, without special tokens."""
    return str(vlm.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@dataclass(frozen=True, eq=False)
class TokenRuns:
    """A token after the words before it, in both untouched runs.

    The words are appended to both prompts, so that the token is looked at from where the answer's
    first token is in every other pass: the last position.
    """

    token: int
    # What a run would say in its place, after the same words: the without-run if that says
    # something else, or else the with-run; None if both would say the token, or a variant of it
    # where variants are summed.
    rival: int | None
    base: Baseline  # LD is logit(token) - logit(rival), or 0 without a rival
    first: tuple[int, int]  # what each run would say: with, without
    measured: Float[Tensor, "runs 2"]  # `measures` of each run


def say(
    vlm: VLM, prompt: Prompt, before: Sequence[int], token: int, keep: Keep | None = None
) -> TokenRuns:
    """Run a pair, a batch of two, that has said `before`, and look at `token`."""
    base = run_pair(vlm, forced(vlm, prompt, before), keep, exact=True)
    logits, summed = base.trace.logits, prompt.answers.variants is not None
    first = logits.argmax(-1).tolist()
    same = {token, *(variants_of(vlm, token) if summed else ())}
    rival = next((first[run] for run in (WITHOUT, WITH) if first[run] not in same), None)
    contrast = AnswerTokens(token, token if rival is None else rival)
    if summed:
        contrast = with_variants(vlm, contrast)
    asked = replace(base.prompt, answers=contrast)
    base = Baseline(asked, base.trace, *base.trace.ld(asked).tolist())
    measured = measures(contrast)(logits).cpu()
    return TokenRuns(token, rival, base, (first[WITH], first[WITHOUT]), measured)


def measures(contrast: AnswerTokens) -> Read:
    """Give what reads the first token's logit and log-probability (nats) from rows of logits."""

    def read(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows 2"]:
        own, _ = contrast.logits(logits)
        return torch.stack([own, own - logits.logsumexp(-1)], 1)

    return read

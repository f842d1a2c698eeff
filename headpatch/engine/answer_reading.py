"""What a run says at the answer position, and how likely the two answers are there.

LD is a difference: it may be large where neither answer is anything that the model would say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from headpatch.models.answers import AnswerTokens, text_after
from headpatch.stats.effects import NEITHER_BELOW

_NAMED = 0.01  # probability of a token that is named as a variant of an answer


@dataclass(frozen=True)
class AnswerReading:
    """The first token of one run's answer.

    Attributes
    ----------
    p_yes, p_no
        Probabilities of the two answers' tokens.
    rank_yes, rank_no
        Their ranks among all tokens; 1 is the token that the run says.
    top, p_top
        That token's text and probability.
    variants
        Tokens that differ from an answer's only in case or space, with their probabilities: those
        that hold 0.01 or more.
    """

    p_yes: float
    p_no: float
    rank_yes: int
    rank_no: int
    top: str
    p_top: float
    variants: tuple[tuple[str, float], ...] = ()

    @property
    def p_answers(self) -> float:
        """P(Yes) + P(No)."""
        return self.p_yes + self.p_no

    @property
    def answers(self) -> bool:
        """Whether the run answers with one of the two at all."""
        return self.p_answers >= NEITHER_BELOW

    def says(self, words: Sequence[str]) -> str:
        """Say which token wins, and how likely the two answers, `words`, are.

        Variants of them that hold probability are named.
        """
        alike = "".join(f"; {text!r} holds {share:.2g}" for text, share in self.variants)
        return (
            f"{self.top!r} (probability {self.p_top:.3g}); {' and '.join(words)} have "
            f"{self.p_answers:.3g} together{alike}"
        )

    def facts(self) -> dict[str, Any]:
        """Return plain numbers and texts, by name, as ``run.yaml`` and ``--json`` hold them."""
        return {
            "p_yes": self.p_yes,
            "p_no": self.p_no,
            "rank_yes": self.rank_yes,
            "rank_no": self.rank_no,
            "top": self.top,
            "p_top": self.p_top,
            "variants": {text: share for text, share in self.variants},
        }


def read_answers(
    logits: Float[Tensor, "2 vocabulary"],
    answers: AnswerTokens,
    words: Sequence[str],
    tokenizer: Any,
) -> tuple[AnswerReading, AnswerReading]:
    """Read both runs' logits at the answer position.

    Parameters
    ----------
    words
        The two answers, whose case and space variants are looked for.
    tokenizer
        Of the model.
    """
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
    p_yes, p_no = float(shares[answers.yes]), float(shares[answers.no])
    rank_yes, rank_no = (
        1 + int((logits > logits[token]).sum()) for token in (answers.yes, answers.no)
    )
    top = int(logits.argmax())
    likely = (shares >= _NAMED).nonzero().flatten().tolist()  # 100 at most
    alike = {word.strip().casefold() for word in words}
    variants = [
        (text, float(shares[token]))
        for token in sorted(likely, key=lambda token: -float(shares[token]))
        if token not in (answers.yes, answers.no)
        and (text := text_after(tokenizer, answers.yes, [token])).strip().casefold() in alike
    ]
    return AnswerReading(
        p_yes,
        p_no,
        rank_yes,
        rank_no,
        text_after(tokenizer, answers.yes, [top]),
        float(shares[top]),
        tuple(variants),
    )

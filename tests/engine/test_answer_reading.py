"""How likely both answers are, and which token wins: by hand, from logits that are known."""

import math

import pytest
import torch

from headpatch.engine.answers import AnswerReading, read_answers
from headpatch.models.wording import AnswerTokens
from tests.tiny import tiny_tokenizer


def ids_of(*tokens: str) -> list[int]:
    return tiny_tokenizer().convert_tokens_to_ids(list(tokens))


def read(**shares: float) -> AnswerReading:
    """Read a run whose tokens have these probabilities; ``_Yes`` stands for ``▁Yes``."""
    tokenizer = tiny_tokenizer()
    left = (1 - sum(shares.values())) / (len(tokenizer) + 3 - len(shares))
    logits = torch.full((len(tokenizer) + 3,), math.log(left))  # three rows beyond the tokenizer's
    for name, share in shares.items():
        token = int(name[1:]) if name[1:].isdigit() else ids_of(name.replace("_", "▁"))[0]
        logits[token] = math.log(share)
    yes, no = ids_of("▁Yes", "▁No")
    both = torch.stack([logits + 7, logits])  # a softmax does not see what all logits share
    present, absent = read_answers(both, AnswerTokens(yes, no), ("Yes", "No"), tokenizer)
    assert present.p_answers == pytest.approx(absent.p_answers)
    return absent


def test_probability_rank_and_the_token_that_wins() -> None:
    found = read(_Yes=0.2, _No=0.3, Yes=0.05, A=0.4)
    assert (found.p_yes, found.p_no) == pytest.approx((0.2, 0.3))
    assert (found.rank_yes, found.rank_no) == (3, 2)
    assert (found.top, found.p_top) == ("A", pytest.approx(0.4))
    assert found.p_answers == pytest.approx(0.5)
    assert found.answers
    assert read(_Yes=0.9).top == " Yes"
    assert read(_Yes=0.9).rank_yes == 1


def test_tiny_probabilities_are_no_zero() -> None:
    found = read(_Yes=1e-20, _No=2e-20, **{"</s>": 0.97})
    assert found.p_answers == pytest.approx(3e-20)
    assert not found.answers
    assert found.top == "</s>"
    said = found.says(("Yes", "No"))
    assert said == "'</s>' (probability 0.97); Yes and No have 3e-20 together"


def test_case_and_space_variants_that_hold_probability_are_named() -> None:
    found = read(_Yes=0.1, _No=0.1, Yes=0.43, A=0.2, No=0.005)
    assert found.variants == (("Yes", pytest.approx(0.43)),)
    assert found.says(("Yes", "No")).endswith("; 'Yes' holds 0.43")


def test_a_token_beyond_the_tokenizers_own_has_a_name() -> None:
    last = len(tiny_tokenizer()) + 1
    assert read(**{f"#{last}": 0.9}).top == f"<token {last}>"

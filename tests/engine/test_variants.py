"""Spellings of an answer that are summed: every way to LD against an oracle's logits."""

from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import get_args

import pytest
from torch import Tensor

from headpatch.core.study.study import Study
from headpatch.engine.answers import say
from headpatch.engine.attribution import gradients
from headpatch.engine.direct import take_apart
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import Baseline, patch, run_pair
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.models.wording import AnswerTokens, variants_of
from tests.engine.oracle import Oracle
from tests.engine.test_patching import Twin
from tests.tiny import QUESTION, image_pair, tiny_vlm


@lru_cache
def pair_of() -> tuple[VLM, Baseline]:
    """Answers are Yes and No; each has another token without the space before it."""
    vlm = tiny_vlm()
    prompt = encode(vlm, image_pair(), QUESTION, sum_variants=True)
    keep = Keep(z=("lm", "vision"), suffix=suffix_start(prompt.spans, "answer"))
    return vlm, run_pair(vlm, prompt, keep, exact=True)


def summed(logits: Tensor, answers: AnswerTokens) -> Tensor:
    """LD by its formula, in float64."""
    assert answers.variants is not None
    shares = logits.double().softmax(-1)
    yes, no = (
        shares[..., [token, *others]].sum(-1)
        for token, others in zip((answers.yes, answers.no), answers.variants, strict=True)
    )
    return yes.log() - no.log()


def test_variants_are_the_tokens_that_differ_in_case_and_space_alone() -> None:
    vlm, base = pair_of()
    answers, tokenizer = base.prompt.answers, vlm.processor.tokenizer
    texts = [tokenizer.convert_ids_to_tokens(list(ids)) for ids in answers.variants or ()]
    assert texts == [["Yes"], ["No"]]
    assert tokenizer.convert_ids_to_tokens([answers.yes, answers.no]) == ["▁Yes", "▁No"]
    i, capital, spaced = tokenizer.convert_tokens_to_ids(["i", "I", "▁i"])
    assert set(variants_of(vlm, i)) == {capital, spaced}
    assert variants_of(vlm, tokenizer.eos_token_id) == ()


def test_the_untouched_runs_and_every_changed_head() -> None:
    vlm, base = pair_of()
    answers = base.prompt.answers
    ld = summed(Oracle(vlm).logits(base.prompt.inputs), answers)
    assert (base.ld_with, base.ld_without) == pytest.approx(ld.tolist(), abs=2e-5)
    plain = AnswerTokens(answers.yes, answers.no).ld(base.trace.logits)
    assert (plain - ld).abs().max() > 0.01  # the sum is another LD
    asked = [
        Intervention(HeadSet.of(head), kind, direction, "answer")
        for kind, direction, head in product(
            ("zero", "resample"), get_args(Direction), list(vlm.lm.grid)
        )
    ]
    twin = Twin(vlm, base)
    slow = [float(summed(twin.logits(one)[None], answers)) for one in asked]
    for found in (
        patch(vlm, base, asked),
        widen(vlm, base, asked),
        widen(vlm, base, asked, answers_only=True),
    ):
        assert [one.ld for one in found] == pytest.approx(slow, abs=2e-5)
    few = widen(vlm, base, asked[:4], answers_only=True)
    assert {one.token for one in few} <= set(answers.ids)


def test_the_gradient_is_that_of_the_sum() -> None:
    vlm, base = pair_of()
    found = gradients(vlm, base.prompt, ["lm"])
    alone = gradients(vlm, replace(base.prompt, answers=AnswerTokens(*base.prompt.answers.ids[:2])))
    assert found.ld.tolist() == pytest.approx([base.ld_with, base.ld_without], abs=2e-5)
    head, step = HeadSet.parse("1.2"), 1e-2
    (up,) = patch(vlm, base, [Intervention(head, "scale", "noising", "answer", alpha=1 + step)])
    (down,) = patch(vlm, base, [Intervention(head, "scale", "noising", "answer", alpha=1 - step)])
    z, slope = found.z["lm"][1][0, -1, 2], found.slope["lm"][1][0, -1, 2]
    secant = (up.effect - down.effect) / (2 * step)
    assert float(z @ slope) == pytest.approx(secant, abs=2e-3)
    assert abs(float(z @ alone.slope["lm"][1][0, -1, 2]) - secant) > 5e-3


def test_a_forced_token_is_measured_with_its_variants() -> None:
    vlm, base = pair_of()
    token = base.prompt.answers.yes
    said = say(vlm, base.prompt, [], token)
    contrast = said.base.prompt.answers
    assert contrast.variants is not None and contrast.variants[0] == variants_of(vlm, token)
    shares = base.trace.logits.double().softmax(-1)[:, [token, *contrast.variants[0]]].sum(-1)
    assert said.measured[:, 1].tolist() == pytest.approx(shares.log().tolist(), abs=2e-5)
    assert said.rival not in {token, *contrast.variants[0]}


def test_what_is_not_linear_is_not_attributed() -> None:
    vlm, base = pair_of()
    with pytest.raises(RunError, match="sums the spellings of each answer"):
        take_apart(vlm, base.prompt)


def test_answers_that_are_spellings_of_one_word_are_refused_before_anything_loads() -> None:
    with pytest.raises(InputError, match=r"^--sum-variants: answers 'Yes' and 'yes'; expected"):
        Study.make(None, {"sum_variants": True, "answers": ["Yes", "yes"]})

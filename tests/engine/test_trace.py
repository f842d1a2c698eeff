"""A head's effect on any token of an answer, against plain transformers with hooks."""

import pytest
import torch

from headpatch.engine.answers import measures, say
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, patch
from headpatch.engine.widen import widen
from headpatch.heads import HeadSet
from tests.engine.oracle import Change, Oracle
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

BEFORE = [21, 40, 9]
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


@pytest.mark.parametrize("name", ["grouped-query", "wide-heads", "class-token-kept"])
@pytest.mark.parametrize("place", [0, 2])
def test_every_head_at_every_token_as_one_at_a_time(name: str, place: int) -> None:
    """Slow twin: the whole text through a copy of the model, one head's z replaced by a hook."""
    vlm = tiny_vlm(SHAPES[name])
    prompt, token = tiny_prompt(vlm), 17
    keep = Keep(lm_rows=True, z=("lm",), suffix=prompt.spans.answer + place)
    said = say(vlm, prompt, BEFORE[:place], token, keep)
    heads = list(vlm.lm.grid)
    asked = [
        Intervention(HeadSet.of(head), kind, direction)
        for kind in ("resample", "zero")
        for direction in DIRECTIONS
        for head in heads
    ]
    read = measures(said.base.prompt.answers)
    fast = widen(vlm, said.base, asked, read=read)
    plain = patch(vlm, said.base, asked, read=read)

    oracle = Oracle(vlm, "sdpa")
    more = torch.tensor([BEFORE[:place]] * 2, dtype=torch.long)
    inputs = {
        **prompt.inputs,
        "input_ids": torch.cat([prompt.inputs["input_ids"], more], 1),
        "attention_mask": torch.cat([prompt.inputs["attention_mask"], torch.ones_like(more)], 1),
    }
    each = [{key: value[run : run + 1] for key, value in inputs.items()} for run in range(2)]
    answer = prompt.spans.answer + place
    z = oracle.z(inputs)["lm"]
    base = [oracle.logits(one)[0] for one in each]
    rival = said.rival if said.rival is not None else token
    largest = 0.0
    for outcome, slow in zip(fast, plain, strict=True):
        (head,), run = outcome.intervention.heads, DIRECTIONS.index(outcome.intervention.direction)
        value = z[head.layer][1 - run, answer, head.head]
        change = Change(head, [answer], value if outcome.intervention.kind == "resample" else None)
        after = oracle.logits(each[run], [change])[0]
        logit = float(after[token] - base[run][token])
        logprob = float(after.log_softmax(-1)[token] - base[run].log_softmax(-1)[token])
        contrast = float(after[token] - after[rival] - (base[run][token] - base[run][rival]))
        expected = pytest.approx((contrast, logit, logprob), abs=2e-5)
        assert (outcome.effect, *outcome.read) == expected
        assert (slow.effect, *slow.read) == expected
        largest = max(largest, abs(logit))
    assert largest > 0.1


def test_the_untouched_runs_and_their_rival() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    first = say(vlm, prompt, [], 5).first
    for token in (first[WITH], first[WITHOUT], 5):
        said = say(vlm, prompt, [], token)
        logits = said.base.trace.logits
        others = [one for one in (first[WITHOUT], first[WITH]) if one != token]
        assert said.rival == (others[0] if others else None)
        assert said.measured[:, 0].tolist() == logits[:, token].tolist()
        logprob = logits.log_softmax(-1)[:, token].tolist()
        assert said.measured[:, 1].tolist() == pytest.approx(logprob, abs=1e-5)
        if said.rival is None:
            assert (said.base.ld_with, said.base.ld_without) == (0, 0)
        else:
            apart = logits[:, token] - logits[:, said.rival]
            assert [said.base.ld_with, said.base.ld_without] == apart.tolist()


def test_a_forced_token_sees_the_words_before_it() -> None:
    """Attention rows at the answer position run over the prompt and those words, and sum to 1."""
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    rows = say(vlm, prompt, BEFORE, 5, Keep(lm_rows=True)).base.trace.lm_rows
    assert rows is not None
    assert rows.shape[-1] == prompt.spans.length + len(BEFORE)
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows.sum(-1)))
    assert (rows[..., -len(BEFORE) :] > 0).all()

"""LLaVA on decoders whose parts have other names, against plain transformers with hooks."""

import pytest
import torch

from headpatch.engine.forward import Keep
from headpatch.engine.patching import run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head
from headpatch.models.spans import Positions
from tests.families import builders
from tests.families.builders import DECODERS
from tests.families.measure import interventions
from tests.families.oracle import Change, Oracle

LAST: Positions = "question"  # the last layer's queries are made of the answer position alone


@pytest.mark.parametrize("name", DECODERS)
def test_heads_of_other_decoders_are_changed_exactly(name: str) -> None:
    vlm = builders.make(DECODERS[name]())
    prompt, oracle = builders.prompt_of(vlm), Oracle(vlm)
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, LAST))
    base = run_pair(vlm, prompt, keep, exact=True)
    assert check(vlm, base, LAST).exact
    inputs = prompt.select(0).inputs
    places = prompt.spans.positions(LAST)
    with_run = oracle.logits(inputs)[0]
    heads = [Head(layer, head) for layer in (0, 2) for head in (0, 3)]
    zeroed = [
        one
        for one in interventions(heads, LAST)
        if (one.kind, one.direction) == ("zero", "noising")
    ]
    yes, no = prompt.answers.yes, prompt.answers.no
    for head, outcome in zip(heads, widen(vlm, base, zeroed), strict=True):
        changed = oracle.logits(inputs, [Change(head, places, None)])[0]
        effect = (changed - with_run)[yes] - (changed - with_run)[no]
        assert outcome.effect == pytest.approx(float(effect), abs=2e-5)
        assert abs(outcome.effect) > 1e-3
    assert torch.isfinite(base.trace.z["lm"][0]).all()

"""Tokens of an answer are traced where the prompt is read in both directions, too."""

import numpy as np
import pytest

from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from headpatch.questions.trace.question import trace
from tests.families.builders import build
from tests.tiny import image_pair


@pytest.mark.parametrize("family", ["llava", "paligemma"])
def test_every_token_has_an_effect_of_every_head(family: str) -> None:
    pair = Pair("a-b", *image_pair(), "Is it red?", Region.parse("top-left"))
    flags = {"tokens": 2, "directions": ["noising"], "noise": 1, "answer": "Yes"}
    study = Study().override(
        {"force": True, **{f"trace.{name}": value for name, value in flags.items()}}
    )
    session = open_session(study, build(family), "answer", pair)
    assert session.prompt.spans.both_ways == (family == "paligemma")
    traced = trace(session)
    grid = session.vlm.lm.grid
    assert len(traced.table()) == len(traced.tokens) * grid.layers * grid.heads
    for token in traced.tokens:
        for effects in token.effects.values():
            assert all(np.isfinite(each).all() for each in effects.values())

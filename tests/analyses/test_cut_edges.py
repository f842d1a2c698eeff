"""Positions are found by name, and the controls' tokens lie beside the region."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from headpatch.core.session import open_session
from headpatch.questions.cut.edges import end_positions, random_tokens
from tests.analyses.test_cut import REGION, opened, tiny_study
from tests.tiny import SHAPES, tiny_vlm


def test_control_tokens_lie_outside_the_region_and_differ() -> None:
    session = opened()
    outside = set(
        session.prompt.image_positions[[p for p in range(16) if p not in REGION]].tolist()
    )
    draws = random_tokens(session, 20)
    assert len(draws) == 20
    for drawn in draws:
        assert len(set(drawn.tolist())) == 4
        assert set(drawn.tolist()) <= outside
    assert len({tuple(drawn.tolist()) for drawn in draws}) > 10
    again = random_tokens(opened(), 20)
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    other_seed = random_tokens(opened(seed=1), 20)
    assert not all(torch.equal(a, b) for a, b in zip(draws, other_seed, strict=True))
    assert random_tokens(opened(region="0,0,1,0.75"), 3) == []  # 12 of 16: too few are left


def test_positions_of_every_name() -> None:
    session = opened()
    spans, placed = session.prompt.spans, session.prompt.image_positions
    assert end_positions(session, "region").tolist() == placed[REGION].tolist()
    others = [patch for patch in range(16) if patch not in REGION]
    assert end_positions(session, "other").tolist() == placed[others].tolist()
    assert end_positions(session, "image").tolist() == spans.image.tolist()
    assert end_positions(session, "question").tolist() == spans.question.tolist()
    assert end_positions(session, "all").tolist() == list(range(spans.length))


def test_a_class_token_is_image_but_no_place() -> None:
    model = tiny_vlm(SHAPES["class-token-kept"])
    with TemporaryDirectory() as folder:
        session = open_session(tiny_study(Path(folder)), model, "question")
    assert len(end_positions(session, "image")) == 17
    assert len(end_positions(session, "region")) == 4
    assert len(end_positions(session, "other")) == 13
    outside = end_positions(session, "other")[1:].tolist()  # without the class token
    assert all(set(drawn.tolist()) <= set(outside) for drawn in random_tokens(session, 20))

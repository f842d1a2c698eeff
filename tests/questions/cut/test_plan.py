"""Positions are found by name, windows lie where they should, nonsense is refused."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from headpatch.core.edge_cuts import Cutting, places, plan
from headpatch.core.session import open_session
from headpatch.core.stream_swaps import end_positions, random_tokens
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from tests.questions.cut.test_effects import REGION, opened, planted_session, tiny_study
from tests.tiny import SHAPES, tiny_vlm


def test_control_tokens_lie_outside_the_region_and_differ() -> None:
    session = planted_session()
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
    session = planted_session()
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


@pytest.mark.parametrize(
    ("window", "spans"),
    [
        (1, ["0", "1", "2", "3"]),
        (3, ["0-1", "0-2", "1-3", "2-3"]),
        (4, ["0-1", "0-2", "0-3", "1-3"]),
    ],
)
def test_windows_are_centred_and_clipped(window: int, spans: list[str]) -> None:
    """From centre − window // 2 on, `window` layers, less those that the model has not."""
    cut_at = list(places(planted_session(), Cutting(("answer-region",), window)))
    assert [place.name for place in cut_at] == spans
    for place in cut_at:
        first, last = place.layers or (0, 0)
        assert len(place.heads) == 4 * (last - first + 1)
        assert {head.layer for head in place.heads} == set(range(first, last + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut.window": 5}, "--window: 5 layers; expected at most 4 in this model"),
        ({"cut.layers": "2-4"}, "--layers: 2-4; expected layers 0-3 in this model"),
        ({"cut.layers": "4"}, "--layers: 4; expected layers 0-3 in this model"),
        ({"cut.heads": "4.0"}, "--heads: 4.0 is out of range"),
        ({"cut.heads": "v0.1"}, "v0.1 is a vision head"),
        ({"region": "0,0,0.05,0.05", "cut.window": 2}, "--region: 0,0,0.05,0.05 holds no patch"),
        ({"region": "image", "cut.window": 2}, "--edges: other: the region image is the whole"),
    ],
)
def test_what_the_model_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    session = opened(**options)
    with pytest.raises(InputError) as caught:
        plan(session, session.study.cut)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": ("answer-sky",)}, "--edges: 'answer-sky'; expected from-to"),
        ({"edges": ("answer",)}, "--edges: 'answer'; expected from-to"),
        ({"edges": ("answer-",)}, "--edges: 'answer-'; expected from-to"),
        ({"edges": ("",)}, "--edges: an empty edge; expected from-to"),
        ({"edges": ()}, "--edges: (); expected a list of at least 1 item"),
        ({"edges": ("a-b-c",)}, "one of answer, question, words, image, region, other, sinks, all"),
        ({"edges": ("answer-answer",)}, "answer-answer cuts nothing"),
        ({"edges": ("answer-image", "answer-image")}, "an edge is named twice"),
        ({"layers": "14-10"}, "--layers: '14-10' runs backwards"),
        ({"layers": "ten"}, "--layers: 'ten'; expected first-last"),
        ({"layers": "1", "heads": "1.1"}, "--heads, --layers: both of them"),
        ({"heads": "L1H1"}, "--heads: 'L1H1' is not a head"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_unread(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Study.make(None, {f"cut.{key}": value for key, value in options.items()})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

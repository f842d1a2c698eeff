"""The information path through the planted circuit: one table, curves and plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

import headpatch as hp
from headpatch.core.question import Call
from headpatch.engine.patching import OnProgress
from headpatch.questions.path.question import QUESTION
from headpatch.questions.path.tables import attribute
from tests.planted import HEADS
from tests.questions.path.case import CLOSE, HELD, opened

LOOKER, BLIND = HEADS["looker"].head, HEADS["blind writer"].head


@lru_cache
def followed() -> hp.FollowedPath:
    return hp.path(opened())


def test_attribution_adds_up_to_the_whole_difference() -> None:
    shares = attribute(opened())
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert shares[LOOKER.layer, LOOKER.head] == pytest.approx(2 / 8, abs=CLOSE)
    assert shares[BLIND.layer, BLIND.head] == pytest.approx(1 / 8, abs=CLOSE)
    assert shares[:, -2] == pytest.approx([0, 0, 4 / 8, 0], abs=CLOSE)  # MLPs


def test_edges_are_cut_where_they_are_read() -> None:
    edges = followed().table.query("view == 'edge' and direction == 'noising'")
    by_edge = edges.set_index(["where", "layer"])["normalized"]
    # Layer 1: looker (2 lost) and suppressor (−1 lost); redundant a still gives red.
    assert by_edge["answer-region", 1] == pytest.approx(1 / 8, abs=CLOSE)
    assert by_edge["words-region", 0] == pytest.approx(1 / 8, abs=CLOSE)


def test_the_table_holds_every_figure() -> None:
    table = followed().table
    assert list(table.columns) == ["pair", "view", "tower", "layer", "where", "heads", "head_layer",
                                   "head", "direction", "effect", "normalized"]  # fmt: skip
    count = table["view"].value_counts()
    assert count["stream"] == 2 * (5 * 4 + 3 * 3)
    assert count["edge"] == 4 * 4 * 2
    assert count["direct"] == 4 * (4 + 2)
    assert count["head path"] == 2 * 4 * (len(followed().saved["ways"]) + 3)
    assert np.isfinite(table[["effect", "normalized"]]).all(axis=None)
    changed = table[table["view"] != "direct"]
    sign = np.where(changed["direction"] == "noising", -8, 8)
    np.testing.assert_allclose(changed["effect"], sign * changed["normalized"], atol=1e-3)
    direct = table[table["view"] == "direct"]
    assert direct["effect"].sum() == pytest.approx(8, abs=CLOSE)
    assert direct["normalized"].sum() == pytest.approx(1, abs=CLOSE)


def test_plain_words_say_what_was_planted() -> None:
    words = " ".join(followed().summary)
    for said in (
        "The vision tower's output carries 100% up to layer 1; the layer after it carries 0%",
        "The region's patches in the vision tower carry half of the difference or more up to "
        "layer 1 (noising and denoising)",
        "The region's image tokens carry half of the difference or more up to layer 0 (nois",
        "The answer position carries half of the difference or more from layer 2 on (noising)",
        "from layer 1 on (denoising)",
        "Cutting attention in 1 layer takes, at its largest: answer → region",
        "MLP 2 50%",
        "It is held twice in layer 1",  # by the region and, as red, by the answer
        "Paths to 1.1 (noising): all inputs 25%, its values at the region 25%",
        "(noise floor ",
        "One pair shows one case, not a rule.",
    ):
        assert said in words, said


def test_saved_tensors_are_plain() -> None:
    saved = followed().saved
    for direction, there in HELD.items():
        for name, votes in there.items():
            held = saved["stream"][name][direction].tolist()
            assert held == pytest.approx([one / 8 for one in votes], abs=CLOSE)
    assert saved["vision"]["region"]["denoising"].tolist() == pytest.approx([1, 1, 0], abs=CLOSE)
    edges = ["answer-region", "words-region", "answer-other", "answer-words"]
    assert list(saved["edges"]) == edges
    assert saved["edges"]["words-region"]["noising"][0] == pytest.approx(1 / 8, abs=CLOSE)
    assert saved["feature_layer"] == 1
    assert saved["heads"] == ["1.1", "0.2", "2.0", "0.2+1.1+2.0"]
    way = saved["ways"].index(["values", "region"])
    heard = saved["head_paths"]["noising"][way].tolist()
    assert heard == pytest.approx([2 / 8, 1 / 8, 0, 3 / 8], abs=CLOSE)
    assert saved["head_paths_from_vision"]["denoising"].shape == (3, 4)
    written = float(saved["attribution_heads"][LOOKER.layer, LOOKER.head])
    assert written == pytest.approx(2 / 8, abs=CLOSE)
    assert saved["attribution_mlps"].tolist() == pytest.approx([0, 0, 4 / 8, 0], abs=CLOSE)


def test_it_says_what_it_does_and_picks_heads_by_rankings() -> None:
    named: list[str] = []

    @contextmanager
    def stages(what: str) -> Iterator[OnProgress]:
        named.append(what)
        yield lambda *_: None

    session = opened()
    path = session.study.path.model_copy(update={"heads": None, "top": 1})
    asked = replace(session, study=session.study.model_copy(update={"path": path}))
    found = QUESTION.answer(asked, Call(stages))
    assert named == ["Ranking heads by effect", "Swapping the stream", "Cutting edges",
                     "Patching paths to heads"]  # fmt: skip
    assert {"1.1", "0.3"} <= set(found.saved["heads"])  # noising: looker; denoising: redundant a

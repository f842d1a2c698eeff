"""The information path through the planted circuit, with numbers worked out by hand."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from headpatch.analyses import cut
from headpatch.analyses import path as analysis
from headpatch.analyses.path import token_classes
from headpatch.analyses.path_heads import HeadPaths, head_paths
from headpatch.analyses.path_table import Path as Traced
from headpatch.analyses.path_table import assemble
from headpatch.analyses.session import Session, open_session
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from tests.planted import HEADS, planted, planted_study
from tests.tiny import tiny_model

CLOSE = 1e-3


@lru_cache
def vlm():
    return planted().vlm


@lru_cache
def opened(region: str = "top-left") -> Session:
    with TemporaryDirectory() as folder:
        study = planted_study(Path(folder), region=region, **{"path.window": 1})
        return open_session(study, vlm(), "answer")


@lru_cache
def streams() -> analysis.StreamCurves:
    return analysis.streams(opened())


@lru_cache
def paths() -> HeadPaths:
    names = ("looker", "blind writer", "note reader")
    return head_paths(opened(), [HEADS[name].head for name in names])


def test_every_token_is_in_one_class() -> None:
    session = opened()
    classes = token_classes(session)
    assert list(classes) == ["before", "region", "other", "words", "answer"]
    together = torch.cat(list(classes.values())).sort().values
    assert torch.equal(together, torch.arange(session.prompt.spans.length))
    assert len(classes["region"]) == 4
    assert torch.equal(classes["words"], cut.positions(session, "words"))
    whole = token_classes(opened("image"))
    assert "other" not in whole


def test_planted_curves() -> None:
    """The shares of 8 that each class still holds entering layers 0 to 3 (see `tests.planted`)."""
    found = streams()
    noising = {
        "region": (8, 1, 0, 0),
        "other": (0, 1, 1, 0),
        "words": (0, 1, 1, 0),
        "answer": (0, 1, 6, 8),
        "before": (0, 0, 0, 0),
    }
    denoising = {**noising, "region": (8, 5, 0, 0), "answer": (0, 5, 6, 8)}
    for name, curve in noising.items():
        assert found.lm[name]["noising"] * 8 == pytest.approx(curve, abs=8 * CLOSE), name
        assert found.lm[name]["denoising"] * 8 == pytest.approx(denoising[name], abs=8 * CLOSE)
    assert found.resumed
    assert 0 <= found.noise_floor < 1e-3


def test_the_vision_tower_carries_all_in_the_region_up_to_its_feature_layer() -> None:
    found = streams().vision
    assert set(found) == {"all", "region", "other"}
    for direction in ("noising", "denoising"):
        assert found["all"][direction] == pytest.approx([1, 1, 0], abs=CLOSE)
        assert found["region"][direction] == pytest.approx([1, 1, 0], abs=CLOSE)
        assert found["other"][direction] == pytest.approx([0, 0, 0], abs=CLOSE)


def test_plain_passes_give_the_same_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "disagreement", lambda *_: float("inf"))
    plain = analysis.streams(opened())
    assert not plain.resumed
    for name, there in streams().lm.items():
        for direction, curve in there.items():
            np.testing.assert_allclose(plain.lm[name][direction], curve, atol=1e-4)


def test_attribution_adds_up_to_the_whole_difference() -> None:
    found = analysis.attribute(opened())
    assert found.heads.sum() + found.mlps.sum() + found.rest.sum() == pytest.approx(1, abs=1e-6)
    looker, blind = HEADS["looker"].head, HEADS["blind writer"].head
    assert found.heads[looker.layer, looker.head] == pytest.approx(2 / 8, abs=CLOSE)
    assert found.heads[blind.layer, blind.head] == pytest.approx(1 / 8, abs=CLOSE)
    assert found.mlps == pytest.approx([0, 0, 4 / 8, 0], abs=CLOSE)


def test_edges_are_cut_where_they_are_read() -> None:
    curves = analysis.edge_curves(analysis.edges(opened()))
    assert list(curves) == ["answer-region", "words-region", "answer-other", "answer-words"]
    # Layer 1: looker (2 lost) and suppressor (−1 lost); redundant a still gives red.
    assert curves["answer-region"]["noising"][1] == pytest.approx(1 / 8, abs=CLOSE)
    assert curves["words-region"]["noising"][0] == pytest.approx(1 / 8, abs=CLOSE)


def path_of(found: HeadPaths, direction: str, inputs: str, sender: str, heads: str) -> float:
    return float(
        found.normalized[direction][
            found.ways.index((inputs, sender)), found.sets.index(HeadSet.parse(heads))
        ]
    )


@pytest.mark.parametrize(
    ("direction", "inputs", "sender", "head", "votes"),
    [
        ("noising", "all", "all", "looker", 2),
        ("noising", "values", "region", "looker", 2),
        ("noising", "values", "other", "looker", 0),
        ("noising", "query", "answer", "looker", 0),
        ("noising", "keys", "region", "looker", 2 - 8 / 3 / 16),  # looks evenly at 16 patches
        ("noising", "query+keys", "all", "looker", 2 - 8 / 3 / 16),
        ("denoising", "values", "region", "looker", 8 / 3 / 16),
        ("denoising", "keys", "region", "looker", 0),
        ("denoising", "keys+values", "region", "looker", 2),
        ("denoising", "keys+values", "region, straight", "looker", 2),
        ("denoising", "keys+values", "other, straight", "looker", 0),
        ("noising", "keys", "region", "blind writer", 0),
        ("noising", "values", "region", "blind writer", 1),
        ("noising", "values", "words", "note reader", 1),
        ("noising", "values", "region", "note reader", 0),
        ("noising", "none", "itself", "looker", 0),
    ],
)
def test_what_planted_heads_hear(
    direction: str, inputs: str, sender: str, head: str, votes: float
) -> None:
    found = path_of(paths(), direction, inputs, sender, str(HEADS[head].head))
    assert found == pytest.approx(votes / 8, abs=CLOSE)


def test_paths_to_several_heads_and_from_vision_layers() -> None:
    found = paths()
    joint = str(found.sets[-1])
    assert path_of(found, "noising", "values", "region", joint) == pytest.approx(3 / 8, abs=CLOSE)
    curve = found.vision["denoising"]
    assert curve[:, 0] == pytest.approx([2 / 8, 2 / 8, 0], abs=CLOSE)  # the looker's
    assert curve[:, -1] == pytest.approx([3 / 8, 3 / 8, 0], abs=CLOSE)
    assert found.noise_floor < 1e-4


@lru_cache
def traced() -> Traced:
    session = opened()
    return assemble(
        session,
        streams(),
        analysis.edges(session),
        analysis.attribute(session),
        paths(),
    )


def test_the_table_holds_every_figure() -> None:
    table = traced().table
    assert list(table.columns) == ["pair", "view", "tower", "layer", "where", "heads", "direction",
                                   "effect", "normalized"]  # fmt: skip
    count = table["view"].value_counts()
    assert count["stream"] == 2 * (5 * 4 + 3 * 3)
    assert count["edge"] == 4 * 4 * 2
    assert count["direct"] == 4 * (4 + 2)
    assert count["head path"] == 2 * 4 * (len(paths().ways) + 3)
    swapped = table[(table["view"] == "stream") & (table["direction"] == "noising")]
    np.testing.assert_allclose(swapped["effect"], -8 * swapped["normalized"], atol=1e-3)
    direct = table[table["view"] == "direct"]
    assert direct["effect"].sum() == pytest.approx(8, abs=CLOSE)


def test_plain_words_say_what_was_planted() -> None:
    words = " ".join(traced().summary)
    assert (
        "The vision tower's output carries 100% up to layer 1; the layer after it carries 0%"
        in words
    )
    assert (
        "The region's image tokens carry half of the difference or more up to layer 0 (nois"
        in words
    )
    assert (
        "The answer position carries half of the difference or more from layer 2 on (noising)"
        in words
    )
    assert "from layer 1 on (denoising)" in words
    assert "MLP 2 50%" in words
    assert "It is held twice in layer 1" in words  # by the region and, as red, by the answer
    assert "Paths to 1.1 (noising): all inputs 25%, its values at the region 25%" in words
    assert "One pair shows one case, not a rule." in words


def test_saved_tensors_are_plain() -> None:
    saved = traced().saved
    assert saved["stream"]["answer"]["noising"].tolist() == pytest.approx(
        [0, 1 / 8, 6 / 8, 1], abs=CLOSE
    )
    assert saved["feature_layer"] == 1
    assert saved["attribution_heads"].shape == (4, 4)


def test_a_region_without_patches_is_refused() -> None:
    with pytest.raises(InputError, match="holds no patch centre"):
        token_classes(opened("0,0,0.05,0.05"))


def test_low_precision_weights_go_by_whole_passes(tmp_path: Path) -> None:
    low = VLM(tiny_model(dtype=torch.bfloat16), planted().vlm.processor, "tiny", "")
    study = planted_study(tmp_path, force=True)
    session = open_session(study, low, "answer")
    found = analysis.streams(session)
    assert not found.resumed
    assert found.lm["answer"]["noising"][0] == pytest.approx(0, abs=0.05)

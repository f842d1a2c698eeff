"""The stream swapped through the planted circuit, with numbers worked out by hand."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from headpatch.core import stream_swaps
from headpatch.core.session import open_session
from headpatch.core.stream_swaps import end_positions, token_classes
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from tests.planted import planted_study
from tests.questions.path.case import CLOSE, HELD, opened, vlm
from tests.tiny import tiny_model


@lru_cache
def streams() -> stream_swaps.StreamCurves:
    return stream_swaps.streams(opened())


def test_every_token_is_in_one_class() -> None:
    session = opened()
    classes = token_classes(session)
    assert list(classes) == ["before", "region", "other", "words", "answer"]
    together = torch.cat(list(classes.values())).sort().values
    assert torch.equal(together, torch.arange(session.prompt.spans.length))
    assert len(classes["region"]) == 4
    assert torch.equal(classes["words"], end_positions(session, "words"))
    whole = token_classes(opened("image"))
    assert "other" not in whole


def test_planted_curves() -> None:
    found = streams()
    for direction, there in HELD.items():
        for name, votes in there.items():
            share = found.shares["lm"][name][direction]
            assert share * 8 == pytest.approx(votes, abs=8 * CLOSE), (name, direction)
            sign = -1 if direction == "noising" else 1
            effects = found.effects["lm"][name][direction]
            assert effects * sign == pytest.approx(votes, abs=8 * CLOSE), (name, direction)
    assert found.resumed
    assert 0 <= found.noise_floor < 1e-3


def test_the_vision_tower_carries_all_in_the_region_up_to_its_feature_layer() -> None:
    found = streams().shares["vision"]
    assert set(found) == {"all", "region", "other"}
    for direction in ("noising", "denoising"):
        assert found["all"][direction] == pytest.approx([1, 1, 0], abs=CLOSE)
        assert found["region"][direction] == pytest.approx([1, 1, 0], abs=CLOSE)
        assert found["other"][direction] == pytest.approx([0, 0, 0], abs=CLOSE)


def test_plain_passes_give_the_same_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_swaps, "disagreement", lambda *_: float("inf"))
    plain = stream_swaps.streams(opened())
    assert not plain.resumed
    for name, there in streams().shares["lm"].items():
        for direction, curve in there.items():
            np.testing.assert_allclose(plain.shares["lm"][name][direction], curve, atol=1e-4)


def test_progress_ends_with_all_of_it() -> None:
    seen: list[tuple[int, int]] = []
    stream_swaps.streams(opened(), lambda *one: seen.append(one))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_region_without_patches_is_refused() -> None:
    with pytest.raises(InputError, match="holds no patch centre"):
        token_classes(opened("0,0,0.05,0.05"))


def test_low_precision_weights_are_resumed_too(tmp_path: Path) -> None:
    low = VLM(tiny_model(dtype=torch.bfloat16), vlm().processor, "tiny", "")
    study = planted_study(tmp_path, force=True)
    session = open_session(study, low, "answer")
    found = stream_swaps.streams(session)
    assert found.resumed
    assert found.shares["lm"]["answer"]["noising"][0] == pytest.approx(0, abs=0.05)

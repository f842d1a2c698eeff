"""Finished pairs on disk: whole or not there, and under a key that says what they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from headpatch.analyses.finished import Finished, key
from headpatch.analyses.verdict.judged_pair import JudgedPair, Other, Task
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from tests.planted import planted, planted_image


def judged() -> JudgedPair:
    rng = np.random.default_rng(0)
    values = iter(rng.normal(size=(9, 2, 3)))
    other = Other(1.0, -0.1, next(values), next(values), next(values))
    effects = {"resample_noising": next(values), "mean_noising": next(values)}
    return JudgedPair(
        "p", 4.0, -4.0, effects, 1e-7, 1e-8, rng.normal(size=5), {"noising": next(values)},
        vision=rng.normal(size=3), unread=0.0, wrong_place=other,
    )  # fmt: skip


def test_a_pair_comes_back_bit_for_bit(tmp_path: Path) -> None:
    finished, one = Finished(tmp_path / "new"), judged()
    finished.save("k", one.to_saved())
    found = finished.load("k")
    assert found is not None
    again = JudgedPair.from_saved(found)
    assert again.name == "p" and again.gap == 8.0 and again.mirrored is None
    np.testing.assert_array_equal(again.effects["mean_noising"], one.effects["mean_noising"])
    np.testing.assert_array_equal(again.sets, one.sets)
    assert again.wrong_place is not None and one.wrong_place is not None
    np.testing.assert_array_equal(again.wrong_place.denoising, one.wrong_place.denoising)
    np.testing.assert_array_equal(again.vision, one.vision)
    assert again.sets.dtype == np.float64


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    finished = Finished(tmp_path)
    assert finished.load("k") is None
    (tmp_path / "k.pt").write_bytes(b"")
    assert finished.load("k") is None
    finished.save("whole", judged().to_saved())
    half = (tmp_path / "whole.pt").read_bytes()[:-200]
    (tmp_path / "k.pt").write_bytes(half)
    assert finished.load("k") is None


def test_what_is_left_must_be_spoken_of(tmp_path: Path) -> None:
    Finished(tmp_path).save("k", judged().to_saved())
    with pytest.raises(InputError, match=r"1 finished pairs.*--resume.*--no-resume"):
        Finished(tmp_path).open(None, "verdict")
    going_on = Finished(tmp_path)
    going_on.open(True, "verdict")
    assert going_on.count == 1 and going_on.load("k") is not None
    anew = Finished(tmp_path)
    anew.open(False, "verdict")
    assert anew.count == 0 and anew.load("k") is None


def test_remove_leaves_no_trace_but_spares_what_is_not_its_own(tmp_path: Path) -> None:
    finished = Finished(tmp_path / "a")
    finished.save("k", judged().to_saved())
    (tmp_path / "a" / "killed.part").write_bytes(b"x")
    finished.remove()
    assert not (tmp_path / "a").exists()
    finished.save("k", judged().to_saved())
    (tmp_path / "a" / "note.txt").write_text("mine")
    finished.remove()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["note.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        Finished(tmp_path / "file" / "sub").save("k", {"a": torch.zeros(1)})


def test_the_key_changes_with_everything_that_a_number_hangs_on() -> None:
    vlm, other_vlm = planted().vlm, planted(noise=0.1).vlm

    def one(question: str = "q", region: str = "top-left", row: int = 1, name: str = "p") -> Pair:
        return Pair(name, planted_image(True, row), planted_image(False), question,
                    Region.parse(region))  # fmt: skip

    asked = Task().words()
    same = key(vlm, one(), asked)
    assert key(vlm, one(), asked) == same
    others = {
        key(other_vlm, one(), asked),
        key(vlm, one("other"), asked),
        key(vlm, one(region="top-right"), asked),
        key(vlm, one(row=0), asked),
        key(vlm, one(name="other"), asked),
        key(vlm, one(), Task((HeadSet.parse("0.0+0.1"),)).words()),
        key(vlm, one(), Task(nulls=True).words()),
        key(vlm, one(), Task(attribution=True).words()),
    }
    assert len(others) == 8 and same not in others

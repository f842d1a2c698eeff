"""Store pairs on disk: whole or not there, and under a key that says what they are."""

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from headpatch.core.store import Store, unit_key
from headpatch.core.study.study import Study
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from headpatch.questions.verdict.pair_record import Other, PairRecord, Task
from tests.planted import planted, planted_image


def judged() -> PairRecord:
    rng = np.random.default_rng(0)
    values = iter(rng.normal(size=(9, 2, 3)))
    other = Other(1.0, -0.1, next(values), next(values), next(values))
    effects = {"resample_noising": next(values), "mean_noising": next(values)}
    return PairRecord(
        "p", 4.0, -4.0, effects, 1e-7, 1e-8, rng.normal(size=5), {"noising": next(values)},
        vision=rng.normal(size=3), unread=0.0, wrong_place=other,
    )  # fmt: skip


def test_a_pair_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store, one = Store(tmp_path / "new"), judged()
    store.put("k", one.to_saved())
    found = store.get("k")
    assert found is not None
    again = PairRecord.from_saved(found)
    assert again.name == "p" and again.gap == 8.0 and again.mirrored is None
    np.testing.assert_array_equal(again.effects["mean_noising"], one.effects["mean_noising"])
    np.testing.assert_array_equal(again.sets, one.sets)
    assert again.wrong_place is not None and one.wrong_place is not None
    np.testing.assert_array_equal(again.wrong_place.denoising, one.wrong_place.denoising)
    np.testing.assert_array_equal(again.vision, one.vision)
    assert again.sets.dtype == np.float64


def flipped(content: bytes) -> bytes:
    """Change one bit of a figure."""
    return content[:-900] + bytes([content[-900] ^ 4]) + content[-899:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-200],
    "cut in its first line": lambda content: content[:30],
    "longer": lambda content: content + b"\n",
    "a bit": flipped,
    "a bit of its first line": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "another count": lambda content: content.replace(b" 1 ", b" 2 ", 1),
    "a larger count than there are digits for": lambda content: b"headpatch unit 4 " + b"9" * 5000,
    "of an older headpatch": lambda content: content.partition(b"\n")[2],
    "no checksum": lambda content: content.replace(content[19:83], b""),
    "pickled code": lambda content: pickle.dumps(print),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_not_there_and_is_counted(tmp_path: Path, damage: str) -> None:
    Store(tmp_path).put("k", judged().to_saved())
    Store(tmp_path).put("whole", judged().to_saved())
    path = tmp_path / "k.unit"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    store = Store(tmp_path)
    store.open(True, "verdict")
    assert (store.count, store.unfit) == (1, 1)
    assert "1 of the files" in store.unfit_words and str(tmp_path) in store.unfit_words
    assert store.get("k") is None
    assert store.get("whole") is not None
    store.put("k", judged().to_saved())
    assert store.get("k") is not None
    store.remove()
    assert not tmp_path.exists()


def test_another_unit_under_this_one_s_name_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a", {"value": 1})
    store.put("b", {"value": 2})
    shutil.copy(tmp_path / "a.unit", tmp_path / "b.unit")
    assert store.get("a") == {"value": 1}
    assert store.get("b") is None
    assert store.get("none") is None


def test_files_of_an_earlier_form_are_counted_and_go(tmp_path: Path) -> None:
    torch.save({"value": 1}, tmp_path / f"{'0' * 64}-3.pt")
    torch.save({"value": 1}, tmp_path / "of the user.pt")
    store = Store(tmp_path)
    store.open(None, "path")
    assert (store.count, store.unfit) == (0, 1)
    store.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["of the user.pt"]


def test_what_is_left_must_be_spoken_of(tmp_path: Path) -> None:
    Store(tmp_path).put("k", judged().to_saved())
    with pytest.raises(InputError, match=r"1 finished pairs.*--resume.*--no-resume"):
        Store(tmp_path).open(None, "verdict")
    going_on = Store(tmp_path)
    going_on.open(True, "verdict")
    assert going_on.count == 1 and going_on.get("k") is not None
    anew = Store(tmp_path)
    anew.open(False, "verdict")
    assert anew.count == 0 and anew.get("k") is None


@pytest.mark.parametrize("resume", [True, None])
def test_units_of_other_runs_alone_are_refused(tmp_path: Path, resume: bool | None) -> None:
    Store(tmp_path, "rows").put("theirs", {"value": 1}, count=20)
    with pytest.raises(InputError, match=r"20 finished rows .* sweep of another study"):
        Store(tmp_path, "rows").open(resume, "sweep", ["mine"])
    Store(tmp_path, "rows").put("mine", {"value": 1}, count=3)
    if resume is None:
        with pytest.raises(InputError, match="3 finished rows of an interrupted sweep of this"):
            Store(tmp_path, "rows").open(None, "sweep", ["mine"])
        return
    store = Store(tmp_path, "rows")
    store.open(True, "sweep", ["mine"])
    assert store.count == 3


def test_remove_leaves_no_trace_but_spares_what_is_not_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    store.put("k", judged().to_saved())
    (tmp_path / "a" / "killed.part").write_bytes(b"x")
    store.remove()
    assert not (tmp_path / "a").exists()
    store.put("k", judged().to_saved())
    (tmp_path / "a" / "note.txt").write_text("mine")
    Store(tmp_path / "a").put("theirs", {"value": 1})
    store.remove()
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == ["note.txt", "theirs.unit"]
    store.open(False, "verdict")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["note.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^--out: .*sub cannot be written \("):
        Store(tmp_path / "file" / "sub").put("k", {"a": torch.zeros(1)})


def test_a_full_disk_leaves_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    store.put("k", {"value": 1})
    before = (tmp_path / "k.unit").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    words = rf"^--out: {tmp_path} cannot be written \(No space left on device; .* left\)$"
    for key in ("k", "next"):
        with pytest.raises(RunError, match=words):
            store.put(key, {"value": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["k.unit"]
    assert (tmp_path / "k.unit").read_bytes() == before
    assert store.get("k") == {"value": 1} and store.count == 1


def test_many_writers_of_one_unit_leave_one(tmp_path: Path) -> None:
    content = judged().to_saved()

    def write(_: int) -> bool:
        store = Store(tmp_path)
        store.put("k", content)
        return store.get("k") is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(64)))
    assert [path.name for path in tmp_path.iterdir()] == ["k.unit"]


def test_the_key_changes_with_everything_that_a_number_hangs_on() -> None:
    vlm, other_vlm = planted().vlm, planted(noise=0.1).vlm

    def one(question: str = "q", region: str = "top-left", row: int = 1, name: str = "p") -> Pair:
        return Pair(name, planted_image(True, row), planted_image(False), question,
                    Region.parse(region))  # fmt: skip

    asked, study = Task().words(), Study()
    same = unit_key(study, vlm, one(), asked)
    assert unit_key(study, vlm, one(), asked) == same
    others = {
        unit_key(study, other_vlm, one(), asked),
        unit_key(study, vlm, one("other"), asked),
        unit_key(study, vlm, one(region="top-right"), asked),
        unit_key(study, vlm, one(row=0), asked),
        unit_key(study, vlm, one(name="other"), asked),
        unit_key(study, vlm, one(), Task((HeadSet.parse("0.0+0.1"),)).words()),
        unit_key(study, vlm, one(), Task(nulls=True).words()),
        unit_key(study, vlm, one(), Task(attribution=True).words()),
        unit_key(Study(answers=("yes", "no")), vlm, one(), asked),
        unit_key(Study(seed=1), vlm, one(), asked),
        unit_key(Study(quantize="8bit"), vlm, one(), asked),
        unit_key(Study(prompt="<image> {question}"), vlm, one(), asked),
    }
    assert len(others) == 12 and same not in others


def test_the_key_holds_the_prompt_as_it_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template may write the date, or be changed in the model's folder."""
    vlm = planted().vlm
    pair = Pair("p", planted_image(True), planted_image(False), "q", Region.parse("top-left"))
    before = unit_key(Study(), vlm, pair, {})
    monkeypatch.setattr(vlm.processor, "chat_template", "<image>{{ messages[0] }} of 1 May")
    assert unit_key(Study(), vlm, pair, {}) != before
    monkeypatch.undo()
    assert unit_key(Study(), vlm, pair, {}) == before
    monkeypatch.setattr(vlm.processor.image_processor, "image_mean", [0.1, 0.1, 0.1])
    assert unit_key(Study(), vlm, pair, {}) != before

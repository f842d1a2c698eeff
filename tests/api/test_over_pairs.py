"""What the public functions answer over many pairs is what `headpatch … --pairs` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.store import Store
from tests.datasets import planted_pairs
from tests.planted import HEADS, planted, save_planted

LOOKER, WRITER = HEADS["looker"].head, HEADS["blind writer"].head
BOTH = f"{LOOKER},{WRITER}"
SAME = {"rtol": 1e-5, "atol": 2e-5}  # a table keeps 7 digits; another batch rounds otherwise
STUDY = {"pairs.resamples": 200}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, and three pairs: the second one's pictures stand the wrong way round."""
    folder = tmp_path_factory.mktemp("pairs")
    save_planted(folder / "model")
    (folder / "pairs").mkdir()
    planted_pairs(folder / "pairs", swapped=[1], count=3)
    return folder


@pytest.fixture(scope="module")
def pairs(place: Path) -> hp.Pairs:
    return hp.open_pairs(hp.Study.make(flags=STUDY), place / "pairs", vlm=planted().vlm)


@pytest.fixture(autouse=True)
def _nothing_prints(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def test_the_gate(pairs: hp.Pairs) -> None:
    assert pairs.gate["passed"].tolist() == [True, False, True]
    assert pairs.gate["pair"].tolist() == ["p0", "p1", "p2"]
    assert len(pairs.entries) == 2 and pairs.valid
    assert pairs.summary.startswith("Gate: 2 of 3 pairs pass (66.7%): both answers right")
    assert "\n" not in pairs.summary


def test_pairs_that_fit_are_not_run_again_and_others_are(
    place: Path, pairs: hp.Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened elsewhere, the effects are the same, and so are the pairs."""
    from headpatch.core import gate as sessions

    run, count = sessions.run_both, 0

    def counted(*given: Any) -> Any:
        nonlocal count
        count += 1
        return run(*given)

    monkeypatch.setattr(sessions, "run_both", counted)
    here = hp.sweep(pairs, [BOTH.replace(",", "+")], kinds=["mean"])
    assert count == 0  # all are held open
    hp.rank(pairs)
    assert count == 0
    elsewhere = hp.open_pairs(pairs.study, place / "pairs", vlm=pairs.vlm, positions=None)
    count = 0
    there = hp.sweep(elsewhere, [BOTH.replace(",", "+")], kinds=["mean"])
    assert count == 2  # once each, and the one that failed stays out
    assert np.allclose(here.means["effect"], there.means["effect"], atol=SAME["atol"])


def test_vision_heads(pairs: hp.Pairs) -> None:
    found = hp.ablate(pairs, "v2.0", kinds=["zero"], controls=0, vision_positions="class")
    assert set(found.means["positions"]) == {"class"}
    assert found.unread is not None and found.unread.largest == 0


def test_an_interrupted_call_goes_on(
    pairs: hp.Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished is kept as long as it is of use, and taken."""
    asked: dict[str, Any] = {"tokens": 1, "directions": ["noising"], "keep": tmp_path / "kept"}
    save, kept = Store.put, asked["keep"]
    saved: list[str] = []

    def once(self: Store, name: str, content: Any) -> None:
        if len(saved) == 1:
            saved.append("stopped")
            raise KeyboardInterrupt
        saved.append(name)
        save(self, name, content)

    monkeypatch.setattr(Store, "put", once)
    with pytest.raises(KeyboardInterrupt):
        hp.trace(pairs, **asked)
    assert len(list(kept.iterdir())) == 1
    hp.trace(pairs, **asked)
    first, _, *others = saved
    assert others and first not in others
    assert list(kept.iterdir()) == []


def test_an_interrupted_sweep_goes_on(pairs: hp.Pairs, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"kinds": ["zero"], "directions": ["noising"], "noise": 1}
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hp.sweep(pairs, None, None, stop, keep=tmp_path, **asked)
    (folder,) = tmp_path.iterdir()
    store = Store(folder, "rows")
    store.open(True, "sweep")
    assert store.count > 3
    with pytest.raises(hp.InputError, match="of another study"):
        hp.sweep(pairs, keep=tmp_path, **asked | {"kinds": ["resample"]})
    again = hp.sweep(pairs, keep=tmp_path, **asked)
    assert list(tmp_path.iterdir()) == []
    pd.testing.assert_frame_equal(again.means, hp.sweep(pairs, **asked).means)


def test_progress_is_told_stage_by_stage(place: Path) -> None:
    told: list[tuple[int, int]] = []
    opened = hp.open_pairs(
        hp.Study(), place / "pairs", vlm=planted().vlm, on_progress=lambda *now: told.append(now)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    hp.ablate(opened, LOOKER, kinds=["zero"], on_progress=lambda *now: told.append(now))
    assert told[-1][0] == told[-1][1]


def test_some_entries_of_a_dataset(place: Path) -> None:
    entries = hp.Manifest.read(place / "pairs").entries
    opened = hp.open_pairs(None, entries[::2], vlm=planted().vlm)
    assert opened.gate["pair"].tolist() == ["p0", "p2"]
    study = hp.Study(force=True)
    limited = hp.open_pairs(study, place / "pairs", vlm=planted().vlm, limit=2, level=0.9)
    assert len(limited.gate) == 2
    assert "90% interval" in str([text.get_text() for text in hp.plot(hp.rank(limited)).texts])


def test_drawn_pairs_last_as_long_as_what_was_opened() -> None:
    study = hp.Study.make(flags={"force": True, "draw.size": 48})
    opened = hp.open_pairs(study, n=2, vlm=planted().vlm)
    assert opened.drawn is not None
    folder = opened.drawn.path
    ablated = hp.ablate(opened, LOOKER, kinds=["zero"], controls=0)
    assert folder.is_dir()
    assert ablated.valid is False
    assert opened.summary.endswith("INVALID STUDY: pairs that failed the gate are run.")
    del opened
    assert not folder.exists()


# Bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1}, "--n: 1; expected at least 2 pairs"),
        ({"n": 3, "pairs": "pairs"}, "n, pairs: both of them"),
        ({"pairs": "nowhere.csv"}, "--pairs: nowhere.csv"),
        ({"pairs": "pairs", "limit": 1}, "--pairs: 1; expected at least 2 pairs"),
        ({"pairs": "pairs", "colour": 3}, "unknown key"),
    ],
)
def test_bad_pairs_are_refused_before_the_model_loads(
    place: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(hp.InputError) as error:
        hp.open_pairs(hp.Study(model="nowhere"), **given)
    assert message in str(error.value)


def test_two_pairs_of_one_name_are_refused(place: Path) -> None:
    entry = hp.Manifest.read(place / "pairs").entries[0]
    with pytest.raises(hp.InputError, match="the name 'p0' twice"):
        hp.open_pairs(None, [entry, entry], vlm=planted().vlm)


def test_what_is_meant_for_one_pair_is_refused(pairs: hp.Pairs, place: Path) -> None:
    for call in (hp.ablate, hp.sweep, hp.combine):
        with pytest.raises(hp.InputError, match="means: given, and many pairs"):
            call(pairs, None, {})  # type: ignore[operator]
    with pytest.raises(hp.InputError, match="3 pairs, of which"):
        hp.verdict(pairs)
    with pytest.raises(hp.InputError, match="vlm: given beside pairs that are open"):
        hp.verdict(pairs=pairs, vlm=pairs.vlm)
    with pytest.raises(hp.InputError, match="pairs: given beside pairs that are open"):
        hp.verdict(pairs, place / "pairs")  # type: ignore[call-overload]
    with pytest.raises(hp.InputError, match=r"9\.9 is out of range"):
        hp.ablate(pairs, "9.9")

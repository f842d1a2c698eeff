"""Wherever a run over pairs is stopped or divided, it gives the figures of one that is not."""

from pathlib import Path
from typing import Any

import pytest

import headpatch as hp
from headpatch.core.ask import ask
from headpatch.core.output.files import write_columns, write_tensors
from headpatch.core.question import Result, Verb
from headpatch.core.store import Store
from tests.contract.cases import OVER_PAIRS, study_of
from tests.long import ALL
from tests.planted import planted, planted_dataset, planted_study

MANY = 4  # pairs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, and what is found of it without a stop."""
    folder = tmp_path_factory.mktemp("units")
    planted_dataset(folder / "pairs", MANY)
    return folder


def asked(verb: Verb, place: Path, **more: Any) -> Result:
    """Open the pairs and ask a question of them."""
    study, vlm = planted_study(place), planted().vlm
    how = {"vlm": vlm, "positions": "answer", "on_progress": False, "resamples": 200}
    pairs = hp.open_pairs(study, place / "pairs", **how, **more)
    return ask(verb.question(), pairs, study_of(verb, True), False)


def contents(result: Result, folder: Path) -> dict[str, bytes]:
    """Return tables and tensors by name, byte for byte as they are written."""
    folder.mkdir(exist_ok=True)
    for name, content in result.files().items():
        if name.endswith(".csv"):
            write_columns(folder / name, {str(key): content[key] for key in content})
        else:
            write_tensors(folder / name, content)
    return {name: (folder / name).read_bytes() for name in result.files()}


def whole(verb: Verb, place: Path) -> dict[str, bytes]:
    """Return what is found without a stop."""
    folder = place / verb.name
    if not folder.exists():
        return contents(asked(verb, place), folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


SOME = [verb for verb in OVER_PAIRS if ALL or verb.name in ("ablate", "path")]
over_pairs = pytest.mark.parametrize("verb", SOME, ids=lambda verb: verb.name)


@over_pairs
def test_a_run_that_is_stopped_after_every_unit_finds_the_same(
    verb: Verb, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, write, stops, found = whole(verb, place), Store._write, 0, None

    def write_one(self: Store, key: str, content: Any, count: int) -> None:
        write(self, key, content, count)
        if "unit" in content:  # rows of a sweep and tokens of a trace have tests of their own
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_write", write_one)
    while found is None:
        try:
            found = asked(verb, place, keep=tmp_path / "kept")
        except KeyboardInterrupt:
            stops += 1
            assert stops < 100
    assert stops >= MANY
    assert contents(found, tmp_path / "found") == expected
    assert not (tmp_path / "kept").exists() or not list((tmp_path / "kept").rglob("*.unit"))


@over_pairs
def test_shards_and_who_gathers_find_the_same(verb: Verb, place: Path, tmp_path: Path) -> None:
    """One after the other, as often as loops hang on each other; the last finds all finished."""
    expected, kept = whole(verb, place), tmp_path / "kept"
    for number in (1, 2, 3, 1, 2, 3, 1, 2, 3):
        try:
            found = asked(verb, place, keep=kept, shard=f"{number}/3")
        except hp.Unfinished:
            continue
        break
    else:
        pytest.fail("the shards do not come to an end")
    assert contents(found, tmp_path / "found") == expected
    assert contents(asked(verb, place, keep=kept), tmp_path / "gathered") == expected
    assert not list(kept.rglob("*.unit")) if kept.exists() else True

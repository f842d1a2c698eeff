"""Workers that cannot be had are refused in one line, before a model is loaded."""

import sys
from pathlib import Path

import pytest

from tests.command import contents, refused_early


@pytest.fixture
def words(place: Path, tmp_path: Path) -> tuple[object, ...]:
    return ("rank", "--model", place / "model", "--pairs", place / "pairs", "--out", tmp_path)


def test_without_ray(
    words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    before = contents(tmp_path)
    line = refused_early(*words, "--workers", 2)
    assert line == "--workers: Ray is not installed; expected Ray. pip install 'headpatch[ray]'"
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--workers", 0), "--workers: 0; expected at least 1"),
        (("--workers", 2, "--device", "cuda:1"), "--device: cuda:1, and workers; expected cuda"),
        (("--ray", "here"), "--ray: 'here'; expected `auto`, or host:port"),
        (("--ray", "127.0.0.1:9"), "--ray: nothing answers at 127.0.0.1:9"),
        (("--workers", 2, "--shard", "1/2"), "--shard, --workers: both of them; expected one of"),
    ],
)
def test_what_cannot_be(words: tuple[object, ...], more: tuple[object, ...], expected: str) -> None:
    assert refused_early(*words, *more).startswith(expected)


def test_of_one_pair(place: Path, tmp_path: Path) -> None:
    line = refused_early("rank", "--out", tmp_path, "--workers", 2)
    assert line == "--workers: one pair of pictures; expected --pairs as well"

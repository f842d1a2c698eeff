"""Scenes: pairs that share a picture, or nearly, are found; drawn scenes are told apart."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headpatch.core.drawn_pairs import draw_pairs
from headpatch.errors import InputError
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.region import REGIONS
from headpatch.pairs.same_scene import need_scenes, scenes_of, with_scenes
from tests.datasets import write_table

DRAWN = 200
Copy = Callable[[Image.Image, Path], None]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Entry, ...]:
    folder = tmp_path_factory.mktemp("drawn")
    return draw_pairs(DRAWN, folder, on_progress=False, size=112).entries


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Entry, ...]:
    """As large as the default."""
    return draw_pairs(20, tmp_path_factory.mktemp("large"), on_progress=False).entries


def entry(name: str, present: Path, absent: Path, scene: str = "") -> Entry:
    return Entry(name, present, absent, "Is it there?", REGIONS["top-left"], 1, scene=scene)


def resized(share: float) -> Copy:
    def save(image: Image.Image, path: Path) -> None:
        image.resize([round(side * share) for side in image.size]).save(path.with_suffix(".png"))

    return save


def compressed(quality: int) -> Copy:
    return lambda image, path: image.save(path.with_suffix(".jpg"), quality=quality)


def test_drawn_pairs_are_scenes_of_their_own(drawn: tuple[Entry, ...]) -> None:
    """Some show nothing but black without the object: that is nothing to share."""
    assert scenes_of(drawn).tolist() == list(range(DRAWN))
    assert [one.scene for one in with_scenes(drawn)] == [one.name for one in drawn]


@pytest.mark.parametrize(
    "copy", [resized(0.5), resized(0.77), resized(2), compressed(95), compressed(50)]
)
def test_copies_of_another_size_or_compression_are_joined(
    copy: Copy, large: tuple[Entry, ...], tmp_path: Path
) -> None:
    copies = []
    for one in large:
        for which, path in (("with", one.with_path), ("without", one.without_path)):
            copy(Image.open(path), tmp_path / f"{one.name}-{which}")
        files = [next(tmp_path.glob(f"{one.name}-{which}.*")) for which in ("with", "without")]
        copies.append(entry(f"copy of {one.name}", *files))
    assert scenes_of([*large, *copies]).tolist() == [*range(len(large))] * 2


def test_one_shared_picture_joins_and_goes_on_from_pair_to_pair(
    drawn: tuple[Entry, ...], tmp_path: Path
) -> None:
    first, second, third, other = drawn[4:8]
    copied = shutil.copy(first.without_path, tmp_path / "copied.png")
    chain = [
        first,
        replace(second, without_path=Path(copied)),
        replace(third, with_path=second.with_path),
        other,
    ]
    found = with_scenes(chain)
    assert [one.scene for one in found] == [first.name] * 3 + [other.name]
    assert scenes_of(chain[::-1]).tolist() == [0, 1, 1, 1]
    assert with_scenes(found) == found  # they keep what they have


def test_a_small_object_tells_pictures_apart(tmp_path: Path) -> None:
    entries = []
    for index in range(4):
        image = Image.new("RGB", (400, 300), "white")
        ImageDraw.Draw(image).rectangle((50, 50, 150, 250), fill="navy")
        for which, top in (("a", 20 * index), ("b", 160 + 20 * index)):
            own = image.copy()
            ImageDraw.Draw(own).rectangle((300, top, 306, top + 6), fill="black")
            own.save(tmp_path / f"{index}{which}.png")
        entries.append(entry(str(index), tmp_path / f"{index}a.png", tmp_path / f"{index}b.png"))
    assert scenes_of(entries).tolist() == [0, 1, 2, 3]


def test_pictures_are_read_once_and_again_if_they_change(
    drawn: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, one in enumerate(drawn[4:6]):
        shutil.copy(one.with_path, tmp_path / f"{place}-with.png")
        shutil.copy(one.without_path, tmp_path / f"{place}-without.png")
    two = [
        entry(str(place), tmp_path / f"{place}-with.png", tmp_path / f"{place}-without.png")
        for place in range(2)
    ]
    assert scenes_of(two).tolist() == [0, 1]
    with monkeypatch.context() as patched:
        patched.setattr("headpatch.pairs.same_scene.read_image", None)
        assert scenes_of(two).tolist() == [0, 1]
    Image.open(two[0].with_path).convert("RGB").save(two[1].with_path, compress_level=1)
    assert scenes_of(two).tolist() == [0, 0]


def test_a_picture_that_cannot_be_read_is_left_for_who_runs_it(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    two = [entry(name, tmp_path / "damaged.png", tmp_path / "gone.png") for name in "ab"]
    assert scenes_of(two).tolist() == [0, 1]


def test_the_tables_own_scenes_are_taken(drawn: tuple[Entry, ...], tmp_path: Path) -> None:
    rows = [
        {"with": str(one.with_path), "without": str(one.without_path), "question": one.question,
         "region": "top-left", "scene": f"kitchen {place // 2}", "shape": "ring"}
        for place, one in enumerate(drawn[:4])
    ]  # fmt: skip
    manifest = Manifest.read(write_table(tmp_path, rows))
    assert scenes_of(manifest.entries).tolist() == [0, 0, 1, 1]
    assert manifest.entries[0].scene == "kitchen 0"
    assert manifest.entries[0].factors == {"shape": "ring"}
    rows[1]["scene"] = ""
    _, bad, *_ = Manifest.read(write_table(tmp_path, rows)).entries
    assert "an empty scene" in str(bad.problem)
    for row in rows:
        row["scene"] = "one"
    of_one = Manifest.of(rows)
    assert of_one.path != Manifest.of([{**row, "scene": "two"} for row in rows]).path


def test_too_few_scenes_are_refused_in_one_line(drawn: tuple[Entry, ...]) -> None:
    def need(count: int) -> None:
        if count < 3:
            raise InputError("--pairs", f"{count} pairs", "at least 3 pairs")

    need_scenes(drawn[:3], need)
    shared = [replace(one, scene=str(place % 2)) for place, one in enumerate(drawn[:6])]
    with pytest.raises(InputError) as caught:
        need_scenes(shared, need)
    assert str(caught.value) == (
        "--pairs: 6 pairs show 2 scenes: pairs that share pictures count as one; expected at "
        "least 3 pairs, each of another scene. Add pairs of other pictures; a column scene names "
        "the scenes, if you know them better."
    )
    with pytest.raises(InputError, match="2 pairs; expected"):
        need_scenes(shared[:2], need)


def test_flat_pictures_show_nothing_that_pairs_share(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "black").save(tmp_path / "black.png")
    two = []
    for name in "ab":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((256, 256), Image.Resampling.NEAREST).save(
            tmp_path / f"{name}.png"
        )
        two.append(entry(name, tmp_path / f"{name}.png", tmp_path / "black.png"))
    assert scenes_of(two).tolist() == [0, 1]

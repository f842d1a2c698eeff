"""Pictures whose region is corrupted: hand-made twins, and nothing moves outside of the region."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

import headpatch as hp
from headpatch.errors import InputError
from headpatch.pairs.corrupt import CORRUPTIONS, box_of, corrupted
from headpatch.pairs.region import Region
from tests.command import done, refused
from tests.datasets import write_table
from tests.tiny import noise_image

REGIONS = ("0.2,0.3,0.5,0.7", "0,0,0.4,0.5", "0.5,0,0.8,1", "0,0.25,1,0.5", "0.9,0.9,1,1",
           "0.31,0.31,0.33,0.33")  # fmt: skip
BOX = "0.25,0.25,0.75,0.5"


def picture(size: tuple[int, int] = (30, 20)) -> Image.Image:
    return noise_image(3, size)


@pytest.mark.parametrize("how", CORRUPTIONS)
@pytest.mark.parametrize("box", REGIONS)
def test_nothing_moves_outside_and_the_same_seed_gives_the_same_bytes(how: str, box: str) -> None:
    image, region = picture(), Region.parse(box)
    made = corrupted(image, region, how, seed=5)
    assert made.tobytes() == corrupted(image, region, how, seed=5).tobytes()
    before, after = np.array(image), np.array(made)
    inside = np.zeros(before.shape[:2], dtype=bool)
    for row in range(20):
        for column in range(30):
            x, y = (column + 0.5) / 30, (row + 0.5) / 20
            inside[row, column] = (
                region.left <= x < region.right and region.top <= y < region.bottom
            )
    assert (before[~inside] == after[~inside]).all()
    if how != "blur" or inside.sum() > 1:  # a pixel's blur has a quarter of its width
        assert (before[inside] != after[inside]).any()


def test_noise_and_the_mean_are_those_of_the_rest() -> None:
    image, region = picture((200, 100)), Region.parse(BOX)
    kept = np.ones((100, 200), dtype=bool)
    kept[25:50, 50:150] = False
    rest = np.array(image)[kept].astype(float)
    flat = np.array(corrupted(image, region, "mean"))[25:50, 50:150]
    assert (flat == np.rint(rest.mean(0))).all()
    noise = np.array(corrupted(image, region, "gaussian", seed=1))[25:50, 50:150].astype(float)
    assert noise.mean((0, 1)) == pytest.approx(rest.mean(0), abs=6)  # of 2,500 pixels, clipped
    assert noise.std((0, 1)) == pytest.approx(rest.std(0), rel=0.15)
    other = corrupted(image, region, "gaussian", seed=2)
    assert other.tobytes() != corrupted(image, region, "gaussian", seed=1).tobytes()


def test_a_blur_is_a_weighted_mean_of_what_is_around() -> None:
    image = np.array(picture()).astype(float)
    made = np.array(corrupted(picture(), Region.parse(BOX), "blur"))
    sigma, reach = 5 / 4, 5  # the box is 15 x 5 pixels; scipy's filter ends after 4 sigma
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for row, column in ((5, 8), (7, 15), (9, 21)):
        rows = np.clip(np.arange(row - reach, row + reach + 1), 0, 19)
        columns = np.clip(np.arange(column - reach, column + reach + 1), 0, 29)
        expected = np.einsum("y,x,yxc->c", weights, weights, image[np.ix_(rows, columns)])
        assert made[row, column] == pytest.approx(expected, abs=0.51)


@pytest.mark.parametrize("box", REGIONS)
def test_what_is_grown_inwards_solves_laplaces_equation(box: str) -> None:
    """A sparse system of every pixel's mean of its neighbours, solved as a whole."""
    image, region = np.array(picture()).astype(float), Region.parse(box)
    rows, columns = box_of(region, 30, 20)
    places = [(y, x) for y in range(rows.start, rows.stop)
              for x in range(columns.start, columns.stop)]  # fmt: skip
    number = {place: index for index, place in enumerate(places)}
    system, right = lil_matrix((len(places), len(places))), np.zeros((len(places), 3))
    for (y, x), index in number.items():
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= near[0] < 20 and 0 <= near[1] < 30):
                continue
            system[index, index] += 1
            if near in number:
                system[index, number[near]] -= 1
            else:
                right[index] += image[near]
    expected = spsolve(system.tocsc(), right).reshape(-1, 3)
    made = np.array(corrupted(picture(), region, "inpaint"))
    assert [made[place] for place in places] == pytest.approx(expected, abs=0.51)


def test_a_ramp_is_grown_as_it_is() -> None:
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2)
    image = Image.fromarray(ramp)
    assert corrupted(image, Region.parse(BOX), "inpaint").tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("box", "words"), [("image", "whole picture"), ("0.5,0.5,0.501,0.501", "pix")]
)
def test_a_region_without_pixels_or_with_all_is_refused(box: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        corrupted(picture(), Region.parse(box), "mean")


def test_one_picture_makes_a_pair_for_each_way(tmp_path: Path) -> None:
    picture().save(tmp_path / "mine.png")
    options = {"region": BOX, "question": "Is it there?", "image": tmp_path / "mine.png"}
    made = hp.corrupt(["mean", "inpaint"], tmp_path / "out", **options)
    assert [(one.name, dict(one.factors)) for one in made.entries] == [
        ("mine-mean", {"corruption": "mean"}),
        ("mine-inpaint", {"corruption": "inpaint"}),
    ]
    pair = made.entries[1].pair()
    assert pair.with_image.tobytes() == picture().tobytes()
    assert pair.without_image.tobytes() == corrupted(picture(), pair.region, "inpaint").tobytes()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"manifest.csv", "corrupt.yaml", "pairs.png"} <= names
    study = hp.Study.make(tmp_path / "out" / "inpaint.yaml", {})
    (asked,) = [one for one in made.entries if one.factors["corruption"] == "inpaint"]
    assert [image.tobytes() for image in study.pair().images] == [
        image.tobytes() for image in asked.pair().images
    ]
    assert (study.question, study.pair().region.box) == (asked.question, asked.region.box)
    hp.corrupt(["mean", "inpaint"], tmp_path / "out", **options)  # the same once more
    with pytest.raises(InputError, match="a folder without a dataset"):
        hp.corrupt("blur", tmp_path / "out", **options)


def test_a_table_of_pictures_on_the_command_line(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    picture((40, 40)).save(tmp_path / "b.png")
    rows = [{"with": f"{name}.png", "question": "Is it?", "region": BOX, "thing": name}
            for name in "ab"]  # fmt: skip
    write_table(tmp_path, rows)
    words = "pairs", "--corrupt", "gaussian,blur", "--pairs", tmp_path, "--seed", 3
    told = done(*words, "--out", tmp_path / "one", "--json").json
    assert told["pairs"] == 4
    done(*words, "--out", tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        again = tmp_path / "two" / path.name
        if path.name == "pairs.png":  # its layout is solved in floats: an edge may move by a pixel
            first, second = (np.asarray(Image.open(one)) for one in (path, again))
            assert first.shape == second.shape and (first != second).any(-1).mean() < 0.001
        else:
            assert path.read_bytes() == again.read_bytes(), path.name
    entries = hp.Manifest.read(tmp_path / "one").entries
    assert [one.factors for one in entries] == [
        {"thing": thing, "corruption": how} for thing in "ab" for how in ("gaussian", "blur")
    ]
    assert entries[0].with_path == entries[1].with_path  # one scene


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--corrupt", "smear"), "one of gaussian, blur, mean, inpaint"),
        (("--corrupt", "blur,blur"), "each once"),
        (("--corrupt", "blur", "--n", 3), "--corrupt, --n"),
        (("--with", "x.png"), "--corrupt beside it"),
        (("--corrupt", "blur", "--region", "image"), "whole picture"),
        (("--corrupt", "blur", "--pairs", "t.csv", "--region", "top-left"), "--pairs, --region"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[object, ...], said: str) -> None:
    assert said in refused("pairs", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()

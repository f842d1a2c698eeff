"""Small datasets on disk for tests, and the studies and tiny models that run on them."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw

from headpatch.core.baseline_runs import Survey
from headpatch.core.cost import opening
from headpatch.core.dataset import Pairs
from headpatch.core.study.study import Study
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from headpatch.questions.sweep.question import Sweep, sweep
from tests.families import builders
from tests.planted import QUESTION, planted_image
from tests.tiny import SHAPES, SIDE, image_pair, noise_image, tiny_vlm

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Patches of the top left quadrant of the planted pictures."""

_FOLDERS: list[TemporaryDirectory] = []


def lasting_folder() -> Path:
    """A folder that stays until the tests end, as surveys do that are kept for several tests."""
    _FOLDERS.append(TemporaryDirectory())
    return Path(_FOLDERS[-1].name)


def write_table(folder: Path, rows: Sequence[dict[str, str]]) -> Path:
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def planted_pairs(folder: Path, swapped: Sequence[int] = (), count: int = len(PLACES)) -> Path:
    """Pairs of the planted circuit's task, the object elsewhere each time, each a scene of its own.

    The pictures of the `swapped` ones stand the wrong way round, so that both answers are wrong.
    """
    planted_image(found=False).save(folder / "without.png")
    rows = []
    for index, place in enumerate(PLACES[:count]):
        planted_image(True, *place).save(folder / f"{index}.png")
        files = [f"{index}.png", "without.png"]
        present, absent = files[::-1] if index in swapped else files
        rows.append({"name": f"p{index}", "with": present, "without": absent,
                     "question": QUESTION, "region": "top-left", "scene": f"s{index}",
                     "place": str(place)})  # fmt: skip
    return write_table(folder, rows)


def noisy_pairs(folder: Path, questions: Sequence[str]) -> Path:
    """Noise with and without a white block, asked one question each: for a random tiny model."""
    rows = []
    for index, question in enumerate(questions):
        without: Image.Image = noise_image(index)
        image = without.copy()
        ImageDraw.Draw(image).rectangle((0, 0, SIDE // 3, SIDE // 3), fill="white")
        files = {"with": f"{index}-with.png", "without": f"{index}-without.png"}
        for file, one in zip(files.values(), (image, without), strict=True):
            one.save(folder / file)
        rows.append(files | {"question": question, "region": "top-left"})
    return write_table(folder, rows)


@lru_cache
def any_model(name: str) -> VLM:
    """A tiny LLaVA of one of `tests.tiny.SHAPES`, or a tiny model of a family."""
    return tiny_vlm(SHAPES[name]) if name in SHAPES else builders.build(name)


def noisy_study(section: str, scope: str | None = None, **options: object) -> Study:
    """A study that runs whatever a random model answers, means over the pairs themselves.

    `options` are those of its `section`; `scope` is where vision heads are changed.
    """
    asked = {f"{section}.{key}": value for key, value in {"reference": 0, **options}.items()}
    shared = {"force": True, "pairs.resamples": 200, "vision.positions": scope}
    return Study.make(None, shared | asked)


def tiny_study(folder: Path, size: tuple[int, int] = (SIDE, SIDE), **options: object) -> Study:
    """A forced study of two noisy pictures, written to `folder`; dotted keys as in `Study.make`."""
    pictures = {name: folder / f"{name}.png" for name in ("with", "without")}
    for file, image in zip(pictures.values(), image_pair(size), strict=True):
        image.save(file)
    flags = {name: str(file) for name, file in pictures.items()}
    return Study.make(None, {**flags, "force": True, **options})


def sweep_pairs(
    asked: Study, vlm: VLM, found: Survey, sets: Sequence[HeadSet] | None = None
) -> Sweep:
    """Sweep pairs that are surveyed for it."""
    return sweep(Pairs(asked, vlm, found, *opening(asked)), sets, on_progress=False)

"""Pairs that share pictures count as one: copies of pairs under other names change no figure."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.dataset import Pairs
from headpatch.core.saved_verdict import halve
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.region import REGIONS
from headpatch.questions.ablate.question import ablate
from headpatch.questions.rank.question import rank
from tests.datasets import noisy_pairs, noisy_study, write_table
from tests.tiny import tiny_vlm

ASKED = ("is there a red square ?", "is there a red square in the image ?", "is there a ring ?")
STUDY = noisy_study("ablate", kinds=("resample",))


def with_copies(folder: Path, copies: int) -> Path:
    """Three pairs, the first two again under other names."""
    path = noisy_pairs(folder, ASKED)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    for copy in range(copies):
        for row in rows[:2]:
            again = dict(row)
            for which in ("with", "without"):
                again[which] = f"copy{copy}-{row[which]}"
                shutil.copy(folder / row[which], folder / again[which])
            rows.append(again)
    return write_table(folder, rows)


def surveyed(path: Path) -> Survey:
    return survey(STUDY, tiny_vlm(), Manifest.read(path).entries, "answer")


def test_copies_change_no_mean_and_no_interval(tmp_path: Path) -> None:
    once, often = (surveyed(with_copies(tmp_path, copies)) for copies in (0, 4))
    assert often.counts["pairs"] == 11
    assert often.counts["scenes"] == once.counts["scenes"] == 3
    (words,) = (one for one in often.cautions if "scenes" in one)
    assert words == "11 pairs show 3 scenes: pairs that share pictures count as one"
    assert not any("scenes" in one for one in once.cautions)
    assert often.gate_columns()["scene"] == ["0001", "0002", "0003", *["0001", "0002"] * 4]
    opened = [Pairs(STUDY, tiny_vlm(), seen, "answer") for seen in (once, often)]
    assert words in opened[1].summary
    for tables in (
        [rank(one).heads.drop(columns="pairs") for one in opened],
        [ablate(one, [Head(0, 1), Head(2, 3)]).means.drop(columns="pairs") for one in opened],
    ):
        shared = [table.drop(columns="answer_changed", errors="ignore") for table in tables]
        pd.testing.assert_frame_equal(*shared, rtol=1e-6, atol=1e-6)


def test_pairs_of_one_scene_have_no_interval(tmp_path: Path) -> None:
    rows = list(csv.DictReader(with_copies(tmp_path, 1).open(encoding="utf-8")))
    path = write_table(tmp_path, [rows[0], rows[3]])
    with pytest.raises(InputError, match=r"2 pairs show 1 scene: .* expected at least 2"):
        surveyed(path)
    with pytest.raises(InputError, match=r"2 pairs show 1 scene: .* expected at least 2"):
        hp.open_pairs(STUDY, path)  # before any model loads
    with pytest.raises(InputError, match=r"45 pairs show 3 scenes: .* expected at least 40 pairs"):
        hp.verdict(Study.make(None, {}), with_copies(tmp_path, 21))


@pytest.mark.parametrize(("scenes", "split"), [(60, 0.5), (45, 0.4)])
def test_a_scene_lies_in_one_half_and_regions_in_both_alike(scenes: int, split: float) -> None:
    rng, regions = np.random.default_rng(0), ("top-left", "top-right", "bottom-left")
    entries = [
        Entry(f"{scene}-{copy}", Path("a"), Path("b"), "q", REGIONS[regions[scene % 3]], 1,
              scene=f"s{scene}")
        for scene in range(scenes)
        for copy in range(int(rng.integers(1, 6)))
    ]  # fmt: skip
    study = Study.make(None, {"verdict.split": split})
    halves = halve(study, entries)
    first, second = (
        {one.scene for one in half} for half in (halves.discovery, halves.confirmation)
    )
    assert not first & second
    assert len(first) == round(split * scenes)
    assert len(halves.discovery) + len(halves.confirmation) == len(entries)
    for region in regions:
        there = {one.scene for one in halves.confirmation if one.region.name == region}
        assert len(there) / len(second) == pytest.approx(1 / 3, abs=0.07)


def test_pairs_that_share_nothing_are_split_as_ever() -> None:
    entries = [
        Entry(f"{place:02d}", Path("a"), Path("b"), "q", REGIONS[region], 1)
        for place, region in enumerate(["top-left", "center"] * 30)
    ]
    halves = halve(Study.make(None, {}), entries)
    assert [one.name for one in halves.discovery][:12] == [  # of the version before
        "02", "03", "08", "09", "12", "14", "15", "16", "17", "22", "23", "25",
    ]  # fmt: skip

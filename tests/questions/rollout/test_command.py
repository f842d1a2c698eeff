"""`headpatch rollout`, from the command line to its files."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from tests.command import done, of_pair, refused, refused_early
from tests.datasets import planted_pairs
from tests.tiny import QUESTION

pytestmark = pytest.mark.usefixtures("undrawn")  # the contract draws them


@pytest.fixture
def asked(place: Path) -> list[object]:
    return [*of_pair(place), "--question", QUESTION]


@pytest.fixture(scope="module")
def many(place: Path) -> list[object]:
    """The flags of a dataset of which the second pair fails."""
    (place / "pairs").mkdir()
    planted_pairs(place / "pairs", swapped=[1])
    return ["rollout", "--model", place / "model", "--pairs", place / "pairs"]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def test_a_rollout_says_what_it_found(asked: list[object], tmp_path: Path) -> None:
    said = done("rollout", *asked, "--out", tmp_path, "--draws", 3)
    saved = torch.load(tmp_path / "rollout.pt", weights_only=True)
    assert saved["maps"]["relevance_patches"].shape == (2, 16)
    words = " ".join(said.out.split())
    assert "Token 0 of 'Yes': 'Yes'; LD = logit(Yes) - logit(No): with +4.000" in words
    assert "Do the maps' patches matter?" in words
    assert "of 3 random orders" in words
    assert words.count("One pair shows one case, not a rule.") == 1
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["run"]["noise_floor"] < 1e-3


def test_a_rollout_without_a_check_says_so(asked: list[object], tmp_path: Path) -> None:
    """Made to say Yes, both runs of the planted model end their answer."""
    for left in ("perturbation.csv", "perturbation.png"):  # of an earlier run, which had one
        (tmp_path / left).touch()
    said = done("rollout", *asked, "--out", tmp_path, "--answer", "Yes No", "--token", 1)
    assert names(tmp_path) == ["rollout.csv", "rollout.png", "rollout.pt", "run.yaml"]
    kept = torch.load(tmp_path / "rollout.pt", weights_only=True)
    assert "both runs would say" in kept["unchecked"]
    assert "The maps are not checked: both runs would say '</s>' here." in said.out


def test_a_rollout_of_a_dataset_is_the_mean_of_its_pairs(
    many: list[object], tmp_path: Path
) -> None:
    said = done(*many, "--out", tmp_path, "--draws", 3)
    assert names(tmp_path) == [
        "gate.csv", "perturbation.csv", "perturbation.png", "perturbation_mean.csv", "rollout.csv",
        "rollout.png", "rollout_mean.csv", "run.yaml",
    ]  # fmt: skip
    patches, curves, means, areas = (
        pd.read_csv(tmp_path / f"{name}.csv")
        for name in ("rollout", "perturbation", "rollout_mean", "perturbation_mean")
    )
    assert list(patches["pair"].unique()) == ["p0", "p2", "p3"] == list(curves["pair"].unique())
    on_region = patches[patches["in_region"]]
    by_pair = on_region.groupby(["method", "stage", "run", "pair"])["share"].sum()
    by_hand = by_pair.groupby(["method", "stage", "run"]).mean()
    for row in means.to_dict("records"):
        assert row["region"] == pytest.approx(by_hand[row["method"], row["stage"], row["run"]])
        assert row["region_low"] <= row["region"] + 1e-6 and row["pairs"] == 3
        assert row["even"] == row["even_low"] == 0.25
    assert len(areas) == 2 * 2 * 4
    assert areas["difference"].to_numpy() == pytest.approx(
        (areas["area"] - areas["random_mean"]).to_numpy(), abs=1e-6
    )
    words = " ".join(said.out.split())
    assert "Gate: 3 of 4 pairs pass" in words
    assert "Means over 3 pairs." in words


def test_a_dataset_whose_maps_cannot_be_checked_says_so(many: list[object], tmp_path: Path) -> None:
    said = done(*many, "--out", tmp_path, "--answer", "Yes No", "--token", 1, "--json").json
    assert said["check"] == []
    assert said["unchecked"].keys() == {"p0", "p2", "p3"}
    assert said["summary"].startswith("The maps are not checked: in every pair")
    assert names(tmp_path) == [
        "gate.csv", "rollout.csv", "rollout.png", "rollout_mean.csv", "run.yaml",
    ]  # fmt: skip


def test_an_answer_is_given_or_a_runs_own(tmp_path: Path) -> None:
    line = refused_early("rollout", "--answer", "Yes", "--forced", "with", "--out", tmp_path)
    assert "--answer, --forced: both of them" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token", "1"], "--token: 1; expected 0-0: the answer is 'Yes'"),
        (["--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
    ],
)
def test_what_the_model_lacks_is_refused(
    asked: list[object], arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused("rollout", *asked, *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())

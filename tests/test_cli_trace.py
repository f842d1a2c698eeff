"""`headpatch trace` and `headpatch rollout`, from the command line to their files."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from tests.command import done, refused, refused_early
from tests.planted import planted_study, save_planted
from tests.tiny import QUESTION

TRACE_COLUMNS = [
    "pair", "forced", "index", "token", "rival", "kind", "direction", "run", "layer", "head",
    "diff", "with", "without", "diff_raw", "with_raw", "without_raw", "measure", "base_with",
    "base_without", "effect", "effect_logit", "effect_logprob", "normalized", "layer_mean",
    "layer_sd", "below_floor",
]  # fmt: skip
ROLLOUT_COLUMNS = [
    "pair", "token", "run", "method", "stage", "patch", "left", "top", "right", "bottom",
    "in_region", "value", "share",
]  # fmt: skip


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The flags of a study of the planted model."""
    folder = save_planted(tmp_path_factory.mktemp("planted"))
    planted_study(folder)  # for its pictures
    pictures = ["--with", folder / "with.png", "--without", folder / "without.png"]
    return ["--model", folder, *pictures, "--question", QUESTION]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def test_a_trace_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    said = done("trace", *asked, "--out", tmp_path, "--answer", "Yes No", "--top", 2)
    assert names(tmp_path) == ["run.yaml", "trace.csv", "trace.png", "trace.pt"]
    table = rows(tmp_path / "trace.csv")
    assert list(table[0]) == TRACE_COLUMNS
    assert len(table) == 2 * 2 * 16
    (looker,) = (
        row
        for row in table
        if (row["index"], row["direction"], row["layer"], row["head"]) == ("0", "noising", "1", "1")
    )
    assert float(looker["effect"]) == pytest.approx(-2, abs=1e-3)
    assert (looker["token"], looker["rival"]) == ("Yes", "No")
    saved = torch.load(tmp_path / "trace.pt", weights_only=True)
    assert saved["effect_logit"]["resample_noising"].shape == (2, 4, 4)
    assert "The given answer, token by token" in said.out
    assert "One pair shows one case, not a rule." in " ".join(said.out.split())


def test_a_script_reads_a_trace_and_it_replays(asked: list[object], tmp_path: Path) -> None:
    found = done("trace", *asked, "--out", tmp_path, "--forced", "both", "--json").json
    assert found["answers"] == {"with": "Yes", "without": "No"}
    first = found["tokens"][0]
    assert (first["token"], first["rival"]) == ("Yes", "No")
    assert len(first["resample_noising"]["top"]) == 3
    assert first["resample_noising"]["top"][0]["effect"] == pytest.approx(-2, abs=1e-3)
    again = tmp_path / "again"
    done("trace", "--config", tmp_path / "run.yaml", "--out", again)
    assert rows(again / "trace.csv") == rows(tmp_path / "trace.csv")


def test_a_rollout_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    said = done("rollout", *asked, "--out", tmp_path, "--draws", 3)
    assert names(tmp_path) == [
        "perturbation.csv", "perturbation.png", "rollout.csv", "rollout.png", "rollout.pt",
        "run.yaml",
    ]  # fmt: skip
    table = rows(tmp_path / "rollout.csv")
    assert list(table[0]) == ROLLOUT_COLUMNS
    assert len(table) == 4 * 2 * 16
    curves = rows(tmp_path / "perturbation.csv")
    assert list(curves[0]) == ["run", "way", "order", "draw", "k", "ld", "share"]
    saved = torch.load(tmp_path / "rollout.pt", weights_only=True)
    assert saved["maps"]["relevance_patches"].shape == (2, 16)
    assert "Do the maps' patches matter?" in said.out
    words = " ".join(said.out.split())
    assert "of 3 random orders" in words
    assert "One pair shows one case, not a rule." in words
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["study"]["rollout"]["draws"] == 3
    assert kept["run"]["noise_floor"] < 1e-3


def test_a_script_reads_a_rollout(asked: list[object], tmp_path: Path) -> None:
    found = done("rollout", *asked, "--out", tmp_path, "--draws", 2, "--json").json
    assert (found["token"], found["rival"], found["answer"]) == ("Yes", "No", "Yes")
    assert len(found["maps"]) == 4 * 2
    assert len(found["check"]) == 4 * 2 * 2


def test_a_rollout_without_a_check_says_so(asked: list[object], tmp_path: Path) -> None:
    """Made to say Yes, both runs of the planted model end their answer."""
    for left in ("perturbation.csv", "perturbation.png"):  # of an earlier run, which had one
        (tmp_path / left).touch()
    said = done("rollout", *asked, "--out", tmp_path, "--answer", "Yes No", "--token", 1)
    assert names(tmp_path) == ["rollout.csv", "rollout.png", "rollout.pt", "run.yaml"]
    kept = torch.load(tmp_path / "rollout.pt", weights_only=True)
    assert "both runs would say" in kept["unchecked"]
    assert "The maps are not checked: both runs would say '</s>' here." in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "--answer", " "], "--answer: an empty text; expected words"),
        (["trace", "--answer", "Yes", "--forced", "with"], "--answer, --forced: both of them"),
        (["trace", "--forced", "left"], "--forced: 'left'; expected 'with', 'without' or 'both'"),
        (["trace", "--kinds", "self"], "--kinds: 'self'; expected 'zero', 'mean' or 'resample'"),
        (["trace", "--top", "0"], "--top: 0; expected at least 1"),
        (["trace", "--tokens", "0"], "--tokens: 0; expected at least 1"),
        (["trace", "--noise", "0"], "--noise: 0; expected at least 1"),
        (["rollout", "--token", "-1"], "--token: -1; expected at least 0"),
        (["rollout", "--token", "first"], "'first'; expected a whole number"),
        (["rollout", "--draws", "1"], "--draws: 1; expected at least 2"),
        (["rollout", "--fill", "black"], "--fill: 'black'; expected 'other' or 'mean'"),
        (["rollout", "--forced", "both"], "--forced: 'both'; expected 'with' or 'without'"),
        (["rollout", "--answer", "Yes", "--forced", "with"], "--answer, --forced: both of them"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused_early(*arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "--answer", "Yes ☃"], "--answer: 'Yes ☃' gives unknown tokens"),
        (["rollout", "--token", "1"], "--token: 1; expected 0-0: the answer is 'Yes'"),
        (["rollout", "--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
        (["trace", "--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
    ],
)
def test_what_the_model_lacks_is_refused(
    asked: list[object], arguments: list[str], message: str, tmp_path: Path
) -> None:
    verb, *rest = arguments
    assert message in refused(verb, *asked, *rest, "--out", tmp_path)
    assert not list(tmp_path.iterdir())

"""`headpatch trace`, of a pair and over a dataset, interrupted and resumed."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from headpatch.core.store import Store
from tests.command import (
    contents,
    done,
    headpatch,
    of_pair,
    refused,
    refused_early,
    table,
    unpriced,
)
from tests.datasets import planted_pairs
from tests.planted import planted_study, save_planted
from tests.tiny import QUESTION

pytestmark = pytest.mark.usefixtures("undrawn")  # the contract draws them
OF_PAIR = ["run.yaml", "trace.csv", "trace.png", "trace.pt"]
FILES = ["gate.csv", "run.yaml", "trace.png", "trace.pt", "trace_mean.csv", "trace_tokens.csv"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, its two pictures, and a dataset of which the second pair fails."""
    folder = tmp_path_factory.mktemp("planted")
    save_planted(folder / "model")
    planted_study(folder)
    (folder / "pairs").mkdir()
    planted_pairs(folder / "pairs", swapped=[1])
    return folder


def many(place: Path, out: Path, *more: object) -> list[object]:
    return ["trace", "--model", place / "model", "--pairs", place / "pairs", "--out", out, *more]


def one(place: Path, out: Path, *more: object) -> list[object]:
    asked = ["--question", QUESTION, "--answer", "Yes No", "--kinds", "zero", *more]
    return ["trace", *of_pair(place), "--out", out, *asked]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_trace_says_what_it_found(place: Path, tmp_path: Path) -> None:
    said = done(*one(place, tmp_path, "--kinds", "resample", "--top", 2))
    assert names(tmp_path) == OF_PAIR
    rows = pd.read_csv(tmp_path / "trace.csv").set_index(["index", "direction", "layer", "head"])
    rows = rows.sort_index()
    assert len(rows) == 2 * 2 * 16
    looker = rows.loc[(0, "noising", 1, 1)]
    assert looker["effect"] == pytest.approx(-2, abs=1e-3)
    assert (looker["token"], looker["rival"]) == ("Yes", "No")
    assert "The given answer, token by token" in said.out
    assert "One pair shows one case, not a rule." in " ".join(said.out.split())


def test_a_region_without_a_patch_is_refused(place: Path, tmp_path: Path) -> None:
    line = refused(*one(place, tmp_path, "--region", "0,0,0.05,0.05"))
    assert "--region: 0,0,0.05,0.05 holds no patch" in line
    assert not list(tmp_path.iterdir())


def test_a_script_reads_both_answers(place: Path, tmp_path: Path) -> None:
    asked = ["--question", QUESTION, "--forced", "both", "--out", tmp_path, "--json"]
    found = done("trace", *of_pair(place), *asked).json
    assert found["answers"] == {"with": "Yes", "without": "No"}
    first = found["tokens"][0]
    assert (first["token"], first["rival"]) == ("Yes", "No")
    assert len(first["resample_noising"]["top"]) == 3
    assert first["resample_noising"]["top"][0]["effect"] == pytest.approx(-2, abs=1e-3)


def test_a_trace_of_a_dataset(place: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").touch()  # of an earlier run, of one pair
    said = done(*many(place, tmp_path, "--answer", "Yes No", "--kinds", "resample,mean"))
    assert names(tmp_path) == FILES
    means = table(tmp_path / "trace_mean.csv")
    assert len(means) == 2 * 4 * 16
    looker = next(row for row in means if (row["layer"], row["head"]) == ("1", "1"))
    assert (looker["tokens"], looker["rivals"], looker["pairs"]) == ("Yes (3)", "No (3)", "3")
    for name in ("effect", "effect_low", "effect_high"):
        assert float(looker[name]) == pytest.approx(-2, abs=1e-3)
    tokens = table(tmp_path / "trace_tokens.csv")
    assert [row["pair"] for row in tokens] == ["p0", "p0", "p2", "p2", "p3", "p3"]
    saved = torch.load(tmp_path / "trace.pt", weights_only=True)
    assert saved["effect_by_pair"]["resample_noising"].shape == (3, 2, 4, 4)
    assert [row["passed"] for row in table(tmp_path / "gate.csv")].count("False") == 1
    words = " ".join(said.out.split())
    assert "Gate: 3 of 4 pairs pass" in words
    assert "Means over 3 pairs." in words
    assert "-2.00 [-2.00, -2.00]" in words
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["run"]["passed"] == 3
    done(*one(place, tmp_path))
    assert names(tmp_path) == OF_PAIR


def kill_after(patch: pytest.MonkeyPatch, tokens: int) -> None:
    """Let so many tokens be finished, then interrupt."""
    put, finished = Store.put, []

    def keep(store: Store, name: str, content: dict[str, object]) -> None:
        if len(finished) == tokens:
            raise KeyboardInterrupt
        finished.append(name)
        put(store, name, content)

    patch.setattr(Store, "put", keep)


@pytest.mark.parametrize("verb", [one, many])
def test_an_interrupted_trace_goes_on_to_the_same_files(verb, place: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    done(*verb(place, whole))
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 1)
        line = refused(*verb(place, out), code=130)
    assert "1 finished tokens are kept in" in line
    assert "--resume goes on" in line
    assert names(out) == [".trace-tokens"]
    before = contents(out)
    line = refused(*verb(place, out))
    assert "holds 1 finished tokens of an interrupted trace" in line
    assert contents(out) == before
    said = headpatch(*verb(place, out, "--resume"))
    assert said.code == 0
    assert unpriced(said.err) == "headpatch: 1 finished tokens were found; going on\n"
    assert names(out) == names(whole)
    for file in whole.glob("*.csv"):
        assert (out / file.name).read_bytes() == file.read_bytes()


def test_what_an_interrupted_trace_left_can_be_discarded(place: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 1)
        refused(*one(place, tmp_path), code=130)
    done(*one(place, tmp_path, "--no-resume"))
    assert names(tmp_path) == OF_PAIR


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "PAIRS", "--question", "Is it?"], "--pairs, --question: both of them"),
        (["--pairs", "PAIRS", "--limit", "1"], "1 pair to run; expected at least 2"),
        (["--limit", "2"], "--limit: no dataset to take pairs from"),
        (["--answer", " "], "--answer: an empty text; expected words"),
        (["--answer", "Yes", "--forced", "with"], "--answer, --forced: both of them"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(
    arguments: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    asked = [str(place / "pairs") if word == "PAIRS" else word for word in arguments]
    assert message in refused_early("trace", *asked, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answer", "Yes ☃"], "--answer: 'Yes ☃' gives unknown tokens"),
        (["--limit", "2", "--seed", "1"], "1 of 2 pairs pass the gate; expected at least 2"),
    ],
)
def test_what_the_model_shows_to_be_wrong_is_refused(
    arguments: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    assert message in refused(*many(place, tmp_path, *arguments))
    assert not list(tmp_path.iterdir())


def test_a_forced_dataset_is_marked(place: Path, tmp_path: Path) -> None:
    said = done(*many(place, tmp_path, "--force", "--directions", "noising"))
    assert "INVALID" in said.out
    assert pd.read_csv(tmp_path / "trace_mean.csv")["pairs"].max() == 4

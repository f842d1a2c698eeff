"""`headpatch trace`, of a pair and over a dataset, interrupted and resumed."""

import csv
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from headpatch.core.store import Store
from tests.command import contents, done, headpatch, refused
from tests.datasets import planted_pairs
from tests.planted import planted_study, save_planted
from tests.tiny import QUESTION

FILES = ["gate.csv", "run.yaml", "trace.png", "trace.pt", "trace_mean.csv", "trace_tokens.csv"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, its two pictures, and a dataset of which the second pair fails."""
    folder = save_planted(tmp_path_factory.mktemp("planted"))
    planted_study(folder)
    (folder / "pairs").mkdir()
    planted_pairs(folder / "pairs", swapped=[1])
    return folder


def many(place: Path, out: Path, *more: object) -> list[object]:
    return ["trace", "--model", place, "--pairs", place / "pairs", "--out", out, *more]


def one(place: Path, out: Path, *more: object) -> list[object]:
    pictures = ["--with", place / "with.png", "--without", place / "without.png"]
    asked = ["--question", QUESTION, "--answer", "Yes No", "--kinds", "zero", *more]
    return ["trace", "--model", place, *pictures, "--out", out, *asked]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_trace_says_what_it_found(place: Path, tmp_path: Path) -> None:
    said = done(*one(place, tmp_path, "--kinds", "resample", "--top", 2))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "run.yaml", "trace.csv", "trace.png", "trace.pt",
    ]  # fmt: skip
    table = rows(tmp_path / "trace.csv")
    assert len(table) == 2 * 2 * 16
    (looker,) = (
        row
        for row in table
        if (row["index"], row["direction"], row["layer"], row["head"]) == ("0", "noising", "1", "1")
    )
    assert float(looker["effect"]) == pytest.approx(-2, abs=1e-3)
    assert (looker["token"], looker["rival"]) == ("Yes", "No")
    assert "The given answer, token by token" in said.out
    assert "One pair shows one case, not a rule." in " ".join(said.out.split())


def test_a_region_without_a_patch_is_refused(place: Path, tmp_path: Path) -> None:
    line = refused(*one(place, tmp_path, "--region", "0,0,0.05,0.05"))
    assert "--region: 0,0,0.05,0.05 holds no patch" in line
    assert not list(tmp_path.iterdir())


def test_a_script_reads_both_answers(place: Path, tmp_path: Path) -> None:
    flags = ["--model", place, "--with", place / "with.png", "--without", place / "without.png"]
    asked = ["--question", QUESTION, "--forced", "both", "--out", tmp_path, "--json"]
    found = done("trace", *flags, *asked).json
    assert found["answers"] == {"with": "Yes", "without": "No"}
    first = found["tokens"][0]
    assert (first["token"], first["rival"]) == ("Yes", "No")
    assert len(first["resample_noising"]["top"]) == 3
    assert first["resample_noising"]["top"][0]["effect"] == pytest.approx(-2, abs=1e-3)


def test_a_trace_of_a_dataset(place: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").touch()  # of an earlier run, of one pair
    said = done(*many(place, tmp_path, "--answer", "Yes No", "--kinds", "resample,mean"))
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    table = rows(tmp_path / "trace_mean.csv")
    assert len(table) == 2 * 4 * 16
    looker = next(row for row in table if (row["layer"], row["head"]) == ("1", "1"))
    assert (looker["tokens"], looker["rivals"], looker["pairs"]) == ("Yes (3)", "No (3)", "3")
    for name in ("effect", "effect_low", "effect_high"):
        assert float(looker[name]) == pytest.approx(-2, abs=1e-3)
    tokens = rows(tmp_path / "trace_tokens.csv")
    assert [row["pair"] for row in tokens] == ["p0", "p0", "p2", "p2", "p3", "p3"]
    saved = torch.load(tmp_path / "trace.pt", weights_only=True)
    assert saved["effect_by_pair"]["resample_noising"].shape == (3, 2, 4, 4)
    assert [row["passed"] for row in rows(tmp_path / "gate.csv")].count("False") == 1
    words = " ".join(said.out.split())
    assert "Gate: 3 of 4 pairs pass" in words
    assert "Means over 3 pairs." in words
    assert "-2.00 [-2.00, -2.00]" in words
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["run"]["passed"] == 3
    done(*one(place, tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "run.yaml", "trace.csv", "trace.png", "trace.pt",
    ]  # fmt: skip


class Killed:
    """Lets so many tokens be finished, then interrupts."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int) -> None:
        save, self.left = Store.put, after

        def keep(finished: Store, name: str, content: dict[str, object]) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            save(finished, name, content)

        patch.setattr(Store, "put", keep)


@pytest.mark.parametrize("verb", [one, many])
def test_an_interrupted_trace_goes_on_to_the_same_files(verb, place: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    done(*verb(place, whole))
    with pytest.MonkeyPatch.context() as patch:
        Killed(patch, 1)
        line = refused(*verb(place, out), code=130)
    assert "1 finished tokens are kept in" in line
    assert "--resume goes on" in line
    assert [file.name for file in out.iterdir()] == [".trace-tokens"]
    before = contents(out)
    line = refused(*verb(place, out))
    assert "holds 1 finished tokens of an interrupted trace" in line
    assert contents(out) == before
    said = headpatch(*verb(place, out, "--resume"))
    assert said.code == 0
    assert said.err == "headpatch: 1 finished tokens were found; going on\n"
    assert sorted(file.name for file in out.iterdir()) == sorted(
        file.name for file in whole.iterdir()
    )
    for file in whole.glob("*.csv"):
        assert (out / file.name).read_bytes() == file.read_bytes()


def test_what_an_interrupted_trace_left_can_be_discarded(place: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Killed(patch, 1)
        refused(*one(place, tmp_path), code=130)
    done(*one(place, tmp_path, "--no-resume"))
    assert not (tmp_path / ".trace-tokens").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "nowhere.csv"], "--pairs: nowhere.csv: No such file"),
        (["--pairs", "PAIRS", "--question", "Is it?"], "--pairs, --question: both of them"),
        (["--pairs", "PAIRS", "--limit", "1"], "1 pair to run; expected at least 2"),
        (["--pairs", "PAIRS", "--limit", "0"], "--limit: 0; expected at least 1"),
        (["--limit", "2"], "--limit: no dataset to take pairs from"),
        (["--reference", "-1"], "--reference: -1; expected at least 0"),
        (["--answer", " "], "--answer: an empty text; expected words"),
        (["--answer", "Yes", "--forced", "with"], "--answer, --forced: both of them"),
        (["--forced", "left"], "--forced: 'left'; expected 'with', 'without' or 'both'"),
        (["--kinds", "self"], "--kinds: 'self'; expected 'zero', 'mean'"),
        (["--top", "0"], "--top: 0; expected at least 1"),
        (["--tokens", "0"], "--tokens: 0; expected at least 1"),
        (["--noise", "0"], "--noise: 0; expected at least 1"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(
    arguments: list[str],
    message: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from headpatch.core import session

    def loaded(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(session, "load", loaded)
    asked = [str(place / "pairs") if word == "PAIRS" else word for word in arguments]
    assert message in refused("trace", *asked, "--out", tmp_path)
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
    table = pd.read_csv(tmp_path / "trace_mean.csv")
    assert table["pairs"].max() == 4

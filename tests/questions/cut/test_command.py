"""`headpatch cut`, from the command line to its files, on the planted model."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

import headpatch as hp
from headpatch.core.output.files import read_table
from tests.command import of_pair, ran, refused, refused_early
from tests.planted import planted, planted_dataset
from tests.tiny import QUESTION


@pytest.fixture
def asked(place: Path) -> list[object]:
    """The flags of a study of the planted model."""
    return ["cut", *of_pair(place), "--question", QUESTION]


def test_whole_passes_are_said_before_they_are_run(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*asked, "--out", tmp_path, "--heads", "1.1", "--edges", "answer-question"]
    said = ran(*words, "--dtype", "bfloat16", "--force")
    assert "cannot be resumed" not in said.err
    monkeypatch.setattr("headpatch.engine.knockout.refusal", lambda *_: "as asked")
    said = ran(*words, "--dtype", "bfloat16", "--force")
    assert said.err.startswith("headpatch: 1 head x 1 edge x both runs and 2 of nothing: 4 cuts, ")
    assert "(bfloat16) cannot be resumed halfway: 6.0 forward passes" in said.err


def test_windows_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    edges = ["--from", "answer,question", "--to", "region"]
    said = ran(*asked, "--out", tmp_path, *edges, "--window", 2, "--controls", 2)
    assert re.fullmatch(
        r"headpatch: 4 windows of 2 layers x 2 edges x both runs, 32 cuts of random image tokens "
        r"and 8 of nothing: 56 cuts, each resumed at the first layer that is cut: [\d.]+ forward "
        r"passes\n",
        said.err,
    )
    table = read_table(tmp_path / "cuts.csv")
    named = table[table["role"] == "window"]
    assert len(named) == 4 * 2 * 2
    assert set(named["edge"]) == {"answer-region", "question-region"}
    row = named[(named["layers"] == "1-2") & (named["run"] == "with")].iloc[0]
    assert row["effect"] == pytest.approx(-1, abs=1e-3)
    assert row["normalized"] == pytest.approx(1 / 8, abs=1e-3)
    assert row["control_n"] == 2
    assert "answer → region" in said.out
    assert "One pair shows one case, not a rule." in " ".join(said.out.split())
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["run"]["noise_floor"] < 1e-3


def test_a_script_reads_json(asked: list[object], tmp_path: Path) -> None:
    edges = ["--edges", "answer-region,answer-other", "--controls", 2]
    found = ran(*asked, "--out", tmp_path, "--heads", "1.1,1.2", *edges, "--json").json
    assert found["resumed"] is True
    assert 0 < found["forward_passes"] < len(found["cuts"]) * 4
    by_head = {
        (row["heads"], row["edge"]): row["effect"] for row in found["cuts"] if row["run"] == "with"
    }
    for heads, expected in (("1.1", -2), ("1.2", 0), ("1.1+1.2", -2)):
        assert by_head[heads, "answer-region"] == pytest.approx(expected, abs=1e-3)
    assert [Path(file).name for file in found["files"]] == ["cuts.csv", "cuts.png", "run.yaml"]


def test_over_pairs_means_are_those_of_single_runs(asked: list[object], tmp_path: Path) -> None:
    """Of the planted circuit: every pair's own cuts, and their mean row by row."""
    planted_dataset(tmp_path / "pairs", 3)
    flags = ["--edges", "answer-region,question-region", "--window", 2, "--controls", 2]
    out = tmp_path / "out"
    said = ran(*asked[:3], "--pairs", tmp_path / "pairs", *flags, "--out", out)
    assert "3 pairs x " in said.err
    means, every = read_table(out / "cuts_mean.csv"), read_table(out / "cuts.csv")
    assert set(means["pairs"]) == {3}
    keys = ["edge", "layers", "run"]
    options = {"edges": ("answer-region", "question-region"), "window": 2, "controls": 2}
    study = hp.Study.make(flags={f"cut.{name}": value for name, value in options.items()})
    entries, vlm = hp.Manifest.read(tmp_path / "pairs").entries, planted().vlm
    sessions = [hp.open_session(study, vlm, "question", pair=one.pair()) for one in entries]
    rows = pd.concat([hp.cut(session).named for session in sessions])
    named = every[every["role"] == "window"]
    for name in ("effect", "normalized", "control_mean"):
        assert named[name].tolist() == pytest.approx(rows[name].tolist(), abs=1e-6)
        expected = rows.groupby(keys, sort=False)[name].mean()
        mean = means.set_index(keys)[name]
        assert mean[expected.index].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert (means["effect_low"] <= means["effect"] + 1e-6).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "answer"], "--from, --to: only one of them"),
        (["--from", "answer", "--to", "region", "--edges", "all-all"], "--edges: --from or --to"),
        (["--layers", "3", "--heads", "1.1"], "--heads, --layers: both of them"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused_early("cut", *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_model_lacks_is_refused(asked: list[object], tmp_path: Path) -> None:
    line = refused(*asked, "--window", "5", "--out", tmp_path)
    assert "--window: 5 layers; expected at most 4 in this model" in line
    assert not list(tmp_path.iterdir())

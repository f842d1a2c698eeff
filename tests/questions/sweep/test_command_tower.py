"""`headpatch sweep` of vision heads, layers and with estimates, end to end, of a pair and many."""

from pathlib import Path

import pytest
import yaml

from headpatch.core.output.files import read_table, read_tensors
from headpatch.engine.selfcheck import Check
from headpatch.questions.sweep import VERB as SWEEP
from tests.command import Said, contents, headpatch, of_pair, ran, refused, table
from tests.datasets import noisy_pairs, tiny_study
from tests.stopped import stop_after
from tests.tiny import save_tiny

FILES = ["effects.csv", "run.yaml", "sweep.png", "sweep.pt"]
MEANS = ["effects_mean.csv", "gate.csv", "mean_effects.png"]
ESTIMATES = ["approx.png", "approx.pt"]
ONE_WAY = ("--kinds", "resample", "--directions", "noising")
VISION = ("--tower", "vision", "--layers")
SHORT = (*VISION, "--kinds", "zero", "--directions", "noising")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, a pair and a dataset."""
    folder = tmp_path_factory.mktemp("tower")
    save_tiny(folder / "model")
    tiny_study(folder)
    noisy_pairs(folder, ["is there a red square ?"] * 2)
    return folder


def flags(place: Path, out: Path, *more: object) -> list[object]:
    return ["sweep", *of_pair(place), "--out", out, "--reference", 2, "--force", *more]


def over(place: Path, out: Path, *more: object) -> list[object]:
    return ["sweep", "--model", place / "model", "--pairs", place / "manifest.csv", "--out", out,
            "--reference", 2, "--force", *more]  # fmt: skip


@pytest.fixture(scope="module")
def printed(place: Path) -> Said:
    return ran(*flags(place, place / "out"), *VISION, draws=True)


def test_the_vision_tower_from_price_to_files(place: Path, printed: Said) -> None:
    (line,) = printed.err.splitlines()
    assert "9 vision heads and 3 whole layers x zero, mean, resample x noising, denoising" in line
    assert "at all tokens of the vision tower" in line
    assert "9 patched with their own z: 90 rows for" in line
    words = " ".join(printed.out.split())
    for part in (
        "necessary?", "sufficient?", "noise floor", "whole layers", "layer:v0",
        "Free control: vision layer 2 never reaches the language model; over 30 rows LD moves by "
        "exactly 0, as it must.",
    ):  # fmt: skip
        assert part in words
    assert "Spearman" not in words
    assert "attention rank" not in words
    assert sorted(file.name for file in (place / "out").iterdir()) == FILES
    rows = table(place / "out" / "effects.csv")
    assert [row["heads"] for row in rows[:2]] == ["v0.0", "v0.1"]
    assert {row["role"] for row in rows} == {"head", "layer", "noise floor"}
    run = yaml.safe_load((place / "out/run.yaml").read_text("utf-8"))
    assert run["study"]["sweep"]["tower"] == "vision"
    assert run["study"]["vision"]["positions"] == "all"
    assert run["run"]["noise_floor"] == read_tensors(place / "out/sweep.pt")["noise_floor"]


def test_a_tower_that_cannot_be_resumed_is_swept_plainly_and_this_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.engine.selfcheck.check_vision", lambda *_: Check(0.5, 1e-4))
    words = "model in its vision tower (it is off by 5.0e-01 logits): every row gets a forward"
    said = ran(*flags(place, tmp_path), *ONE_WAY, "--tower", "vision")
    assert words in said.err.splitlines()[0]
    more = "--out", tmp_path, "--heads", "v0.1", "--kinds", "zero", "--controls", 0, "--force"
    said = headpatch("ablate", *of_pair(place), *more)
    assert words in said.err.splitlines()[0]


def test_positions_speak_of_the_tower_that_the_file_names(place: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("sweep: {tower: vision}\nvision: {positions: class}\n")
    words = [*flags(place, tmp_path / "out"), *ONE_WAY, "--config", tmp_path / "study.yaml"]
    found = ran(*words, "--json").json
    assert (found["tower"], found["positions"]) == ("vision", "class")
    found = ran(*words, "--positions", "patches", "--json").json
    assert (found["tower"], found["positions"]) == ("vision", "patches")
    assert found["unread"] == {"layers": [2], "rows": 3 + 3, "largest": 0.0}
    assert {row["positions"] for row in table(tmp_path / "out" / "effects.csv")} == {"patches"}
    found = ran(*words, "--tower", "lm", "--positions", "question", "--json").json
    assert (found["tower"], found["positions"]) == ("lm", "question")
    assert "unread" not in found


def test_sets_of_vision_heads(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.txt").write_text("v0.1+v1.0\nv1.2\n", "utf-8")
    words = [*flags(place, tmp_path / "out"), *ONE_WAY, "--sets", tmp_path / "sets.txt"]
    said = ran(*words, "--tower", "vision")
    assert "2 sets of vision heads x resample" in said.err
    assert "Free control" not in said.out
    rows = table(tmp_path / "out" / "effects.csv")
    assert [row["heads"] for row in rows[:2]] == ["v0.1+v1.0", "v1.2"]
    assert {row["role"] for row in rows[2:]} == {"noise floor"}
    line = refused(*words)
    assert line.startswith(f"--sets {tmp_path / 'sets.txt'}, line 1: v0.1 is a vision head")


def test_layers_of_the_language_model(place: Path, tmp_path: Path) -> None:
    found = ran(*flags(place, tmp_path), *ONE_WAY, "--layers", "--json").json
    assert {row["heads"] for row in found["top_layers"]} == {"layer:0", "layer:1", "layer:2"}
    assert found["rows"] == 12 + 3 + 12


# Estimates


@pytest.mark.parametrize("tower", ["lm", "vision"])
def test_estimates_come_with_their_agreement(place: Path, tmp_path: Path, tower: str) -> None:
    words = [*flags(place, tmp_path), "--tower", tower, "--approx", "--kinds", "mean,resample"]
    said = ran(*words, draws=tower == "lm")
    price = said.err.splitlines()[-1]
    assert "forward passes, the backward pass included, and 4 over reference pairs" in price
    text = " ".join(said.out.split())
    for part in (
        "Attribution patching (one backward pass) against the exact effects of",
        "Pearson", "95% interval", "top-", "by chance", "no substitute",
    ):  # fmt: skip
        assert part in text
    assert sorted(file.name for file in tmp_path.iterdir()) == [*ESTIMATES, *FILES]
    rows = table(tmp_path / "effects.csv")
    assert list(rows[0])[-2:] == ["approx", "valid"]  # the study is forced
    assert all((row["approx"] == "") is (row["role"] == "noise floor") for row in rows)
    kept = read_tensors(tmp_path / "approx.pt")
    assert kept["tower"] == tower
    assert set(kept["agreement"]) == set(read_tensors(tmp_path / "sweep.pt")["effect"])
    found = ran(*words, "--json").json
    assert found["approx"] == pytest.approx(
        {name: pytest.approx(one, nan_ok=True) for name, one in kept["agreement"].items()}
    )
    assert all("approx" in row for row in found["top"])


def test_finished_rows_serve_runs_with_and_without_estimates(place: Path, tmp_path: Path) -> None:
    """Exact effects do not hang on them."""
    words = [*flags(place, tmp_path), *ONE_WAY]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "intervene", 24, KeyboardInterrupt())
        assert headpatch(*words).code == 130
    said = ran(*words, "--resume", "--approx")
    assert "24 of 24 rows were finished before" in said.err
    assert all(row["approx"] for row in table(tmp_path / "effects.csv") if row["role"] == "head")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tower", "text"], "--tower: 'text'; expected 'lm' or 'vision'"),
        (
            ["--tower", "vision", "--positions", "answer"],
            "--positions: 'answer'; expected 'class', 'patches' or 'all'",
        ),
        (
            ["--positions", "class"],
            "--positions: 'class'; expected 'answer', 'question', 'image' or 'all'",
        ),
        (["--tower", "vision", "--budget", 9], "--budget: of no use with --tower vision"),
        (["--layers", "--sets", "sets.txt"], "--sets, --layers: both of them; expected one of"),
        (["--approx", "--quantize", "8bit"], "--approx, --quantize: both of them; expected one"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, words: list[object], line: str) -> None:
    before = contents(tmp_path)
    assert refused("sweep", "--out", tmp_path / "out", *words).startswith(line)
    assert contents(tmp_path) == before


def test_what_an_earlier_run_left_in_the_folder(place: Path, tmp_path: Path) -> None:
    """Estimates of another sweep go without a word."""
    words = [*flags(place, tmp_path), *ONE_WAY]
    assert "replaced" not in ran(*words, "--approx").err
    assert (tmp_path / "approx.pt").exists()
    assert "replaced" not in ran(*words).err
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES


# Over pairs


@pytest.fixture(scope="module")
def printed_many(place: Path) -> Said:
    return ran(*over(place, place / "many"), *SHORT, "--approx", draws=True)


def test_the_tower_over_pairs_from_price_to_files(place: Path, printed_many: Said) -> None:
    (line,) = printed_many.err.splitlines()
    assert line.startswith("headpatch: 2 pairs x 21 rows (9 vision heads and 3 whole layers x zero")
    assert "at all tokens of the vision tower, and 9 patched with their own z)" in line
    assert line.endswith("forward passes, backward passes included")
    words = " ".join(printed_many.out.split())
    for part in (
        "noising (necessary?): largest mean effects of zero, whole layers", "layer:v0", "approx",
        "against the exact effects of 6 heads", "mean of the pairs", "mean effects", "by chance",
        "Free control: vision layer 2 never reaches the language model; over 14 rows LD moves by "
        "exactly 0, as it must.", "Gate: ", "INVALID STUDY",
    ):  # fmt: skip
        assert part in words, part
    assert "attention rank" not in words
    assert sorted(file.name for file in (place / "many").iterdir()) == sorted(
        [*FILES, *MEANS, *ESTIMATES]
    )
    means = read_table(place / "many/effects_mean.csv")
    assert list(means["role"].unique()) == ["head", "layer"]
    assert {"approx", "approx_low", "approx_high"} <= set(means.columns)
    swept, approx = (read_tensors(place / "many" / name) for name in ("sweep.pt", "approx.pt"))
    assert swept["tower"] == approx["tower"] == "vision"
    assert swept["layer_normalized"]["zero_noising"].shape == (3,)
    assert (approx["pairs"], approx["figures"]) == (2, ["pearson", "spearman", "top_recall"])


def test_a_script_reads_the_same_and_estimates_of_an_earlier_run_go(
    place: Path, printed_many: Said, tmp_path: Path
) -> None:
    words = over(place, tmp_path, *SHORT, "--json")
    found = ran(*words, "--approx").json
    approx = read_tensors(place / "many/approx.pt")["agreement"]
    assert found["approx"]["zero_noising"] == pytest.approx(approx["zero_noising"], abs=1e-6)
    assert found["unread"] == {"layers": [2], "rows": 14, "largest": 0.0}
    assert {row["heads"] for row in found["top_layers"]} == {"layer:v0", "layer:v1", "layer:v2"}
    assert (found["tower"], found["positions"], found["pairs"]) == ("vision", "all", 2)
    assert "approx" not in ran(*words).json
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*FILES, *MEANS])


def test_an_interrupt_keeps_the_finished_part_and_resume_ends_in_the_same_tables(
    place: Path, printed_many: Said, tmp_path: Path
) -> None:
    words = over(place, tmp_path, *SHORT, "--approx")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "patch_vision", 30, KeyboardInterrupt())  # in the second pair
        said = headpatch(*words)
    assert said.code == 130
    assert "30 finished rows are kept" in said.err
    assert [file.name for file in tmp_path.iterdir()] == [SWEEP.kept_in]
    before = contents(tmp_path)
    assert "--resume" in refused(*words)
    assert "of another study" in refused(*words, "--positions", "class", "--resume")
    assert contents(tmp_path) == before
    said = ran(*words, "--resume")
    assert "30 of 42 rows were finished before" in said.err
    whole, resumed = (table(folder / "effects_mean.csv") for folder in (place / "many", tmp_path))
    for one, other in zip(whole, resumed, strict=True):
        assert one["heads"] == other["heads"]
        for name in ("effect", "effect_low", "effect_high", "approx"):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=2e-5)


def test_sets_of_vision_heads_over_pairs(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.txt").write_text("v0.1+v1.0\nv1.2\nv0.1+v1.0\n", "utf-8")
    words = over(place, tmp_path / "out", "--sets", tmp_path / "sets.txt", "--kinds", "zero")
    said = ran(*words, "--tower", "vision", "--positions", "patches")
    assert "1 of the lines" in said.err and "repeat an earlier set" in said.err
    assert "2 sets of vision heads x zero" in said.err
    rows = table(tmp_path / "out/effects_mean.csv")
    assert {row["positions"] for row in rows} == {"patches"}
    line = refused(*words, "--no-resume")
    assert line.startswith(f"--sets {tmp_path / 'sets.txt'}, line 1: v0.1 is a vision head")


@pytest.mark.parametrize(
    ("where", "words", "line"),
    [
        ("engine.attribution", ["--approx"], "--approx: its weights are away; expected a model"),
        ("core.session", ["--tower", "vision"], "vision heads: its weights are away"),
    ],
)
def test_refused_before_a_pair_is_run(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    words: list[str],
    line: str,
) -> None:
    monkeypatch.setattr(f"headpatch.{where}.refused", lambda _: "its weights are away")
    monkeypatch.setattr("headpatch.core.gate.run_both", lambda *_: pytest.fail("it ran"))
    assert refused(*over(place, tmp_path / "out"), *words).startswith(line)
    assert not (tmp_path / "out").exists()


def test_pairs_that_memory_does_not_hold_are_in_the_price(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.core.held._room", lambda _: 0)
    said = ran(*over(place, tmp_path, "--kinds", "mean", "--directions", "noising"))
    assert "forward passes, and 2 for pairs that memory does not hold open: " in said.err

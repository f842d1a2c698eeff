"""`headpatch sweep --pairs` of the vision tower, of whole layers and with estimates, end to end."""

from pathlib import Path

import pytest
import yaml

from headpatch.core.output import read_table, read_tensors
from headpatch.questions.sweep import VERB as SWEEP
from tests.command import Said, contents, headpatch, ran, refused, table
from tests.datasets import noisy_pairs
from tests.stopped import stop_after
from tests.tiny import save_tiny

FILES = ["effects.csv", "effects_mean.csv", "gate.csv", "mean_effects.png", "run.yaml",
         "sweep.png", "sweep.pt"]  # fmt: skip
ESTIMATES = ["approx.png", "approx.pt"]
VISION = ("--tower", "vision", "--layers", "--kinds", "zero", "--directions", "noising")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    save_tiny(folder / "model")
    noisy_pairs(folder, ["is there a red square ?"] * 2)
    return folder


def flags(place: Path, out: Path, *more: object) -> list[object]:
    return ["sweep", "--model", place / "model", "--pairs", place / "manifest.csv", "--out", out,
            "--reference", 2, "--force", *more]  # fmt: skip


@pytest.fixture(scope="module")
def printed(place: Path) -> Said:
    return ran(*flags(place, place / "out"), *VISION, "--approx", draws=True)


def test_the_tower_over_pairs_from_price_to_files(place: Path, printed: Said) -> None:
    (line,) = printed.err.splitlines()
    assert line.startswith("headpatch: 2 pairs x 21 rows (9 vision heads and 3 whole layers x zero")
    assert "at all tokens of the vision tower, and 9 patched with their own z)" in line
    assert line.endswith("forward passes, backward passes included")
    words = " ".join(printed.out.split())
    for part in (
        "noising (necessary?): largest mean effects of zero, whole layers", "layer:v0", "approx",
        "against the exact effects of 6 heads", "mean of the pairs", "mean effects", "by chance",
        "Free control: vision layer 2 never reaches the language model; over 14 rows LD moves by "
        "exactly 0, as it must.", "Gate: ", "INVALID STUDY",
    ):  # fmt: skip
        assert part in words, part
    assert "attention rank" not in words
    assert sorted(file.name for file in (place / "out").iterdir()) == sorted([*FILES, *ESTIMATES])
    means = read_table(place / "out/effects_mean.csv")
    assert list(means["role"].unique()) == ["head", "layer"]
    assert {"approx", "approx_low", "approx_high"} <= set(means.columns)
    effects = read_table(place / "out/effects.csv")
    named = effects[effects["role"] != "noise floor"].groupby("heads", sort=False)["effect"].mean()
    assert means.set_index("heads")["effect"].to_numpy() == pytest.approx(
        named.to_numpy(), abs=1e-5
    )
    swept, approx = (read_tensors(place / "out" / name) for name in ("sweep.pt", "approx.pt"))
    assert swept["tower"] == approx["tower"] == "vision"
    assert swept["layer_normalized"]["zero_noising"].shape == (3,)
    assert (approx["pairs"], approx["figures"]) == (2, ["pearson", "spearman", "top_recall"])
    run = yaml.safe_load((place / "out/run.yaml").read_text("utf-8"))
    assert run["study"]["sweep"]["tower"] == "vision"
    assert run["run"]["noise_floor"] == swept["noise_floor"]


def test_a_script_reads_the_same_and_estimates_of_an_earlier_run_go(
    place: Path, printed: Said, tmp_path: Path
) -> None:
    words = flags(place, tmp_path, *VISION, "--json")
    found = ran(*words, "--approx").json
    approx = read_tensors(place / "out/approx.pt")["agreement"]
    assert found["approx"]["zero_noising"] == pytest.approx(approx["zero_noising"], abs=1e-6)
    assert found["unread"] == {"layers": [2], "rows": 14, "largest": 0.0}
    assert {row["heads"] for row in found["top_layers"]} == {"layer:v0", "layer:v1", "layer:v2"}
    assert (found["tower"], found["positions"], found["pairs"]) == ("vision", "all", 2)
    assert "approx" not in ran(*words).json
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES


def test_an_interrupt_keeps_the_finished_part_and_resume_ends_in_the_same_tables(
    place: Path, printed: Said, tmp_path: Path
) -> None:
    words = flags(place, tmp_path, *VISION, "--approx")
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
    whole, resumed = (table(folder / "effects_mean.csv") for folder in (place / "out", tmp_path))
    for one, other in zip(whole, resumed, strict=True):
        assert one["heads"] == other["heads"]
        for name in ("effect", "effect_low", "effect_high", "approx"):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=2e-5)


def test_sets_of_vision_heads_over_pairs(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.txt").write_text("v0.1+v1.0\nv1.2\nv0.1+v1.0\n", "utf-8")
    words = flags(place, tmp_path / "out", "--sets", tmp_path / "sets.txt", "--kinds", "zero")
    said = ran(*words, "--tower", "vision", "--positions", "patches")
    assert "1 of the lines" in said.err and "repeat an earlier set" in said.err
    assert "2 sets of vision heads x zero" in said.err
    rows = table(tmp_path / "out/effects_mean.csv")
    assert {row["positions"] for row in rows} == {"patches"}
    line = refused(*words, "--no-resume")
    assert line.startswith(f"--sets {tmp_path / 'sets.txt'}, line 1: v0.1 is a vision head")


# Bad input


@pytest.mark.parametrize(
    ("where", "words", "line"),
    [
        (
            "engine.attribution",
            ["--approx"],
            "--approx: its weights are away; expected a model with",
        ),
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
    assert refused(*flags(place, tmp_path / "out"), *words).startswith(line)
    assert not (tmp_path / "out").exists()


def test_pairs_that_memory_does_not_hold_are_in_the_price(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.core.session_cache._room", lambda _: 0)
    said = ran(*flags(place, tmp_path, "--kinds", "mean", "--directions", "noising"))
    assert "forward passes, and 2 for pairs that memory does not hold open: " in said.err

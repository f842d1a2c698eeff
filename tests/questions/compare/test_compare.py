"""`headpatch compare`: runs of the planted circuit, of saved tables, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import headpatch as hp
from headpatch.core.output.files import read_table
from tests.command import done, headpatch, printed, ran, refused, refused_early
from tests.datasets import planted_pairs
from tests.planted import HEADS, save_planted

SWEEP = ("--kinds", "resample")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The circuit swept over four pairs, and over three of them; one pair swept and ranked."""
    root = tmp_path_factory.mktemp("compare")
    save_planted(root / "model", noise=0.05)
    planted_pairs(root)
    many = ("--model", root / "model", "--pairs", root / "manifest.csv")
    ran("sweep", *many, *SWEEP, "--out", root / "four")
    shutil.copytree(root / "four", root / "again")
    ran("sweep", *many, *SWEEP, "--limit", 3, "--out", root / "three")
    ran("sweep", *many, *SWEEP, "--positions", "question", "--out", root / "question")
    ran("rank", *many, "--out", root / "ranked")
    heads = ",".join(str(HEADS[name].head) for name in ("looker", "blind writer", "suppressor"))
    ran("ablate", *many, "--heads", heads, "--kinds", "resample", "--controls", 0,
        "--out", root / "named")  # fmt: skip
    return root


def rows(table: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    return {(row["figure"], row["unit"]): row for _, row in table.iterrows()}


def test_a_run_agrees_with_its_copy_to_its_ceiling_and_is_resampled_with_it(at: Path) -> None:
    found = hp.compare(at / "four", at / "again", top=4)
    table = rows(found.table)
    row = table["resample, noising, at answer", "head"]
    assert (row["rho"], row["rho_low"], row["rho_high"]) == (1, 1, 1)
    assert (row["n"], row["k"], row["shared"], row["chance"]) == (16, 4, 4, 1)
    assert row["together"] and (row["scenes_first"], row["scenes_second"]) == (4, 4)
    assert table["resample, noising, at answer", "layer"]["rho"] == 1
    assert table["resample, denoising, at answer", "layer"]["n"] == 4
    assert ("attention difference", "head") in table


def test_other_pairs_are_resampled_apart(at: Path, tmp_path: Path) -> None:
    found = hp.compare(at / "four", at / "three", out=tmp_path, top=4)
    row = rows(found.table)["resample, noising, at answer", "head"]
    assert not row["together"] and row["scenes_second"] == 3
    assert row["rho_low"] <= row["rho"] <= row["rho_high"]
    assert 0 <= row["shared_low"] <= row["shared"] <= row["shared_high"] <= 4
    saved = read_table(tmp_path / "compare.csv")
    assert saved["rho"].to_numpy() == pytest.approx(found.table["rho"].to_numpy(), abs=1e-6)


def test_what_one_run_has_and_the_other_lacks_is_left_out(at: Path) -> None:
    """Other positions are another figure; a ranking shares the attention difference alone."""
    figures = set(hp.compare(at / "four", at / "question").table["figure"])
    assert figures == {"attention difference"}
    alone = hp.compare(at / "four", at / "ranked")
    assert set(alone.table["figure"]) == {"attention difference"}
    assert alone.table["shared_low"].isna().all()  # the ranking keeps means, so nothing is promised
    words = printed(alone.origin.verb.question().view(alone.files(), alone.origin.context))
    assert "no interval, as a run kept means alone" in " ".join(words.split())


def test_other_yardsticks_are_other_figures(at: Path, tmp_path: Path) -> None:
    lines = (at / "manifest.csv").read_text().replace("top-left", "image")
    for picture in at.glob("*.png"):
        shutil.copy(picture, tmp_path)
    (tmp_path / "manifest.csv").write_text(lines)
    ran("rank", "--model", at / "model", "--pairs", tmp_path, "--out", tmp_path / "whole")
    saved = read_table(tmp_path / "whole/heads.csv")
    assert set(saved["compared_by"]) == {"image"}
    with pytest.raises(hp.InputError, match="whole has attention difference, of raw image mass"):
        hp.compare(tmp_path / "whole", at / "ranked")


def test_named_heads_are_looked_up_by_name(at: Path) -> None:
    table = rows(hp.compare(at / "named", at / "four").table)
    row = table["resample, noising, at answer", "head"]
    assert (row["n"], row["rho"]) == (3, 1) and np.isnan(row["k"])
    assert ("resample, noising, at answer", "layer") not in table


def test_the_command_writes_a_table_a_figure_and_a_page(at: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = done("compare", at / "four", at / "three", at / "ranked", "--out", out, "--top", 4)
    assert "four and three, resample, noising, at answer: rho +" in said.out
    assert "of the first 4 they share" in said.out and "compare.png" in said.out
    assert sorted(path.name for path in out.iterdir()) == ["compare.csv", "compare.png", "run.yaml"]
    printed = done("compare", at / "four", at / "three", "--out", out, "--json").json
    assert printed["compared"][0]["first"] == "four"
    written = done("report", out, "--json").json
    assert "compare" in written["sections"]
    page = (out / "report.html").read_text("utf-8")
    assert "Do saved runs agree" in page and "Spearman" in page
    assert hp.plot(out).axes[0].get_xlabel() == "Spearman's rho of two runs"


def test_the_figure_is_drawn_as_its_flags_say(at: Path, tmp_path: Path) -> None:
    words = ("compare", at / "four", at / "three", "--out", tmp_path, "--format", "pdf,csv")
    assert "compare_data.csv" in done(*words, "--width", 5).out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "compare.csv", "compare.pdf", "compare_data.csv", "run.yaml",
    ]  # fmt: skip
    assert refused(*words, "--width", 99).startswith("--width: ")
    assert refused(*words, "--style", tmp_path / "no").startswith("--style: ")


def verdict(folder: Path, classes: list[str], layers: int = 2) -> Path:
    """What is read of a verdict: its table, and a record that says who wrote it."""
    n = len(classes)
    columns = {"layer": np.arange(n) // (n // layers), "head": np.arange(n) % (n // layers),
               "verdict": classes}  # fmt: skip
    numbers = np.arange(n, dtype=float)
    figures = dict.fromkeys(("attention_diff", "necessity", "sufficiency"), numbers)
    folder.mkdir()
    pd.DataFrame(columns | figures).to_csv(folder / "verdicts.csv", index=False)
    (folder / "run.yaml").write_text(
        "study: {model: demo}\nrun: {verb: verdict, weights: w, model: demo}\n"
    )
    return folder


def test_classes_of_two_verdicts_are_counted_beside_chance(tmp_path: Path) -> None:
    first = ["necessary", "inert", "inert", "sufficient", "inert", "watches"]
    second = ["necessary", "inert", "necessary", "redundant", "inert", "inert"]
    found = hp.compare(verdict(tmp_path / "a", first), verdict(tmp_path / "b", second))
    table = rows(found.table)
    same = table["class", "head"]
    assert (same["shared"], same["n"]) == (3, 6)
    assert same["chance"] == pytest.approx((1 * 2 + 3 * 3) / 6)
    acting = table["acting heads", "head"]
    assert (acting["k"], acting["k_second"], acting["shared"], acting["chance"]) == (2, 3, 2, 1)
    assert acting["p"] == pytest.approx(3 / 15)  # 2 of 2 among 3 of 6
    assert "2 and 3 heads act, 2 of them in both" in found.summary
    assert table["resample, noising, at answer", "head"]["rho"] == 1


def test_models_of_other_depths_are_compared_by_depth_if_that_is_said(tmp_path: Path) -> None:
    two = verdict(tmp_path / "two", ["inert"] * 12, 2), verdict(tmp_path / "b", ["inert"] * 12, 4)
    line = refused("compare", *two, "--out", tmp_path / "out")
    assert line.startswith("RUN: ") and "two has 2 layers, b 4" in line and "--depth" in line
    assert not (tmp_path / "out").exists()
    three = verdict(tmp_path / "three", ["inert"] * 18, 3), verdict(tmp_path / "c", ["inert"] * 24)
    table = hp.compare(three[0], two[1], depth=True).table
    assert set(table["unit"]) == {"depth"} and table["rho"].tolist() == [1, 1, 1]
    other_heads = hp.compare(two[0], three[1]).table  # as many layers: those alone
    assert set(other_heads["unit"]) == {"layer"} and set(other_heads["n"]) == {2}


BAD = {
    "four": ["RUN", "1 folder", "two"],
    "four four": ["RUN", "twice"],
    "four nowhere": ["RUN", "no such folder"],
    "four model": ["RUN", "model holds no run.yaml"],
    "question named": ["RUN", "no figure", "at question", "at answer"],
    "four three --top 0": ["--top", "at least 1"],
    "four three --level 2": ["--level", "between 0 and 1"],
    "four changed": ["RUN", "sweep.pt was changed after the run"],
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_compared_is_one_line(
    at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(at)
    if line.endswith("changed") and not (at / "changed").exists():
        shutil.copytree(at / "four", at / "changed")
        saved = torch.load(at / "changed/sweep.pt", weights_only=True)
        torch.save(saved | {"ld_with": 9.0}, at / "changed/sweep.pt")
    message = refused_early("compare", *line.split(), "--out", tmp_path / "new")
    expected = [one for one in BAD[line] if one != "no figure"]
    assert all(part in message for part in expected), message
    assert not (tmp_path / "new").exists()


def test_a_forced_run_marks_the_comparison(at: Path, tmp_path: Path) -> None:
    words = ("--model", at / "model", "--pairs", at / "manifest.csv", "--force")
    ran("rank", *words, "--out", tmp_path / "forced")
    text = (tmp_path / "forced/run.yaml").read_text("utf-8").replace("valid: true", "valid: false")
    text = "\n".join(
        one if "checksum" not in one else "  checksum: edited" for one in text.split("\n")
    )
    (tmp_path / "forced/run.yaml").write_text(text, "utf-8")
    said = headpatch("compare", tmp_path / "forced", at / "four", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "INVALID STUDY" in said.out

"""`headpatch ablate`, end to end on the planted model (a valid study) and on the bundled one."""

import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from headpatch.core.output.files import read_table
from headpatch.heads import HeadSet
from headpatch.models.load import DEMO
from tests.command import Said, done, headpatch, of_pair, refused, refused_early
from tests.command import table as read_rows
from tests.datasets import planted_pairs
from tests.planted import LD_WITH, LD_WITHOUT

COLUMNS = [
    "pair", "heads", "layer", "head", "kind", "direction", "positions", "ld_with", "ld_without",
    "ld", "effect", "normalized", "role", "answer_before", "answer_after", "control_mean",
    "control_sd", "control_n", "control_p",
]  # fmt: skip
CLOSE = 1e-4  # logits
QUICK = ("--kinds", "resample", "--controls", 0)

Rows = list[dict[str, Any]]


def flags(place: Path, out: Path) -> list[object]:
    return [*of_pair(place), "--out", out, "--reference", 2]


@pytest.fixture(scope="module")
def printed(place: Path) -> Said:
    """The one run that draws its figure; its files lie in `place / "out"`."""
    return done("ablate", *flags(place, place / "out"), "--heads", "0.3,1.0", "--controls", 4)


@pytest.fixture(scope="module")
def out(place: Path, printed: Said) -> Path:
    assert printed.code == 0
    return place / "out"


def table(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "effects.csv")


def effects(place: Path, out: Path, *words: object) -> Rows:
    rows: Rows = done("ablate", *flags(place, out), *words, "--json").json["effects"]
    return rows


def test_all_files_and_nothing_else(place: Path, out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"effects.csv", "head_effects.png", "run.yaml"}
    assert {path.name for path in place.iterdir()} == {"model", "out", "with.png", "without.png"}
    with Image.open(out / "head_effects.png") as figure:
        figure.load()
        assert min(figure.size) > 300


def test_effects_csv(out: Path) -> None:
    rows = table(out)
    assert list(rows[0]) == COLUMNS
    of_role = Counter(row["role"] for row in rows)
    assert of_role.pop("control") > 0  # heads × kinds × directions; sets × directions
    assert of_role == {"head": 2 * 3 * 2, "joint": 3 * 2, "noise floor": 3 * 2}
    keys = [(row["heads"], row["kind"], row["direction"], row["role"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert HeadSet.parse(row["heads"])
        assert (row["pair"], row["positions"]) == ("with-without", "answer")
        assert (row["kind"] == "self") == (row["role"] == "noise floor")
        ld, effect, normalized = (float(row[name]) for name in ("ld", "effect", "normalized"))
        base, sign = (LD_WITH, -1) if row["direction"] == "noising" else (LD_WITHOUT, 1)
        assert float(row["ld_with"]) == pytest.approx(LD_WITH, abs=CLOSE)
        assert float(row["ld_without"]) == pytest.approx(LD_WITHOUT, abs=CLOSE)
        assert ld - base == pytest.approx(effect, abs=CLOSE)
        assert normalized == pytest.approx(sign * effect / (LD_WITH - LD_WITHOUT), abs=CLOSE)
        assert row["answer_before"] == ("Yes" if row["direction"] == "noising" else "No")


def test_what_a_person_reads(out: Path, printed: Said) -> None:
    assert "…" not in printed.out and "INVALID" not in printed.out
    shown = " ".join(printed.out.split())
    for row in table(out):
        if row["role"] in ("head", "joint"):
            assert f"{float(row['ld']):+.3f}" in shown
            assert f"{float(row['control_mean']):+.4f}" in shown
    titles = "head 0.3", "head 1.0", "heads 0.3+1.0", "noise floor", "random heads"
    for words in (*titles, *(path.name for path in out.iterdir())):
        assert words in shown


@pytest.mark.usefixtures("undrawn")
def test_top_heads_are_those_of_rank(place: Path, tmp_path: Path) -> None:
    ranked = done("rank", *flags(place, tmp_path)[:-2], "--json").json["heads"]
    names = [f"{row['layer']}.{row['head']}" for row in ranked[:3]]
    rows = effects(place, tmp_path, "--heads", "top:3", *QUICK, "--directions", "noising")
    assert [row["heads"] for row in rows if row["role"] == "head"] == names
    left = "0,0,0.5,1"  # another region is another ranking
    ranked = done("rank", *flags(place, tmp_path)[:-2], "--json", "--region", left).json["heads"]
    rows = effects(place, tmp_path, "--heads", "top:1", *QUICK, "--region", left)
    assert rows[0]["heads"] == f"{ranked[0]['layer']}.{ranked[0]['head']}"


@pytest.mark.usefixtures("undrawn")
def test_kinds_and_directions(place: Path, tmp_path: Path) -> None:
    def ways(*options: object) -> list[tuple[str, str]]:
        rows = effects(place, tmp_path, "--heads", "1.1", "--controls", 0, *options)
        return [(row["kind"], row["direction"]) for row in rows]

    both = ("noising", "denoising")
    one_way = ways("--kinds", "zero, mean", "--directions", "denoising")
    assert one_way == [("zero", "denoising"), ("mean", "denoising")]
    assert {row["direction"] for row in table(tmp_path)} == {"denoising"}  # the noise floor's too
    assert ways("--kinds", "zero,zero") == [("zero", way) for way in both]
    assert ways() == [(kind, way) for kind in ("zero", "mean", "resample") for way in both]


@pytest.mark.usefixtures("undrawn")
def test_the_seed_draws_the_controls(place: Path, tmp_path: Path) -> None:
    def drawn(seed: int) -> set[str]:
        words = ("--heads", "0.3,1.0", "--kinds", "zero", "--controls", 3, "--seed", seed)
        done("ablate", *flags(place, tmp_path), *words)
        return {row["heads"] for row in table(tmp_path) if row["role"] == "control"}

    assert drawn(1) == drawn(1)
    assert len({frozenset(drawn(seed)) for seed in (-1, 0, 1, 2)}) > 1


@pytest.mark.usefixtures("undrawn")
def test_equal_lds_leave_shares_undefined(place: Path, tmp_path: Path) -> None:
    """A model that is blind: there is no difference to be a share of."""
    blind = Path(shutil.copytree(place / "model", tmp_path / "blind"))
    weights = {
        key: torch.zeros_like(value) if "projector" in key else value
        for key, value in load_file(blind / "model.safetensors").items()
    }
    save_file(weights, blind / "model.safetensors", metadata={"format": "pt"})
    words = [*flags(place, tmp_path / "out"), "--model", blind, "--heads", "1.1,0.2"]
    assert "--question" in refused("ablate", *words)
    said = done("ablate", *words, "--force", "--controls", 2)
    assert "undefined" in said.out
    assert "nan" not in said.out
    found = done("ablate", *words, "--force", "--controls", 2, "--json").json
    assert found["ld_with"] == found["ld_without"]
    for row in found["effects"]:
        assert row["normalized"] is row["control_mean"] is row["control_p"] is None
        assert math.isfinite(row["effect"])
    assert {row["normalized"] for row in table(tmp_path / "out")} == {""}


def test_a_process_of_its_own_prints_json_and_nothing_else(place: Path, tmp_path: Path) -> None:
    words = [*flags(place, tmp_path), "--heads", "1.1", *QUICK, "--json"]
    shell = [sys.executable, "-m", "headpatch", "ablate", *map(str, words)]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Said(0, ended.stdout, "").json["valid"] is True


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no bundled weights")
@pytest.mark.usefixtures("undrawn")
def test_the_bundled_study(tmp_path: Path) -> None:
    words = ("--out", tmp_path, "--kinds", "resample", "--controls", 4, "--heads", "top:2")
    found = done("ablate", *words, "--json").json
    assert found["valid"] is True
    assert found["ld_with"] > 0 > found["ld_without"]
    assert len(found["effects"]) == 3 * 2
    assert {row["control_n"] for row in found["effects"]} == {4}
    assert 0 <= found["noise_floor"] < 1e-3


# Vision heads


def test_heads_of_both_towers_from_price_to_files(place: Path, tmp_path: Path) -> None:
    words = ["ablate", *flags(place, tmp_path), "--heads", "v0.1,1.0,v1.0", "--controls", 2,
             "--kinds", "resample"]  # fmt: skip
    said = headpatch(*words, "--vision-positions", "patches")
    assert said.code == 0, said.err
    (line,) = said.err.splitlines()
    assert " rows change vision heads (patches tokens of the tower): " in line
    text = " ".join(said.out.split())
    assert "positions: patches, answer, answer+v:patches" in text
    assert "heads v0.1+1.0+v1.0 (answer+v:patches)" in text
    table = read_table(tmp_path / "effects.csv")
    named = table[table["role"] == "head"].set_index("heads")["positions"].to_dict()
    assert named == {"v0.1": "patches", "1.0": "answer", "v1.0": "patches"}
    alone = table[(table["heads"] == "1.0") & (table["direction"] == "noising")]
    assert float(alone["effect"].iloc[0]) != 0
    run = yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8"))["study"]
    assert (run["ablate"]["positions"], run["vision"]["positions"]) == ("answer", "patches")


def test_vision_heads_over_pairs(place: Path, tmp_path: Path) -> None:
    planted_pairs(tmp_path)
    words = ["ablate", "--model", place / "model", "--pairs", tmp_path / "manifest.csv", "--out",
             tmp_path / "out", "--heads", "top:1,v0.0", *QUICK, "--limit", 2]  # fmt: skip
    said = headpatch(*words, "--json")
    assert said.code == 0, said.err
    assert "change vision heads (all tokens of the tower)" in said.err
    rows = {row["heads"]: row for row in said.json["effects_mean"]}
    assert {row["positions"] for row in rows.values()} == {"answer", "all", "answer+v:all"}
    assert rows["v0.0"]["effect"] == pytest.approx(0, abs=CLOSE)  # no planted vision head writes


def test_a_scope_of_vision_heads_without_one_is_refused_before_a_model_loads(
    tmp_path: Path,
) -> None:
    words = ["--heads", "1.0", "--vision-positions", "class", "--out", tmp_path / "out"]
    line = "--vision-positions: no vision head in --heads 1.0; expected a vision head there"
    assert refused_early("ablate", *words).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_without_controls_none_are_shown(place: Path, tmp_path: Path) -> None:
    for heads, count, shown in (("1.1", 0, "none"), ("layer:1", 5, "none"), ("1.1", 1, "1.00")):
        words = ("--heads", heads, "--kinds", "zero", "--controls", count)
        said = done("ablate", *flags(place, tmp_path), *words)
        assert shown in said.out
        assert "nan" not in said.out

"""The committed results of the default study are what the code makes of it today."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from headpatch.core.output.files import read_tensors
from tests.command import ran, table

KEPT = Path(__file__).parent.parent / "attention_data"
# Float32 kernels of another processor round differently, in the sixth digit of an effect.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    ran("rank", "--out", folder)
    ran("sweep", "--kinds", "resample", "--out", folder / "sweep")
    return folder


@pytest.mark.parametrize(
    "name",
    ["attention_with_triangle.pt", "attention_without_triangle.pt", "per_head_analysis.pt",
     "spatial_vision_analysis.pt", "sweep/sweep.pt"],
)  # fmt: skip
def test_tensors(made: Path, name: str) -> None:
    kept, new = (read_tensors(folder / name) for folder in (KEPT, made))
    assert kept.keys() == new.keys()
    for key, value in kept.items():
        if key in ("rank", "attention_rank"):
            continue  # ties may turn
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(new[key], value, **CLOSE)
        elif isinstance(value, str):
            assert new[key] == value


def test_a_sweeps_heads_are_told_apart_by_whoever_reads_its_table() -> None:
    """As pandas reads it without options, 21.1 and 21.10 are one name, but two heads."""
    found = pd.read_csv(KEPT / "sweep/effects.csv")
    found = found[(found["role"] == "head") & (found["direction"] == "noising")]
    assert len(found) == 1024 > found["heads"].nunique()
    assert found.groupby(["layer", "head"]).ngroups == 1024


def test_the_same_heads_lead(made: Path) -> None:
    kept, new = (table(folder / "heads.csv")[:20] for folder in (KEPT, made))
    assert kept[0].keys() == new[0].keys()
    assert {(r["layer"], r["head"]) for r in kept} == {(r["layer"], r["head"]) for r in new}


def test_effects_of_the_same_interventions(made: Path) -> None:
    kept, new = (table(folder / "sweep/effects.csv") for folder in (KEPT, made))
    assert kept[0].keys() == new[0].keys()
    for one, other in zip(kept, new, strict=True):
        assert one["heads"] == other["heads"]
        assert float(one["effect"]) == pytest.approx(float(other["effect"]), rel=1e-3, abs=1e-3)

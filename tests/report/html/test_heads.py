"""What the page gathers of every head of the language model."""

from pathlib import Path

import torch

from headpatch.core.output.folder import find
from headpatch.report.html.heads import heads_of
from tests.report.html import made


def of_the_vision_tower(folder: Path, layers: int, heads: int) -> None:
    made.sweep(folder, layers, heads)
    saved = torch.load(folder / "sweep.pt", weights_only=True)
    torch.save(saved | {"tower": "vision"}, folder / "sweep.pt")


def test_heads_of_the_vision_tower_are_not_taken_for_the_language_model_s(tmp_path: Path) -> None:
    of_the_vision_tower(tmp_path / "alone", 6, 4)
    assert heads_of(find(tmp_path / "alone")) is None
    made.sweep(tmp_path / "both" / "lm", 6, 4)
    of_the_vision_tower(tmp_path / "both" / "vision", 6, 4)  # of the same shape
    found = heads_of(find(tmp_path / "both"))
    assert found is not None and found.shape == (6, 4)
    assert [one.where for one in found.effects] == ["this pair"] * 4


def test_an_older_sweep_without_a_tower_is_the_language_model_s(tmp_path: Path) -> None:
    made.sweep(tmp_path, 6, 4)
    assert "tower" not in torch.load(tmp_path / "sweep.pt", weights_only=True)
    found = heads_of(find(tmp_path))
    assert found is not None and len(found.effects) == 4

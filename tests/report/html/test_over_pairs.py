"""What ran over many pairs is shown as means, with intervals, and never called one pair."""

from pathlib import Path

import torch

from headpatch.report.html import write
from tests.report.html import made

ONE = "One pair shows one case, not a rule."


def page_of(folder: Path) -> str:
    return write(folder, folder / "report.html").path.read_text(encoding="utf-8")


def test_a_trace_says_how_many_pairs_it_is_a_mean_of(tmp_path: Path) -> None:
    made.trace(tmp_path)
    assert ONE in page_of(tmp_path)
    saved = torch.load(tmp_path / "trace.pt", weights_only=True)
    torch.save(saved | {"pair_names": ["a", "b"]}, tmp_path / "trace.pt")
    text = page_of(tmp_path)
    assert ONE not in text
    assert "Means over the pairs that have a token there, of 2, without a test." in text

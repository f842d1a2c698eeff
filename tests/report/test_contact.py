"""The contact sheet shows the pairs that the table lists, with and without side by side."""

from pathlib import Path

import numpy as np
import pytest

from headpatch.core.gate_view import gate
from headpatch.pairs.manifest import Manifest
from headpatch.present.overlays import SHOWN, contact_sheet
from headpatch.present.tables import renderables
from tests.datasets import noisy_pairs


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("count", [1, 4, SHOWN + 2])
def test_the_first_pairs_are_shown(tmp_path: Path, drawn, count: int) -> None:
    entries = Manifest.read(noisy_pairs(tmp_path, [f"Question {i}?" for i in range(count)])).entries
    contact_sheet(entries, tmp_path / "sheet.png")
    shown = min(count, SHOWN)
    assert len(drawn.last.axes) == 2 * shown
    for entry, left, right in zip(
        entries, drawn.last.axes[::2], drawn.last.axes[1::2], strict=False
    ):
        pair = entry.pair()
        for axes, image in ((left, pair.with_image), (right, pair.without_image)):
            np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(image))
        assert entry.name in left.get_title(loc="left")
        assert entry.question in left.get_title(loc="left")
    assert f"The first {shown} of {count} pairs" in drawn.texts()


def test_the_gate_lists_ten_failures_and_counts_the_rest() -> None:
    from io import StringIO

    from rich.console import Console

    columns = {
        "pair": [f"p{i}" for i in range(15)], "line": list(range(15)), "ld_with": [1.0] * 15,
        "ld_without": [2.0] * 15, "passed": [i < 3 for i in range(15)], "reason": ["Yes"] * 15,
        "question": ["Q?"] * 15,
    }  # fmt: skip
    out = StringIO()
    Console(file=out, width=100).print(*renderables(gate(columns, 1.5)), sep="\n")
    text = out.getvalue()
    assert "3 of 15 pairs pass (20.0%)" in text
    assert "1.5 logits apart" in text
    assert "p12" in text and "p13" not in text
    assert "and 2 more: see gate.csv" in text

"""The table of mean effects over pairs: heads, then layers, and what the columns mean."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from headpatch.report.dataset_tables import top_effects


def said(part: RenderableType, width: int = 140) -> str:
    out = StringIO()
    Console(file=out, width=width).print(part, crop=False, markup=False)
    return " ".join(out.getvalue().split())


def row(**changes: Any) -> Mapping[str, Any]:
    return {
        "place": 1, "heads": "24.17", "kind": "resample", "direction": "noising", "effect": -1.0,
        "normalized": 0.25, "normalized_low": 0.125, "normalized_high": 0.5, "answer_changed": 0.5,
        "attention_rank": 7, **changes,
    }  # fmt: skip


def test_heads_then_layers_then_one_note() -> None:
    layer = row(heads="layer:24", attention_rank=None, effect=1e-7)
    words = said(top_effects([row(approx=-0.5)], 0.9, 1e-6, [layer]))
    for part in ("24.17 -1.0000 -0.5000 +0.2500 +0.1250 to +0.5000 50% 7", "90% interval",
                 "resample, whole layers", "layer:24 (+1e-07)"):  # fmt: skip
        assert part in words, part
    assert words.count("Means over pairs") == 1
    assert "whole layers" not in said(top_effects([row()], 0.9, 1e-6))
    assert "approx" not in said(top_effects([row()], 0.9, 1e-6))

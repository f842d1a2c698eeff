"""What is said of a sweep: whole layers, the free control, and estimates beside effects."""

import io
from typing import Any

from rich.console import Console, RenderableType

from headpatch.report.sweep_tables import layers, top, unlisted, unread


def said(part: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(part, markup=False)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "direction": "noising",
        "place": 1,
        "heads": "v3.1",
        "kind": "zero",
        "effect": -4.94,
        "normalized": {"zero": 0.2},
        "below_floor": False,
        "answer_before": "Yes",
        "answer_after": "No",
        "attention_rank": None,
    } | changes


def test_a_control_that_holds_and_one_that_does_not() -> None:
    assert unread([23], 12, 0.0) == (
        "Free control: vision layer 23 never reaches the language model; over 12 rows LD moves by "
        "exactly 0, as it must."
    )
    broken = unread([22, 23], 1200, 3e-6)
    assert "layers 22-23 never reach the language model; over 1,200 rows" in broken
    assert "up to 3.0e-06 logits, where it must be 0: DO NOT TRUST THIS RUN" in broken


def test_the_largest_of_a_kind_that_no_table_lists_is_named() -> None:
    listed = [row(heads="1.1", normalized={"zero": 0.2, "mean": 0.1})]
    largest = [
        row(heads="1.1", normalized=0.2),
        row(heads="2.3", kind="mean", effect=-9.0, normalized=0.9),
        row(heads="1.1", direction="denoising", effect=1e-7, normalized=0.0, below_floor=True),
    ]
    found = unlisted(largest, listed)
    assert found is not None
    assert said(found) == (
        "Largest of their kind and direction, in no table here: mean noising 2.3 -9.0000 (share "
        "+0.9000); zero denoising 1.1 (+1e-07) (share +0.0000)."
    )
    assert unlisted(largest[:1], listed) is None
    over_pairs = [row(heads="1.1", normalized=0.2)]  # their tables show one kind
    assert unlisted(largest[:1], over_pairs) is None
    assert unlisted([row(heads="1.1", kind="mean", normalized=0.1)], over_pairs) is not None


def test_the_place_is_as_wide_as_its_figures() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(top([row()], 1e-6, 8))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = (line for line in printed.splitlines() if "v3.1" in line)
    assert line.index("v3.1") <= len("  1  ")


def test_the_estimate_stands_beside_the_effect() -> None:
    words = said(top([row(approx=-0.11)], 1e-6, 8))
    assert "heads effect approx zero answer" in words
    assert "-4.9400 -0.1100 +0.2000 Yes → No" in words
    assert "approx: what gradients estimate of the effect." in words
    without = said(top([row()], 1e-6, 8))
    assert "approx" not in without


def test_whole_layers_have_their_own_table() -> None:
    words = said(layers([row(heads="layer:v3")]))
    assert "noising (necessary?): largest effects of zero, whole layers" in words
    assert "layer:v3 -4.9400" in words

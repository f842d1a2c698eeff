"""What is said of a sweep: whole layers, the free control, and estimates beside effects."""

import io
import math
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from headpatch.core.question import Context
from headpatch.present.effects_view import unread_words
from headpatch.present.tables import renderables
from headpatch.questions.sweep.view import view
from tests.report import synthetic

FIGURES = synthetic.agreement()
OVER_PAIRS = FIGURES | {
    "top_recall_low": 0.8, "top_recall_high": 0.9, "of_means_pearson": 0.75,
    "of_means_pearson_low": 0.7, "of_means_pearson_high": 0.8, "of_means_spearman": 0.5,
    "of_means_top_recall": 0.95, "pairs": 30,
}  # fmt: skip


def row(**changes: Any) -> dict[str, Any]:
    return {
        "direction": "noising",
        "heads": "v3.1",
        "kind": "zero",
        "effect": -4.94,
        "normalized": 0.2,
        "role": "head",
        "answer_before": "Yes",
        "answer_after": "No",
        "attention_rank": None,
    } | changes


def printed(*rows: dict[str, Any], **files: Any) -> str:
    """What a terminal shows of some rows of a pair."""
    out = io.StringIO()
    saved = {
        "normalized": {"zero_noising": [0.2]},
        "effect": {"zero_noising": [-4.94]},
        "heads": ["v3.1"],
        "positions": "all",
        "noise_floor": 1e-6,
        **files.pop("saved", {}),
    }
    content = {"effects.csv": pd.DataFrame(rows or [row()]), "sweep.pt": saved, **files}
    console = Console(file=out, width=140)
    for part in renderables(view(content, Context(noise_floor=1e-6))):
        console.print(part, crop=False, markup=False)
    return out.getvalue()


def said(*rows: dict[str, Any], **files: Any) -> str:
    return " ".join(printed(*rows, **files).split())


def agreement(figures: dict[str, Any], sets: bool = False) -> str:
    """What is said of estimates."""
    effect = [1.0, 2.0] if sets else [[1.0, 2.0]]
    saved = {"effect": {"zero_noising": effect}, "approx": {"zero_noising": effect}}
    approx = saved | {"agreement": figures, "positions": "all"}
    return said(saved={"heads": ["v3.1", "v3.2"]}, **{"approx.pt": approx})


def test_a_control_that_holds_and_one_that_does_not() -> None:
    assert unread_words([23], 12, 0.0) == (
        "Free control: vision layer 23 never reaches the language model; over 12 rows LD moves by "
        "exactly 0, as it must."
    )
    broken = unread_words([22, 23], 1200, 3e-6)
    assert "layers 22-23 never reach the language model; over 1,200 rows" in broken
    assert "up to 3.0e-06 logits, where it must be 0: DO NOT TRUST THIS RUN" in broken
    control = {"unread": {"layers": [23], "rows": 12, "largest": 0.0}}
    assert unread_words([23], 12, 0.0) in said(saved=control)


def test_the_largest_of_a_kind_that_no_table_lists_is_named() -> None:
    heads = [f"1.{head}" for head in range(11)]
    rows = [row(heads=name, kind="mean", effect=5.0 - place) for place, name in enumerate(heads)]
    others = [row(heads=name, effect=0.1) for name in heads]
    rows[-1] |= {"effect": 0.0}  # no table of ten lists it
    largest = others[-1] | {"effect": -9.0, "normalized": 0.9}
    assert (
        "The largest effects of their kind and direction that are not listed above, since the "
        "tables are sorted by mean: zero noising 1.10 -9.0000 (share +0.9000)."
    ) in said(*rows, *others[:-1], largest)
    assert "not listed above" not in said(*rows, *others)


def test_the_place_is_as_wide_as_its_figures() -> None:
    (line,) = (line for line in printed().splitlines() if "v3.1" in line)
    assert line.index("v3.1") <= len("  1  ")


def test_the_estimate_stands_beside_the_effect() -> None:
    words = said(row(approx=-0.11))
    assert "heads effect approx zero answer" in words
    assert "-4.9400 -0.1100 +0.2000 Yes → No" in words
    assert "approx: what gradients estimate of the effect." in words
    assert "approx" not in said()


def test_whole_layers_have_their_own_table() -> None:
    words = said(row(), row(heads="v3.0+v3.1", role="layer"))
    assert "noising (necessary?): largest effects of zero, whole layers" in words
    assert "layer:v3 -4.9400" in words


def test_agreement_is_shown_with_its_interval_and_chance() -> None:
    words = agreement({"resample_denoising": FIGURES})
    assert "against the exact effects of 1,024 heads" in words
    assert "top-20 recall" in words
    assert "resample denoising +0.29 -0.12 to +0.71 +0.97 0.85 0.02" in words
    assert "no substitute" in words
    assert "Intervals resample heads, which are not independent draws" in words
    assert "mean effects" not in words
    assert "sets, which are not" in agreement({"zero_noising": FIGURES}, sets=True)


@pytest.mark.parametrize("figures", [{}, {"zero_noising": dict.fromkeys(FIGURES, float("nan"))}])
def test_what_cannot_be_compared_is_said(figures: dict[str, Any]) -> None:
    if figures:
        figures["zero_noising"] |= {"k": 2, "heads": 2}
    assert ("undefined" if figures else "nothing to say") in agreement(figures)


def test_over_pairs_the_means_of_the_pairs_stand_beside_the_mean_effects() -> None:
    words = agreement({"resample_noising": OVER_PAIRS})
    for part in (
        "against the exact effects of 1,024 heads",
        "resample noising mean of the pairs +0.29 -0.12 to +0.71 +0.97 0.85 0.80 to 0.90 0.02",
        "resample noising mean effects +0.75 +0.70 to +0.80 +0.50 0.95 0.02",
        "averaged over 30 pairs",
        "Intervals are over pairs.",
        "no substitute",
    ):
        assert part in words, part
    nothing = {key: math.nan for key in OVER_PAIRS if "pearson" in key}
    words = agreement({"zero_noising": OVER_PAIRS | nothing}, sets=True)
    assert "1,024 sets" in words
    assert words.count("undefined") == 2 and "nan" not in words

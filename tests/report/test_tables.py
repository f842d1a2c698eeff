"""Tables for a terminal: every figure whole at every width, every text as it was given."""

import io
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from headpatch.cli.show import show
from headpatch.present import tables

WIDTHS = (20, 40, 60, 80, 120, 200)


def text(*parts: RenderableType, width: int = 80, terminal: bool = False) -> str:
    """What the command line prints on a console of this width."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    show(console, *parts)
    return stream.getvalue()


def cells(shown: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in shown.splitlines()]


def row(**values: Any) -> dict[str, Any]:
    """An effect; noising one head by default."""
    return {
        "pair": "1-2", "heads": "24.17", "kind": "zero", "direction": "noising",
        "positions": "answer", "ld_with": 7.0, "ld_without": -8.0, "ld": 6.5, "effect": -0.5,
        "normalized": 0.0333, "role": "head", "answer_before": "Yes", "answer_after": "Yes",
        "control_mean": 0.001, "control_sd": 0.002, "control_n": 20, "control_p": 0.0952,
        **values,
    }  # fmt: skip


def effects(*rows: dict[str, Any], floor: float = 1e-6) -> RenderableType:
    return tables.effects(pd.DataFrame(rows), floor)


@given(
    normalized=st.floats(-1e7, 1e7), sd=st.floats(0, 1e7), effect=st.floats(-1e4, 1e4),
    before=st.text(st.characters(categories=["L"]), min_size=1, max_size=12),
    after=st.text(st.characters(categories=["L"]), min_size=1, max_size=12),
    width=st.sampled_from(WIDTHS),
)  # fmt: skip
@settings(max_examples=50)
def test_an_effect_is_whole_at_every_width(
    normalized: float, sd: float, effect: float, before: str, after: str, width: int
) -> None:
    """Shares of a small difference are large: forced studies have them."""
    one = row(
        normalized=normalized, control_mean=-normalized, control_sd=sd, effect=effect,
        answer_before=before, answer_after=after,
    )  # fmt: skip
    shown = text(effects(one, floor=0.0), width=width)
    assert "…" not in shown
    (line,) = (line for line in shown.splitlines() if "noising" in line)
    assert f"{normalized:+.4f}" in line
    assert f"{-normalized:+.4f}" in line
    assert f"{sd:.4f}" in line
    assert f"{effect:+.4f}" in line or not effect
    assert "0.10" in line
    for answer in (before, after):
        assert answer in shown or before == after


def test_what_is_below_the_noise_floor_is_in_brackets() -> None:
    above, below = row(effect=-0.25), row(direction="denoising", effect=3e-7)
    lines = text(effects(above, below, floor=1e-6), width=100).splitlines()
    (first,) = (line for line in lines if "noising" in line and "denoising" not in line)
    (second,) = (line for line in lines if "denoising" in line)
    assert "-0.2500" in first
    assert "(" not in first
    assert "(+3e-07)" in second
    assert "1.0e-06 logits" in " ".join(" ".join(lines).split())


def test_a_set_of_heads_has_a_table_of_its_own() -> None:
    rows = [row(heads=name) for name in ("24.17", "24.10", "24.10+24.17")]
    shown = text(effects(*rows))
    titles = [line.strip() for line in shown.splitlines() if line.startswith("head")]
    assert titles == ["head 24.17", "head 24.10", "heads 24.10+24.17"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_set_of_heads_breaks_between_heads(width: int) -> None:
    names = [f"24.{head}" for head in range(32)]
    words = text(effects(row(heads="+".join(names))), width=width).split()
    assert [word for word in words if word in names] == names


def test_no_figure_is_made_up() -> None:
    nan = float("nan")
    none = row(control_n=0, control_mean=nan, control_sd=nan, control_p=nan)
    single = row(kind="mean", control_n=1, control_mean=0.25, control_sd=nan, control_p=1.0)
    undefined = row(
        kind="resample", normalized=nan, control_mean=nan, control_sd=nan, control_p=nan
    )
    shown = text(effects(none, single, undefined), width=100)
    assert "nan" not in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if "noising" in line}
    assert "none" in lines["zero"]
    assert "+0.2500" in lines["mean"]
    assert "±" not in lines["mean"]
    assert "undefined" in lines["resample"]


def test_a_flipped_answer_shows_both() -> None:
    kept, flipped = row(), row(kind="mean", answer_after="No")
    lines = text(effects(kept, flipped), width=100).splitlines()
    (line,) = (line for line in lines if line.split()[:1] == ["mean"])
    assert "Yes → No" in line
    (line,) = (line for line in lines if line.split()[:1] == ["zero"])
    assert "Yes" not in line


def reading(ld: float, **more: object) -> dict[str, object]:
    found = {"p_yes": 0.5, "p_no": 0.25, "rank_yes": 1, "rank_no": 2, "top": " Yes", "p_top": 0.5}
    return {"ld": ld, **found, "variants": {}, **more}


@pytest.mark.parametrize("width", WIDTHS)
def test_answers_and_questions_are_whole(width: int) -> None:
    question = "Is [bold]anything[/bold] at [0, 1] in the top left corner?"
    answer = "Yes, there is a [red]triangle[/red] in the top left corner of the image: \\[x]."
    runs = [reading(7.4934, p_yes=0.31, rank_yes=2, top=" There", variants={" yes": 0.043}),
            reading(-8.881, p_no=2.3e-20, rank_no=31_002)]  # fmt: skip
    shown = text(
        tables.answers(question, ("Yes", "No"), runs, (answer, "No.")),
        width=width,
    )
    assert "' yes' holds 0.043" in " ".join(shown.split())
    assert "…" not in shown
    assert "+7.493" in shown
    assert "-8.881" in shown
    if width >= 60:
        words = shown.split()
        for part in (*question.split(), *answer.split(), "0.310,", "2.3e-20,", "31,002"):
            assert part in words


def test_without_full_answers_the_token_that_wins_is_shown() -> None:
    runs = [reading(1.0, top=" There", p_top=0.97), reading(-1.0, p_top=3e-5)]
    shown = text(tables.answers("Q?", ("Ja", "Nein"), runs), width=100)
    assert "' There' 0.970" in shown
    assert "' Yes' 3.0e-05" in shown
    assert "P(Ja)" in shown
    assert "P(Nein)" in shown


def test_paths_of_files_are_never_broken() -> None:
    """They are there to be copied."""
    folder = "/a/" + "very-long-folder-name/" * 10 + "[brackets] and spaces"
    stream = io.StringIO()
    console = Console(file=stream, width=40)
    console.print(tables.files(folder, ["heads.csv"]), soft_wrap=True)
    assert f"Wrote to {folder}:" in stream.getvalue().splitlines()
    assert "  heads.csv" in stream.getvalue().splitlines()

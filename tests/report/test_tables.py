"""Tables for a terminal: every figure whole at every width, every text as it was given."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from headpatch.cli.show import show
from headpatch.core.study import Expected, Published
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


def head(**values: float) -> dict[str, int | float]:
    return {
        "rank": 1, "layer": 24, "head": 17, "diff": 0.4832, "with": 0.8042, "without": 0.321,
        "diff_raw": 0.12, "with_raw": 0.2, "without_raw": 0.08, **values,
    }  # fmt: skip


def spatial(layers: int = 30, vision: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def curve(size: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(0.0, 1.0, size).astype(np.float32))

    def measures(size: int) -> dict[str, torch.Tensor]:
        return {name: curve(size) for name in ("kl", "js", "js_distance")}

    found: dict[str, Any] = {
        "quadrant_names": ["top-left", "top-right", "bottom-left", "bottom-right"],
        **{f"quadrants_{name}": curve(4) for name in ("with", "without", "diff")},
        "divergence_overall": {"kl": 1.7054, "js": 0.2165, "js_distance": 0.4653},
        "divergence_lm": measures(layers),
    }
    if vision:
        found["feature_layer"] = layers - 3
        for query in ("cls", "patch"):
            found |= {f"vision_{query}_{name}": curve(layers) for name in ("with", "without")}
            found[f"vision_{query}_diff"] = curve(layers) - 0.5
            found[f"divergence_vision_{query}"] = measures(layers)
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_ranking_is_whole_at_every_width(width: int, terminal: bool) -> None:
    rows = [
        head(rank=1000 + n, layer=10 * n, head=n, diff=-0.1234 + n / 7, diff_raw=n / 9 - 1)
        for n in range(4)
    ]
    shown = text(tables.top_heads(rows), width=width, terminal=terminal)
    assert "…" not in shown
    for one in rows:
        signed = [f"{one[name]:+.4f}" for name in ("diff", "diff_raw")]
        wanted = [f"{one[name]:.0f}" for name in ("rank", "layer", "head")]
        wanted += [signed[0], "0.8042", "0.3210", signed[1], "0.2000", "0.0800"]
        assert wanted in cells(shown)


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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("vision", [False, True])
def test_spatial_tables_are_whole(width: int, vision: bool) -> None:
    found = spatial(vision=vision)
    parts = [tables.quadrants(found), tables.divergences(found)]
    if vision:
        parts.append(tables.vision(found))
    shown = text(*parts, width=width)
    assert "…" not in shown
    words = shown.split()
    for name in ("with", "without"):
        for value in found[f"quadrants_{name}"]:
            assert f"{value:.4f}" in words
    for value in found["divergence_overall"].values():
        assert f"{value:.4f}" in words
    largest = int(found["divergence_lm"]["js"].argmax())
    assert f"{found['divergence_lm']['kl'][largest]:.4f}" in words
    if vision:
        first = int(found["vision_patch_diff"].abs().argmax())
        wanted = [str(first), f"{found['vision_patch_with'][first]:.4f}"]
        assert any(line[:2] == wanted for line in cells(shown))
        assert "Difference" in words


def test_layers_that_are_never_read_are_marked() -> None:
    found = spatial(layers=4)
    found["feature_layer"] = 2
    found["vision_patch_diff"] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    lines = text(tables.vision(found), width=120).splitlines()
    marked = {line.split()[0]: "not read" in line for line in lines if "+0." in line}
    assert marked == {"3": True, "2": False, "1": False, "0": False}


def test_layers_are_counted() -> None:
    shown = " ".join(text(tables.layers(torch.tensor([0, 3, 0, 2]), 5)).split())
    assert shown == "Layers of the top 5 heads: 1 (3), 3 (2)"


def test_published_beside_measured() -> None:
    found = spatial(layers=4)
    published = Expected(
        source="A [cite] paper",
        heads=(
            Published(layer=24, head=17, diff=0.1, with_=0.2, without=0.3),
            Published(layer=99, head=0, diff=0.1, with_=0.2, without=0.3),
        ),
        quadrants={"bottom-right": (0.1703, 0.2598)},
        divergence={"js_distance": 0.4653},
        vision_diff={1: 0.0713, 8: 0.0693},
        vision_divergence={2: {"kl": 1.3115}},
    )
    shown = text(tables.expected(published, [head()], found))
    assert "A [cite] paper" in shown
    lines = [" ".join(line) for line in cells(shown)]
    for line in (
        "head 24.17 diff 0.1000 0.4832",
        "head 24.17 with 0.2000 0.8042",
        "head 24.17 without 0.3000 0.3210",
        "head 99.0 diff 0.1000 no such head",
        f"bottom-right without 0.2598 {found['quadrants_without'][3]:.4f}",
        "overall JS distance 0.4653 0.4653",
        f"vision layer 1 difference +0.0713 {found['vision_patch_diff'][1]:+.4f}",
        "vision layer 8 difference +0.0693 no such layer",
        f"vision layer 2 KL 1.3115 {found['divergence_vision_patch']['kl'][2]:.4f}",
    ):
        assert line in lines
    blind = text(tables.expected(published, [head()], spatial(vision=False)))
    assert blind.count("no such layer") == 3


def test_paths_of_files_are_never_broken() -> None:
    """They are there to be copied."""
    folder = "/a/" + "very-long-folder-name/" * 10 + "[brackets] and spaces"
    stream = io.StringIO()
    console = Console(file=stream, width=40)
    console.print(tables.files(folder, ["heads.csv"]), soft_wrap=True)
    assert f"Wrote to {folder}:" in stream.getvalue().splitlines()
    assert "  heads.csv" in stream.getvalue().splitlines()

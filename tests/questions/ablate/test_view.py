"""What people see of changed heads, in a terminal and on a page."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from headpatch.cli.show import show
from headpatch.core.question import Context
from headpatch.present.chart import Chart
from headpatch.present.parts import Grid, Part, Words
from headpatch.present.tables import renderables
from headpatch.questions.ablate.view import view
from tests.report import synthetic

WIDTHS = (20, 40, 60, 80, 120, 200)


@pytest.fixture(autouse=True, scope="module")
def _no_terminal() -> Iterator[None]:
    """As in a pipe, where tables stay whole, wherever the tests are run from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


def row(**values: Any) -> dict[str, Any]:
    """An effect; noising one head by default."""
    return {
        "pair": "1-2", "heads": "24.17", "kind": "zero", "direction": "noising",
        "positions": "answer", "ld_with": 7.0, "ld_without": -8.0, "ld": 6.5, "effect": -0.5,
        "normalized": 0.0333, "role": "head", "answer_before": "Yes", "answer_after": "Yes",
        "control_mean": 0.001, "control_sd": 0.002, "control_n": 20, "control_p": 0.0952,
        **values,
    }  # fmt: skip


def shown(*rows: dict[str, Any], floor: float = 1e-6, width: int = 100) -> str:
    """The tables and their legend, as a terminal of this width shows them."""
    context = Context(noise_floor=floor)
    parts = view({"effects.csv": pd.DataFrame(rows)}, context)
    tables = [one for one in parts if isinstance(one, Grid) or one in legends([one])]
    stream = io.StringIO()
    show(Console(file=stream, width=width, color_system=None), *renderables(tables))
    return stream.getvalue()


def legends(parts: Iterable[Part]) -> list[Words]:
    return [one for one in parts if isinstance(one, Words) and one.text.startswith("normalized:")]


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
    words = shown(one, floor=0.0, width=width)
    assert "…" not in words
    line = words  # or several, where the table is cut into several below each other
    assert (f"{normalized:+.4f}" if round(normalized, 4) else "0.0000") in line
    assert f"{-normalized:+.4f}" in line
    assert f"{sd:.4f}" in line
    assert f"{effect:+.4f}" in line or not effect
    assert "0.10" in line
    for answer in (before, after):
        assert answer in words or before == after


def test_what_is_below_the_noise_floor_is_in_brackets() -> None:
    above, below = row(effect=-0.25), row(direction="denoising", effect=3e-7)
    lines = shown(above, below, floor=1e-6, width=100).splitlines()
    first, second = (line for line in lines if "noising" in line)
    assert "-0.2500" in first and "(" not in first
    assert "denoising" in second and "(+3e-07)" in second
    assert "1.0e-06 logits" in " ".join(" ".join(lines).split())


def test_a_set_of_heads_has_a_table_of_its_own() -> None:
    rows = [row(heads=name) for name in ("24.17", "24.10", "24.10+24.17")]
    words = shown(*rows)
    titles = [line.strip() for line in words.splitlines() if line.startswith("head")]
    assert titles == ["head 24.17", "head 24.10", "heads 24.10+24.17"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_set_of_heads_breaks_between_heads(width: int) -> None:
    names = [f"24.{head}" for head in range(32)]
    words = shown(row(heads="+".join(names)), width=width).split()
    assert [word for word in words if word in names] == names


def test_the_least_p_is_said_where_p_is_printed() -> None:
    least = "never below 2/(20 + 1) = 0.095"
    assert least in " ".join(shown(row()).split())
    table = synthetic.effects(["3.2", "1.1"]).assign(control_n=20, control_p=0.095)
    assert least in page_words(table)[0].text


def test_the_legend_says_that_the_mean_has_another_ceiling() -> None:
    def said(*kinds: str) -> str:
        parts = view({"effects.csv": pd.DataFrame([row(kind=kind) for kind in kinds])}, Context())
        return " ".join(one.text for one in parts if isinstance(one, Words))

    assert "1 is not its ceiling" in said("zero", "mean")
    assert "ceiling" not in said("zero", "resample")


def test_no_figure_is_made_up() -> None:
    nan = float("nan")
    none = row(control_n=0, control_mean=nan, control_sd=nan, control_p=nan)
    single = row(kind="mean", control_n=1, control_mean=0.25, control_sd=nan, control_p=1.0)
    undefined = {**none, "kind": "resample", "control_n": 20, "normalized": nan}
    words = shown(none, single, undefined, width=100)
    assert "nan" not in words
    lines = {line.split()[0]: line for line in words.splitlines() if "noising" in line}
    assert "none" in lines["zero"]
    assert "+0.2500" in lines["mean"] and "1.00" in lines["mean"] and "±" not in lines["mean"]
    assert "undefined" in lines["resample"]


def test_a_flipped_answer_shows_both() -> None:
    lines = shown(row(), row(kind="mean", answer_after="No"), width=100).splitlines()
    kept, flipped = (line for line in lines if "noising" in line)
    assert "Yes" not in kept and "Yes → No" in flipped


def test_the_page_says_where_heads_were_changed() -> None:
    """Not what the study says of the language model's heads."""
    table = synthetic.effects(["3.2", "1.1"])
    vision = table.assign(heads="v" + table["heads"].str.replace("+", "+v"), positions="patches")
    (words,) = page_words(vision)
    assert "z changed at: patches" in words.text
    both = pd.concat([table, vision])
    (words,) = page_words(both)
    assert "z changed as the rows say" in words.text
    parts = list(view({"effects.csv": both}, Context()))
    (numbers,) = (one for one in parts if isinstance(one, Grid) and one.place == "page")
    assert {"3.2 (answer)", "v3.2 (patches)"} <= {row[0] for row in numbers.rows}
    (chart,) = (one for one in parts if isinstance(one, Chart))
    assert {"3.2 (answer)", "v3.2 (patches)"} <= set(chart.panels[0].names)


def page_words(table: pd.DataFrame) -> list[Words]:
    parts = view({"effects.csv": table}, Context())
    return [one for one in parts if isinstance(one, Words) and one.place == "page"]


def test_over_pairs_means_have_intervals() -> None:
    ends = {f"{name}_{end}": 0.125 for name in ("effect", "normalized") for end in ("low", "high")}
    means = pd.DataFrame([row(**ends, answer_changed=0.5, pairs=3)])
    given = {"effects.csv": pd.DataFrame([row()]), "effects_mean.csv": means}
    unread = {"layers": [3], "rows": 4, "largest": 0.0}
    facts, options = {"unread": unread}, {"heads": "top:1"}
    parts = list(view(given, Context(pairs=3, level=0.9, options=options, facts=facts)))
    terminal, numbers = (one for one in parts if isinstance(one, Grid))
    assert terminal.rows == (
        (
            *("zero", "noising", "-0.5000", "+0.0333", "+0.1250 to +0.1250"),
            *("+0.0010±0.0020", "0.10", "50%"),
        ),
    )
    assert terminal.headings[4] == "90% interval"
    assert "+0.0333 [+0.1250, +0.1250]" in numbers.rows[0]
    words = " ".join(one.text for one in parts if isinstance(one, Words))
    for part in (
        "never below 2/(20",
        "picked by their attention",
        "Free control: vision layer 3",
        "exactly 0",
    ):
        assert part in words
    (chart,) = (one for one in parts if isinstance(one, Chart))
    assert chart.name == "mean_effects"
    assert chart.panels[0].series[0].interval is not None


def test_many_heads_take_no_page_each() -> None:
    """The terminal shows those with the largest effects, and all together."""
    names = [f"{layer}.{head}" for layer in range(5) for head in range(10)]
    rows = [row(heads=one, normalized=at / 100) for at, one in enumerate(names)]
    rows.append(row(heads="+".join(names), role="joint", normalized=0.0))
    context = Context("Is it there?", noise_floor=0.0, options={"heads": "layer:0-4"})
    parts = list(view({"effects.csv": pd.DataFrame(rows)}, context))
    tables = [one for one in parts if isinstance(one, Grid) and one.place == "terminal"]
    titles = [one.title for one in tables]
    assert titles == [*(f"head {one}" for one in names[31:]), "heads 0.0+0.1+… (50 heads)"]
    said = [one.text for one in parts if isinstance(one, Words)]
    assert "31 heads with smaller effects stand in effects.csv." in said

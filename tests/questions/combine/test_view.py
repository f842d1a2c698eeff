"""The map of interactions and the tables beside it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headpatch.core.question import Context
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.questions.combine.view import MOST_HEADS, combinations_chart, view
from tests.command import printed
from tests.report import synthetic
from tests.report.test_plots import assert_labelled, assert_unclipped

pytestmark = pytest.mark.filterwarnings("error")


def combinations(heads: int, kinds: tuple[str, ...] = ("resample",), pairs: int = 1):
    """A table as `headpatch combine` writes it."""
    rng = np.random.default_rng(0)
    names = [f"{28 + index // 32}.{index % 32}" for index in range(heads)]
    rows = []
    for kind, direction in itertools.product(kinds, ("noising", "denoising")):
        common = {"kind": kind, "direction": direction, "positions": "answer", "pairs": pairs}
        alone = dict(zip(names, rng.normal(0.05, 0.1, heads), strict=True))
        rows += [
            {"heads": name, "role": "head", **common, "normalized": value, "sum": value}
            for name, value in alone.items()
        ]
        for one, other in itertools.combinations(names, 2):
            extra, added = rng.normal(0, 0.2), alone[one] + alone[other]
            rows.append(
                {"heads": f"{one}+{other}", "role": "pair", **common, "sum": added,
                 "normalized": added + extra, "interaction": extra,
                 "interaction_low": extra - 0.01, "interaction_high": extra + 0.01,
                 "word": "redundancy" if abs(extra) > 0.05 else "undecided"}
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("heads", [2, 12, 30])
def test_a_readable_map_with_nothing_clipped(heads: int, tmp_path, drawn) -> None:
    words = {"question": synthetic.QUESTION, "region": "top-left"}
    draw(combinations_chart(combinations(heads), 0.02), tmp_path / "f.png", **words)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width == 1400
        assert_unclipped(picture)
    assert_labelled(drawn.last)
    assert any("It costs $5" in text for text in drawn.texts())


def test_the_map_is_symmetric_with_effects_on_its_diagonal(tmp_path, drawn, draft) -> None:
    table = combinations(5)
    draw(combinations_chart(table, None), tmp_path / "f.png")
    panels = [axes for axes in drawn.last.axes if axes.images]
    assert len(panels) == 2
    for axes, direction in zip(panels, ("noising", "denoising"), strict=True):
        values = np.asarray(axes.images[0].get_array(), dtype=float)
        np.testing.assert_allclose(values, values.T)
        here = table[table["direction"] == direction]
        alone = here[here["role"] == "head"]["normalized"].to_numpy()
        np.testing.assert_allclose(np.diag(values), alone)
        first = here[here["role"] == "pair"]["interaction"].iloc[0]
        assert values[0, 1] == pytest.approx(first)
        low, high = axes.images[0].get_clim()
        assert low == -high  # the colours are centred on 0


def test_what_is_not_shown_is_grey_and_in_brackets_and_delta_is_on_the_scale(
    tmp_path, drawn, draft
) -> None:
    table = combinations(5)
    for some, delta in ((True, 0.02), (False, 9.0)):
        draw(combinations_chart(table, delta), tmp_path / "f.png")
        texts = [text for axes in drawn.last.axes if axes.images for text in axes.texts]
        grey = [text for text in texts if text.get_text().startswith("(")]
        assert all((text.get_color() == "0.5") == (text in grey) for text in texts)
        assert bool(grey) is some
        assert any("Grey figures" in text for text in drawn.texts()) is some
        assert any("±δ = 0.02" in text for text in drawn.texts()) is some
        bar = drawn.last.axes[-1]
        lines = [line.get_ydata()[0] for line in bar.lines]
        assert lines == ([-delta, delta] if some else [])
        table.loc[table["word"] == "undecided", "word"] = "independence"


def test_a_grid_of_kinds_and_too_many_heads(tmp_path, drawn, draft) -> None:
    draw(combinations_chart(combinations(4, ("zero", "resample")), None), tmp_path / "f.png")
    assert len([axes for axes in drawn.last.axes if axes.images]) == 4
    draw(combinations_chart(combinations(MOST_HEADS + 2), None), tmp_path / "g.png")
    assert any(f"({MOST_HEADS} heads of {MOST_HEADS + 2})" in text for text in drawn.texts())


def test_the_page_has_the_same_maps() -> None:
    table = combinations(5)
    page = figures(combinations_chart(table, None))
    assert list(page) == ["combinations-0", "combinations-1"]
    first = page["combinations-0"]
    row = table[(table["role"] == "pair") & (table["direction"] == "noising")].iloc[0]
    (heat,) = first.data
    assert heat["z"][0][1] == heat["z"][1][0] == pytest.approx(row["interaction"], abs=1e-4)
    assert heat["text"][0][1].startswith("28.0+28.1: ")
    assert heat["text"][0][0].startswith("28.0 alone: ")
    assert "Largest: " in first.label


def test_without_a_pair_of_heads_there_is_no_map() -> None:
    table = combinations(3)
    with pytest.raises(ValueError, match="no pair of heads"):
        combinations_chart(table[table["role"] == "head"], None)


def test_tables_say_what_is_known() -> None:
    context = Context(noise_floor=1e-6)
    text = printed(view({"combinations.csv": combinations(3)}, context))
    assert "One pair of pictures: known up to rounding (1.0e-06 logits" in text
    assert "28.0+28.1" in text
    assert "interval" not in text
    many = Context(pairs=40, level=0.9, options={"heads": "28.0,28.1"})
    text = printed(view({"combinations.csv": combinations(3, pairs=40)}, many))
    assert "Means over 40 pairs of pictures" in text
    assert "90% interval" in text


def test_repair_names_the_parts_that_move() -> None:
    figures = dict.fromkeys(("direct", "renormed", "total", "repair"), 0.25)
    common = {"heads": "1.1", "kind": "resample", "direction": "noising"}
    table = pd.DataFrame([{**common, **figures, "other_heads": 0.1, "mlps": -0.1, "norm": 0.0}])
    moved = {"rank": [1, 2], "part": ["mlp 2", "2.0"], "change": [-0.1, 1e-6]}
    parts = pd.DataFrame(common | moved)
    files = {"combinations.csv": combinations(3), "selfrepair.csv": table}
    text = printed(view(files | {"selfrepair_parts.csv": parts}, Context()))
    assert "mlp 2 -0.100" in text
    assert "2.0 " not in text.split("mlp 2")[1].splitlines()[0]  # what three digits do not show

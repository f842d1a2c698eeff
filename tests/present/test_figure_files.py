"""Figures as files: formats, width, style, and their data as a table."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

import headpatch as hp
from headpatch.core.output.files import read_table
from headpatch.core.output.writing import _write_figure
from headpatch.core.question import Context
from headpatch.core.study.figure_options import FigureOptions
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.present.canvas import Sheet, check_style
from headpatch.present.chart import Chart, HeadMap, Picture, ground
from headpatch.present.figure import draw
from headpatch.present.figure_data import COLUMNS, data_of
from headpatch.present.interactive import figures
from headpatch.present.model_view import covered, drawn, model_view_chart, model_view_text
from headpatch.present.panel import Panel
from tests.planted import planted, planted_study
from tests.present.examples import EXAMPLES

LEFT = np.array([[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0]])  # two patches; the right is cut away


def test_a_figure_is_written_in_every_format_as_wide_as_asked(tmp_path: Path) -> None:
    options = FigureOptions(format=("png", "pdf", "svg", "csv"), width=3.5)
    _write_figure(EXAMPLES["counts"], tmp_path, options, Context("Q?", "r"))
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "counts.pdf", "counts.png", "counts.svg", "counts_data.csv",
    ]  # fmt: skip
    assert Image.open(tmp_path / "counts.png").width == 700  # 200 dots an inch
    assert (tmp_path / "counts.pdf").read_bytes().startswith(b"%PDF")
    assert 'width="252pt"' in (tmp_path / "counts.svg").read_text()
    table = read_table(tmp_path / "counts_data.csv")
    (panel,) = EXAMPLES["counts"].panels
    assert isinstance(panel, Panel)
    for series in panel.series:
        rows = table[table["series"] == series.name]
        np.testing.assert_allclose(rows["x"].astype(float), series.x)
        np.testing.assert_allclose(rows["value"].astype(float), series.y, rtol=1e-6)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_data_of_a_figure_is_every_number_in_it(name: str) -> None:
    chart = EXAMPLES[name]
    data = data_of(chart)
    assert set(data) <= set(COLUMNS)
    held = []
    for panel in filter(None, chart.panels):
        if isinstance(panel, Panel):
            held += [series.y for series in panel.series]
        elif isinstance(panel, HeadMap):
            held += [panel.values.ravel(), *([] if panel.whole is None else [panel.whole])]
        elif isinstance(panel, Picture) and panel.density is not None:
            held.append(panel.density[0].ravel())
    np.testing.assert_array_equal(np.array(data["value"]), np.concatenate(held))


def test_a_style_file_sets_fonts_and_the_colours_of_maps(tmp_path: Path) -> None:
    path = tmp_path / "paper.mplstyle"
    path.write_text("font.family: serif\nimage.cmap: PuOr  # of maps\n", encoding="utf-8")
    check_style(str(path))
    sheet, usual = Sheet(), Sheet()
    chart = next(one for one in EXAMPLES.values() if isinstance(one.panels[0], HeadMap))
    draw(chart, sheet, style=str(path))
    draw(chart, usual)
    assert sheet.figure.axes[0].images[0].get_cmap().name == "PuOr"
    assert usual.figure.axes[0].images[0].get_cmap().name == "effect"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("font.sizzle: 3", "font.sizzle"),
        ("font.size: large-ish", "font.size"),
        ("image.cmap: nought", "nought"),
    ],
)
def test_a_bad_style_file_is_refused_in_one_line(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "bad.mplstyle"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as said:
        check_style(str(path))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"figures.format": ("gif",)}, "--format"), ({"figures.width": 0.5}, "--width")],
)
def test_figures_are_an_option_of_the_study(flags: dict, words: str) -> None:
    found = Study.make(flags={"figures.format": ("svg", "csv"), "figures.width": 3.3}).figures
    assert found.format == ("svg", "csv") and found.width == 3.3
    with pytest.raises(InputError, match=words):
        Study.make(flags=flags)


def test_a_colour_bar_shows_the_colours_as_they_look_on_the_picture() -> None:
    chart = next(one for one in EXAMPLES.values() if isinstance(one.panels[0], Picture))
    sheet = Sheet()
    draw(chart, sheet)
    pictures = [one for one in chart.panels if isinstance(one, Picture)]
    below = ground([one.image for one in pictures[: chart.columns]])
    bar = next(one for one in sheet.figure.axes if one.get_label() == "<colorbar>")
    np.testing.assert_allclose(to_rgb(bar.get_facecolor()), below)
    page = next(iter(figures(chart).values()), None)
    if page is not None:
        first, colours = ground([pictures[0].image]), page.data[1]["colorscale"]
        assert colours[0][1] == "rgb({},{},{})".format(*(round(255 * one) for one in first))


def test_what_the_processor_cuts_away_is_dark_and_said() -> None:
    light = np.full((100, 200, 3), 200, np.uint8)
    other = light.copy()
    other[10:20, 150:180] = 0  # where it is cut away
    shown = drawn(light, LEFT)
    assert shown.shape == (240, 480, 3)
    assert (shown[60, 400] == 40).all() and (shown[60, 100] == 200).all()
    assert covered(LEFT, 4, 2).tolist() == [[True, True, False, False]] * 2
    made = model_view_chart([light, other], LEFT, (0.5, 0.0, 1.0, 0.5), ("With", "Without"))
    assert isinstance(made, Chart) and "cut away (50% of the picture)" in made.note
    text = model_view_text([light, other], LEFT, (0.25, 0.5, 0.5, 1.0))
    assert "x where they differ and it is cut away" in text
    lines = text.splitlines()[1:]
    assert len(lines) == 16 and all(len(line) <= 66 for line in lines)
    assert any("x" in line for line in lines) and not any("#" in line for line in lines)
    assert "o" in lines[-1]


def test_where_no_place_is_known_nothing_is_drawn() -> None:
    nowhere, picture = np.full((4, 4), np.nan), np.zeros((8, 8, 3), np.uint8)
    assert model_view_chart([picture], nowhere, (0.0, 0.0, 1.0, 1.0), ("With",)) is None
    assert model_view_text([picture, picture], nowhere, (0.0, 0.0, 1.0, 1.0)) == ""


def test_a_plot_is_as_wide_and_styled_as_the_study_or_the_caller_says(tmp_path: Path) -> None:
    """The figures of a result, of its folder, and of the command line, by one section."""
    style = tmp_path / "large.mplstyle"
    style.write_text("ytick.labelsize: 15\n")
    own = {"figures.width": 4.0, "figures.style": str(style)}
    session = hp.open_session(planted_study(tmp_path, **own), planted().vlm)
    found = hp.rank(session, overlays=0)
    found.save(tmp_path / "out")
    for what in (found, tmp_path / "out"):
        assert hp.plot(what).get_figwidth() == 4.0
        assert hp.plot(what, width=9.0).get_figwidth() == 9.0
        assert {one.get_fontsize() for one in hp.plot(what).axes[0].get_yticklabels()} == {15}
    plain = hp.rank(hp.open_session(planted_study(tmp_path), planted().vlm), overlays=0)
    assert hp.plot(plain).get_figwidth() == 7.0
    drawn = hp.plot(plain, style=style)
    assert {one.get_fontsize() for one in drawn.axes[0].get_yticklabels()} == {15}
    with pytest.raises(hp.InputError, match=r"--style: .*nowhere"):
        hp.plot(found, style="nowhere")
    with pytest.raises(hp.InputError, match="--width"):
        hp.plot(found, width=0.5)

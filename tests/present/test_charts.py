"""Both renderers draw the numbers of a chart, read back from what they made."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh

from headpatch.present.canvas import Sheet
from headpatch.present.chart import Chart, HeadMap, Picture, numbers_along, rows_of
from headpatch.present.figure import colouring, draw
from headpatch.present.interactive import band, figures
from headpatch.present.panel import Panel, Scale, Series, root
from tests.present.examples import EXAMPLES

pytestmark = [
    pytest.mark.filterwarnings("error"),
    # what an old matplotlib calls of a new pyparsing
    pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib"),
]
CLOSE = {"rtol": 2e-4, "atol": 1e-9, "equal_nan": True}  # five digits are written


@cache
def drawn(name: str) -> list:
    """The panels, each with matplotlib's axes and the page's figure."""
    chart, sheet = EXAMPLES[name], Sheet()
    draw(chart, sheet, "Is it $5?", "top-left")
    panels = [one for row in rows_of(chart) for one in row]
    axes = sheet.figure.axes[: len(panels)]
    shown = [(panel, one) for panel, one in zip(panels, axes, strict=True) if panel is not None]
    made = figures(chart)
    assert list(made) == [f"{name}-{i}" for i in range(len(shown))]
    return [(panel, one, page) for (panel, one), page in zip(shown, made.values(), strict=True)]


def every(kind: type) -> pytest.MarkDecorator:
    """Run a test for each panel of a kind."""
    places = [
        (name, i)
        for name, chart in EXAMPLES.items()
        for i, panel in enumerate(filter(None, chart.panels))
        if isinstance(panel, kind)
    ]
    return pytest.mark.parametrize(("name", "index"), places)


def numbers(values: object) -> np.ndarray:
    return np.array([np.nan if one is None else one for one in values], float)


def mains(page) -> list[dict]:
    traces = [one for one in page.data if one.get("hovertemplate") == "%{hovertext}<extra></extra>"]
    return sorted(traces, key=lambda one: one["legendrank"])


@every(Panel)
def test_points_and_bars_lie_where_the_chart_says(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    orders = {3 - order / 100 for order in range(len(panel.series))}
    lines = iter([one for one in axes.lines if one.get_zorder() in orders])
    bars = iter(axes.containers)
    for series, trace in zip(panel.series, mains(page), strict=True):
        values = np.where(np.isfinite(series.y), series.y, np.nan)
        expected = (values, series.x) if panel.across else (series.x, values)
        if panel.kind(series) == "bars":
            patches = next(bars).patches
            centres = [(p.get_x() + p.get_width() / 2, p.get_height()) for p in patches]
            if panel.across:
                centres = [(p.get_width(), p.get_y() + p.get_height() / 2) for p in patches]
            np.testing.assert_allclose(np.array(centres).T, expected)
        else:
            line = next(lines)
            np.testing.assert_allclose([line.get_xdata(), line.get_ydata()], expected)
            assert (trace["marker"]["color"], line.get_color()) == (series.style.color,) * 2
        scales = (panel.x_scale, panel.y_scale)
        for axis, scale, own in zip("xy", scales, expected, strict=True):
            np.testing.assert_allclose(numbers(trace[axis]), scale.along(own), **CLOSE)


@every(Panel)
def test_intervals_and_bands_lie_where_the_chart_says(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    value = 0 if panel.across else 1
    polygons = [one for one in axes.collections if isinstance(one, PolyCollection)]
    drawn_bands = [path.vertices[:, 1] for one in polygons for path in one.get_paths()]
    bars = [one for one in axes.collections if isinstance(one, LineCollection)]
    drawn_bars = np.array([part[:, value] for one in bars for part in one.get_segments()])
    for series in panel.series:
        for ends, banded in (
            (series.interval, panel.band(series)),
            (series.null_band, panel.kind(series) == "line"),
        ):
            if ends is None:
                continue
            own = np.array(ends).T[np.isfinite(ends).all(0)]
            if banded:
                vertices = np.concatenate(drawn_bands)
                assert np.isin(own.ravel().round(9), vertices.round(9)).all()
            else:
                known = own[np.isfinite(series.y[np.isfinite(ends).all(0)])]
                assert all(np.isclose(drawn_bars, one).all(1).any() for one in known)
    for series, trace in zip(panel.series, mains(page), strict=True):
        if series.interval is not None and not panel.band(series):
            error = trace[f"error_{'xy'[value]}"]
            scale = panel.x_scale if panel.across else panel.y_scale
            middle = numbers(trace["xy"[value]])
            sides = {"arrayminus": -1, "array": 1}
            for (end, sign), own in zip(sides.items(), series.interval, strict=True):
                np.testing.assert_allclose(
                    middle + sign * numbers(error[end]), scale.along(own), rtol=1e-3, atol=1e-4
                )
    bands = [one for one in page.data if one.get("fill") == "toself"]
    assert len(bands) == sum(
        (s.interval is not None and panel.band(s))
        + (s.null_band is not None and panel.kind(s) == "line")
        for s in panel.series
    )


@every(Panel)
def test_both_name_places_and_numbers_alike(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    for axis, matplotlib_axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        made = page.layout[f"{axis}axis"]
        if "ticktext" not in made:
            continue
        scale = panel.x_scale if axis == "x" else panel.y_scale
        np.testing.assert_allclose(
            made["tickvals"], scale.along(matplotlib_axis.get_ticklocs()), **CLOSE
        )
        texts = [one.get_text() for one in matplotlib_axis.get_ticklabels()]
        assert not texts or [t.replace("<br>", "\n") for t in made["ticktext"]] == texts


@every(HeadMap)
def test_maps_have_the_values_of_the_chart(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    lay = root if EXAMPLES[name].colours.rooted else np.asarray
    both = [panel.values] + ([] if panel.whole is None else [panel.whole[:, None]])
    heats = [one for one in page.data if one["type"] == "heatmap"]
    for values, image, trace in zip(both, axes.images, heats, strict=True):
        np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), values)
        shown = np.array([numbers(row) for row in trace["z"]])
        np.testing.assert_allclose(shown, lay(values), **CLOSE)
        low, high = image.norm.vmin, image.norm.vmax
        assert (trace["zmin"], trace["zmax"]) == pytest.approx((float(lay(low)), float(lay(high))))
    texts = [one.get_text() for one in axes.texts]
    assert [one for one in texts if "." in one and one in panel.labels.values()] == [
        *panel.labels.values()
    ]
    for cells in panel.cells:
        if cells.marker == "frame":
            corners = [one.get_xy() for one in axes.patches]
            assert corners == [
                (c - 0.5, r - 0.5) for r, c in zip(cells.rows, cells.columns, strict=True)
            ]
            frames = [(one["x0"], one["y0"]) for one in page.layout["shapes"]]
            assert frames == corners
        else:
            (marks,) = (one for one in axes.lines if one.get_linestyle() == "None")
            assert list(marks.get_ydata()) == list(cells.rows)
            (trace,) = (one for one in page.data if one.get("mode") == "markers")
            assert (trace["x"], trace["y"]) == (list(cells.columns), list(cells.rows))


@every(Picture)
def test_pictures_have_the_map_and_the_region_of_the_chart(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    (mesh,) = (one for one in axes.collections if isinstance(one, QuadMesh))
    trace, _ = page.data  # and that of the colour bar, as it looks on the picture
    cells, x_edges, y_edges = panel.density
    np.testing.assert_allclose(mesh.get_array(), cells)
    np.testing.assert_allclose(trace["z"], cells, **CLOSE)
    np.testing.assert_allclose(trace["x"], x_edges, **CLOSE)
    np.testing.assert_allclose(trace["y"], y_edges, **CLOSE)
    assert mesh.norm.vmax == trace["zmax"] == panel.peak
    (box,) = axes.patches
    left, top, right, bottom = panel.box
    assert box.get_bbox().bounds == (left, top, right - left, bottom - top)
    assert {(one["x0"], one["y0"], one["x1"], one["y1"]) for one in page.layout["shapes"]} == {
        panel.box
    }
    assert page.layout["images"][0]["source"].startswith("data:image/jpeg;base64,")


@every(Panel)
def test_no_point_lies_beyond_the_axes(name: str, index: int) -> None:
    panel, axes, page = drawn(name)[index]
    for axis, (low, high) in (("x", axes.get_xlim()), ("y", axes.get_ylim())):
        values = panel.numbers_on(axis)
        values = values[np.isfinite(values)]
        assert min(low, high) - 1e-9 <= values.min() <= values.max() <= max(low, high) + 1e-9
        scale = panel.x_scale if axis == "x" else panel.y_scale
        shown = page.layout[f"{axis}axis"].get("range")
        if shown is not None:
            assert min(shown) <= scale.along(values).min() + 1e-4
            assert scale.along(values).max() - 1e-4 <= max(shown)


def test_infinite_and_undefined_values_are_said() -> None:
    _, axes, page = drawn("lines")[0]
    assert "▲\n∞" in [one.get_text() for one in axes.texts]
    assert any("∞" in one.get("text", ()) for one in page.data)
    assert "undefined" in [one.get_text() for one in drawn("across")[0][1].texts]


def test_one_legend_names_each_series_once_and_tells_none_by_colour_alone() -> None:
    for chart in EXAMPLES.values():
        figure = drawn(chart.name)[0][1].figure
        names = [text.get_text() for one in figure.legends for text in one.get_texts()]
        assert len(names) == len(set(names))
        looks = {
            (series.style.marker, series.style.line, series.style.hatch, series.style.hollow):
            series.name
            for panel in chart.panels if isinstance(panel, Panel)
            for series in panel.series if series.name
        }  # fmt: skip
        shown = {s.name for p in chart.panels if isinstance(p, Panel) for s in p.series if s.name}
        assert len(looks) == len(shown)


@pytest.mark.parametrize("name", EXAMPLES)
def test_plotly_knows_every_key_of_the_page_s_figures(name: str) -> None:
    objects = pytest.importorskip("plotly.graph_objects")
    for page in figures(EXAMPLES[name]).values():
        traces = [
            {key: value for key, value in one.items() if value not in ("effect", "share")}
            for one in page.data
        ]
        objects.Figure(traces, dict(page.layout))
        named = [one["name"] for one in traces if one.get("showlegend") and one.get("name")]
        assert len(named) == len(set(named))


def test_a_band_is_parted_where_an_end_is_unknown() -> None:
    made = band([0.0, 1, 2, 3, 4], [0, 0, np.nan, 0, 0], [1, 1, 1, 1, 1], "#000000")
    assert made["x"] == [0, 1, 1, 0, None, 3, 4, 4, 3]
    assert made["y"] == [1, 1, 0, 0, None, 1, 1, 0, 0]


@pytest.mark.parametrize("count", [1, 5, 6, 9, 14])
def test_every_name_of_a_legend_lies_inside_the_figure(count: int) -> None:
    x = np.arange(5.0)
    series = [Series(f"question {i} → region", x, x * i, look=i) for i in range(count)]
    sheet = Sheet()
    draw(Chart("c", "c.png", "", [Panel("", series, "", "")]), sheet)
    (legend,) = sheet.figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == count
    assert box.x0 >= 0 and box.x1 <= sheet.figure.bbox.x1
    assert box.y0 >= sheet.figure.axes[0].get_window_extent().y1


def test_what_a_panel_shows_is_said_for_who_cannot_see_it() -> None:
    made = figures(EXAMPLES["lines"])
    assert made["lines-0"].label == "Lines over layers. Necessary?. Largest: 3"
    assert made["lines-1"].label == "Lines over layers. Sufficient?"


def test_names_from_users_are_escaped_for_the_page() -> None:
    series = Series("<b>", np.zeros(1), np.ones(1))
    panel = Panel("", [series], "", "", names=["<i>"])
    (page,) = figures(Chart("c", "c.png", "", [panel])).values()
    assert page.data[0]["name"] == "&lt;b&gt;"
    assert page.data[0]["hovertext"] == ["&lt;b&gt;, &lt;i&gt;: 1"]
    assert page.layout["xaxis"]["ticktext"] == ["&lt;i&gt;"]


@pytest.mark.parametrize("scale", [Scale(), Scale("root"), Scale("counts"), Scale("beyond", 0.02)])
def test_a_scale_rises_and_can_be_undone(scale: Scale) -> None:
    values = np.linspace(0 if scale.kind == "counts" else -3, 3, 301)
    assert (np.diff(scale.along(values)) > 0).all()
    np.testing.assert_allclose(scale.back(scale.along(values)), values, atol=1e-12)


def test_numbers_are_shared_as_the_chart_says() -> None:
    panels = [Panel("", [Series("", np.array([float(i)]), np.ones(1))], "", "") for i in range(4)]
    expected = {"all": [0, 1, 2, 3], "row": [0, 1], "col": [0, 2], "none": [0]}
    for share, numbers_ in expected.items():
        chart = Chart("c", "c.png", "", panels, columns=2, share_x=share)
        assert numbers_along(chart, panels[0], "x").tolist() == numbers_


def test_colours_tell_the_signs_apart_and_nothing_is_light() -> None:
    colours, _ = colouring(EXAMPLES["heads"])
    low, middle, high = (np.array(colours(value)[:3]) for value in (0.25, 0.5, 0.75))
    assert middle.min() > 0.9
    assert low[2] - low[0] > 0.3  # blue
    assert high[0] - high[2] > 0.3  # vermillion
    lightness = [np.dot(colours(x)[:3], (0.2126, 0.7152, 0.0722)) for x in np.linspace(0, 1, 21)]
    assert (np.diff(lightness[:11]) > 0).all()  # so that it reads in grey as well
    assert (np.diff(lightness[10:]) < 0).all()


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=30))
def test_labels_of_counts_keep_apart_and_show_both_ends(drawn_counts: set[int]) -> None:
    counts, scale = np.array([0.0, *sorted(drawn_counts)]), Scale("counts")
    labels = list(scale.labels(counts))
    assert labels[0] == 0
    assert labels[-1] == counts[-1]
    assert (np.diff(scale.along(labels)) >= np.ptp(scale.along(counts)) / 11 - 1e-9).all()

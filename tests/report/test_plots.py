"""Every figure on small, usual and large models: readable, labelled, unclipped, no warnings."""

import subprocess
import sys
from functools import partial
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from headpatch.core.question import Context
from headpatch.present.figure import draw
from headpatch.present.overlays import overlay_chart
from headpatch.present.parts import Chart, Drawn
from headpatch.questions.ablate.charts import named_effects_chart
from headpatch.questions.rank import charts
from tests.questions.sweep.test_figures import results as swept
from tests.report import synthetic

pytestmark = pytest.mark.filterwarnings("error")

SIZES = {"tiny": (2, 2, 2), "usual": (32, 32, 24), "large": (80, 64, 40)}
WORDS = {"question": synthetic.QUESTION, "region": "top-left"}


RANK = {
    "quadrants": charts.quadrants_chart,
    "vision": charts.vision_chart,
    "divergences": charts.divergences_chart,
}
HEADS = "heads", "overlays", "effects"
CHARTS = ("cut", "sweep_maps", "set_effects")
"""Questions whose charts their views declare."""


def chart(verb: str, files):
    """A call that draws the first chart of a question's view."""
    view = import_module(f"headpatch.questions.{verb}.view").view(files, Context())
    return drawing(next(part for part in view if isinstance(part, Chart | Drawn)))


def drawing(part):
    """A call that draws it."""
    return partial(draw, part, **WORDS)


def figure(name: str, size: str):
    """A call that draws the figure from made-up results; it needs only a path."""
    layers, heads, vision = SIZES[size]
    if name == "heads":
        return drawing(charts.heads_chart(synthetic.per_head(layers, heads), 20))
    if name == "overlays":
        boxes = synthetic.boxes(*((2, 2) if size == "tiny" else (24, 24)))
        runs = [synthetic.attention(layers, heads, boxes, present) for present in (True, False)]
        return drawing(overlay_chart(*synthetic.pair(), *runs, [(0, 0), (1, 1)]))
    if name in RANK:
        return drawing(RANK[name](synthetic.spatial(layers, vision)))
    if name == "effects":
        count = {"tiny": 1, "usual": 5, "large": 64}[size]
        names = [f"{layers - 1}.{head}" for head in range(count)]
        return drawing(named_effects_chart(synthetic.effects(names)))
    if name == "cut":
        spans = [f"{max(layer - 2, 0)}-{min(layer + 2, layers - 1)}" for layer in range(layers)]
        return chart(name, {"cuts.csv": synthetic.cuts(spans, "window")})
    if name == "sweep_maps":
        return chart("sweep", {"sweep.pt": swept(layers, heads)})
    if name == "set_effects":
        return chart("sweep", {"sweep.pt": swept(layers * heads)})
    raise AssertionError(name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*CHARTS, *RANK, *HEADS])
def test_a_readable_png_with_nothing_clipped(name, size, tmp_path, drawn):
    figure(name, size)(tmp_path / "figure.png")

    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == 1400  # 7 inches at 200 dpi
        assert 500 <= picture.height <= 2800
        assert np.asarray(picture.convert("L")).std() > 5
        assert_unclipped(picture)
    assert_labelled(drawn.last)
    assert any("It costs $5 or $\\alpha$" in text for text in drawn.texts())
    assert any("top-left" in text for text in drawn.texts())


def assert_labelled(figure) -> None:
    """Every column has a named x axis and every row a named y axis; pictures need none."""
    placed = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    plain = [axes for axes in placed if not axes.images]
    pictures = not any(len(axes.get_xticks()) for axes in placed)
    assert plain or pictures or any(axes.get_xlabel() for axes in placed)
    for axes in plain:
        spec = axes.get_subplotspec()
        row_mates = [a for a in plain if a.get_subplotspec().rowspan == spec.rowspan]
        column_mates = [a for a in plain if a.get_subplotspec().colspan == spec.colspan]
        assert any(a.get_ylabel() for a in row_mates) or any(
            label.get_text() for label in axes.get_yticklabels()
        )
        assert any(a.get_xlabel() for a in column_mates) or axes.get_ylabel()


def assert_unclipped(picture: Image.Image) -> None:
    """What leaves the figure leaves ink on its outermost pixels."""
    grey = np.asarray(picture.convert("L"))
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_the_suffix_picks_the_format(tmp_path, suffix):
    figure("vision", "tiny")(tmp_path / f"figure{suffix}")
    head = (tmp_path / f"figure{suffix}").read_bytes()[:200]
    assert (b"%PDF" in head) if suffix == ".pdf" else (b"<?xml" in head)


def test_a_question_in_a_script_without_an_installed_font(tmp_path):
    words = {"question": "左上角有没有东西？" * 12, "region": "左上"}
    draw(charts.vision_chart(synthetic.spatial(4, 4)), tmp_path / "figure.png", **words)
    with Image.open(tmp_path / "figure.png") as picture:
        assert_unclipped(picture)


def test_no_heavy_import_before_a_figure_is_drawn():
    code = (
        "import sys, headpatch.present.figure\n"
        "heavy = {'matplotlib', 'torch', 'pandas', 'PIL', 'transformers', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_window_and_no_global_state(tmp_path):
    import matplotlib as mpl

    mpl.rcParams["axes.labelsize"] = 31
    try:
        before = dict(mpl.rcParams)
        figure("quadrants", "tiny")(tmp_path / "figure.png")
        assert dict(mpl.rcParams) == before
    finally:
        mpl.rcdefaults()
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("quadrants", "quadrants_diff"),
        ("vision", "vision_patch_diff"),
        ("divergences", "divergence_lm"),
    ],
)
def test_a_missing_key_is_named(name, key):
    results = synthetic.spatial(2, 2)
    del results[key]
    with pytest.raises(ValueError, match=key):
        RANK[name](results)

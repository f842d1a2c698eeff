"""Every figure on small, usual and large models: readable, labelled, unclipped, no warnings."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from headpatch.core.question import Context
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.present.overlays import overlay_chart
from headpatch.questions.ablate.view import named_effects_chart
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
NAMES = ("cut", "sweep_maps", "set_effects", *RANK, "heads", "overlays", "effects")


def first(verb: str, files) -> Chart:
    """The first chart of a question's view."""
    view = import_module(f"headpatch.questions.{verb}.view").view(files, Context())
    return next(part for part in view if isinstance(part, Chart))


def chart(name: str, size: str) -> Chart:
    """A figure of made-up results."""
    layers, heads, vision = SIZES[size]
    match name:
        case "heads":
            return charts.heads_chart(synthetic.per_head(layers, heads), 20)
        case "overlays":
            boxes = synthetic.boxes(*((2, 2) if size == "tiny" else (24, 24)))
            runs = [synthetic.attention(layers, heads, boxes, present) for present in (True, False)]
            return overlay_chart(*synthetic.pair(), *runs, [(0, 0), (1, 1)])
        case "effects":
            count = {"tiny": 1, "usual": 5, "large": 64}[size]
            names = [f"{layers - 1}.{head}" for head in range(count)]
            return named_effects_chart(synthetic.effects(names))
        case "cut":
            spans = [f"{max(i - 2, 0)}-{min(i + 2, layers - 1)}" for i in range(layers)]
            return first("cut", {"cuts.csv": synthetic.cuts(spans, "window")})
        case "sweep_maps":
            return first("sweep", {"sweep.pt": swept(layers, heads)})
        case "set_effects":
            return first("sweep", {"sweep.pt": swept(layers * heads)})
    return RANK[name](synthetic.spatial(layers, vision))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_readable_png_with_nothing_clipped(name, size, tmp_path, drawn):
    draw(chart(name, size), tmp_path / "figure.png", **WORDS)

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
    draw(chart("vision", "tiny"), tmp_path / f"figure{suffix}", **WORDS)
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
        draw(chart("quadrants", "tiny"), tmp_path / "figure.png", **WORDS)
        assert dict(mpl.rcParams) == before
    finally:
        mpl.rcdefaults()
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize(
    ("name", "key"),
    zip(RANK, ("quadrants_diff", "vision_patch_diff", "divergence_lm"), strict=True),
)
def test_a_missing_key_is_named(name, key):
    results = synthetic.spatial(2, 2)
    del results[key]
    with pytest.raises(ValueError, match=key):
        RANK[name](results)

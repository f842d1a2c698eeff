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
from headpatch.present.overlays import attention_overlays
from headpatch.present.parts import Chart, Drawn
from headpatch.questions.ablate.figure import head_effects
from headpatch.questions.rank import figures, layer_figures
from headpatch.questions.sweep.figure import set_effects, sweep_maps
from tests.questions.sweep.test_figures import results as swept
from tests.report import synthetic

pytestmark = pytest.mark.filterwarnings("error")

SIZES = {"tiny": (2, 2, 2), "usual": (32, 32, 24), "large": (80, 64, 40)}
WORDS = {"question": synthetic.QUESTION, "region": "top-left"}


RANK = {
    one.__name__: one
    for one in (
        figures.spatial_distribution,
        layer_figures.vision_encoder_layers,
        layer_figures.divergence_analysis,
    )
}
HEADS = "top_different_heads", "attention_overlays", "head_effects"
CHARTS = ("cut", "sweep_maps", "set_effects")
"""Questions whose charts their views declare."""


def chart(verb: str, files):
    """A call that draws the first chart of a question's view."""
    view = import_module(f"headpatch.questions.{verb}.view").view(files, Context())
    first = next(part for part in view if isinstance(part, Chart | Drawn))
    return lambda path: draw(first, path, **WORDS)


def figure(name: str, size: str):
    """A call that draws the figure from made-up results; it needs only a path."""
    layers, heads, vision = SIZES[size]
    if name == "top_different_heads":
        return partial(figures.top_different_heads, synthetic.per_head(layers, heads), 20, **WORDS)
    if name == "attention_overlays":
        boxes = synthetic.boxes(*((2, 2) if size == "tiny" else (24, 24)))
        runs = [synthetic.attention(layers, heads, boxes, present) for present in (True, False)]
        return partial(attention_overlays, *synthetic.pair(), *runs, [(0, 0), (1, 1)])
    if name in RANK:
        return partial(RANK[name], synthetic.spatial(layers, vision), **WORDS)
    if name == "head_effects":
        count = {"tiny": 1, "usual": 5, "large": 64}[size]
        names = [f"{layers - 1}.{head}" for head in range(count)]
        return partial(head_effects, synthetic.effects(names), **WORDS)
    if name == "cut":
        spans = [f"{max(layer - 2, 0)}-{min(layer + 2, layers - 1)}" for layer in range(layers)]
        return chart(name, {"cuts.csv": synthetic.cuts(spans, "window")})
    if name == "sweep_maps":
        return partial(sweep_maps, swept(layers, heads), **WORDS)
    if name == "set_effects":
        return partial(set_effects, swept(layers * heads), **WORDS)
    raise AssertionError(name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*CHARTS, *RANK, *HEADS])
def test_a_readable_png_with_nothing_clipped(name, size, tmp_path, drawn):
    figure(name, size)(path=tmp_path / "figure.png")

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
    figure("vision_encoder_layers", "tiny")(path=tmp_path / f"figure{suffix}")
    head = (tmp_path / f"figure{suffix}").read_bytes()[:200]
    assert (b"%PDF" in head) if suffix == ".pdf" else (b"<?xml" in head)


def test_a_question_in_a_script_without_an_installed_font(tmp_path):
    words = {"question": "左上角有没有东西？" * 12, "region": "左上"}
    layer_figures.vision_encoder_layers(synthetic.spatial(4, 4), tmp_path / "figure.png", **words)
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
        figure("spatial_distribution", "tiny")(path=tmp_path / "figure.png")
        assert dict(mpl.rcParams) == before
    finally:
        mpl.rcdefaults()
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize(
    ("draw_figure", "key"),
    [
        (figures.spatial_distribution, "quadrants_diff"),
        (layer_figures.vision_encoder_layers, "vision_patch_diff"),
        (layer_figures.divergence_analysis, "divergence_lm"),
    ],
)
def test_a_missing_key_is_named_and_nothing_is_written(draw_figure, key, tmp_path):
    results = synthetic.spatial(2, 2)
    del results[key]
    with pytest.raises(ValueError, match=key):
        draw_figure(results, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())

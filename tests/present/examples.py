"""A made-up chart of every type of panel."""

import numpy as np

from headpatch.present.canvas import BLUE, ORANGE, VERMILLION
from headpatch.present.chart import Cells, Chart, Colours, HeadMap, Picture, largest_cells
from headpatch.present.overlays import density
from headpatch.present.panel import (
    RANDOM_LOOK,
    WITH_LOOK,
    WITHOUT_LOOK,
    Guide,
    Look,
    Panel,
    Scale,
    Series,
    beside,
    unread,
)
from tests.report import synthetic

_RNG = np.random.default_rng(0)


def _lines() -> Chart:
    layers = np.arange(12.0)
    panels = []
    for title in ("Necessary?", "Sufficient?"):
        y = _RNG.normal(size=(3, 12)).cumsum(1) / 5
        y[0, 4], y[1, 7] = np.nan, np.inf
        series = [
            Series("region", layers, y[0], y[0] - 0.2, y[0] + 0.2),
            Series("other", layers, y[1], look=1),
            Series("answer", layers, y[2], null_low=y[2] * 0 - 0.1, null_high=y[2] * 0 + 0.1,
                   null_name="random tokens", look=2, ends="bars"),
        ]  # fmt: skip
        guides = unread(9, 12)
        panels.append(Panel(title, series, "Vision layer", "Share", layers=12, factor=3.0,
                            factor_label="Logits", guides=guides))  # fmt: skip
    return Chart("lines", "lines.png", "Lines over layers", panels, spoken=["Largest: 3"])


def _counts() -> Chart:
    k = np.array([0.0, 1, 2, 4, 8, 16, 32, 64])
    y = np.linspace(0, 1, 8)
    series = [
        Series("8 random", k, y**2, y**2 - 0.05, y**2 + 0.1, look=RANDOM_LOOK),
        Series("attention", k, y, look=1),
        Series("region", np.array([12.0]), np.array([0.9]), look=Look(ORANGE, "*", size=8.0),
               mark="points"),
    ]  # fmt: skip
    panel = Panel("First k", series, "k heads", "Share left", x_scale=Scale("counts"),
                  guides=[Guide("y", 1.0, line=":")], note="Area: attention 0.50")  # fmt: skip
    return Chart("counts", "counts.png", "Curves over counts", [panel], heights=[2.5])


def _points(across: bool) -> Chart:
    names = ["21.3", "24.17", "joint: 4 heads", "7.0"]
    panels = []
    for title in ("Zero", "Mean"):
        series = []
        for index, look in enumerate((Look(BLUE, "s"), Look(VERMILLION, "^"))):
            y = _RNG.normal(0.3, 0.5, 4)
            y[3] = np.nan
            x = np.arange(4.0) + beside(index, 2)
            low = None if index else y * 0 - 0.1
            series.append(
                Series(("noising", "denoising")[index], x, y, y - 0.2, y + 0.1, low,
                       None if index else y * 0 + 0.3, look, null_name="random heads",
                       hollow=np.array([True, False, False, True]), texts=[f"{v:+.2f}" for v in y])
            )  # fmt: skip
        labels = ("Effect", "Head") if across else ("Head", "Effect")
        guides = [Guide("x" if across else "y", 1.0, line=":"),
                  Guide("x" if across else "y", -0.05, 0.05, "own z", hatch="xxxx")]  # fmt: skip
        panels.append(Panel(title, series, *labels, names=names, across=across, guides=guides))
    name = "across" if across else "points"
    return Chart(name, f"{name}.png", "Points at named places", panels, columns=2)


def _heads() -> Chart:
    panels: list[HeadMap | None] = []
    for title in ("Zero", "Mean", "Resample"):
        values = _RNG.normal(size=(24, 16)) ** 3 / 40
        values[3, 4] = np.nan
        labels = {cell: f"{cell[0]}.{cell[1]}" for cell in largest_cells(values, 5)}
        cells = [Cells([2, 20], [3, 11], "s", "attention differs most (2)")]
        panels.append(HeadMap(title, values, "Head", "Noising\n\nLayer", cells=cells, labels=labels,
                              last_read=21, whole=values.mean(1)))  # fmt: skip
    panels[1] = None
    colours = Colours("Normalized effect", rooted=True)
    return Chart("heads", "heads.png", "Every head", panels, columns=3, colours=colours)


def _named_map() -> Chart:
    names = ["1.2", "3.4", "5.6", "7.8", "9.10"]
    values = _RNG.normal(size=(5, 5))
    values += values.T
    values[0, 1] = values[1, 0] = np.nan
    printed = [["" if np.isnan(v) else f"{v:+.2f}" for v in row] for row in values]
    cells = [Cells(range(5), range(5), "frame")]
    panels = [
        HeadMap(f"Resample, {way}", values, "Head", "Head", names, names, cells=cells,
                printed=printed, faint=values > 1)
        for way in ("noising", "denoising")
    ]  # fmt: skip
    colours = Colours("Interaction; lines: ±δ = 1", lines=[-1.0, 1.0])
    return Chart("pairs", "pairs.png", "Two heads", panels, columns=2, colours=colours)


def _shares() -> Chart:
    names = ["Yes\n(No)", ",", "there", "is", "a", "circle"]
    x = np.arange(6.0)
    look = Panel("", [Series("highest", x[:3], x[:3] / 6, look=WITH_LOOK, mark="line"),
                      Series("highest", x[3:], x[3:] / 6, look=WITH_LOOK, mark="line"),
                      Series("without", x, x / 9, look=WITHOUT_LOOK, mark="line")],
                 "", "Share", names=names, y_scale=Scale(low=0.0, high=1.02),
                 guides=[Guide("x", 2.5)])  # fmt: skip
    values = _RNG.random((8, 6))
    heads = HeadMap("", values, "Token", "Noising", names, [f"{i}.0" for i in range(8)],
                    cells=[Cells([1, 2], [0, 5], ".")], guides=[Guide("x", 2.5)])  # fmt: skip
    return Chart("shares", "shares.png", "Over tokens", [look, heads], share_y="none",
                 heights=[1.05, 1.3], colours=Colours("Share", both=False))  # fmt: skip


def _scatter() -> Chart:
    panels = []
    for title in ("Necessity", "Sufficiency"):
        series = []
        for name, look in {"acts": Look(VERMILLION, "o"), "inert": Look("#BFBFBF", ".")}.items():
            x, y = _RNG.normal(0, 0.1, 30), _RNG.normal(0, 0.02, 30) ** 3 * 4e3
            low, high = (np.where(np.arange(30) < 4, y + d, np.nan) for d in (-0.02, 0.03))
            labels = [f"{i}.{i}" if i < 4 else "" for i in range(30)]
            series.append(Series(name, x, y, low, high, look=look, mark="points", labels=labels))
        panels.append(Panel(title, series, "Attention", "Effect", y_scale=Scale("beyond", 0.02),
                            guides=[Guide("y", -0.02, 0.02), Guide("x", 0.0)]))  # fmt: skip
    return Chart("scatter", "scatter.png", "Looking against deciding", panels, columns=2,
                 heights=[3.3])  # fmt: skip


def _rooted() -> Chart:
    x = _RNG.normal(size=40) ** 3
    ends = np.array([-np.abs(x).max(), np.abs(x).max()])
    series = [Series("", ends, ends, look=Look("#8A8A8A", "", "--", width=0.7)),
              Series("", x, x * 0.8, look=Look(BLUE, "o", size=2.0, alpha=0.6), mark="points",
                     hover=[f"head {i}" for i in range(40)])]  # fmt: skip
    panel = Panel("Zero", series, "Exact", "Estimated", x_scale=Scale("root"),
                  y_scale=Scale("root"), text="r = +0.90\ntop-5 recall 0.80")  # fmt: skip
    return Chart("rooted", "rooted.png", "Estimated and exact", [panel], heights=[2.4])


def _bars() -> Chart:
    runs = {"with": WITH_LOOK, "without": WITHOUT_LOOK}
    by_layer = [
        Series(name, np.arange(6.0) + beside(i, 2, 0.8), _RNG.normal(size=6), look=look,
               mark="bars", width=0.4, low=np.full(6, -0.2), high=np.full(6, 0.2))
        for i, (name, look) in enumerate(runs.items())
    ]  # fmt: skip
    share = Series("", np.arange(3.0), np.array([0.3, 0.2, 0.1]), mark="bars",
                   look=WITHOUT_LOOK, texts=["0.300", "0.200", "+0.100"])  # fmt: skip
    panels = [
        Panel("Written into LD", by_layer, "Layer", "Share", layers=6),
        Panel("Top-left", [share], "Share", "", names=["with", "without", "difference"],
              across=True),
    ]  # fmt: skip
    return Chart("bars", "bars.png", "Bars", panels, columns=2, share_x="none", share_y="none")


def _pictures() -> Chart:
    panels = []
    boxes = synthetic.boxes(4, 4)
    for image, run in zip(synthetic.pair(60, 40), ("With", "Without"), strict=True):
        laid = density(_RNG.random(16), boxes)
        panels.append(Picture(f"{run} the object", np.array(image), laid, (0.0, 0.0, 0.5, 0.5),
                              2.0, "Head 3.4"))  # fmt: skip
    return Chart("pictures", "pictures.png", "Maps over pictures", panels, columns=2,
                 colours=Colours("density (× even)", both=False))  # fmt: skip


_CHARTS = (
    _lines(), _counts(), _points(True), _points(False), _heads(), _named_map(), _shares(),
    _scatter(), _rooted(), _bars(), _pictures(),
)  # fmt: skip
EXAMPLES = {chart.name: chart for chart in _CHARTS}

"""Where a token of the answer comes from, as charts: maps over both pictures, and their check."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import BLUE, ORANGE, VERMILLION, array, check_columns
from headpatch.present.chart import Chart, Colours, Picture
from headpatch.present.overlays import density
from headpatch.present.panel import RANDOM_LOOK, WITHOUT_LOOK, Guide, Look, Panel, Scale, Series

if TYPE_CHECKING:
    import pandas

MAPS: Final = {
    "rollout_tokens": (Look(BLUE, "o", "-"), "rollout, at the image tokens"),
    "rollout_patches": (Look(BLUE, "s", "--"), "rollout, at the patches"),
    "relevance_tokens": (Look(VERMILLION, "o", "-"), "relevance, at the image tokens"),
    "relevance_patches": (Look(VERMILLION, "s", "--"), "relevance, at the patches"),
}
_REGION: Final = Look(ORANGE, "*", size=8.0)
_RUNS: Final = ("with", "without")
_WAYS: Final = {
    "delete": ("The first k patches are deleted", "LD moved"),
    "insert": ("Only the first k patches are shown", "LD regained"),
}
_HEIGHT: Final = 2.0  # inches of a picture's row


def shares(values: Float[np.ndarray, "runs patches"]) -> Float[np.ndarray, "runs patches"]:
    """Return values as shares of the patches' sum; 0 where nothing comes from them."""
    total = values.sum(1, keepdims=True)
    return np.asarray(values / np.where(total > 0, total, 1.0))


def regions(
    maps: Mapping[str, Any], elsewhere: Mapping[str, Any], in_region: Any
) -> list[dict[str, Any]]:
    """Return the share of each map that falls on the region, and what falls on no patch."""
    inside = np.asarray(in_region, bool)
    rows = []
    for name in maps:
        values = np.asarray(maps[name], np.float64)
        if values.shape != (len(_RUNS), len(inside)):
            raise ValueError(f"its map {name!r} has shape {values.shape} for {len(inside)} patches")
        method, stage = name.split("_")
        rows += [
            {
                "method": method,
                "stage": stage,
                "run": run,
                "region": float(of_run[inside].sum()),
                "even": float(inside.mean()),
                "elsewhere": float(beside),
            }
            for run, of_run, beside in zip(_RUNS, shares(values), elsewhere[name], strict=True)
        ]
    return rows


def maps_chart(results: Mapping[str, Any]) -> Chart:
    """Lay every map of ``rollout.pt`` over both pictures, a row a map, the with-run left.

    The colour is the map's density relative to an even map, on one scale a row.
    """
    maps = results.get("maps", {})
    if not maps:
        raise ValueError("'maps' holds no map")
    panels = [panel for name in maps for panel in _row(results, name)]
    aspect = max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
    height = min(max(2.6 * aspect, 0.9), _HEIGHT) + 0.2
    rival = results["rival"]
    token = f"{results['token']!r}" + (f" (or {rival!r})" if rival else "")
    return Chart(
        "rollout",
        "rollout.png",
        f"Where {token} comes from",
        panels,
        "Share of each map by area; 1 is an even map. At the image tokens: followed back through "
        "the language model; at the patches: on through the vision tower. Tokens that draw "
        "attention without content get weight in rollout. What falls on text or a class token is "
        "not drawn.",
        [MAPS[name][1] for name in maps for _ in _RUNS],
        columns=2,
        heights=[height] * len(maps),
        colours=Colours("density (× even)", both=False),
    )


def _row(results: Mapping[str, Any], name: str) -> list[Picture]:
    """Lay one map over both pictures."""
    maps, boxes = array(results["maps"], name, 2), array(results, "boxes", 2)
    inside = np.asarray(results["in_region"], bool)
    laid = [density(values, boxes) for values in maps]
    peak = max(float(np.nanmax(cells, initial=0.0)) for cells, _, _ in laid)
    box = tuple(map(float, array(results, "region_box", 1)))
    label = "\n".join(MAPS[name][1].capitalize().split(", "))
    panels = []
    for run, values, cells in zip(_RUNS, maps, laid, strict=True):
        share = values[inside].sum() / (values.sum() or 1.0)
        title = f"{run.capitalize()} the object: region {share:.1%}"
        image = np.asarray(results[f"image_{run}"]).astype(np.uint8)
        panels.append(Picture(title, image, cells, box, peak or 1.0, label))
    return panels


def curves_chart(curves: "pandas.DataFrame", *, token: str = "", fill: str = "other") -> Chart:
    """Show what deleting, and showing, the first k patches of each map does: a row a run.

    The title names the token that was watched, the note what stood in a deleted patch.
    """
    check_columns(curves, ("run", "way", "order", "draw", "k", "share"), "curves")
    if curves.empty:
        raise ValueError("there is no curve")
    counts = sorted(curves["k"].unique().tolist())
    powers = [k for k in counts if (k & (k - 1)) == 0 and k < 0.7 * counts[-1]]
    scale = Scale("counts", ticks={float(k): f"{k:,}" for k in (*powers, counts[-1])})
    panels = [
        Panel(
            f"{run.capitalize()} the object. {words}",
            _curves(curves[curves["run"].eq(run) & curves["way"].eq(way)]),
            "k patches",
            moved,
            x_scale=scale,
            guides=[Guide("y", 1.0)],
        )
        for run in _RUNS
        for way, (words, moved) in _WAYS.items()
    ]
    stands = "the other picture, there" if fill == "other" else "the picture's mean colour"
    return Chart(
        "perturbation",
        "perturbation.png",
        f"Do the maps' patches matter for {token}?",
        panels,
        f"In a deleted patch stands {stands}. LD moved towards the other run's, and LD regained, "
        "as shares of LD_with - LD_without; higher means that the first k patches matter more. "
        "Grey: range of the random orders; dotted: their mean. k is on a logarithmic scale.",
        ["The areas under the curves are in the table"] * len(panels),
        columns=2,
        heights=[2.0, 2.0],
    )


def _curves(rows: "pandas.DataFrame") -> list[Series]:
    """Return the curves of one run and way: random orders, the maps' and the region's own."""

    def points(order: str) -> Float[np.ndarray, "2 points"]:
        own = rows[rows["order"] == order].sort_values("k")
        return own[["k", "share"]].to_numpy(np.float64).T

    random = rows[rows["order"] == "random"]
    by_k = random.groupby("k")["share"].agg(["mean", "min", "max"])
    k, (mean, low, high) = by_k.index.to_numpy(np.float64), by_k.to_numpy(np.float64).T
    series = [Series(f"{random['draw'].nunique()} random", k, mean, low, high, look=RANDOM_LOOK)]
    for name, (look, words) in MAPS.items():
        x, share = points(name)
        if x.size:
            series.append(Series(short(words), x, share, look=look))
    x, share = points("region")
    return [*series, Series("region", x, share, look=_REGION, mark="points")]


def short(words: str) -> str:
    """Write ``rollout (tokens)``."""
    method, _, stage = words.partition(", at the ")
    return f"{method} ({stage.removeprefix('image ')})"


def regions_chart(means: "pandas.DataFrame", level: float) -> Chart:
    """Show the mean share of each map on the region, beside an even map's: a panel a run."""
    means = means.assign(map=means["method"] + "_" + means["stage"])
    panels = [
        _means(rows, f"{str(run).capitalize()} the object", "Share on the region", "region",
               ("even", "an even map"))
        for run, rows in means.groupby("run", sort=False)
    ]  # fmt: skip
    note = f"Means over pairs with {level:.0%} intervals."
    title = "How much of each map falls on the region"
    return Chart("rollout", "rollout.png", title, panels, note, columns=2)


def area_means_chart(means: "pandas.DataFrame", level: float) -> Chart:
    """Show the mean area under each map's curve over pairs, beside that of random orders."""
    panels = [
        _means(rows, f"{str(run).capitalize()} the object. {_WAYS[str(way)][0]}",
               f"{_WAYS[str(way)][1]}:\narea under the curve", "area",
               ("random_mean", "random orders"))
        for (run, way), rows in means.groupby(["run", "way"], sort=False)
    ]  # fmt: skip
    note = (
        f"Means over pairs with {level:.0%} intervals. Areas are over log2(k + 1), scaled to 0 to "
        "1; higher means that the first patches matter more."
    )
    title = "Do the maps' patches matter?"
    return Chart("perturbation", "perturbation.png", title, panels, note, columns=2)


def _means(
    rows: "pandas.DataFrame", title: str, label: str, name: str, beside: tuple[str, str]
) -> Panel:
    """Show a mean of each map with its interval, and another one to compare it with."""
    columns = {name: ("map", Look(BLUE)), beside[0]: (beside[1], WITHOUT_LOOK)}
    x = np.arange(len(rows), dtype=np.float64)
    series = []
    for column, (words, look) in columns.items():
        ends = rows[[column, f"{column}_low", f"{column}_high"]].to_numpy(np.float64)
        mean, low, high = ends.T
        series.append(Series(words, x, mean, low, high, look=look))
    return Panel(title, series, "", label, [short(MAPS[one][1]) for one in rows["map"]])

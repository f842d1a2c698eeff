"""Where a token of the answer comes from, as charts: maps over both pictures, and their check."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import UInt8

from headpatch.present.canvas import BLUE, ORANGE, VERMILLION, array, check_columns
from headpatch.present.chart import Chart, Colours, Picture
from headpatch.present.overlays import density
from headpatch.present.panel import RANDOM_LOOK, Guide, Look, Panel, Series
from headpatch.present.scales import Scale

if TYPE_CHECKING:
    import pandas

MAPS: Final = {
    "rollout_tokens": (Look(BLUE, "o", "-"), "rollout, at the image tokens"),
    "rollout_patches": (Look(BLUE, "s", "--"), "rollout, at the patches"),
    "relevance_tokens": (Look(VERMILLION, "o", "-"), "relevance, at the image tokens"),
    "relevance_patches": (Look(VERMILLION, "s", "--"), "relevance, at the patches"),
}
"""Look and words of each map."""
_REGION: Final = Look(ORANGE, "*", size=8.0)
_RUNS: Final = ("with", "without")
_WAYS: Final = {
    "delete": ("The first k patches are deleted", "LD moved"),
    "insert": ("Only the first k patches are shown", "LD regained"),
}
_HEIGHT: Final = 2.0  # inches of a picture's row


def maps_chart(results: Mapping[str, Any]) -> Chart:
    """Lay every map over both pictures, a row a map, the with-run left.

    The colour is the map's density relative to an even map, on one scale a row.

    Parameters
    ----------
    results
        ``rollout.pt``: ``maps`` (by name, ``[runs, patches]``), ``boxes`` ``[patches, 4]``,
        ``region_box``, ``in_region``, ``image_with``, ``image_without`` ``[height, width, 3]``,
        ``token``, ``rival``.

    Raises
    ------
    ValueError
        If there is no map.
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
    inside = np.asarray(results["in_region"])
    laid = [density(values, boxes) for values in maps]
    peak = max(float(np.nanmax(cells, initial=0.0)) for cells, _, _ in laid)
    box = tuple(map(float, array(results, "region_box", 1)))
    label = "\n".join(MAPS[name][1].capitalize().split(", "))
    panels = []
    for run, values, cells in zip(_RUNS, maps, laid, strict=True):
        share = values[inside].sum() / (values.sum() or 1.0)
        title = f"{run.capitalize()} the object: region {share:.1%}"
        panels.append(Picture(title, _image(results, run), cells, box, peak or 1.0, label))
    return panels


def _image(results: Mapping[str, Any], run: str) -> UInt8[np.ndarray, "height width 3"]:
    return np.asarray(results[f"image_{run}"]).astype(np.uint8)


def curves_chart(curves: "pandas.DataFrame", *, token: str = "", fill: str = "other") -> Chart:
    """Show what deleting, and showing, the first k patches of each map does: a row a run.

    Parameters
    ----------
    curves
        ``perturbation.csv``.
    token
        What was watched, for the title.
    fill
        What stood in a deleted patch, for the note.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
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
    random = rows[rows["order"] == "random"]
    shares = random.groupby("k")["share"]
    k = shares.mean().index.to_numpy(np.float64)
    mean, low, high = (
        one.to_numpy(np.float64) for one in (shares.mean(), shares.min(), shares.max())
    )
    series = [Series(f"{random['draw'].nunique()} random", k, mean, low, high, look=RANDOM_LOOK)]
    for name, (look, words) in MAPS.items():
        own = rows[rows["order"] == name].sort_values("k")
        if not own.empty:
            x, y = (own[column].to_numpy(np.float64) for column in ("k", "share"))
            series.append(Series(short(words), x, y, look=look))
    region = rows[rows["order"] == "region"]
    x, y = (region[column].to_numpy(np.float64) for column in ("k", "share"))
    return [*series, Series("region", x, y, look=_REGION, mark="points")]


def short(words: str) -> str:
    """Write ``rollout (tokens)``."""
    method, _, stage = words.partition(", at the ")
    return f"{method} ({stage.removeprefix('image ')})"

"""Where a token of the answer comes from: maps over both pictures, and whether they hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.output.folder import Results
from headpatch.core.output.part import read, reading
from headpatch.present.canvas import GREY, ORANGE, signed
from headpatch.present.charts import DASHES, SYMBOLS, along, band, counts_axis, lines
from headpatch.present.interactive_map import picture
from headpatch.present.overlays import density
from headpatch.present.section import Figure, Section, records
from headpatch.questions.rollout.charts import MAPS, short
from headpatch.report.html.overlay import painted
from headpatch.report.rollouts import rollout_summary
from headpatch.stats.deletion_curves import RANDOM, REGION, areas

SIDE = 320
"""Pixels of a picture: eight of them lie in the page."""
_RUNS = ("with", "without")
_WAYS = {
    "delete": ("the first k patches are deleted", "LD moved"),
    "insert": ("only the first k patches are shown", "LD regained"),
}
_STANDS = {"other": "the other picture, at that place", "mean": "the picture's mean colour"}
_NEEDED = {"boxes": 2, "in_region": 1, "region_box": 1, "image_with": 3, "image_without": 3}
_CURVES = {"run": "text", "way": "text", "order": "text",
           **dict.fromkeys(["draw", "k", "share"], "number")}  # fmt: skip


def section(results: Results) -> Section | None:
    """Make the maps; None unless `rollout` ran."""
    saved, part = results.tensors("rollout.pt", _NEEDED), results.first("rollout.pt")
    if saved is None or part is None:
        return None
    with reading(part.folder / "rollout.pt"):
        maps = [_map(saved, name) for name in saved["maps"]]
        token, rival = str(saved["token"]), str(saved["rival"])
        unchecked = str(saved.get("unchecked") or "perturbation.csv is missing")
        fill = str(saved["fill"])
    values = {"token": token, "rival": rival, "maps": maps, "stands": _STANDS.get(fill, fill),
              "rows": [], "draws": 0, "size": 0}  # fmt: skip
    figures: dict[str, Figure] = {}
    found: list[dict[str, Any]] = []
    if part.has("perturbation.csv"):
        curves = read(part, "perturbation.csv", _CURVES)
        with reading(part.folder / "perturbation.csv"):
            found = records(areas(curves))
            figures = {f"rollout-{run}-{way}": _figure(curves, run, way)
                       for run in _RUNS for way in _WAYS}  # fmt: skip
            values |= {"rows": [_row(one) for one in found], "draws": found[0]["random_n"],
                       "size": found[0]["region_size"]}  # fmt: skip
    values["said"] = rollout_summary(found, "" if found else unchecked, results.valid)
    return Section("rollout", "Where a token comes from", values, figures)


def _map(saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One map over both pictures, on one colour scale."""
    boxes = np.asarray(saved["boxes"], np.float64)
    inside = np.asarray(saved["in_region"], bool)
    runs = np.asarray(saved["maps"][name], np.float64)
    elsewhere = np.asarray(saved["elsewhere"][name], np.float64)
    if runs.shape != (len(_RUNS), len(boxes)) or inside.shape != runs.shape[1:]:
        raise ValueError(f"its map {name!r} has shape {runs.shape} for {len(boxes)} patches")
    laid = [density(values, boxes) for values in runs]
    peak = max(float(np.nanmax(cells, initial=0.0)) for cells, _, _ in laid)
    sides = []
    for run, values, cells, left in zip(_RUNS, runs, laid, elsewhere, strict=True):
        image = np.asarray(saved[f"image_{run}"], np.uint8)
        sides.append(
            {
                "run": run,
                "picture": picture(painted(image, *cells, peak), SIDE),
                "width": image.shape[1],
                "height": image.shape[0],
                "share": f"{values[inside].sum() / (values.sum() or 1.0):.1%}",
                "elsewhere": f"{left:.1%}",
            }
        )
    return {
        "name": MAPS[name][1],
        "sides": sides,
        "peak": f"{peak:.1f}",
        "even": f"{inside.mean():.1%}",
        "box": [float(edge) for edge in np.asarray(saved["region_box"])],
    }


def _row(one: Mapping[str, Any]) -> dict[str, str]:
    return {
        "run": str(one["run"]),
        "way": "deleted" if one["way"] == "delete" else "shown",
        "map": MAPS[one["map"]][1],
        "area": signed(one["area"], 3),
        "random": f"{signed(one['random_mean'], 3)} ± {one['random_sd']:.3f}",
        "below": f"{one['random_below']} of {one['random_n']}",
        "at": signed(one["at_region_size"], 2),
        "random_at": signed(one["random_at_region_size"], 2),
        "region": signed(one["region"], 2),
    }


def _figure(curves: pd.DataFrame, run: str, way: str) -> Figure:
    """What the first k patches of each map do, beside random orders and the region's own."""
    here = curves[curves["run"].eq(run) & curves["way"].eq(way)]
    random = here[here["order"] == RANDOM].groupby("k")["share"]
    k, mean = random.mean().index.to_numpy(), random.mean().to_numpy()
    low, high = random.min().to_numpy(), random.max().to_numpy()
    traces = [
        band(along(k), low, high, GREY, "random orders"),
        lines(mean, "their mean", GREY, x=along(k), dash="dot", mode="lines", showlegend=False),
    ]
    for name, (look, said) in MAPS.items():
        own = here[here["order"] == name].sort_values("k")
        if not own.empty:
            y, symbol = own["share"].to_numpy(), SYMBOLS[look.marker]
            traces.append(lines(y, short(said), look.color, symbol, x=along(own["k"]),
                                dash=DASHES[look.line]))  # fmt: skip
    region = here[here["order"] == REGION]
    traces.append(lines(region["share"].to_numpy(), "region", ORANGE, "star",
                        x=along(region["k"]), mode="markers"))  # fmt: skip
    words, moved = _WAYS[way]
    title = f"{run.capitalize()} the object: {words}"
    return Figure(
        traces,
        {
            "xaxis": counts_axis("k patches", [int(one) for one in k]),
            "yaxis": {"title": {"text": f"{moved}, share"}, "zeroline": True},
        },
        320,
        f"Lines: {title.lower()}; the areas under the curves are in the table.",
        title=title,
    )

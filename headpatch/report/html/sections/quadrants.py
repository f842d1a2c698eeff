"""Where attention falls: the four quadrants of the picture."""

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import reading
from headpatch.present.canvas import BLUE, GREEN, ORANGE, VERMILLION, WITH, WITHOUT, signed
from headpatch.present.charts import layer_axis, lines
from headpatch.present.section import Figure, Section, numbers, words

_COLORS = (VERMILLION, BLUE, GREEN, ORANGE)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")
_NEEDED = {
    "quadrants_with": 1,
    "quadrants_without": 1,
    "quadrants_by_layer_with": 2,
    "quadrants_by_layer_without": 2,
}


def section(results: Results) -> Section | None:
    """Make the quadrants; None unless heads were ranked on one pair."""
    spatial = results.tensors("spatial_vision_analysis.pt", _NEEDED)
    part = results.first("spatial_vision_analysis.pt")
    if spatial is None or part is None:
        return None
    with reading(part.folder / "spatial_vision_analysis.pt"):
        names = [str(name) for name in spatial["quadrant_names"]]
        present, absent = (
            np.asarray(spatial[f"quadrants_{run}"], np.float64) for run in ("with", "without")
        )
        by_layer = np.asarray(spatial["quadrants_by_layer_with"], np.float64) - np.asarray(
            spatial["quadrants_by_layer_without"], np.float64
        )
        if not len(names) == len(present) == len(absent) == by_layer.shape[1] == 4:
            raise ValueError("it does not hold four quadrants")
        rows = [
            {"name": name, "with": f"{a:.4f}", "without": f"{b:.4f}", "diff": signed(a - b, 4)}
            for name, a, b in zip(names, present, absent, strict=True)
        ]
    largest = int(np.abs(present - absent).argmax())
    summary = (
        f"The {names[largest]} quadrant changes most: {present[largest]:.1%} of image attention "
        f"with the object, {absent[largest]:.1%} without."
    )
    bars = Figure(
        [
            {"type": "bar", "name": label, "x": [words(name) for name in names],
             "y": numbers(values), "marker": {"color": color, "pattern": {"shape": shape}}}
            for label, values, color, shape in (
                ("with the object", present, WITH, ""),
                ("without", absent, WITHOUT, "/"),
            )
        ],
        {"barmode": "group", "yaxis": {"title": {"text": "share of image attention"},
         "rangemode": "tozero"}},
        280,
        f"Bars: share of image attention by quadrant. {summary}",
    )  # fmt: skip
    curves = Figure(
        [lines(by_layer[:, i], name, _COLORS[i], _SYMBOLS[i]) for i, name in enumerate(names)],
        {
            "xaxis": layer_axis("language-model layer", len(by_layer)),
            "yaxis": {"title": {"text": "with − without"}, "zeroline": True},
        },
        280,
        f"Lines: difference in share of image attention by layer, for {', '.join(names)}.",
    )
    return Section(
        "quadrants",
        "Where attention falls",
        {"rows": rows, "summary": summary},
        {"quadrants": bars, "quadrants-by-layer": curves},
    )

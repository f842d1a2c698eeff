"""Cut edges of attention over depth: where the object's information moves between tokens."""

from typing import Any

import pandas as pd

from headpatch.core.output.folder import Results
from headpatch.present.canvas import signed
from headpatch.present.charts import DASHES, SYMBOLS, band, interval, layer_axis, lines
from headpatch.present.section import Figure, Section, largest
from headpatch.report.cuts import arrow
from headpatch.report.paths import EDGES

_MARKS = ("o", "^", "D", "s", "v", "x", ".")  # of edges, in their order
_NEEDED = {
    "edge": "text",
    "heads": "text",
    "layers": "text",
    "centre": "number",
    "run": "text",
    "role": "text",
    "effect": "number",
    "normalized": "number",
    "control_mean": "number",
    "control_sd": "number",
}
_RUNS = {"with": "with the object", "without": "without the object"}


def section(results: Results) -> Section | None:
    """Make the cuts; None unless `cut` ran."""
    table = results.table("cuts.csv", _NEEDED)
    part = results.first("cuts.csv")
    if table is None or part is None:
        return None
    windows = table[table["role"] == "window"]
    figures = {
        f"cuts-{run}": edge_figure(
            windows[windows["run"] == run],
            f"Run {words}",
            f"Lines: effect of cutting each edge in a window of layers, run {words}.",
            "normalized effect",
        )
        for run, words in _RUNS.items()
        if (windows["run"] == run).any()
    }
    single = table[table["role"].isin(["layers", "head", "joint"])]
    rows = [
        {
            "edge": arrow(row["edge"]),
            "where": row["heads"].replace("+", " + ") or f"layers {row['layers']}",
            "run": row["run"],
            "normalized": signed(row["normalized"], 4),
            "control": "" if pd.isna(row["control_mean"]) else signed(row["control_mean"], 4),
        }
        for row in single.to_dict("records")
    ]
    if not figures and not rows:
        return None
    return Section(
        "cuts",
        "Where the information moves: cut edges",
        {"rows": rows, "window": part.study.get("cut", {}).get("window")},
        figures,
    )


def edge_figure(table: pd.DataFrame, title: str, label: str, unit: str) -> Figure:
    """Draw what cutting each edge does in windows of layers, over the windows' centres.

    Parameters
    ----------
    table
        ``edge``, ``centre``, ``normalized`` and perhaps ``normalized_low`` and
        ``normalized_high``, or ``control_mean`` and ``control_sd``.
    label
        What the figure shows, for who cannot see it; the largest effect is added.
    unit
        Of the effects.
    """
    traces: list[dict[str, Any]] = []
    banded = False
    for index, (edge, rows) in enumerate(table.groupby("edge", sort=False)):
        ordered = rows.sort_values("centre")
        color, line = EDGES[index % len(EDGES)]
        symbol = SYMBOLS[_MARKS[index % len(_MARKS)]]
        x, y = ordered["centre"].to_numpy(), ordered["normalized"].to_numpy()
        if "control_mean" in ordered and ordered["control_mean"].notna().any():
            mean, sd = ordered["control_mean"], ordered["control_sd"].fillna(0.0)
            name = "" if banded else "random tokens (± sd)"
            traces.append(band(x, (mean - sd).to_numpy(), (mean + sd).to_numpy(), color, name))
            banded = True
        traces += interval(x, ordered, color)
        traces.append(lines(y, arrow(str(edge)), color, symbol, x=x, dash=DASHES[line]))
    said = largest(
        table,
        "normalized",
        lambda row: (
            f"{row['edge'].replace('-', ' to ')} around layer {row['centre']:.0f}, "
            f"{signed(row['normalized'], 3)}"
        ),
    )
    return Figure(
        traces,
        {
            "xaxis": layer_axis("centre of the window of layers", int(table["centre"].max()) + 1),
            "yaxis": {"title": {"text": unit}, "zeroline": True},
        },
        340,
        f"{label}{said}",
        title=title,
    )

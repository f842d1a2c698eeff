"""Cut edges of attention over depth: where the object's information moves between tokens."""

import pandas as pd

from headpatch.report.canvas import BLUE, GREEN, ORANGE, VERMILLION, signed
from headpatch.report.html.folder import Results
from headpatch.report.html.section import Figure, Section, band, largest, layer_axis, lines

_COLORS = (VERMILLION, BLUE, GREEN, ORANGE, "#CC79A7", "#56B4E9")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
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
        f"cuts-{run}": _figure(windows[windows["run"] == run], words)
        for run, words in _RUNS.items()
        if (windows["run"] == run).any()
    }
    single = table[table["role"].isin(["layers", "head", "joint"])]
    rows = [
        {
            "edge": row["edge"].replace("-", " → "),
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


def _figure(table: pd.DataFrame, run: str) -> Figure:
    traces, banded = [], False
    for index, (edge, rows) in enumerate(table.groupby("edge", sort=False)):
        ordered = rows.sort_values("centre")
        color, symbol = _COLORS[index % 6], _SYMBOLS[index % 6]
        x, mean = ordered["centre"].to_numpy(), ordered["control_mean"].to_numpy()
        if not pd.isna(mean).all():
            sd = ordered["control_sd"].fillna(0.0).to_numpy()
            name = "" if banded else "random tokens (± sd)"
            traces.append(band(x, mean - sd, mean + sd, color, name))
            banded = True
        label = str(edge).replace("-", " → ")
        traces.append(lines(ordered["normalized"].to_numpy(), label, color, symbol, x=x))
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
            "yaxis": {"title": {"text": "normalized effect"}, "zeroline": True},
        },
        340,
        f"Lines: effect of cutting each edge in a window of layers, run {run}.{said}",
        title=f"Run {run}",
    )

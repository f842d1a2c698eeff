"""Where the information about the object is, over the depth of both towers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.output.folder import Results
from headpatch.present.canvas import BLUE, VERMILLION, signed
from headpatch.present.charts import DASHES, SYMBOLS, band, interval, layer_axis, lines
from headpatch.present.parts import arrow
from headpatch.present.section import Figure, Section, largest, numbers, records
from headpatch.report.paths import EDGES, TOKENS

_MARKS = ("o", "^", "D", "s", "v", "x", ".")  # of edges, in their order
_GAP = 2  # columns between the towers
_ASKED = {"noising": "Noising: necessary?", "denoising": "Denoising: sufficient?"}
_NEEDED = {
    "view": "text",
    "tower": "text",
    "layer": "number",
    "where": "text",
    "heads": "text",
    "direction": "text",
    "normalized": "number",
}


def section(results: Results) -> Section | None:
    """Make the path; None unless `path` ran."""
    name = "path.csv" if results.first("path_mean.csv") is None else "path_mean.csv"
    table, part = results.table(name, _NEEDED), results.first(name)
    if table is None or part is None:
        return None
    stream = table[table["view"] == "stream"]
    figures = {
        f"path-{direction}": _stream(stream[stream["direction"] == direction], title)
        for direction, title in _ASKED.items()
        if (stream["direction"] == direction).any()
    }
    edges = table[(table["view"] == "edge") & (table["direction"] == "noising")]
    if len(edges):
        figures["path-edges"] = edge_figure(
            edges.rename(columns={"where": "edge", "layer": "centre"}),
            "Cut edges, noising",
            "Lines: effect of cutting edges, noising.",
            "share of the difference",
        )
    direct = table[table["view"] == "direct"]
    if len(direct):
        figures["path-direct"] = _direct(direct)
    paths = table[(table["view"] == "head path") & (table["tower"] == "lm")]
    rows = [
        {
            "heads": _label(row["heads"]),
            "where": row["where"],
            "direction": row["direction"],
            "share": _share(row),
        }
        for row in records(paths)
    ]
    values = {
        "window": part.study.get("path", {}).get("window", 5),
        "rows": rows,
        "pairs": int(table["pairs"].max()) if "pairs" in table else 0,
        "edges": len(edges) > 0,
        "direct": len(direct) > 0,
    }
    return Section("path", "The path of the information", values, figures) if figures else None


def _label(name: str) -> str:
    count = name.count("+") + 1
    return name.replace("+", " + ") if count <= 3 else f"{count} heads together"


def _share(row: Mapping[str, Any]) -> str:
    """Write a share, with its interval if it has one."""
    ends = [row.get(f"normalized_{end}", np.nan) for end in ("low", "high")]
    said = signed(row["normalized"], 3)
    if np.isnan(ends).any():
        return said
    return "{} [{}, {}]".format(said, *(signed(end, 3) for end in ends))


def _stream(table: pd.DataFrame, title: str) -> Figure:
    """One axis of depth: the vision layers, then those of the language model."""
    vision = table[table["tower"] == "vision"]
    before = 0 if vision.empty else int(vision["layer"].max()) + 1 + _GAP
    lm = table[table["tower"] == "lm"]
    layers = 0 if lm.empty else int(lm["layer"].max()) + 1
    traces: list[dict[str, Any]] = []
    for name, (label, color, line, marker) in TOKENS.items():
        for tower, start in (("vision", 0), ("lm", before)):
            rows = table[(table["tower"] == tower) & (table["where"] == name)].sort_values("layer")
            if rows.empty:
                continue
            layer = rows["layer"].to_numpy()
            shown = all(one["name"] != label for one in traces)
            where = "vision layer" if tower == "vision" else "layer"
            trace = lines(rows["normalized"].to_numpy(), label, color, SYMBOLS[marker],
                          x=layer + start, dash=DASHES[line],
                          legendgroup=name, showlegend=shown)  # fmt: skip
            trace |= {
                "text": [f"{where} {one:.0f}" for one in layer],
                "hovertemplate": "%{fullData.name}, %{text}: %{y:.3f}<extra></extra>",
                "name": label,
            }
            traces += interval(layer + start, rows, color, legendgroup=name)
            traces.append(trace)
    marks = [(f"v{one}", one) for one in range(0, max(before - _GAP, 0), 4)]
    marks += [(str(one), before + one) for one in range(0, layers, 4)]
    shapes = []
    if before and layers:
        shapes = [{"type": "line", "xref": "x", "yref": "paper", "x0": before - 1.5,
                   "x1": before - 1.5, "y0": 0, "y1": 1,
                   "line": {"color": "#8A8A8A", "width": 1, "dash": "dot"}}]  # fmt: skip
    holding = lm[(lm["normalized"] >= 0.5) & lm["where"].isin(TOKENS)]
    said = "; ".join(
        f"{TOKENS[str(where)][0]}: layers {rows['layer'].min():.0f} to {rows['layer'].max():.0f}"
        for where, rows in holding.groupby("where", sort=False)
    )
    return Figure(
        traces,
        {
            "xaxis": {"title": {"text": "vision layers (v), then language-model layers"},
                      "tickmode": "array", "tickvals": [at for _, at in marks],
                      "ticktext": [text for text, _ in marks], "zeroline": False},
            "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
            "shapes": shapes,
        },
        320,
        f"Lines over depth, {title.lower()} Tokens that carry half of the difference or more: "
        f"{said or 'none'}.",
        title=title,
    )  # fmt: skip


def _direct(table: pd.DataFrame) -> Figure:
    """What each layer writes straight into LD: its heads in sum, its MLP."""
    layers = int(table["layer"].max()) + 1
    traces, sums = [], {}
    for where, label, color, pattern in (
        ("head", "heads, in sum", VERMILLION, ""),
        ("mlp", "MLP", BLUE, "/"),
    ):
        rows = table[table["where"] == where].groupby("layer")["normalized"].sum()
        values = rows.reindex(range(layers)).to_numpy()
        sums[label] = float(np.nansum(values))
        traces.append({"type": "bar", "name": label, "x": list(range(layers)),
                       "y": numbers(values), "marker": {"color": color,
                       "pattern": {"shape": pattern}}})  # fmt: skip
    said = ", ".join(f"{label} {signed(value, 2)}" for label, value in sums.items())
    return Figure(
        traces,
        {
            "barmode": "group",
            "xaxis": layer_axis("language-model layer", layers),
            "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
        },
        300,
        f"Bars: what each layer writes straight into LD, with less without. In all: {said}.",
        title="Written straight into LD",
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

"""Heads that were named: what changing them did, beside random heads of the same layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.output.folder import Results
from headpatch.core.output.part import read
from headpatch.kinds import kind_label
from headpatch.present.canvas import GREY, signed
from headpatch.present.charts import SYMBOLS
from headpatch.present.section import Figure, Section, largest, numbers, words
from headpatch.report.effects import KINDS, changed_at

_KINDS = {name: (color, SYMBOLS[marker]) for name, (color, marker) in KINDS.items()}
_ASKED = {
    "noising": "noising: necessary?",
    "denoising": "denoising: sufficient?",
}
MOST = 24
"""Sets drawn: those with the largest effects."""
_NEEDED = {
    "heads": "text",
    "kind": "text",
    "direction": "text",
    "positions": "text",
    "role": "text",
    "effect": "number",
    "normalized": "number",
}


def section(results: Results) -> Section | None:
    """Make the effects of named heads; None unless `ablate` ran."""
    for name in ("effects_mean.csv", "effects.csv"):
        for part in results.having(name):
            table = read(part, name, _NEEDED)
            if "control_mean" in table:
                return _section(table[table["role"].isin(["head", "joint"])])
    return None


def _section(table: pd.DataFrame) -> Section | None:
    if table.empty:
        return None
    many = "normalized_low" in table
    labels = _labels(table)
    names = list(dict.fromkeys(table["heads"]))
    size = table["normalized"].abs().groupby(table["heads"]).max().fillna(0.0)
    shown = sorted(names, key=lambda name: -size[name])[:MOST]
    names = [name for name in names if name in shown]
    figures = {
        f"named-{direction}": _figure(
            table[table["direction"] == direction], {name: labels[name] for name in names}, asked
        )
        for direction, asked in _ASKED.items()
        if (table["direction"] == direction).any()
    }
    scopes = table["positions"].nunique() > 1
    rows = [_row(row, many, scopes) for row in table.to_dict("records")]
    return Section(
        "named",
        "The named heads",
        {
            "rows": rows,
            "left_out": len(size) - len(names),
            "many": many,
            "changed": changed_at(table),
            "p": any(row["p"] for row in rows),
        },
        figures,
    )


def _figure(table: pd.DataFrame, labels: Mapping[str, str], asked: str) -> Figure:
    """Draw sets of heads, one below the other in the order of their labels."""
    place = {name: index for index, name in enumerate(labels)}
    traces: list[dict[str, Any]] = []
    kinds = [kind for kind in _KINDS if (table["kind"] == kind).any()]
    for index, kind in enumerate(kinds):
        color, symbol = _KINDS[kind]
        rows = table[(table["kind"] == kind) & table["heads"].isin(labels)]
        shift = 0.22 * (index - (len(kinds) - 1) / 2)
        y = [place[name] + shift for name in rows["heads"]]
        error = None
        if "normalized_low" in rows:
            error = {
                "type": "data", "symmetric": False, "color": color, "thickness": 1,
                "array": numbers((rows["normalized_high"] - rows["normalized"]).to_numpy()),
                "arrayminus": numbers((rows["normalized"] - rows["normalized_low"]).to_numpy()),
            }  # fmt: skip
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": kind_label(kind, table),
                "x": numbers(rows["normalized"].to_numpy()),
                "y": y,
                "marker": {"color": color, "symbol": symbol, "size": 9},
                "text": [words(name) for name in rows["heads"].map(labels)],
                "hovertemplate": "%{text}: %{x:.4f}",
                **({"error_x": error} if error else {}),
            }
        )
        sd = rows["control_sd"] if "control_sd" in rows else rows["control_mean"] * 0
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "random heads (± sd)",
                "legendgroup": "random",
                "legendrank": 2000,
                "showlegend": index == 0,
                "x": numbers(rows["control_mean"].to_numpy()),
                "y": y,
                "marker": {"color": GREY, "symbol": "line-ns-open", "size": 9},
                "error_x": {"type": "data", "array": numbers(sd.to_numpy()), "color": GREY,
                            "thickness": 3, "width": 0},
                "hovertemplate": "random heads: %{x:.4f}",
            }
        )  # fmt: skip
    said = largest(
        table[table["heads"].isin(labels)],
        "normalized",
        lambda row: (
            f"{labels[row['heads']]}, {kind_label(row['kind'], row)}, "
            f"{signed(row['normalized'], 3)}"
        ),
    )
    return Figure(
        traces,
        {
            "xaxis": {"title": {"text": "normalized effect"},
                      "zeroline": True},
            "yaxis": {"tickmode": "array", "tickvals": list(range(len(labels))),
                      "ticktext": [words(label) for label in labels.values()],
                      "range": [len(labels) - 0.4, -0.6], "zeroline": False, "automargin": True},
        },
        110 + 34 * max(len(labels), 2),
        f"Points: normalized effect of each named head, {asked}{said}",
        title=asked,
    )  # fmt: skip


def _labels(table: pd.DataFrame) -> dict[str, str]:
    """Name each set of heads, and where it was changed if not all were at the same positions."""
    found = {}
    for name, scope in zip(table["heads"], table["positions"], strict=True):
        count = name.count("+") + 1
        at = f" ({scope})" if table["positions"].nunique() > 1 else ""
        found[name] = (name if count <= 2 else f"{count} heads together") + at
    return found


def _row(row: dict[Any, Any], many: bool, scopes: bool) -> dict[str, str]:
    normalized = row["normalized"]
    text = "undefined" if np.isnan(normalized) else signed(normalized, 4)
    if many and not np.isnan(row["normalized_low"]):
        text += f" [{signed(row['normalized_low'], 4)}, {signed(row['normalized_high'], 4)}]"
    p = row.get("control_p", np.nan)
    mean, sd = row.get("control_mean", np.nan), row.get("control_sd", np.nan)
    control = "" if np.isnan(mean) else signed(mean, 4)
    if control and not np.isnan(sd):
        control += f" ± {sd:.4f}"
    before, after = row.get("answer_before"), row.get("answer_after")
    answer = "" if before is None else "same" if before == after else f"{before} → {after}"
    if "answer_changed" in row:
        answer = f"{row['answer_changed']:.0%} of pairs"
    return {
        "heads": row["heads"].replace("+", " + ") + f" ({row['positions']})" * scopes,
        "kind": kind_label(row["kind"], row),
        "direction": row["direction"],
        "effect": signed(row["effect"], 4),
        "normalized": text,
        "control": control,
        "p": "" if np.isnan(p) else f"{p:.2f}",
        "answer": answer,
    }

"""Figures of changed heads on the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from headpatch.kinds import kind_label
from headpatch.present.canvas import GREY, signed
from headpatch.present.charts import SYMBOLS
from headpatch.present.effects_view import KINDS
from headpatch.present.section import Figure, largest, numbers, words

if TYPE_CHECKING:
    import pandas as pd

_KINDS: Final = {name: (color, SYMBOLS[marker]) for name, (color, marker) in KINDS.items()}
_ASKED: Final = {
    "noising": "noising: necessary?",
    "denoising": "denoising: sufficient?",
}
MOST: Final = 24
"""Sets drawn: those with the largest effects."""


def effects(table: "pd.DataFrame") -> dict[str, Figure]:
    """Draw the effects of named heads beside their controls, a figure a direction."""
    labels = _labels(table)
    size = table["normalized"].abs().groupby(table["heads"]).max().fillna(0.0)
    shown = sorted(labels, key=lambda name: -size[name])[:MOST]
    kept = {name: label for name, label in labels.items() if name in shown}
    return {
        f"named-{direction}": _figure(table[table["direction"] == direction], kept, asked)
        for direction, asked in _ASKED.items()
        if (table["direction"] == direction).any()
    }


def _figure(table: "pd.DataFrame", labels: Mapping[str, str], asked: str) -> Figure:
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
    spoken = largest(
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
        f"Points: normalized effect of each named head, {asked}{spoken}",
        title=asked,
    )  # fmt: skip


def _labels(table: "pd.DataFrame") -> dict[str, str]:
    """Name each set of heads, and where it was changed if not all were at the same positions."""
    labels = {}
    for name, scope in zip(table["heads"], table["positions"], strict=True):
        count = name.count("+") + 1
        at = f" ({scope})" if table["positions"].nunique() > 1 else ""
        labels[name] = (name if count <= 2 else f"{count} heads together") + at
    return labels

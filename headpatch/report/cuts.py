"""What cutting attention edges does to the answer: over depth, or head by head. The figure."""

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Target,
    check_columns,
    drawing,
    frame,
    layer_axis,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

Values: TypeAlias = Float[np.ndarray, "..."]
NAMED: Final = ("window", "layers", "head", "joint")
RUNS: Final = ("with", "without")
MOST_PLACES: Final = 40
"""More heads than this do not fit a page: those with the largest effects are shown."""
_MOST_NAMED: Final = 5
"""Edges that one line of legend holds."""
_CONTROLS: Final = (
    "the same cut with as many random image tokens in the region's place, mean ± SD, in the "
    "edge's colour."
)
_LOOKS: Final = (
    (VERMILLION, "o", "-"),
    (BLUE, "s", "--"),
    (GREEN, "^", "-."),
    (ORANGE, "D", ":"),
    ("#CC79A7", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("0.25", "X", "-."),
)
_COLUMNS: Final = ("edge", "heads", "layers", "centre", "run", "ld_with", "ld_without", "effect",
                   "normalized", "role", "control_mean", "control_sd")  # fmt: skip


def arrow(edge: str) -> str:
    """Write ``answer-region`` as it reads: ``answer → region``."""
    return edge.replace("-", " → ")


def cut_effects(
    cuts: "pandas.DataFrame",
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the normalized effect of every cut, one line an edge, one panel a run.

    Windows lie at the layer they are centred on; heads and fixed layers stand side by side. The
    axis on the right gives the same in logits. In an edge's colour lies the band of the same cut
    with random image tokens in the region's place (mean, and one standard deviation either side).

    Parameters
    ----------
    cuts
        ``cuts.csv``; see ``attention_data/README.md``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing, or there is no row but controls.
    """
    check_columns(cuts, _COLUMNS, "cuts")
    table = cuts[cuts["role"].isin(NAMED)]
    if table.empty:
        raise ValueError(f"cuts hold no row of the roles {', '.join(NAMED)}")
    table = table.assign(place=_place_names(table))
    edges = list(dict.fromkeys(table["edge"]))
    swept = bool(table["role"].eq("window").all())
    names, left_out = _chosen(table) if not swept else ([], 0)
    runs = [run for run in RUNS if (table["run"] == run).any()]
    with drawing(path, 0.4 + 1.75 * len(runs)) as figure:
        panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, run in zip(panels, runs, strict=True):
            here = table[table["run"] == run]
            axes.axhline(0, color="0.55", linewidth=0.6, zorder=1)
            for index, edge in enumerate(edges):
                own = here[here["edge"] == edge]
                x = own["centre"].to_numpy(dtype=np.float64)
                if not swept:
                    x = _places(own, names, index, len(edges))
                _draw_edge(axes, own, x, arrow(edge), _LOOKS[index % len(_LOOKS)], swept)
            axes.set_title(f"Run {run} the object", loc="left")
            axes.set_ylabel("Normalized effect")
            _logit_axis(axes, here, run)
        axes = panels[-1]
        if swept:
            layers = int(table["centre"].max()) + 1
            layer_axis(axes, layers, "Language-model layer on which the window is centred")
        else:
            turned = 45 if len(names) * max(map(len, names)) > 90 else 0
            axes.set_xticks(range(len(names)), names, rotation=turned,
                            ha="right" if turned else "center")  # fmt: skip
            axes.set_xlim(-0.5, len(names) - 0.5)
            layers_cut = bool(table["role"].eq("layers").all())
            axes.set_xlabel("Layers cut" if layers_cut else "Heads cut (layer.head)")
        few = len(edges) <= _MOST_NAMED
        if not few:
            panels[0].legend(loc="best", ncols=2)
        controlled = bool(table["control_mean"].notna().any())
        frame(
            figure,
            _title(table, swept, left_out, len(names)),
            question=question,
            region=region,
            legend=panels if few else (),
            note="Normalized effect: shift of LD towards the other run's, as a share of the "
            "difference between the runs (0 = nothing, 1 = the other run's LD, negative = away "
            "from it)."
            + (" Windows are clipped at the first and the last layer." if swept else "")
            + (f" {'Bands' if swept else 'Bars'}: {_CONTROLS}" if controlled else ""),
        )


def _place_names(table: "pandas.DataFrame") -> "pandas.Series":
    """Name where edges are cut: the layers, or the heads, a large set by its size."""
    count = table["heads"].astype(str).str.count(r"\+") + 1
    heads = table["heads"].where(count <= 2, "joint: " + count.astype(str))
    layers = table["layers"].replace("", np.nan)
    return heads.where(layers.isna(), layers)


def _chosen(table: "pandas.DataFrame") -> tuple[list[str], int]:
    """Keep the places with the largest effects, in the table's order."""
    names = list(dict.fromkeys(table["place"]))
    size = table["effect"].abs().groupby(table["place"]).max()
    kept = set(sorted(names, key=lambda name: -size[name])[:MOST_PLACES])
    return [name for name in names if name in kept], len(names) - len(kept)


def _places(own: "pandas.DataFrame", names: list[str], index: int, count: int) -> Values:
    """Put edges side by side at each place; NaN for a place that is left out."""
    step = 0.7 / count
    shift = (index - (count - 1) / 2) * step
    at = {name: place + shift for place, name in enumerate(names)}
    return np.array([at.get(name, np.nan) for name in own["place"]])


def _draw_edge(
    axes: "matplotlib.axes.Axes",
    own: "pandas.DataFrame",
    x: Values,
    label: str,
    look: tuple[str, str, str],
    swept: bool,
) -> None:
    color, marker, line = look
    y = own["normalized"].to_numpy(dtype=np.float64)
    mean = own["control_mean"].to_numpy(dtype=np.float64)
    sd = np.nan_to_num(own["control_sd"].to_numpy(dtype=np.float64))
    if swept:
        axes.plot(x, y, color=color, marker=marker, linestyle=line, label=label, zorder=3,
                  markersize=2.6, markeredgewidth=0)  # fmt: skip
    else:
        axes.plot(x, y, marker, color=color, label=label, zorder=3)
    if not np.isfinite(mean).any():
        return
    if swept:
        axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.25, linewidth=1.2,
                          zorder=2)  # fmt: skip
    else:
        axes.errorbar(x, mean, sd, fmt="_", color=color, alpha=0.55, elinewidth=3,
                      markersize=7, zorder=2)  # fmt: skip


def _logit_axis(axes: "matplotlib.axes.Axes", here: "pandas.DataFrame", run: str) -> None:
    """Give the effect in logits on the right: LD falls in the with-run as normalized rises."""
    gap = float((here["ld_with"] - here["ld_without"]).mean())
    if not gap:
        return
    scale = -gap if run == "with" else gap

    def logits(values: ArrayLike) -> ArrayLike:
        return np.asarray(values) * scale

    def shares(values: ArrayLike) -> ArrayLike:
        return np.asarray(values) / scale

    right = axes.secondary_yaxis("right", functions=(logits, shares))
    right.set_ylabel("Effect on LD (logits)")


def _title(table: "pandas.DataFrame", swept: bool, left_out: int, shown: int) -> str:
    title = "Effect of cutting attention edges on the Yes/No answer"
    if swept:
        ends = table["layers"].astype(str).str.split("-")
        widest = int(ends.map(lambda span: int(span[-1]) - int(span[0])).max()) + 1
        title += f"; all heads of {widest} consecutive layers"
    return title + (f" ({shown} largest of {shown + left_out})" if left_out else "")

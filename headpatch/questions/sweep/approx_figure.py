"""Attribution patching beside the exact effects it stands for: every head a point."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.kinds import kind_label
from headpatch.present.canvas import Target, drawing, frame, signed
from headpatch.present.effects_view import DIRECTIONS, KINDS
from headpatch.present.root_scale import digits, root, square
from headpatch.questions.sweep.figure import over, place, ways

if TYPE_CHECKING:
    import matplotlib.axes

_NAMED: Final = 3
"""Points named in each panel: the largest exact effects."""
_NOTE: Final = (
    "Estimated by attribution patching, one backward pass a run. Each point is a head (or a set of "
    "the list); on the dashed line the estimate equals the exact effect. Both axes follow the "
    "signed square root. Named: the largest exact effects."
)
_OVER_PAIRS: Final = " In brackets: intervals over pairs."


def approx_scatter(
    results: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw estimated against exact effects, one panel a kind and direction, each on its own scale.

    Parameters
    ----------
    results
        ``approx.pt`` of a sweep: ``approx`` and ``effect``, dicts of tensors by
        ``kind_direction``, and ``agreement``, ``noise_floor``, ``tower``, ``positions``. Over a
        dataset: their means over pairs, and ``pair_names``; ``agreement`` then holds the figures
        of the means under ``of_means_…``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no estimate, or estimates and effects differ in shape.
    """
    sides = {
        way: (
            np.asarray(results["effect"][way], dtype=np.float64),
            np.asarray(values, dtype=np.float64),
        )
        for way, values in results.get("approx", {}).items()
    }
    if not sides or any(exact.shape != approx.shape for exact, approx in sides.values()):
        raise ValueError("'approx' holds no estimates of the shape of 'effect'")
    kinds, directions = ways(sides)
    tower = "v" if results["tower"] == "vision" else ""
    with drawing(path, 0.4 + 2.0 * len(directions)) as figure:
        panels = figure.subplots(len(directions), len(kinds), squeeze=False)
        for i, direction in enumerate(directions):
            panels[i, 0].set_ylabel(f"{DIRECTIONS[direction]}\n\nEstimated effect (logits)")
            for j, kind in enumerate(kinds):
                axes, way = panels[i, j], f"{kind}_{direction}"
                if way not in sides:
                    axes.set_axis_off()
                    continue
                exact, approx = sides[way]
                most = max(float(np.abs(values).max()) for values in sides[way]) or 1.0
                ticks = [share * most for share in (-1, 0, 1)]
                words = [signed(tick, digits(16 * most) + 1) for tick in ticks]
                axes.set_xscale("function", functions=(root, square))
                axes.set_yscale("function", functions=(root, square))
                axes.set(xlim=(-1.2 * most, 1.2 * most), ylim=(-1.2 * most, 1.2 * most))
                axes.plot([-most, most], [-most, most], "--", color="0.5", linewidth=0.7, zorder=1)
                axes.plot(exact.ravel(), approx.ravel(), "o", markersize=2, markeredgewidth=0,
                          color=KINDS[kind][0], alpha=0.6, zorder=2)  # fmt: skip
                _say(axes, results.get("agreement", {}).get(way))
                axes.set_xticks(ticks, words)
                axes.set_yticks(ticks, words)
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind_label(kind, results).capitalize(), loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("Exact effect (logits)")
        frame(
            figure,
            f"Estimated and exact effects{over(results)}; z changed at: {place(results)}",
            question=question,
            region=region,
            note=_NOTE + _OVER_PAIRS * bool(over(results)),
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for way, (exact, approx) in sides.items():
            kind, _, direction = way.rpartition("_")
            _name(panels[directions.index(direction), kinds.index(kind)], exact, approx, tower)


def _name(
    axes: "matplotlib.axes.Axes",
    exact: Float[np.ndarray, "..."],
    approx: Float[np.ndarray, "..."],
    tower: str,
) -> None:
    """Name the points of the largest exact effects where the names hide no other of them.

    A list's sets have names too long for this.
    """
    if exact.ndim != 2:
        return
    taken: list[Any] = []
    for flat in np.argsort(-np.abs(exact), axis=None, kind="stable")[:_NAMED]:
        layer, head = divmod(int(flat), exact.shape[1])
        value = exact[layer, head]
        text = axes.annotate(f"{tower}{layer}.{head}", (value, approx[layer, head]),
                             (-4 if value > 0 else 4, 0), textcoords="offset points",
                             fontsize=5.5, va="center",
                             ha="right" if value > 0 else "left")  # fmt: skip
        text.set_in_layout(False)
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


def _say(axes: "matplotlib.axes.Axes", figures: Mapping[str, float] | None) -> None:
    """Write the agreement into the corner where the estimate has the wrong sign."""
    if figures is None:
        return
    own = "of_means_" if "of_means_pearson" in figures else ""
    words = "r undefined"
    if not np.isnan(figures[f"{own}pearson"]):
        r, low, high = (signed(figures[f"{own}pearson{end}"], 2) for end in ("", "_low", "_high"))
        words = f"r = {r} ({low} to {high})"
    words += f"\ntop-{figures['k']} recall {figures[f'{own}top_recall']:.2f}"
    words += f"\n(by chance {figures['top_recall_chance']:.2f})"
    if own:
        mean = "undefined" if np.isnan(figures["pearson"]) else signed(figures["pearson"], 2)
        words += f"\nmean of the pairs: r = {mean}, recall {figures['top_recall']:.2f}"
    axes.text(0.03, 0.97, words, transform=axes.transAxes, va="top",
              fontsize=5.5, color="0.3")  # fmt: skip

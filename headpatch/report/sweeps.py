"""What every head, or every set of heads, does to the answer: a map or a distribution a way."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float, Int

from headpatch.report.canvas import BLUE, VERMILLION, drawing, frame, signed
from headpatch.report.effects import DIRECTIONS, KINDS

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.colors

LABELLED: Final = 5
"""Heads named in each map: those with the largest effects above the noise floor."""
LOOKING: Final = 5
"""Heads outlined in each map: the first of the attention ranking; at most a quarter of all."""
_COLOURS: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")  # light 0, dark ends
_NORMALIZED: Final = "Normalized effect"
_NOTE: Final = (
    "Normalized effect: 0 = nothing, 1 = the whole difference between the two runs, negative = "
    "the other way."
)


def sweep_maps(
    results: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the normalized effect of every head: one map of layers × heads a kind and direction.

    All maps share one diverging colour scale, centred on 0. Colours follow the signed square root
    of the effect, since a few heads usually tower over the rest. The `LABELLED` largest effects
    above the noise floor are named, and the `LOOKING` heads whose attention differs most are
    outlined.

    Parameters
    ----------
    results
        ``sweep.pt`` of a sweep over every head: ``normalized`` and ``effect``, dicts of tensors
        ``[layers, heads]`` by ``kind_direction``, ``noise_floor`` (logits), ``positions`` and, if
        the heads were ranked, ``attention_rank``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no map, or they are not ``[layers, heads]``.
    """
    maps, below = _read(results, axes=2)
    layers = len(next(iter(maps.values())))
    kinds, directions = _ways(maps)
    ranks = results.get("attention_rank")
    norm, ticks = _scale(list(maps.values()))
    colours = _colours()
    height = 0.5 + len(directions) * (0.45 + min(2.3, max(0.9, 0.07 * layers)))
    with drawing(path, height) as figure:
        panels = figure.subplots(
            len(directions), len(kinds), sharex=True, sharey=True, squeeze=False
        )
        for i, direction in enumerate(directions):
            panels[i, 0].set_ylabel(f"{DIRECTIONS[direction]}\n\nLayer")
            for j, kind in enumerate(kinds):
                axes = panels[i, j]
                if (values := maps.get(f"{kind}_{direction}")) is None:
                    axes.set_axis_off()
                    continue
                image = axes.imshow(
                    values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest"
                )
                if ranks is not None:
                    _outline(axes, np.asarray(ranks))
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind.capitalize(), loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("Head")
        for axis in (panels[0, 0].xaxis, panels[0, 0].yaxis):
            axis.get_major_locator().set_params(integer=True, nbins=6)
        bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, aspect=30, ticks=ticks)
        bar.ax.set_yticklabels([signed(tick, _digits(ticks[-1])) for tick in ticks])
        bar.set_label(f"{_NORMALIZED} (square-root scale)")
        bar.outline.set_linewidth(0.6)
        frame(
            figure,
            f"Effect of each head on the Yes/No answer; z changed at: {results['positions']}",
            question=question,
            region=region,
            legend=panels.ravel(),
            note=f"{_NOTE} Named: the largest effects. {_floor_note(below)}",
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for way, values in maps.items():
            kind, _, direction = way.rpartition("_")
            axes = panels[directions.index(direction), kinds.index(kind)]
            _name_largest(axes, values, below[way])


def set_effects(
    results: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw how the normalized effects of many sets are distributed, a panel a kind and direction.

    Parameters
    ----------
    results
        ``sweep.pt`` of a sweep over a list of sets: as for `sweep_maps`, but tensors ``[sets]``,
        and ``heads``, the sets' names.
    path, question, region
        As for `sweep_maps`.

    Raises
    ------
    ValueError
        If there is no effect.
    """
    effects, below = _read(results, axes=1)
    kinds, directions = _ways(effects)
    finite = np.concatenate([values[np.isfinite(values)] for values in effects.values()])
    span = np.abs(finite).max() if len(finite) else 0.0
    low, high = (finite.min(), finite.max()) if span else (-1.0, 1.0)
    edges = np.linspace(low - 0.02 * span, high + 0.02 * span, 41)
    with drawing(path, 0.4 + 1.45 * len(directions)) as figure:
        panels = figure.subplots(
            len(directions), len(kinds), sharex=True, sharey=True, squeeze=False
        )
        for i, direction in enumerate(directions):
            panels[i, 0].set_ylabel(f"{DIRECTIONS[direction]}\n\nSets")
            for j, kind in enumerate(kinds):
                axes, values = panels[i, j], effects.get(f"{kind}_{direction}")
                if values is None:
                    axes.set_axis_off()
                    continue
                shown = values[np.isfinite(values)]
                axes.hist(shown, edges, color=KINDS[kind][0])
                axes.axvline(0.0, color="0.55", linewidth=0.6)
                axes.set_yscale("symlog", linthresh=1)
                axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
                if len(shown):
                    _name_extreme(axes, values, results["heads"], 72 // len(kinds))
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind.capitalize(), loc="left")
        for axes in panels[-1]:
            axes.set_xlabel(_NORMALIZED)
        panels[0, 0].locator_params(axis="x", nbins=5)
        count = len(next(iter(effects.values())))
        frame(
            figure,
            f"Effects of {count:,} sets of heads on the Yes/No answer; "
            f"z changed at: {results['positions']}",
            question=question,
            region=region,
            note=f"{_NOTE} Counts are on a logarithmic scale; the largest effect is named (▲). "
            f"{_floor_note(below)}",
        )


def _read(
    results: Mapping[str, Any], axes: int
) -> tuple[dict[str, Float[np.ndarray, "..."]], dict[str, Any]]:
    """Return the normalized effects, and which of them lie below the noise floor."""
    found = {
        way: np.asarray(values, dtype=np.float64)
        for way, values in results.get("normalized", {}).items()
    }
    if not found or any(values.ndim != axes for values in found.values()):
        raise ValueError(f"'normalized' holds no effects of {axes} axes by kind_direction")
    floor = float(results["noise_floor"])
    below = {way: np.abs(np.asarray(results["effect"][way])) <= floor for way in found}
    return found, below


def _ways(found: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the kinds and the directions, in their usual order."""
    kinds, directions = {way.rpartition("_")[0] for way in found}, {*map(_direction, found)}
    return (
        [name for name in KINDS if name in kinds],
        [name for name in DIRECTIONS if name in directions],
    )


def _direction(way: str) -> str:
    return way.rpartition("_")[2]


def _scale(
    maps: Sequence[Float[np.ndarray, "layers heads"]],
) -> tuple["matplotlib.colors.Normalize", list[float]]:
    """Return one scale for all maps, symmetric about 0, and its ticks."""
    from matplotlib.colors import FuncNorm

    finite = np.concatenate([values[np.isfinite(values)] for values in maps])
    most = float(np.abs(finite).max()) if len(finite) else 0.0
    most = most or 1.0

    def root(x: Any) -> Any:
        return np.sign(x) * np.sqrt(np.abs(x))

    def square(x: Any) -> Any:
        return np.sign(x) * np.square(x)

    norm = FuncNorm((root, square), vmin=-most, vmax=most)
    return norm, [most * share for share in (-1, -0.25, -0.0625, 0, 0.0625, 0.25, 1)]


def _digits(most: float) -> int:
    """Digits after the point that show a sixteenth of `most`."""
    return int(max(1, np.ceil(1 - np.log10(most / 16))))


def _colours() -> "matplotlib.colors.Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("effect", _COLOURS, 512)
    return colours.with_extremes(bad="0.75")


def _outline(axes: "matplotlib.axes.Axes", ranks: Int[np.ndarray, "layers heads"]) -> None:
    looking = ranks <= min(LOOKING, max(ranks.size // 4, 1))
    layers, heads = np.nonzero(looking)
    axes.plot(heads, layers, "s", markerfacecolor="none", markeredgecolor="black",
              markeredgewidth=0.7, markersize=4.5,
              label=f"attention differs most ({len(layers)})")  # fmt: skip


def _name_largest(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "layers heads"],
    below: Bool[np.ndarray, "layers heads"],
) -> None:
    """Write the largest effects' heads beside their cells, where they hide no other of them."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    size = np.where(np.isfinite(values) & ~below, np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:LABELLED]
    chosen = [divmod(int(i), values.shape[1]) for i in order if size.flat[i] >= 0]
    panel = axes.get_window_extent()
    pixel = axes.get_figure().dpi / 72  # type: ignore[union-attr]  # of a point
    half = [min(side / pixel / 2, 7.0) + 1.5 for side in _cell(axes, values.shape)]

    def cell(layer: int, head: int) -> Bbox:
        x, y = axes.transData.transform((head, layer))
        dx, dy = ((reach - 2.5) * pixel for reach in half)
        return Bbox([[x - dx, y - dy], [x + dx, y + dy]])

    taken = [cell(*one) for one in chosen]
    halo = [withStroke(linewidth=1.4, foreground="white")]
    for layer, head in chosen:
        text = axes.annotate(f"{layer}.{head}", (head, layer), (0, 0), fontsize=5.5,
                             textcoords="offset points", path_effects=halo, zorder=4,
                             annotation_clip=False)  # fmt: skip
        text.set_in_layout(False)
        for far, x, y in _PLACES:
            text.set_position((x * half[0] * far, y * half[1] * far))
            text.set_horizontalalignment(("right", "center", "left")[x + 1])
            text.set_verticalalignment(("top", "center", "bottom")[y + 1])
            box = text.get_window_extent()
            inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            text.remove()


_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_PLACES: Final = tuple((far, *side) for far in (1.0, 2.2, 3.5) for side in _SIDES)


def _cell(axes: "matplotlib.axes.Axes", shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the width and height of a map's cell, in pixels."""
    panel = axes.get_window_extent()
    return panel.width / shape[1], panel.height / shape[0]


def _name_extreme(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, " sets"],
    names: Sequence[str],
    room: int,
) -> None:
    """Name the set with the largest effect above the panel, and point at its place."""
    index = int(np.nanargmax(np.abs(values)))
    name = str(names[index])
    name = name if len(name) <= room else f"{name[: room - 1]}…"
    value = float(values[index])
    axes.set_title(f"{name}: {signed(value, 3)}", loc="right", fontsize=5.5, color="0.3")
    axes.plot(value, 0, "^", color="black", markersize=3.5, clip_on=False, zorder=5)


def _floor_note(below: Mapping[str, Any]) -> str:
    """Say how many effects cannot be told from rounding."""
    shown = sum(int(values.sum()) for values in below.values())
    total = sum(values.size for values in below.values())
    return f"{shown:,} of {total:,} effects do not rise above the noise floor."

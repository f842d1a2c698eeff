"""What every head, or every set of heads, does to the answer: a map or a distribution a way."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, Int

from headpatch.kinds import kind_label
from headpatch.present.canvas import BLUE, VERMILLION, Target, drawing, frame, signed
from headpatch.present.effects_view import DIRECTIONS, KINDS
from headpatch.present.map_labels import name_largest
from headpatch.present.root_scale import digits, scale

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.colors

LABELLED: Final = 5
"""Heads named in each map: those with the largest effects above the noise floor."""
LOOKING: Final = 5
"""Heads outlined in each map: the first of the attention ranking; at most a quarter of all."""
_COLOURS: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")  # light 0, dark ends
_NORMALIZED: Final = "Normalized effect"
_ON_THE_ANSWER: Final = " on the Yes/No answer"
_NOTE: Final = (
    "Normalized effect: 0 = nothing, 1 = the whole difference between the two runs, negative = "
    "the other way."
)


def sweep_maps(
    results: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the normalized effect of every head: one map of layers × heads a kind and direction.

    All maps share one diverging colour scale, centred on 0. Colours follow the signed square root
    of the effect, since a few heads usually tower over the rest. The `LABELLED` largest effects
    above the noise floor are named, and the `LOOKING` heads whose attention differs most are
    outlined. Whole layers, if they were changed too, stand as one column right of the heads.

    Parameters
    ----------
    results
        ``sweep.pt`` of a sweep over every head: ``normalized`` and ``effect``, dicts of tensors
        ``[layers, heads]`` by ``kind_direction``, ``noise_floor`` (logits), ``positions`` and, if
        there are such, ``attention_rank``, ``layer_normalized`` (``[layers]`` likewise), and of
        the vision tower ``tower`` and ``feature_layer``. Over a dataset they are means over pairs,
        and ``pair_names`` names these.
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
    layers, heads = next(iter(maps.values())).shape
    kinds, directions = ways(maps)
    whole = {
        way: np.asarray(values, dtype=np.float64)
        for way, values in results.get("layer_normalized", {}).items()
    }
    tower = "v" if results.get("tower") == "vision" else ""
    norm, ticks = scale([*maps.values(), *whole.values()])
    look = {"cmap": _colours(), "norm": norm}
    height = 0.5 + len(directions) * (0.45 + min(2.3, max(0.9, 0.07 * layers)))
    with drawing(path, height) as figure:
        panels = figure.subplots(
            len(directions), len(kinds), sharex=True, sharey=True, squeeze=False
        )
        for i, direction in enumerate(directions):
            panels[i, 0].set_ylabel(f"{DIRECTIONS[direction]}\n\nLayer")
            for j, kind in enumerate(kinds):
                axes, way = panels[i, j], f"{kind}_{direction}"
                if way not in maps:
                    axes.set_axis_off()
                    continue
                image = _map(axes, results, maps[way], **look)
                if way in whole:
                    _add_layers(axes, whole[way], heads, **look)
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind_label(kind, results).capitalize(), loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("Head")
        panels[0, 0].yaxis.get_major_locator().set_params(integer=True, nbins=6)
        panels[0, 0].set_xticks(_ticks(heads))
        bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, aspect=30, ticks=ticks)
        bar.ax.set_yticklabels([signed(tick, digits(ticks[-1])) for tick in ticks])
        bar.set_label(f"{_NORMALIZED} (square-root scale)")
        bar.outline.set_linewidth(0.6)
        frame(
            figure,
            f"Effect of each {'vision ' * bool(tower)}head{over(results) or _ON_THE_ANSWER}; "
            f"z changed at: {place(results)}",
            question=question,
            region=region,
            legend=panels.ravel(),
            note=f"{_NOTE} Named: the largest effects. {_floor_note(below)}"
            + " The column on the right: all heads of a layer together." * bool(whole),
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for way, values in maps.items():
            kind, _, direction = way.rpartition("_")
            axes = panels[directions.index(direction), kinds.index(kind)]
            name_largest(axes, np.where(below[way], np.nan, values), LABELLED, tower)


def _map(
    axes: "matplotlib.axes.Axes",
    results: Mapping[str, Any],
    values: Float[np.ndarray, "layers heads"],
    **look: Any,
) -> Any:
    """Draw one map: heads that look are outlined, and layers that are not read marked."""
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **look)
    if (ranks := results.get("attention_rank")) is not None:
        _outline(axes, np.asarray(ranks))
    last = results.get("feature_layer")
    if last is not None and last < len(values) - 1:
        axes.axhline(last + 0.5, color="black", linewidth=0.7, linestyle=(0, (3, 2)),
                     label="below: not read by the language model")  # fmt: skip
    return image


def set_effects(
    results: Mapping[str, Any],
    path: Target,
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
    kinds, directions = ways(effects)
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
            axes.set_title(kind_label(kind, results).capitalize(), loc="left")
        for axes in panels[-1]:
            axes.set_xlabel(_NORMALIZED)
        panels[0, 0].locator_params(axis="x", nbins=5)
        count = len(next(iter(effects.values())))
        frame(
            figure,
            f"Effects of {count:,} sets of heads{over(results) or _ON_THE_ANSWER}; "
            f"z changed at: {place(results)}",
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


def place(results: Mapping[str, Any]) -> str:
    """Say where z was changed: a scope of the prompt's tokens, or of the vision tower's."""
    positions = str(results["positions"])
    if results.get("tower") != "vision":
        return positions
    return {"class": "the class token", "patches": "the patches"}.get(positions, "all tokens") + (
        " of the tower"
    )


def over(results: Mapping[str, Any]) -> str:
    """Say in a title that results are means over the pairs of a dataset, where they are."""
    pairs = len(results.get("pair_names", ()))
    return f", means over {pairs:,} pairs" if pairs else ""


def ways(found: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the kinds and the directions, in their usual order."""
    kinds, directions = {way.rpartition("_")[0] for way in found}, {*map(_direction, found)}
    return (
        [name for name in KINDS if name in kinds],
        [name for name in DIRECTIONS if name in directions],
    )


def _direction(way: str) -> str:
    return way.rpartition("_")[2]


def _ticks(count: int) -> list[int]:
    """Return a few round numbers below `count`, which heads have and no other column does."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(integer=True, nbins=6).tick_values(0, max(count - 1, 1))
    return [int(tick) for tick in found if 0 <= tick < count]


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


def _add_layers(
    axes: "matplotlib.axes.Axes", values: Float[np.ndarray, " layers"], heads: int, **colours: Any
) -> None:
    """Draw whole layers as a column of their own, apart from the heads."""
    wide = max(1.0, 0.06 * heads)
    left, right = heads - 0.5 + 0.4 * wide, heads - 0.5 + 1.4 * wide
    axes.imshow(
        values[:, None],
        extent=(left, right, len(values) - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
        **colours,
    )
    axes.set_xlim(-0.5, right)
    axes.annotate("all", ((left + right) / 2, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
                  textcoords="offset points", ha="center", va="bottom", fontsize=5.5)  # fmt: skip


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

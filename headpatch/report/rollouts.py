"""Where a token of the answer comes from: maps over both pictures, their check, and tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.canvas import (
    BLUE,
    GREY,
    VERMILLION,
    Target,
    array,
    check_columns,
    drawing,
    frame,
    signed,
)
from headpatch.present.overlays import density, draw_map
from headpatch.present.tables import plain_table

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas
    import PIL.Image

MAPS: Final = {
    "rollout_tokens": (BLUE, "o", "-", "rollout, at the image tokens"),
    "rollout_patches": (BLUE, "s", "--", "rollout, at the patches"),
    "relevance_tokens": (VERMILLION, "o", "-", "relevance, at the image tokens"),
    "relevance_patches": (VERMILLION, "s", "--", "relevance, at the patches"),
}
"""Colour, marker, line and words of each map."""
_WAYS: Final = {
    "delete": "The first k patches are deleted",
    "insert": "Only the first k patches are shown",
}
_RUNS: Final = ("with", "without")
_HEIGHT: Final = 2.0  # inches of a picture's row


def rollout_maps(
    results: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw every map over both pictures, a row a map, the with-run left; one colour scale a row.

    The colour is the map's density relative to an even map, as in
    `headpatch.present.overlays.attention_overlays`.

    Parameters
    ----------
    results
        ``rollout.pt``: ``maps`` (by name, ``[runs, patches]``), ``boxes`` ``[patches, 4]``,
        ``region_box``, ``in_region``, ``image_with``, ``image_without`` ``[height, width, 3]``,
        ``token``, ``rival``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no map.
    """
    maps = results.get("maps", {})
    if not maps:
        raise ValueError("'maps' holds no map")
    images = [_image(results[f"image_{run}"]) for run in _RUNS]
    aspect = max(image.height / image.width for image in images)
    height = min(max(2.6 * aspect, 0.9), _HEIGHT)
    inside = np.asarray(results["in_region"])
    with drawing(path, 0.15 + (height + 0.2) * len(maps)) as figure:
        panels = figure.subplots(len(maps), 3, squeeze=False, width_ratios=[1, 1, 0.045])
        for row, name in zip(panels, maps, strict=True):
            values = array(maps, name, 2)
            cells = [density(one, array(results, "boxes", 2)) for one in values]
            peak = max(float(np.nanmax(one, initial=0.0)) for one, _, _ in cells)
            for j, (axes, run) in enumerate(zip(row[:2], _RUNS, strict=True)):
                mesh = draw_map(axes, images[j], results, cells[j], peak or 1.0)
                share = values[j][inside].sum() / (values[j].sum() or 1.0)
                axes.set_title(f"{run.capitalize()} the object: region {share:.1%}", pad=2.5)
            bar = figure.colorbar(mesh, cax=row[2])
            bar.set_label("density (× even)")
            bar.outline.set_linewidth(0.4)
            row[0].set_ylabel("\n".join(MAPS[name][3].capitalize().split(", ")))
        frame(
            figure,
            f"Where {_token(results)} comes from",
            question=question,
            region=region,
            note="Share of each map by area; 1 is an even map. At the image tokens: followed back "
            "through the language model; at the patches: on through the vision tower. Tokens that "
            "draw attention without content get weight in rollout. What falls on text or a class "
            "token is not drawn.",
        )


def perturbation_curves(
    curves: "pandas.DataFrame",
    path: Target,
    *,
    token: str = "",
    fill: str = "other",
    question: str = "",
    region: str = "",
) -> None:
    """Draw what deleting, and showing, the first k patches of each map does: a row a run.

    Parameters
    ----------
    curves
        ``perturbation.csv``.
    path
        The file to write.
    token
        What was watched, for the title.
    fill
        What stood in a deleted patch, for the note.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    check_columns(curves, ("run", "way", "order", "draw", "k", "share"), "curves")
    if curves.empty:
        raise ValueError("there is no curve")
    draws = curves.loc[curves["order"] == "random", "draw"].nunique()
    counts = sorted(curves["k"].unique())
    with drawing(path, 4.4) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for row, run in zip(panels, _RUNS, strict=True):
            for axes, (way, words) in zip(row, _WAYS.items(), strict=True):
                here = curves[curves["run"].eq(run) & curves["way"].eq(way)]
                _draw_curves(axes, here, draws)
                axes.set_title(f"{run.capitalize()} the object. {words}", loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("k patches")
            powers = [k for k in counts if (k & (k - 1)) == 0 and k < 0.7 * counts[-1]]
            shown = [*powers, counts[-1]]
            axes.set_xticks([_place(k) for k in shown], [f"{k:,}" for k in shown])
            axes.tick_params(axis="x", labelsize=6)
        for axes in panels[:, 0]:
            axes.set_ylabel("LD moved")
        for axes in panels[:, 1]:
            axes.set_ylabel("LD regained")
        stands = "the other picture, there" if fill == "other" else "the picture's mean colour"
        frame(
            figure,
            f"Do the maps' patches matter for {token}?",
            question=question,
            region=region,
            legend=[panels[0, 0]],
            note=f"In a deleted patch stands {stands}. LD moved towards the other run's, and LD "
            "regained, as shares of LD_with - LD_without; higher means that the first k patches "
            "matter more. Grey: range of the random orders; dotted: their mean. k is on a "
            "logarithmic scale.",
        )


def _draw_curves(axes: "matplotlib.axes.Axes", here: "pandas.DataFrame", draws: int) -> None:
    for y in (0.0, 1.0):
        axes.axhline(y, color="0.55", linewidth=0.6)
    random = here[here["order"] == "random"].groupby("k")["share"]
    x = _place(random.mean().index)
    axes.fill_between(x, random.min(), random.max(), color=GREY, alpha=0.25, linewidth=0,
                      label=f"{draws} random")  # fmt: skip
    axes.plot(x, random.mean(), color=GREY, linestyle=":")
    for name, (color, marker, line, words) in MAPS.items():
        own = here[here["order"] == name].sort_values("k")
        if not own.empty:
            axes.plot(_place(own["k"]), own["share"], marker, linestyle=line, color=color,
                      label=short(words), markersize=2.6)  # fmt: skip
    region = here[here["order"] == "region"]
    axes.plot(_place(region["k"]), region["share"], "*", color="black", markersize=8,
              label="region", zorder=4)  # fmt: skip


def short(words: str) -> str:
    """Write ``rollout (tokens)``."""
    method, _, stage = words.partition(", at the ")
    return f"{method} ({stage.removeprefix('image ')})"


def _place(k: Any) -> Any:
    return np.log2(np.asarray(k, dtype=np.float64) + 1)


def _image(pixels: Any) -> "PIL.Image.Image":
    from PIL import Image

    return Image.fromarray(np.asarray(pixels))


def _token(results: Mapping[str, Any]) -> str:
    rival = f" (or {results['rival']!r})" if results["rival"] else ""
    return f"{results['token']!r}{rival}"


def rollout_tables(
    regions: Sequence[Mapping[str, Any]], areas: Sequence[Mapping[str, Any]]
) -> RenderableType:
    """Show where the maps fall, and how they did against random orders of patches."""
    table = plain_table(
        "map", "run", "region", "if even", "not on patches", title="Where the maps fall"
    )
    for one in regions:
        words = MAPS[f"{one['method']}_{one['stage']}"][3]
        table.add_row(
            words,
            str(one["run"]),
            f"{one['region']:.1%}",
            f"{one['even']:.1%}",
            f"{one['elsewhere']:.1%}",
        )
    parts: list[RenderableType] = [
        table,
        Text(
            "region: its share of what the map gives to patches. not on patches: what ends "
            "elsewhere and is not drawn: at the image tokens, on text; at the patches, of what the "
            "image tokens hand on, on the vision tower's class token."
        ),
    ]
    if areas:
        parts += [_check_table(areas), Text(_check_note(areas[0]))]
    return Group(*parts)


def _check_table(areas: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = plain_table(
        "run",
        "patches",
        "in the order of",
        "area",
        "random orders",
        "below",
        f"first {areas[0]['region_size']}",
        "random",
        "region",
        title="Do the maps' patches matter?",
    )
    for one in areas:
        table.add_row(
            str(one["run"]),
            "deleted" if one["way"] == "delete" else "shown",
            MAPS[one["map"]][3],
            f"{one['area']:+.3f}",
            f"{one['random_mean']:+.3f}±{one['random_sd']:.3f}",
            f"{one['random_below']}/{one['random_n']}",
            f"{one['at_region_size']:+.2f}",
            f"{one['random_at_region_size']:+.2f}",
            f"{one['region']:+.2f}",
        )
    return table


def _check_note(one: Mapping[str, Any]) -> str:
    return (
        "deleted: the share of LD_with - LD_without by which LD moves when the first k patches are "
        "deleted; shown: the share that is regained when only they are shown. area: under that "
        "curve over log2(k + 1), scaled to 0 to 1. below: how many random orders have a smaller "
        f"area. first {one['region_size']}, random, region: the share for as many patches as the "
        "region has: the map's first, random ones (mean), and the region's own."
    )


def rollout_summary(areas: Sequence[Mapping[str, Any]], unchecked: str, valid: bool) -> str:
    """Say whether the with-run's maps beat random patches, and no more than one pair can show."""
    if unchecked:
        return f"The maps are not checked: {unchecked}."
    caveat = "One pair shows one case, not a rule."
    if not valid:
        caveat = "The study is INVALID (its answers are not Yes and No): these figures say nothing."
    said = []
    for one in areas:
        if one["run"] == "with" and one["way"] == "delete":
            below, count = one["random_below"], one["random_n"]
            how = f"more than {below}" if below else "no more than any"
            how = "more than any" if below == count else how
            said.append(
                f"{MAPS[one['map']][3]}: {signed(one['area'], 3)}, {how} of {count} random orders"
            )
    mean, sd = areas[0]["random_mean"], areas[0]["random_sd"]
    return (
        "Area of LD moved when the with-run's patches are deleted in the order of "
        f"{'; '.join(said)} ({signed(mean, 3)} ± {sd:.3f}). {caveat}"
    )

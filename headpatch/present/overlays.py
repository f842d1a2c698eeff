"""Attention of chosen heads laid over the two images."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.pairs.manifest import Entry
from headpatch.present.canvas import ORANGE, WIDTH, Target, array, drawing, frame, signed
from headpatch.present.chart import Chart, Colours, Picture
from headpatch.stats.attention_mass import distribution, mass, region_mask

if TYPE_CHECKING:
    import matplotlib.axes
    import PIL.Image

    from headpatch.pairs.pair import Pair

SHOWN: Final = 12
"""Pairs on a sheet."""
_COLUMNS: Final = 3


def contact_sheet(
    entries: Sequence[Entry], path: Target, width: float = WIDTH, style: str | None = None
) -> None:
    """Draw the first `SHOWN` pairs side by side, each under its name and question."""
    shown = entries[:SHOWN]
    rows = -(-len(shown) // _COLUMNS)
    with drawing(path, 1.45 * rows * width / WIDTH, width, style) as figure:
        grid = figure.add_gridspec(rows, _COLUMNS, wspace=0.12, hspace=0.08)
        for index, entry in enumerate(shown):
            pair = entry.pair()
            halves = grid[divmod(index, _COLUMNS)].subgridspec(1, 2, wspace=0.03)
            left, right = figure.add_subplot(halves[0]), figure.add_subplot(halves[1])
            _show(left, pair, "with")
            _show(right, pair, "without")
            words = textwrap.wrap(textwrap.shorten(entry.question, 90, placeholder=" …"), 46)
            title = "\n".join([f"{entry.name}  {pair.region.name}", *words])
            left.set_title(title, loc="left", fontsize=6.5)
        frame(
            figure,
            f"The first {len(shown)} of {len(entries):,} pairs",
            note="Left: with the object (the answer is Yes); right: without it (No). Outlined: the "
            "region.",
        )


def _show(axes: "matplotlib.axes.Axes", pair: "Pair", run: str) -> None:
    from matplotlib.patches import Rectangle

    image = pair.with_image if run == "with" else pair.without_image
    axes.imshow(image, interpolation="antialiased")
    left, top, right, bottom = pair.region.box
    corner = (left * image.width - 0.5, top * image.height - 0.5)
    width, height = (right - left) * image.width, (bottom - top) * image.height
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ORANGE, linewidth=1.0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(run, fontsize=6, labelpad=1.5)


_COLOUR: Final = (
    "Colour: attention per area, relative to the same attention spread evenly over the image. The "
    "bar shows the colours over the pictures' median colour. Dashed line: the region."
)


def overlay_chart(
    image_with: "PIL.Image.Image",
    image_without: "PIL.Image.Image",
    attention_with: Mapping[str, Any],
    attention_without: Mapping[str, Any],
    heads: Sequence[tuple[int, int]],
) -> Chart:
    """Lay each head's attention from the answer position over both images, upright.

    One row a head, (layer, head), the with-run left and the without-run right on one colour scale.
    The colour is the attention's density relative to even attention over the image: 1 is what
    every spot would get if the head's image attention were spread evenly. The density comes from
    the tokens' boxes, so tiles of any size can overlap and parts that no token covers stay bare.

    Attention is as in ``attention_with_triangle.pt``: ``lm_rows`` ``[layers, heads, keys]``,
    ``image_positions`` ``[tokens]``, ``boxes`` ``[tokens, 4]`` and ``region_box`` ``[4]`` in
    fractions of the image; ``answer`` and ``ld`` (logits) are shown if present.
    """
    runs = (attention_with, attention_without)
    rows = [_image_rows(attention, heads) for attention in runs]
    panels = _panels(
        (image_with, image_without),
        runs,
        rows,
        "boxes",
        [f"{layer}.{head}" for layer, head in heads],
    )
    return Chart(
        "overlays",
        "attention_overlays.png",
        "Attention of the answer position to the image",
        panels,
        f"{_COLOUR} LD: logit(Yes) − logit(No).",
        columns=2,
        colours=Colours("density (× even)", both=False),
        on_page=False,
    )


def tower_overlay_chart(
    image_with: "PIL.Image.Image",
    image_without: "PIL.Image.Image",
    attention_with: Mapping[str, Any],
    attention_without: Mapping[str, Any],
    count: int,
) -> Chart:
    """Lay the attention of vision heads over both pictures, as `overlay_chart` does.

    Of the mean over patch queries (``vision_patch_rows`` ``[layers, heads, tokens]``, at
    ``vision_boxes`` or else ``boxes``), for the `count` heads whose share on the region rises most
    with the object.
    """
    runs = (attention_with, attention_without)
    boxes = "vision_boxes" if "vision_boxes" in attention_with else "boxes"
    rows = [array(attention, "vision_patch_rows", 3) for attention in runs]
    box = tuple(map(float, array(attention_with, "region_box", 1)))
    mask = region_mask(array(attention_with, boxes, 2), box)  # type: ignore[arg-type]
    rise = np.subtract(*(mass(distribution(one), mask) for one in rows))
    first = np.argsort(-np.nan_to_num(rise, nan=-np.inf), axis=None, kind="stable")[:count]
    layers, heads = np.unravel_index(first, rise.shape)
    names = [f"v{layer}.{head}" for layer, head in zip(layers, heads, strict=True)]
    chosen = [np.asarray(one[layers, heads]) for one in rows]
    return Chart(
        "tower overlays",
        "vision_overlays.png",
        "Attention inside the vision tower, mean over its patches",
        _panels((image_with, image_without), runs, chosen, boxes, names),
        f"The heads whose attention to the region rises most with the object. {_COLOUR}",
        columns=2,
        colours=Colours("density (× even)", both=False),
        on_page=False,
    )


def _panels(
    pictures: Sequence["PIL.Image.Image"],
    runs: Sequence[Mapping[str, Any]],
    rows: Sequence[Float[np.ndarray, "heads tokens"]],
    boxes: str,
    names: Sequence[str],
) -> list[Picture]:
    """Return a row of pictures a head, both runs on one colour scale."""
    images, panels = [np.asarray(image.convert("RGB")) for image in pictures], list[Picture]()
    for i, name in enumerate(names):
        maps = [
            density(row[i], array(attention, boxes, 2))
            for row, attention in zip(rows, runs, strict=True)
        ]
        peak = max(float(np.nanmax(cells, initial=0.0)) for cells, _, _ in maps) or 1.0
        for j, attention in enumerate(runs):
            title = _shares(rows[j][i], attention, boxes)
            if i == 0:
                title = f"{_run(('With', 'Without')[j], attention)}\n{title}"
            box = tuple(map(float, array(attention, "region_box", 1)))
            panels.append(Picture(title, images[j], maps[j], box, peak, f"Head {name}"))
    return panels


def density(
    row: Float[np.ndarray, "tokens"], boxes: Float[np.ndarray, "tokens 4"]
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]]:
    """Spread each token's share of the image attention evenly over its box.

    `row` may have any scale; `boxes` are in fractions of the image and may overlap, those of NaN
    are skipped. Returns density relative to even attention on the cells between the boxes' edges
    (NaN where no box lies), and the edges. Over the image, density times cell area sums to the
    share of the placed tokens.
    """
    cells, x_edges, y_edges = densities(row[None], boxes)
    return cells[0], x_edges, y_edges


def densities(
    rows: Float[np.ndarray, "heads tokens"], boxes: Float[np.ndarray, "tokens 4"]
) -> tuple[
    Float[np.ndarray, "heads y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]
]:
    """Do what `density` does for many rows over the same boxes."""
    placed = np.isfinite(boxes).all(axis=1)
    share = distribution(rows)[:, placed]
    # float32 edges of neighbours may differ
    corners = np.round(boxes[placed].astype(np.float64), 6)
    x_edges, y_edges = np.unique(corners[:, [0, 2]]), np.unique(corners[:, [1, 3]])
    shape = (max(len(y_edges) - 1, 0), max(len(x_edges) - 1, 0))
    cells, covered = np.zeros((len(share), *shape)), np.zeros(shape, dtype=bool)
    columns = np.searchsorted(x_edges, corners[:, [0, 2]])
    lines = np.searchsorted(y_edges, corners[:, [1, 3]])
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    for value, (x0, x1), (y0, y1) in zip((share / area).T, columns, lines, strict=True):
        cells[:, y0:y1, x0:x1] += value[:, None, None]
        covered[y0:y1, x0:x1] = True
    cells[:, ~covered] = np.nan
    return cells, x_edges, y_edges


def _image_rows(
    attention: Mapping[str, Any], heads: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "heads tokens"]:
    if not heads:
        raise ValueError("heads is empty: name at least one (layer, head)")
    rows = array(attention, "lm_rows", 3)
    for layer, head in heads:
        if not (0 <= layer < rows.shape[0] and 0 <= head < rows.shape[1]):
            size = f"{rows.shape[0]} layers of {rows.shape[1]} heads"
            raise ValueError(f"head {layer}.{head} is out of range: {size}")
    positions = array(attention, "image_positions", 1).astype(np.int64)
    layers, numbers = np.array(heads).T
    return np.asarray(rows[layers, numbers][:, positions])


def _shares(row: Float[np.ndarray, "tokens"], attention: Mapping[str, Any], boxes: str) -> str:
    left, top, right, bottom = (float(edge) for edge in array(attention, "region_box", 1))
    mask = region_mask(array(attention, boxes, 2), (left, top, right, bottom))
    inside = float(mass(distribution(row), mask))
    return f"region {inside:.1%} of image attention; image {row.sum():.1%} of all"


def _run(name: str, attention: Mapping[str, Any]) -> str:
    answer = " ".join(str(attention.get("answer", "")).split())
    answer = answer if len(answer) <= 34 else answer[:33].rsplit(" ", 1)[0] + "…"
    words = f": “{answer}”" if answer else " the object"
    ld = f" (LD {signed(float(attention['ld']), 2)})" if "ld" in attention else ""
    return f"{name}{words}{ld}"

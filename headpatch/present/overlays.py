"""Attention of chosen heads laid over the two images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import WIDTH, Target, array, drawing, frame, signed
from headpatch.stats.attention_mass import distribution, mass, region_mask

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.colors
    import PIL.Image

_LONGEST_SIDE = 500  # pixels of a drawn image: what its part of a 7-inch page resolves
_TALLEST = 60.0  # inches of images: past it, rows shrink


def attention_overlays(
    image_with: "PIL.Image.Image",
    image_without: "PIL.Image.Image",
    attention_with: Mapping[str, Any],
    attention_without: Mapping[str, Any],
    heads: Sequence[tuple[int, int]],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw each head's attention from the answer position over both images.

    One row a head, the with-run left and the without-run right on one colour scale. The colour
    is the attention's density relative to even attention over the image: 1 is what every spot
    would get if the head's image attention were spread evenly. The density comes from the
    tokens' boxes, so tiles of any size can overlap and parts that no token covers stay bare. The
    region is outlined.

    Parameters
    ----------
    image_with, image_without
        The two images, upright as the model saw them.
    attention_with, attention_without
        ``attention_with_triangle.pt`` and ``attention_without_triangle.pt``: ``lm_rows``
        ``[layers, heads, keys]``, ``image_positions`` ``[tokens]``, ``boxes`` ``[tokens, 4]`` and
        ``region_box`` ``[4]`` in fractions of the image; ``question``, ``region_name``,
        ``answer`` and ``ld`` (logits) are shown if present.
    heads
        (layer, head) pairs, in the order to draw them.
    path
        The file to write.
    question, region
        Words for the title; by default those of ``attention_with``.

    Raises
    ------
    ValueError
        If there are no heads, one is out of range, or a key is missing or misshapen.
    """
    sides = [(image_with, attention_with), (image_without, attention_without)]
    rows = [_image_rows(attention, heads) for _, attention in sides]
    aspect = max(image.height / image.width for image, _ in sides)
    height = min(max(0.38 * WIDTH * aspect, 0.9), 3.4, _TALLEST / len(heads))
    with drawing(path, 0.15 + (height + 0.22) * len(heads)) as figure:
        panels = figure.subplots(len(heads), 3, squeeze=False, width_ratios=[1, 1, 0.045])
        for i, (layer, head) in enumerate(heads):
            maps = [
                density(row[i], array(attention, "boxes", 2))
                for row, (_, attention) in zip(rows, sides, strict=True)
            ]
            peak = max(float(np.nanmax(cells, initial=0.0)) for cells, _, _ in maps)
            for j, (image, attention) in enumerate(sides):
                mesh = draw_map(panels[i, j], image, attention, maps[j], peak or 1.0)
                title = _shares(rows[j][i], attention)
                if i == 0:
                    title = f"{_run(('With', 'Without')[j], attention)}\n{title}"
                panels[i, j].set_title(title, pad=2.5)
            bar = figure.colorbar(mesh, cax=panels[i, 2])
            bar.set_label("density (× even)")
            bar.outline.set_linewidth(0.4)
            panels[i, 0].set_ylabel(f"Head {layer}.{head}")
        frame(
            figure,
            "Attention of the answer position to the image",
            question=question or str(attention_with.get("question", "")),
            region=region or str(attention_with.get("region_name", "")),
            note="Colour: attention per area, relative to the same attention spread evenly over "
            "the image. Dashed line: the region. LD: logit(Yes) − logit(No).",
        )


def density(
    row: Float[np.ndarray, "tokens"], boxes: Float[np.ndarray, "tokens 4"]
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]]:
    """Spread each token's share of the image attention evenly over its box.

    Parameters
    ----------
    row
        ``[tokens]`` attention to the image tokens, any scale.
    boxes
        ``[tokens, 4]`` in fractions of the image; boxes may overlap, NaN boxes are skipped.

    Returns
    -------
    Density relative to even attention ``[y, x]`` on the cells between the boxes' edges (NaN where
    no box lies), and the edges ``[x + 1]``, ``[y + 1]`` in fractions of the image. Over the
    image, density times cell area sums to the share of the placed tokens.
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
    corners = np.round(
        boxes[placed].astype(np.float64), 6
    )  # float32 edges of neighbours may differ
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
    """Pick the chosen heads' attention to the image tokens."""
    if not heads:
        raise ValueError("heads is empty: name at least one (layer, head)")
    rows = array(attention, "lm_rows", 3)
    for layer, head in heads:
        if not (0 <= layer < rows.shape[0] and 0 <= head < rows.shape[1]):
            raise ValueError(
                f"head {layer}.{head} is out of range: {rows.shape[0]} layers of "
                f"{rows.shape[1]} heads"
            )
    positions = array(attention, "image_positions", 1).astype(np.int64)
    layers, numbers = np.array(heads).T
    return np.asarray(rows[layers, numbers][:, positions])


def draw_map(
    axes: "matplotlib.axes.Axes",
    image: "PIL.Image.Image",
    attention: Mapping[str, Any],
    attention_map: tuple[
        Float[np.ndarray, "y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]
    ],
    peak: float,
) -> Any:
    """Lay a map over a picture and outline the region; return what a colour bar needs."""
    from matplotlib import patheffects
    from matplotlib.patches import Rectangle

    shown = image.convert("RGB")
    shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    axes.imshow(shown, extent=(0, 1, 1, 0), aspect=image.height / image.width,
                interpolation="nearest")  # fmt: skip
    cells, x_edges, y_edges = attention_map
    mesh = axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(cells), cmap=_see_through(),
                           vmin=0.0, vmax=peak, linewidth=0, rasterized=True)  # fmt: skip
    left, top, right, bottom = array(attention, "region_box", 1)
    axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor="white",
            linewidth=1.0,
            linestyle=(0, (3, 2)),
            clip_on=False,
            path_effects=[patheffects.withStroke(linewidth=2.0, foreground="black")],
        )
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return mesh


def _see_through() -> "matplotlib.colors.ListedColormap":
    """Return a colour map that is clear where there is no attention, so that the image shows."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = colormaps["plasma"](np.linspace(0.2, 0.97, 256))
    colors[:, 3] = np.linspace(0.0, 0.85, 256)
    return ListedColormap(colors)


def _shares(row: Float[np.ndarray, "tokens"], attention: Mapping[str, Any]) -> str:
    left, top, right, bottom = (float(edge) for edge in array(attention, "region_box", 1))
    mask = region_mask(array(attention, "boxes", 2), (left, top, right, bottom))
    inside = float(mass(distribution(row), mask))
    return f"region {inside:.1%} of image attention; image {row.sum():.1%} of all"


def _run(name: str, attention: Mapping[str, Any]) -> str:
    answer = " ".join(str(attention.get("answer", "")).split())
    answer = answer if len(answer) <= 34 else answer[:33].rsplit(" ", 1)[0] + "…"
    said = f": “{answer}”" if answer else " the object"
    return f"{name}{said}" + (
        f" (LD {signed(float(attention['ld']), 2)})" if "ld" in attention else ""
    )

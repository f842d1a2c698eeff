"""What all figures share: palette, type sizes, titles, and a save that never leaves half a file.

Figures use matplotlib's object-oriented interface only: no pyplot, no window, no state that
outlives a call. matplotlib is imported when the first figure is drawn.
"""

import errno
import os
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.disk import write_whole
from headpatch.errors import InputError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas

WIDTH: Final = 7.0  # inches: the text width of a page

# Okabe & Ito, Color Universal Design (2008). Colour never stands alone: a marker, a hatch or a
# place says the same.
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
GREY: Final = "#8A8A8A"
WITH: Final = VERMILLION
WITHOUT: Final = BLUE
DIFFERENCE: Final = GREEN

_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "PingFang SC", "Droid Sans Fallback",
)  # fmt: skip
_STYLE: Final[dict[str, Any]] = {
    "text.parse_math": False,  # a question may hold a dollar sign
    "savefig.dpi": 200,  # of a PNG; name the file .pdf or .svg for print
    "font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 7.5, "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0, "legend.fontsize": 7.0, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "lines.linewidth": 1.1, "lines.markersize": 3.5,
    "hatch.linewidth": 0.5, "pdf.fonttype": 42,
}  # fmt: skip


class Sheet:
    """A place for a figure that is kept instead of written."""

    figure: "matplotlib.figure.Figure"  # once something is drawn


Target: TypeAlias = str | os.PathLike[str] | Sheet
"""Where a figure goes: into a file, or onto a sheet."""


@contextmanager
def styled(own: str | None = None) -> Iterator[None]:
    """Let matplotlib draw in the project's style, whatever the caller's own is.

    `own` is a style file that overrides it.
    """
    from matplotlib import font_manager, style

    installed = {font.name for font in font_manager.fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in _CJK_FONTS if name in installed)]
    styles: list[Any] = ["default", {**_STYLE, "font.family": family}]
    with style.context([*styles, *([own] if own else [])]), warnings.catch_warnings():
        # boxes in the title show it; one warning a glyph is noise
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def check_style(path: str) -> None:
    """Refuse a style file that is not there, or that matplotlib does not know all of."""
    from matplotlib import colormaps, rc_params_from_file, rcParams

    expected = "a style file of matplotlib, lines as `font.size: 9`"
    try:
        text = Path(path).read_text(encoding="utf-8")
        lines = (
            line.split("#", maxsplit=1)[0].partition(":")[0].strip() for line in text.split("\n")
        )
        unknown = [key for key in lines if key and key not in rcParams]
        if unknown:  # of which matplotlib only warns
            raise ValueError(f"it knows no {unknown[0]}")
        rc_params_from_file(path, fail_on_error=True, use_default_template=False)
        if (colours := own_colours(path)) is not None and colours not in colormaps:
            raise ValueError(f"it knows no colour map {colours}")
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        found = f"{path}: {' '.join(why.split())}"
        raise InputError("--style", found, expected) from None


def own_colours(path: str | None) -> str | None:
    """Return the colour map that a style file names; None if it names none."""
    from matplotlib import rc_params_from_file

    if path is None:
        return None
    found = rc_params_from_file(path, use_default_template=False).get("image.cmap")
    return None if found is None else str(found)


@contextmanager
def drawing(
    path: Target, height: float, width: float = WIDTH, style: str | None = None
) -> Iterator["matplotlib.figure.Figure"]:
    """Give an empty figure, and write it to `path`, whole or not at all, when the block ends.

    `height` is that of the panels, to which `frame` adds; it and `width` are in inches. `style` is
    a style file.
    """
    from headpatch.present.shown import Shown

    with styled(style):
        figure = Shown(figsize=(width, height), layout="constrained")
        yield figure
        if isinstance(path, Sheet):
            if figure.stale:
                figure.draw_without_rendering()  # ticks take their style when they are made
            path.figure = figure
        else:
            _save(figure, Path(path))


def _save(figure: "matplotlib.figure.Figure", path: Path) -> None:
    drawn = BytesIO()  # Pillow, given a file, hides why it cannot be written
    figure.savefig(drawn, format=path.suffix.lstrip(".").lower() or "png")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    write_whole(path, drawn.getvalue())


def frame(
    figure: "matplotlib.figure.Figure",
    title: str,
    *,
    question: str = "",
    region: str = "",
    legend: "Iterable[matplotlib.axes.Axes]" = (),
    note: str = "",
) -> None:
    """Add what surrounds the panels, and make the figure that much taller. Call it last.

    Above them title, region, question and one legend of the given axes; below them a small note.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    words = [f"Region: {region}"] if region else []
    words += [f"Question: {question}"] if question else []
    width = figure.get_figwidth()
    asked = _wrap("     ".join(words), int(120 * width / WIDTH))
    noted = _wrap(note, int(145 * width / WIDTH))
    title = "\n".join(line for one in title.split("\n") for line in _wrap(one, int(12.8 * width)))
    handles: dict[str, Any] = {}
    for axes in legend:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)

    line = 0.145  # inches
    title_lines = title.count("\n") + 1
    rows = _legend_rows(list(handles), width)
    key = 0.07 + 0.17 * rows if rows else 0.03
    head = 0.06 + 0.175 * title_lines + line * len(asked) + key
    foot = line * len(noted) + 0.05 if noted else 0.0
    height = figure.get_figheight() + head + foot
    figure.set_figheight(height)
    top = 1 - 0.06 / height
    figure.text(0.012, top, title, fontsize=9, fontweight="bold", va="top")
    top -= 0.175 * title_lines / height
    figure.text(0.012, top, "\n".join(asked), va="top", color="0.3", linespacing=1.35)
    figure.text(0.012, 0.05 / height, "\n".join(noted), fontsize=6.5, color="0.3")
    if handles:
        corner = (0.006, 1 - (head - key - 0.01) / height)
        figure.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=corner,
                      borderaxespad=0.2, ncols=-(-len(handles) // rows))  # fmt: skip
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, foot / height, 1, 1 - (head + foot) / height))


def _legend_rows(labels: list[str], width: float) -> int:
    """How many rows a legend takes that must not be wider than the figure."""
    wide = [0.42 + 0.055 * len(label) for label in labels]  # inches: a sign and a text of 7 pt
    for rows in range(1, len(labels)):
        columns = np.array_split(wide, -(-len(labels) // rows))  # as matplotlib fills them
        if sum(column.max() for column in columns) <= width:
            return rows
    return len(labels)


def _wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of this many narrow characters, or 2/5 as many wide ones."""
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    return textwrap.wrap(text, 2 * width // 5 if wide else width)


def signed(value: float, digits: int) -> str:
    """Write a number with its sign (a true minus), and what rounds to 0 without one."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def layer_axis(axes: "matplotlib.axes.Axes", layers: int, label: str) -> None:
    """Give an x axis that counts layers from 0, whatever their number."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(-0.5, layers - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    axes.set_xlabel(label)


def check_columns(table: "pandas.DataFrame", needed: Iterable[str], what: str) -> None:
    """Refuse a table that lacks some columns; `what` are its rows, as the error names them."""
    if missing := set(needed) - set(table.columns):
        raise ValueError(f"{what} lack the columns {', '.join(sorted(missing))}")


def array(source: Mapping[str, Any], key: str, ndim: int) -> Float[np.ndarray, "..."]:
    """Read an array (or tensor) of a results dict in float64; it must have `ndim` axes."""
    if key not in source:
        raise ValueError(f"results lack {key!r}; they hold {', '.join(map(str, source))}")
    values = np.asarray(source[key], dtype=np.float64)
    if values.ndim != ndim:
        raise ValueError(f"{key!r} has shape {values.shape}, expected {ndim} axes")
    return values

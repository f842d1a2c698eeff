"""What `headpatch path` found: the tables for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.parts import arrow
from headpatch.present.tables import plain_table

_DIRECTIONS = ("noising", "denoising")


def path_tables(saved: Mapping[str, Any]) -> RenderableType:
    """Show the language model's curves layer by layer, or their means, and the paths to heads.

    Parameters
    ----------
    saved
        ``path.pt``.
    """
    stream, edges, pairs = saved["stream"], saved["edges"], int(saved.get("pairs", 1))
    means = f"Means over {pairs:,} pairs; their intervals are in path_mean.csv.\n"
    names = [name for name in stream if name != "before"]
    table = plain_table(
        "layer",
        *names,
        *map(arrow, edges),
        title=(means if pairs > 1 else "")
        + "Language model. Left: the stream of the other run put in, entering the layer: "
        "noising / denoising\nRight: attention cut in windows centred on the layer, with-run",
    )
    for layer in range(len(next(iter(stream.values()))["noising"])):
        table.add_row(
            str(layer),
            *("/".join(_share(stream[name][way][layer]) for way in _DIRECTIONS) for name in names),
            *(_share(edges[edge]["noising"][layer]) for edge in edges),
        )
    return Group(table, _head_paths(saved, int(saved.get("pairs_heads", 1))))


def _head_paths(saved: Mapping[str, Any], pairs: int) -> RenderableType:
    table = plain_table(
        "input",
        "from",
        *(f"{_short(heads)} {way}" for heads in saved["heads"] for way in _DIRECTIONS),
        title="Paths to heads: the input of these heads alone changed to the other run's"
        + (f"; means over {pairs:,} pairs" if pairs > 1 else ""),
    )
    for index, (inputs, sender) in enumerate(saved["ways"]):
        figures = [
            _share(saved["head_paths"][way][index, place])
            for place in range(len(saved["heads"]))
            for way in _DIRECTIONS
        ]
        if any(figure != "0.00" for figure in figures):
            table.add_row(inputs, sender, *figures)
    note = Text(
        "Shares of the difference between the runs; rows of zeros are left out. `all, all` is "
        "resampling the head. `straight`: the image as the projector gives it, without what the "
        "language model's layers add to it on the way."
    )
    return Group(table, note)


def _short(heads: str) -> str:
    return heads if heads.count("+") < 2 else f"all {heads.count('+') + 1}"


def _share(value: Any) -> str:
    text = f"{float(value):.2f}"
    return "0.00" if text == "-0.00" else text

"""What people see of a path: curves layer by layer, paths to heads, sentences, a figure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from headpatch.core.question import Context, Files
from headpatch.present.canvas import signed
from headpatch.present.parts import Grid, Part, Words, arrow
from headpatch.questions.path.charts import path_chart

_DIRECTIONS: Final = ("noising", "denoising")
_STREAM: Final = (
    "The residual stream of one run is put into the other, at one class of tokens of one layer. 1 "
    "= at this depth these tokens hold all that tells the runs apart."
)
_HEARD: Final = (
    "Shares of the difference between the runs; rows of zeros are left out. `all, all` is "
    "resampling the head. `straight`: the image as the projector gives it, without what the "
    "language model's layers add to it on the way."
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the curves of the language model, paths to heads, and what they say."""
    saved = files["path.pt"]
    pairs = int(saved.get("pairs", 1))
    means = f" Means over {pairs:,} pairs; bands are intervals over pairs." if pairs > 1 else ""
    yield Words(f"{_STREAM}{means}", "page")
    yield path_chart(saved)
    yield Words(
        f"Edges are cut in {int(saved['window'])} layers at a time, in the with-run; a cut also "
        "takes away what both runs share.",
        "page",
    )
    yield _over_depth(saved, pairs)
    if saved["heads"]:
        yield _head_paths(saved, intervals=False)
        yield _head_paths(saved, intervals=True)
        yield Words(_HEARD)
    yield from map(Words, saved.get("summary", filter(None, [context.caveat])))


def _over_depth(saved: Mapping[str, Any], pairs: int) -> Grid:
    stream, edges = saved["stream"], saved["edges"]
    names = [name for name in stream if name != "before"]
    layers = len(next(iter(stream.values()))["noising"])
    rows = [
        (
            str(layer),
            *("/".join(_share(stream[name][way][layer]) for way in _DIRECTIONS) for name in names),
            *(_share(edges[edge]["noising"][layer]) for edge in edges),
        )
        for layer in range(layers)
    ]
    means = f"Means over {pairs:,} pairs; their intervals are in path_mean.csv.\n"
    title = (
        "Language model. Left: the stream of the other run put in, entering the layer: noising / "
        "denoising\nRight: attention cut in windows centred on the layer, with-run"
    )
    headings = ("layer", *names, *map(arrow, edges))
    numeric = tuple(True for _ in headings)
    return Grid(means * (pairs > 1) + title, headings, tuple(rows), numeric, place="terminal")


def _head_paths(saved: Mapping[str, Any], intervals: bool) -> Grid:
    """Show what named heads hear; on the page with intervals, which a terminal has no room for."""
    columns = [(place, way) for place in range(len(saved["heads"])) for way in _DIRECTIONS]
    rows = []
    for index, (inputs, sender) in enumerate(saved["ways"]):
        at = [(way, (index, place)) for place, way in columns]
        if any(_short_share(saved, *cell) != "0.00" for cell in at):
            shown = _with_interval if intervals else _short_share
            rows.append((inputs, sender, *(shown(saved, *cell) for cell in at)))
    pairs = int(saved.get("pairs_heads", 1))
    return Grid(
        "Paths to heads: the input of these heads alone changed to the other run's"
        + (f"; means over {pairs:,} pairs" if pairs > 1 else ""),
        ("input", "from", *(f"{_short(saved['heads'][place])} {way}" for place, way in columns)),
        tuple(rows),
        (False, False, *(True for _ in columns)),
        place="page" if intervals else "terminal",
    )


def _with_interval(saved: Mapping[str, Any], way: str, cell: tuple[int, int]) -> str:
    text = signed(float(saved["head_paths"][way][cell]), 3)
    if "head_paths_low" not in saved:
        return text
    ends = (float(saved[f"head_paths_{end}"][way][cell]) for end in ("low", "high"))
    return "{} [{}, {}]".format(text, *(signed(end, 3) for end in ends))


def _short_share(saved: Mapping[str, Any], way: str, cell: tuple[int, int]) -> str:
    return _share(saved["head_paths"][way][cell])


def _short(heads: str) -> str:
    return heads if heads.count("+") < 2 else f"all {heads.count('+') + 1}"


def _share(value: Any) -> str:
    text = f"{float(value):.2f}"
    return "0.00" if text == "-0.00" else text

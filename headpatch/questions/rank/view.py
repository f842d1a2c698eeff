"""What people see of ranked heads: the first of them, and where attention falls."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from headpatch.core.measures import measure_of
from headpatch.core.question import Context, Files, rows_of
from headpatch.core.study.study import Expected
from headpatch.present.canvas import signed
from headpatch.present.column import Cell
from headpatch.present.effects_view import interval_cell
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.questions.rank import charts, picture_charts
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL, WITH_RUN, WITHOUT_RUN

_VISION_ROWS: Final = 5
_RUNS: Final = ("with", "without", "diff")
_FIRST: Final = 3  # layers named of each tower
_MEASURES: Final = {"kl": "KL", "js": "JS divergence", "js_distance": "JS distance"}
_TITLE: Final = "Attention to the {place} from the answer position"
_SHARES: Final = {
    "region": "(share of the image attention; raw: of all attention)",
    "image": "(part of all attention; raw: the same)",
}


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the first heads; of one pair also quadrants, the vision tower, and divergences."""
    if context.pairs is not None:
        top, interval = context.options["top"], f"{context.level:.0%} interval"
        yield _top_heads("{title}, mean over pairs", files, context, top, interval)
        attended = context.attended, _by(context)
        yield charts.ranked_chart(files[HEADS.file], top, context.level, *attended)
        return
    if PER_HEAD in files:
        yield from _heads(files, files[PER_HEAD], context)
    if SPATIAL in files:
        yield from _attention(files, files[SPATIAL], context)
    if WITH_RUN in files and WITHOUT_RUN in files:
        seen = picture_charts.view_chart(files[WITH_RUN], files[WITHOUT_RUN])
        yield from () if seen is None else (seen,)


def _heads(files: Files, per_head: Mapping[str, Any], context: Context) -> Iterator[Part]:
    top = int(per_head["top"])
    yield _top_heads("{title}", files, context, top)
    counts = {layer: int(count) for layer, count in enumerate(per_head["layer_counts"]) if count}
    listed = ", ".join(f"{layer} ({count})" for layer, count in counts.items())
    yield Words(f"Layers of the top {top} heads: {listed}")
    yield charts.heads_chart(per_head, top, context.attended, _by(context))
    overlays = context.options.get("overlays", 0)
    if overlays and WITH_RUN in files and WITHOUT_RUN in files:
        runs = files[WITH_RUN], files[WITHOUT_RUN]
        yield picture_charts.overlays_chart(per_head, *runs, overlays)
        if (tower := picture_charts.tower_overlays_chart(*runs, overlays)) is not None:
            yield tower


def _attention(files: Files, spatial: Mapping[str, Any], context: Context) -> Iterator[Part]:
    yield from _quadrants(spatial)
    vision = "vision_patch_with" in spatial
    yield from _vision(spatial) if vision else ()
    yield from _divergences(spatial)
    if (published := context.study.get("expected")) is not None:
        expected = Expected.model_validate(published)
        if expected.beside_a_ranking:
            yield _expected(expected, files)
    yield charts.quadrants_chart(spatial)
    if vision:
        yield charts.vision_chart(spatial)
    yield charts.divergences_chart(spatial)


def _by(context: Context) -> str:
    return str(context.options.get("by", "diff"))  # results of earlier versions lack it


def _top_heads(title: str, files: Files, context: Context, top: int, interval: str = "") -> Grid:
    by = _by(context)
    cells: dict[str, str | Cell] = {"Rank": "rank", "Layer": "layer", "Head": "head"}
    cells |= {name.replace("_", " ").capitalize(): name for name in measure_of(by).own}
    cells["Diff"] = "diff"
    if interval:
        cells[interval] = interval_cell("diff")
    cells |= {"With": "with", "Without": "without", "raw diff": "diff_raw"}
    if interval:
        cells[f"raw {interval}"] = interval_cell("diff_raw")
    else:
        cells |= {"raw with": "with_raw", "raw without": "without_raw"}
    rows = rows_of(files[HEADS.file], top)
    title = title.format(title=_TITLE.format(place=context.attended))
    if by != "diff":
        title = f"{title}\nRanked by {measure_of(by).ranking}"
    return grid(f"{title}\n{_SHARES[context.attended]}", rows, cells, HEADS, place="terminal")


def _quadrants(spatial: Mapping[str, Any]) -> Iterator[Part]:
    names = [str(name) for name in spatial["quadrant_names"]]
    present, absent, diff = (_array(spatial[f"quadrants_{run}"]) for run in _RUNS)
    if not len(names) == len(present) == len(absent) == 4:
        raise ValueError("it does not hold four quadrants")
    largest = int(np.abs(present - absent).argmax())
    yield Words(
        f"The {names[largest]} quadrant changes most: {present[largest]:.1%} of image attention "
        f"with the object, {absent[largest]:.1%} without. Shares are means over all heads of the "
        "language model.",
        "page",
    )
    rows = tuple(
        (name, f"{one:.4f}", f"{other:.4f}", f"{difference:+.4f}")
        for name, one, other, difference in zip(names, present, absent, diff, strict=True)
    )
    title = "Four quadrants (share of image attention, mean over heads)"
    yield _grid(title, ("Quadrant", "With", "Without", "Difference"), rows)


def _vision(spatial: Mapping[str, Any]) -> Iterator[Part]:
    present, absent, diff = (_array(spatial[f"vision_patch_{run}"]) for run in _RUNS)
    order, last = np.argsort(-np.abs(diff), kind="stable"), spatial.get("feature_layer")
    cls = spatial.get("vision_cls_diff")
    rows = tuple(
        (
            str(layer),
            f"{present[layer]:.4f}",
            f"{absent[layer]:.4f}",
            f"{diff[layer]:+.4f}",
            "" if cls is None else f"{float(cls[layer]):+.4f}",
            "not read by the language model" if last is not None and layer > last else "",
        )
        for layer in order[:_VISION_ROWS]
    )
    title = (
        f"Vision encoder: the {_VISION_ROWS} layers that differ most\n"
        "(region's share of the patch attention, mean over patch queries and heads)"
    )
    yield _grid(title, ("Layer", "With", "Without", "Difference", "class token", ""), rows, True)
    named = ", ".join(f"layer {layer} ({signed(diff[layer], 4)})" for layer in order[:_FIRST])
    words = (
        f"In the vision encoder, largest differences: {named}. The region's share of patch "
        "attention, mean over each layer's heads."
    )
    if last is not None and last < len(diff) - 1:
        words += (
            f" The language model reads layer {last}: what happens after it (shaded) cannot cause "
            "its answer."
        )
    yield Words(words, "page")


def _divergences(spatial: Mapping[str, Any]) -> Iterator[Part]:
    overall = spatial["divergence_overall"]
    rows = [_divergence("all LM heads", overall)]
    for name, label in (("lm", "LM layer"), ("vision_patch", "vision layer")):
        if (group := spatial.get(f"divergence_{name}")) is not None:
            order = np.argsort(-_array(group["js"]), kind="stable")
            rows += [
                _divergence(f"{label} {layer}", {key: group[key][layer] for key in _MEASURES})
                for layer in order[:_FIRST]
            ]
    title = "Divergence of where attention falls, with against without"
    headings = "Attention of", "KL (nats)", "JS (nats)", "JS distance"
    yield _grid(title, headings, tuple(rows), True)
    units = {"kl": " (nats)", "js": " (nats)", "js_distance": ""}
    listed = ", ".join(
        f"{name}{units[key]} {float(overall[key]):.4f}" for key, name in _MEASURES.items()
    )
    yield Words(
        "The two runs' attention over the image, compared. Over all heads of the language model: "
        f"{listed}. The distance is the square root of the divergence.",
        "page",
    )


def _divergence(label: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    return (label, *(f"{float(values[name]):.4f}" for name in _MEASURES))


def _expected(published: Expected, files: Files) -> Grid:
    """Show published figures beside what was measured."""
    spatial = files[SPATIAL]
    heads = {(row["layer"], row["head"]): row for row in rows_of(files[HEADS.file])}
    rows: list[tuple[str, ...]] = []

    def add(figure: str, value: float, measured: Any, form: str = ".4f") -> None:
        shown = measured if isinstance(measured, str) else f"{float(measured):{form}}"
        rows.append((figure, f"{value:{form}}", shown))

    for one in published.heads:
        row = heads.get((one.layer, one.head))
        for name, value in (("diff", one.diff), ("with", one.with_), ("without", one.without)):
            measured = "no such head" if row is None else row[name]
            add(f"head {one.layer}.{one.head} {name}", value, measured)
    for name, values in published.quadrants.items():
        index = list(spatial["quadrant_names"]).index(name)
        for run, value in zip(_RUNS, values, strict=False):
            add(f"{name} {run}", value, spatial[f"quadrants_{run}"][index])
    for measure, value in published.divergence.items():
        add(f"overall {_MEASURES[measure]}", value, spatial["divergence_overall"][measure])
    for layer, value in published.vision_diff.items():
        measured = _at(spatial.get("vision_patch_diff"), layer)
        add(f"vision layer {layer} difference", value, measured, "+.4f")
    for layer, measures in published.vision_divergence.items():
        for measure, value in measures.items():
            measured = _at(spatial.get("divergence_vision_patch", {}).get(measure), layer)
            add(f"vision layer {layer} {_MEASURES[measure]}", value, measured)
    title = f"Published by {published.source}"
    return _grid(title, ("Figure", "Published", "Measured"), tuple(rows), True)


def _at(values: Any, layer: int) -> Any:  # of a tensor, an array, or nothing
    return "no such layer" if values is None or layer >= len(values) else values[layer]


def _grid(
    title: str, headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...], terminal: bool = False
) -> Grid:
    numeric = (False, *[True] * (len(headings) - 1))
    return Grid(title, headings, rows, numeric, place="terminal" if terminal else "everywhere")


def _array(values: Any) -> Any:
    return np.asarray(values, np.float64)

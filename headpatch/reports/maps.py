"""Looking and deciding: all heads as linked maps, scatter and table; whole vision layers."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results, load, reading_of
from headpatch.present.canvas import VERMILLION, signed
from headpatch.present.chart import ground
from headpatch.present.interactive import SYMBOLS, band, layer_axis, shape_of
from headpatch.present.panel import Guide, Scale
from headpatch.present.section import Figure, Section, numbers, words
from headpatch.questions.verdict.charts import CLASSES
from headpatch.reports.heads import Effect, Heads, Look, heads_of
from headpatch.reports.pictures import overlays

_LAYERS = dict.fromkeys(
    ["layer", "necessity", "necessity_low", "necessity_high", "pairs"], "number"
)
_COLUMNS = {
    "diff": ("Attention diff.", "share of image attention on the region, with − without"),
    "with": ("with", "share with the object"),
    "without": ("without", "share without the object"),
    "diff_raw": ("raw diff.", "the same difference, as a part of all attention"),
}
"""Label and title of the table's columns of where heads look."""


def section(results: Results) -> Section | None:
    """Make the maps; None if no run says anything of every head."""
    heads = heads_of(results)
    if heads is None:
        return None
    data: dict[str, Any] = {
        "heads": {
            "layers": list(heads.layers),
            "heads": heads.shape[1],
            "looks": [_look(one) for one in heads.looks],
            "effects": [_effect(one) for one in heads.effects],
            "verdicts": _codes(heads),
            # colour and marker are those of the figure ``verdict.png``
            "classes": [
                {"name": name, "color": look.color, "symbol": SYMBOLS[look.marker]}
                for name, look in CLASSES.items()
            ],
            "first": _first(heads),
        }
    }
    seen = _overlays(results, heads)
    left_out = 0
    if seen is not None:
        data["overlay"], data["overlay-rows"] = seen
        left_out = heads.shape[0] * heads.shape[1] - len(data["overlay"]["heads"])
    title = "Looking and deciding, head by head"
    if not heads.effects:
        title = "Where each head looks"
    elif not heads.looks:
        title = "What changing each head does"
    values = {"heads": heads, "overlays": seen is not None, "left_out": left_out}
    return Section("maps", title, values, {}, data)


def _look(one: Look) -> dict[str, Any]:
    figures = {name: numbers(values.ravel()) for name, values in one.figures.items()}
    return {"label": one.label, "rank": one.rank.ravel().tolist(), **figures}


def _effect(one: Effect) -> dict[str, Any]:
    figures = {name: numbers(values.ravel()) for name, values in one.figures.items()}
    floor = one.floor if np.isfinite(one.floor) else None
    return {"label": one.label, "kind": one.kind, "direction": one.direction, "where": one.where,
            "floor": floor, **figures}  # fmt: skip


def _codes(heads: Heads) -> list[int] | None:
    if heads.verdict is None:
        return None
    known = {name: code for code, name in enumerate(CLASSES)}
    return [known.get(str(name), len(CLASSES) - 1) for name in heads.verdict.ravel()]


def importance(heads: Heads) -> list[int]:
    """Order heads by their better place among those that look and those that act."""
    places = [one.rank.ravel() for one in heads.looks[:1]]
    for one in heads.effects[:2]:
        size = -np.nan_to_num(np.abs(one.normalized)).ravel()
        places.append(np.argsort(np.argsort(size, kind="stable")) + 1)
    best = np.min(places, axis=0)
    return [int(flat) for flat in np.argsort(best, kind="stable")]


def _first(heads: Heads) -> int:
    """The head that is shown first: the one that looks most, else the one that does most."""
    if heads.looks:
        return int(np.argmin(heads.looks[0].rank))
    return int(np.nanargmax(np.abs(heads.effects[0].normalized)))


def _overlays(results: Results, heads: Heads) -> tuple[dict[str, Any], str] | None:
    runs, part = results.pictures, results.first("attention_with_triangle.pt")
    if runs is None or part is None:
        return None
    with reading_of(part, "attention_with_triangle.pt"):
        depth, layers = len(runs[0]["lm_rows"]), list(heads.layers)
        if not len(runs[0]["image_positions"]) or max(layers) >= depth:
            return None
        if len(layers) < depth:
            own, other = ({**run, "lm_rows": run["lm_rows"][layers]} for run in runs)
            runs = own, other
        if runs[0]["lm_rows"].shape[:2] != heads.shape:
            return None
        found, text = overlays(runs, importance(heads))
        places = [np.asarray(run["image_positions"]) for run in runs]
        mass = [
            numbers(run["lm_rows"][..., at].sum(-1).astype(float).ravel())
            for run, at in zip(runs, places, strict=True)
        ]
        box = numbers(np.asarray(runs[0]["region_box"], np.float64))
        below = ground([np.asarray(run["image"], np.uint8) for run in runs])
    colours = [round(255 * part) for part in below]
    return {**found, "mass": mass, "box": box, "ground": colours}, text


def scatter(results: Results) -> Section | None:
    """Set attention difference against effect; None unless both are known of every head."""
    heads = heads_of(results)
    if heads is None or not heads.looks or not heads.effects:
        return None
    values = {"judged": heads.verdict is not None, "top": heads.top}
    data = {"scatter": {"top": heads.top}}
    return Section("scatter", "Does looking go with deciding?", values, {}, data)


def ranking(results: Results) -> Section | None:
    """Make a table of all heads to sort and search; None if no run says anything of every head."""
    heads = heads_of(results)
    if heads is None:
        return None
    verdict = heads.verdict
    values = {
        "judged": verdict is not None,
        "classes": [name for name in CLASSES if verdict is not None and (verdict == name).any()],
        "raw": bool(heads.looks) and "diff_raw" in heads.looks[0].figures,
    }
    columns = [*_look_columns(heads), *_effect_columns(heads)]
    return Section("ranking", "All heads", values, {}, {"columns": columns})


def _look_columns(heads: Heads) -> list[dict[str, Any]]:
    """Describe columns: where in the page's data each finds its values."""
    if not heads.looks:
        return []
    look = heads.looks[0]
    place = {"label": "Place", "title": "1 = largest attention difference",
             "from": ["looks", 0, "rank"], "kind": "place", "digits": 0}  # fmt: skip
    return [place] + [
        {"label": label, "title": f"{title} ({look.label})", "from": ["looks", 0, name],
         "kind": "number", "digits": 4 if name == "diff_raw" else 3}
        for name, (label, title) in _COLUMNS.items()
        if name in look.figures
    ]  # fmt: skip


def _effect_columns(heads: Heads) -> list[dict[str, Any]]:
    found = []
    for index, effect in enumerate(heads.effects):
        if (effect.kind, effect.where) != (heads.effects[0].kind, heads.effects[0].where):
            continue
        asked = {"noising": "Necessity", "denoising": "Sufficiency"}[effect.direction]
        ends = [["effects", index, "low"], ["effects", index, "high"]]
        found.append({"label": asked, "title": f"normalized effect of {effect.label}",
                      "from": ["effects", index, "normalized"],
                      "interval": ends if {"low", "high"} <= set(effect.figures) else None,
                      "floor": True, "kind": "number", "digits": 4})  # fmt: skip
        if "q" in effect.figures:
            found.append({"label": "q", "title": f"Benjamini-Hochberg q of {asked.lower()}",
                          "from": ["effects", index, "q"], "kind": "p", "digits": 3})  # fmt: skip
    return found


def tower(results: Results) -> Section | None:
    """Show what changing whole vision layers does; None without a verdict of them."""
    table, part = results.table("vision.csv", _LAYERS), results.first("vision.csv")
    if table is None or part is None or table.empty:
        return None
    with reading_of(part, "vision.csv"):
        layer = table["layer"].to_numpy().astype(int)
        mean, low, high = (table[f"necessity{end}"].to_numpy() for end in ("", "_low", "_high"))
        pairs = f"{int(table['pairs'].iloc[0]):,}"
    title = f"All heads of a layer together, mean over {pairs} pairs"
    layers = int(layer.max()) + 1
    first = int(np.nan_to_num(np.abs(mean)).argmax())
    at, down, up = (signed(float(one[first]), 3) for one in (mean, low, high))
    judged = {"pairs": pairs, "layer": str(layer[first]), "value": at,
              "interval": f"[{down}, {up}]"}  # fmt: skip
    line = {"type": "scatter", "mode": "lines+markers", "x": numbers(layer), "y": numbers(mean),
            "name": words("resample, noising"),
            "line": {"color": VERMILLION, "width": 2, "dash": "solid"},
            "marker": {"color": VERMILLION, "symbol": "circle", "size": 6}}  # fmt: skip
    layout = {
        "xaxis": layer_axis("vision layer", layers),
        "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
        "shapes": _unread(_feature(results, layers - 1), layers),
    }
    traces = [band(layer, low, high, VERMILLION, "interval over pairs"), line]
    spoken = f"Lines: {title.lower()}, by vision layer."
    figures = {"tower-judged": Figure(traces, layout, 300, spoken, title)}
    return Section("tower", "What changing vision heads does", {"judged": judged}, figures)


def _unread(feature: int, layers: int) -> list[dict[str, Any]]:
    """Shade the vision layers past the one that the language model reads."""
    guides = [Guide("x", feature + 0.5, layers - 0.4)] if feature < layers - 1 else []
    return [shape_of(guide, Scale()) for guide in guides]


def _feature(results: Results, last: int) -> int:
    """The vision layer that the language model reads, where a run says so; else the last one."""
    for name in ("spatial_vision_analysis.pt", "sweep.pt"):
        for part in results.having(name):
            saved = load(part, name, {})
            if "feature_layer" in saved:
                return int(saved["feature_layer"])
    return last

"""Looking and deciding, side by side: two linked maps of all heads, and the head that is chosen."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import reading
from headpatch.present.charts import SYMBOLS
from headpatch.present.section import Section, numbers
from headpatch.questions.verdict.charts import CLASSES
from headpatch.report.html.heads import VERDICTS, Effect, Heads, Look, heads_of
from headpatch.report.html.overlay import overlays


def section(results: Results) -> Section | None:
    """Make the maps; None if no run says anything of every head."""
    heads = heads_of(results)
    if heads is None:
        return None
    data: dict[str, Any] = {
        "heads": {
            "layers": heads.shape[0],
            "heads": heads.shape[1],
            "looks": [_look(one) for one in heads.looks],
            "effects": [_effect(one) for one in heads.effects],
            "verdicts": _codes(heads),
            "classes": [_class(name) for name in VERDICTS],
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
    values = {
        "heads": heads,
        "overlays": seen is not None,
        "left_out": left_out,
        "floor": heads.effects[0].floor if heads.effects else float("nan"),
    }
    return Section("maps", title, values, {}, data)


def _look(one: Look) -> dict[str, Any]:
    figures = {name: numbers(values.ravel()) for name, values in one.figures.items()}
    return {"label": one.label, "rank": one.rank.ravel().tolist(), **figures}


def _effect(one: Effect) -> dict[str, Any]:
    figures = {name: numbers(values.ravel()) for name, values in one.figures.items()}
    return {
        "label": one.label,
        "kind": one.kind,
        "direction": one.direction,
        "where": one.where,
        "floor": one.floor if np.isfinite(one.floor) else None,
        **figures,
    }


def _class(name: str) -> dict[str, str]:
    """A verdict's colour and marker, those of the figure ``verdict.png``."""
    look = CLASSES[name]
    return {"name": name, "color": look.color, "symbol": SYMBOLS[look.marker]}


def _codes(heads: Heads) -> list[int] | None:
    if heads.verdict is None:
        return None
    known = {name: code for code, name in enumerate(VERDICTS)}
    return [known.get(str(name), len(VERDICTS) - 1) for name in heads.verdict.ravel()]


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
    with reading(part.folder / "attention_with_triangle.pt"):
        if not len(runs[0]["image_positions"]) or runs[0]["lm_rows"].shape[:2] != heads.shape:
            return None
        found, text = overlays(runs, importance(heads))
        places = [np.asarray(run["image_positions"]) for run in runs]
        mass = [
            numbers(run["lm_rows"][..., at].sum(-1).astype(float).ravel())
            for run, at in zip(runs, places, strict=True)
        ]
        box = numbers(np.asarray(runs[0]["region_box"], np.float64))
    return {**found, "mass": mass, "box": box}, text

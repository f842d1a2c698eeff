"""What the views of `headpatch.analyses.path` found: one table, one file of curves, plain words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.analyses.cut import Cuts
from headpatch.analyses.path import Attribution, Curves, StreamCurves, edge_curves
from headpatch.analyses.path_heads import HeadPaths
from headpatch.analyses.session import Session
from headpatch.heads import Head
from headpatch.study import edge_ends

HALF = 0.5
"""The share of the difference that counts as carrying it."""
_SMALL = 0.05  # shares below this are called little
_TOKENS = {
    "region": "the region's image tokens",
    "other": "the other image tokens",
    "words": "the question's words",
    "answer": "the answer position",
    "before": "the text before the image",
}


@dataclass(frozen=True, eq=False)
class Path:
    """All views of one pair of pictures.

    Attributes
    ----------
    table
        The columns of ``path.csv``: a row for each figure.
    saved
        What ``path.pt`` holds.
    noise_floor
        The largest of the views, in logits.
    summary
        Plain sentences.
    """

    table: pd.DataFrame
    saved: dict[str, Any]
    noise_floor: float
    summary: tuple[str, ...]


def assemble(
    session: Session,
    streams: StreamCurves,
    cuts: Cuts,
    attribution: Attribution | None,
    heads: HeadPaths,
) -> Path:
    """Put the views together.

    Parameters
    ----------
    attribution
        None where LD cannot be attributed to the model's parts.
    """
    floor = max(streams.noise_floor, cuts.noise_floor, heads.noise_floor)
    edges = edge_curves(cuts)
    table = pd.DataFrame(_rows(session, streams, cuts, attribution, heads))
    saved = {
        "stream": _tensors(streams.lm),
        "vision": _tensors(streams.vision),
        "edges": _tensors(edges),
        "window": session.study.path.window,
        "feature_layer": -1 if session.vlm.feature_layer is None else session.vlm.feature_layer,
        "heads": [str(one) for one in heads.sets],
        "ways": [list(way) for way in heads.ways],
        "head_paths": {name: _tensor(values) for name, values in heads.normalized.items()},
        "head_paths_from_vision": {name: _tensor(values) for name, values in heads.vision.items()},
        "noise_floor": floor,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "valid": session.valid,
        "question": session.pair.question,
        "region_name": session.pair.region.name,
    }
    if attribution is not None:
        saved["attribution_heads"] = _tensor(attribution.heads)
        saved["attribution_mlps"] = _tensor(attribution.mlps)
        saved["attribution_rest"] = _tensor(attribution.rest)
    words = (
        *_where(streams),
        *_moves(edges, session.study.path.window),
        *_writers(attribution),
        *_listeners(heads),
        _caveat(session),
    )
    return Path(table, saved, floor, words)


def _tensor(values: Float[np.ndarray, "*shape"]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _tensors(curves: Curves) -> dict[str, dict[str, Tensor]]:
    return {
        name: {direction: _tensor(curve) for direction, curve in there.items()}
        for name, there in curves.items()
    }


def _rows(
    session: Session,
    streams: StreamCurves,
    cuts: Cuts,
    attribution: Attribution | None,
    heads: HeadPaths,
) -> Iterator[dict[str, Any]]:
    """Give every figure: what was looked at, where, in which direction, and its effect."""
    for tower, curves in (("vision", streams.vision), ("lm", streams.lm)):
        for name, there in curves.items():
            for direction, curve in there.items():
                effects = streams.effects[tower][name][direction]  # type: ignore[index]
                for layer, (effect, share) in enumerate(zip(effects, curve, strict=True)):
                    yield _row(session, "stream", tower, layer, name, "", direction, effect, share)
    for row in cuts.named.to_dict("records"):
        direction = "noising" if row["run"] == "with" else "denoising"
        yield _row(
            session, "edge", "lm", int(row["centre"]), row["edge"], "", direction,
            row["effect"], row["normalized"],
        )  # fmt: skip
    if attribution is not None:
        gap = session.base.ld_with - session.base.ld_without
        parts = {"mlp": attribution.mlps, "rest": attribution.rest}
        for layer, values in enumerate(attribution.heads):
            for head, share in enumerate(values):
                name = str(Head(layer, head))
                yield _row(session, "direct", "lm", layer, "head", name, "", share * gap, share)
            for part, by_layer in parts.items():
                share = by_layer[layer]
                yield _row(session, "direct", "lm", layer, part, "", "", share * gap, share)
    for direction, paths in heads.normalized.items():
        for way, (inputs, sender) in enumerate(heads.ways):
            for place, one in enumerate(heads.sets):
                effect = heads.effects[direction][way, place]
                where = f"{inputs} from {sender}"
                yield _row(
                    session, "head path", "lm", None, where, str(one), direction, effect,
                    paths[way, place],
                )  # fmt: skip
    for direction, curve in heads.vision.items():
        for layer, values in enumerate(curve):
            for one, share in zip(heads.sets, values, strict=True):
                words = "keys+values from region of the vision layer"
                yield _row(
                    session, "head path", "vision", layer, words, str(one), direction, None, share
                )


def _row(
    session: Session,
    view: str,
    tower: str,
    layer: int | None,
    where: str,
    heads: str,
    direction: str,
    effect: float | None,
    normalized: float,
) -> dict[str, Any]:
    return {
        "pair": session.pair.name,
        "view": view,
        "tower": tower,
        "layer": "" if layer is None else layer,
        "where": where,
        "heads": heads,
        "direction": direction,
        "effect": np.nan if effect is None else effect,
        "normalized": normalized,
    }


def _where(streams: StreamCurves) -> Iterator[str]:
    """Say which tokens hold the difference at which depth."""
    if (whole := streams.vision.get("all")) is not None:
        curve = whole["denoising"]
        carrying = np.flatnonzero(curve >= HALF)
        if len(carrying):
            last, unread = int(carrying[-1]), len(curve) - 1 - int(carrying[-1])
            after = "layer after it carries" if unread == 1 else f"{unread} layers after it carry"
            rest = _share(float(np.abs(curve[last + 1 :]).max(initial=0.0)))
            tail = f"; the {after} {rest}" if unread else ""
            carried = _share(curve[last])
            yield f"The vision tower's output carries {carried} up to layer {last}{tail}."
    for name in ("region", "other", "words", "answer"):
        if (there := streams.lm.get(name)) is None:
            continue
        yield _held(_TOKENS[name], there)
    yield from _twice(streams)


def _twice(streams: StreamCurves) -> Iterator[str]:
    """Say where the difference is held in two places, so that neither alone is needed."""
    names = [name for name in _TOKENS if name in streams.lm]
    noising, denoising = (
        np.stack([streams.lm[name][direction] for name in names])
        for direction in ("noising", "denoising")
    )
    copied = ((denoising >= HALF).sum(0) > 1) & (noising < HALF).all(0)
    if copied.any():
        layers = np.flatnonzero(copied)
        holders = [
            _TOKENS[name] for name, row in zip(names, denoising, strict=True)
            if (row[layers] >= HALF).all()
        ]  # fmt: skip
        yield (
            f"It is held twice {_span(layers, len(copied))}, by {' and '.join(holders)}: either is "
            "enough, neither is needed."
        )


def _held(tokens: str, there: Mapping[str, Float[np.ndarray, " layers"]]) -> str:
    """Describe where one class of tokens carries half of the difference."""
    words = []
    for direction, curve in there.items():
        holding = np.flatnonzero(curve >= HALF)
        if len(holding):
            words.append((direction, _span(holding, len(curve))))
        else:
            peak = int(np.argmax(np.abs(curve)))
            most = f"at most {_share(curve[peak])}"
            words.append(
                (direction, most if abs(curve[peak]) < _SMALL else f"{most} (layer {peak})")
            )
    if len({span for _, span in words}) == 1:
        said = f"{words[0][1]} ({' and '.join(direction for direction, _ in words)})"
    else:
        said = ", ".join(f"{span} ({direction})" for direction, span in words)
    half = any(np.any(curve >= HALF) for curve in there.values())
    carry = "carries" if tokens.endswith("position") else "carry"
    much = " half of the difference or more" if half else ""
    return f"{tokens[0].upper()}{tokens[1:]} {carry}{much} {said}."


def _span(holding: Any, layers: int) -> str:
    first, last = int(holding[0]), int(holding[-1])
    gaps = " with gaps" if len(holding) < last - first + 1 else ""
    if first == 0 and last == layers - 1:
        return f"in every layer{gaps}"
    if first == 0:
        return f"up to layer {last}{gaps}"
    if last == layers - 1:
        return f"from layer {first} on{gaps}"
    return f"in layers {first}-{last}{gaps}" if last > first else f"in layer {first}"


def _moves(edges: Curves, window: int) -> Iterator[str]:
    """Say which window's cut does most, edge by edge."""
    said = []
    for edge, there in edges.items():
        start, end = edge_ends(edge)
        curve = there.get("noising", next(iter(there.values())))
        if not np.isfinite(curve).any():
            continue
        centre = int(np.nanargmax(np.abs(curve)))
        first = max(centre - window // 2, 0)
        last = min(centre - window // 2 + window, len(curve)) - 1
        said.append(f"{start} → {end} {_share(curve[centre])} (layers {first}-{last})")
    if said:
        yield (
            f"Cutting attention in {window} layers takes, at its largest: {', '.join(said)}. "
            "(A cut also takes away what both runs share.)"
        )


def _writers(attribution: Attribution | None) -> Iterator[str]:
    """Say which parts write most of the difference straight into the logits."""
    if attribution is None or not np.isfinite(attribution.mlps).all():
        return
    named = {f"MLP {layer}": share for layer, share in enumerate(attribution.mlps)}
    named |= {
        f"head {Head(layer, head)}": attribution.heads[layer, head]
        for layer, head in np.ndindex(*attribution.heads.shape)
    }
    first = sorted(named, key=lambda name: -abs(named[name]))[:5]
    listed = ", ".join(f"{name} {_share(named[name])}" for name in first)
    yield (
        f"Written straight into LD: heads {_share(attribution.heads.sum())}, MLPs "
        f"{_share(attribution.mlps.sum())}; most by {listed}."
    )


def _listeners(heads: HeadPaths) -> Iterator[str]:
    """Say, head by head, which input carries what."""
    place = {way: index for index, way in enumerate(heads.ways)}
    rows = {
        "all inputs": ("all", "all"),
        "its values at the region": ("values", "region"),
        "where it looks (query and keys)": ("query+keys", "all"),
    }
    for direction, paths in heads.normalized.items():
        for index, one in enumerate(heads.sets):
            whole = paths[place["all", "all"], index]
            if not np.isfinite(whole) or abs(whole) < _SMALL:
                continue
            name = str(one) if len(one) < 3 else f"all {len(one)} heads"
            said = [
                f"{words} {_share(paths[place[way], index])}"
                for words, way in rows.items()
                if way in place
            ]
            yield f"Paths to {name} ({direction}): {', '.join(said)}."


def _caveat(session: Session) -> str:
    if not session.valid:
        return "The study is INVALID (the answers do not flip): these figures say nothing."
    return "Shares of the difference between the runs. One pair shows one case, not a rule."


def _share(value: float) -> str:
    return f"{value:.0%}" if abs(value) >= 0.005 else "0%"

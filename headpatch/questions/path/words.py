"""What the views of one pair show, in plain sentences."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool

from headpatch.core.session import Session
from headpatch.core.study import edge_ends
from headpatch.engine.interventions import Direction
from headpatch.heads import Head, HeadSet
from headpatch.questions.path.direct import Attribution
from headpatch.questions.path.heads import HeadPaths, Way
from headpatch.questions.path.stream import Curve, Curves, StreamCurves
from headpatch.questions.path.views import Views

HALF = 0.5
"""The share of the difference that counts as carrying it."""
SMALL = 0.05
"""Shares below this are called little."""
PATCHES = "the region's patches in the vision tower"
TOKENS: Mapping[str, str] = {
    "region": "the region's image tokens",
    "other": "the other image tokens",
    "words": "the question's words",
    "answer": "the answer position",
    "before": "the text before the image",
}
"""Classes of the language model's tokens, as a sentence names them."""
HEARD: Mapping[str, Way] = {
    "all inputs": ("all", "all"),
    "its values at the region": ("values", "region"),
    "where it looks (query and keys)": ("query+keys", "all"),
}
"""Paths to heads that a sentence speaks of."""


def sentences(session: Session, views: Views) -> tuple[str, ...]:
    """Say what one pair shows, and no more."""
    return (
        *_where(views.stream),
        *_moves(views.edges.shares, session.study.path.window),
        *_writers(views.attribution),
        *_listeners(views.heads),
        _caveat(session, views),
    )


def span(holding: Bool[np.ndarray, " layers"]) -> str:
    """Say in which layers something holds; it must in one."""
    layers = np.flatnonzero(holding)
    first, last, count = int(layers[0]), int(layers[-1]), len(holding)
    gaps = " with gaps" if len(layers) < last - first + 1 else ""
    if first == 0 and last == count - 1:
        return f"in every layer{gaps}"
    if first == 0:
        return f"up to layer {last}{gaps}"
    if last == count - 1:
        return f"from layer {first} on{gaps}"
    return f"in layers {first}-{last}{gaps}" if last > first else f"in layer {first}"


def percent(value: float) -> str:
    """Write a share; what rounds to nothing has no sign."""
    return f"{value:.0%}" if abs(value) >= 0.005 else "0%"


def carrying(tokens: str, where: str, half: bool) -> str:
    """Say where one class of tokens carries half of the difference, or how little it carries."""
    carry = "carries" if tokens.endswith("position") else "carry"
    much = " half of the difference or more" if half else ""
    return f"{tokens[0].upper()}{tokens[1:]} {carry}{much} {where}."


def unread(layers: int) -> str:
    """Name the vision layers behind the last one that carries anything."""
    return "layer after it carries" if layers == 1 else f"{layers} layers after it carry"


def window(centre: int, width: int, layers: int) -> str:
    """Name the layers of a window, as `headpatch.questions.cut.one` cuts them."""
    first = centre - width // 2
    last = min(first + width, layers) - 1
    return f"layers {max(first, 0)}-{last}" if last > max(first, 0) else f"layer {last}"


def depth(width: int) -> str:
    """Say how many layers a window holds."""
    return "1 layer" if width == 1 else f"{width} layers"


def set_name(heads: HeadSet) -> str:
    """Name one or two heads, count more."""
    return str(heads) if len(heads) < 3 else f"all {len(heads)} heads"


def _where(found: StreamCurves) -> Iterator[str]:
    """Say which tokens hold the difference at which depth."""
    vision, lm = found.shares["vision"], found.shares["lm"]
    if (whole := vision.get("all")) is not None:
        curve = whole["denoising"]
        if (curve >= HALF).any():
            last = int(np.flatnonzero(curve >= HALF)[-1])
            behind = curve[last + 1 :]
            rest = percent(float(np.abs(behind).max(initial=0.0)))
            tail = f"; the {unread(len(behind))} {rest}" if len(behind) else ""
            carried = percent(curve[last])
            yield f"The vision tower's output carries {carried} up to layer {last}{tail}."
    if "region" in vision:
        yield _held(PATCHES, vision["region"])
    yield from (_held(TOKENS[name], lm[name]) for name in TOKENS if name in lm and name != "before")
    yield from _twice(lm)


def _twice(lm: Curves) -> Iterator[str]:
    """Say where the difference is held in two places, so that neither alone is needed."""
    names = [name for name in TOKENS if name in lm]
    noising, denoising = (
        np.stack([lm[name][direction] for name in names]) for direction in ("noising", "denoising")
    )
    copied = twice(noising, denoising)
    if copied.any():
        holders = [
            TOKENS[name] for name, row in zip(names, denoising, strict=True)
            if (row[copied] >= HALF).all()
        ]  # fmt: skip
        yield (
            f"It is held twice {span(copied)}, by {' and '.join(holders)}: either is enough, "
            "neither is needed."
        )


def twice(noising: np.ndarray, denoising: np.ndarray) -> Bool[np.ndarray, "*pairs layers"]:
    """Say in which layers the difference is held in two places; classes of tokens come first."""
    held: Bool[np.ndarray, "*pairs layers"] = (denoising >= HALF).sum(0) > 1
    return held & (noising < HALF).all(0)


def _held(tokens: str, there: Mapping[Direction, Curve]) -> str:
    """Describe where one class of tokens carries half of the difference."""
    said: dict[Direction, str] = {}
    for direction, curve in there.items():
        if (curve >= HALF).any():
            said[direction] = span(curve >= HALF)
            continue
        peak = int(np.argmax(np.abs(curve)))
        most = f"at most {percent(curve[peak])}"
        said[direction] = most if abs(curve[peak]) < SMALL else f"{most} (layer {peak})"
    if len(set(said.values())) == 1:
        where = f"{next(iter(said.values()))} ({' and '.join(said)})"
    else:
        where = ", ".join(f"{words} ({direction})" for direction, words in said.items())
    return carrying(tokens, where, any((curve >= HALF).any() for curve in there.values()))


def _moves(edges: Curves, width: int) -> Iterator[str]:
    """Say which window's cut does most, edge by edge."""
    said = []
    for edge, there in edges.items():
        start, end = edge_ends(edge)
        curve = there["noising"]
        if not np.isfinite(curve).any():
            continue
        centre = int(np.nanargmax(np.abs(curve)))
        layers = window(centre, width, len(curve))
        said.append(f"{start} → {end} {percent(curve[centre])} ({layers})")
    if said:
        yield (
            f"Cutting attention in {depth(width)} takes, at its largest: {', '.join(said)}. "
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
    listed = ", ".join(f"{name} {percent(named[name])}" for name in first)
    yield (
        f"Written straight into LD: heads {percent(attribution.heads.sum())}, MLPs "
        f"{percent(attribution.mlps.sum())}; most by {listed}."
    )


def _listeners(heads: HeadPaths | None) -> Iterator[str]:
    """Say, head by head, which input carries what."""
    if heads is None:
        return
    place = {way: index for index, way in enumerate(heads.ways)}
    for direction, paths in heads.shares.items():
        for index, one in enumerate(heads.sets):
            whole = paths[place["all", "all"], index]
            if not np.isfinite(whole) or abs(whole) < SMALL:
                continue
            said = [
                f"{words} {percent(paths[place[way], index])}"
                for words, way in HEARD.items()
                if way in place
            ]
            yield f"Paths to {set_name(one)} ({direction}): {', '.join(said)}."


def _caveat(session: Session, views: Views) -> str:
    if not session.valid:
        return "The study is INVALID (its answers are not Yes and No): these figures say nothing."
    return (
        f"Shares of the difference between the runs (noise floor {views.noise_floor:.1e} logits). "
        "One pair shows one case, not a rule."
    )

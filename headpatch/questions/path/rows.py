"""Every figure of the views as a row of one table, and the table's curves as tensors."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.heads import Head, Tower
from headpatch.models.vlm import VLM
from headpatch.questions.path.direct import Attribution
from headpatch.questions.path.edges import EdgeCurves
from headpatch.questions.path.heads import HeadPaths
from headpatch.questions.path.stream import StreamCurves
from headpatch.questions.path.views import Views

KEYS = ("view", "tower", "layer", "where", "heads", "direction")
"""Columns that say what a row is about; the same for every pair of pictures."""
Row: TypeAlias = dict[str, Any]
ByDirection: TypeAlias = dict[str, Tensor]


def rows_of(session: Session, views: Views) -> pd.DataFrame:
    """Return the columns of ``path.csv``: `KEYS` behind the pair, then the effect.

    ``effect`` is in logits, ``normalized`` a share of the difference between the pair's runs.
    """
    found = [*_stream(views.stream), *_edges(views.edges)]
    if views.attribution is not None:
        found += _direct(views.attribution, session.base.ld_with - session.base.ld_without)
    if views.heads is not None:
        found += _head_paths(views.heads)
    table = pd.DataFrame(found)
    table.insert(0, "pair", session.pair.name)
    return table


def _row(
    view: str,
    tower: Tower,
    layer: int | None,
    where: str,
    heads: str,
    direction: str,
    effect: float,
    normalized: float,
) -> Row:
    return {
        "view": view,
        "tower": tower,
        "layer": "" if layer is None else layer,
        "where": where,
        "heads": heads,
        "direction": direction,
        "effect": effect,
        "normalized": normalized,
    }


def _stream(found: StreamCurves) -> Iterator[Row]:
    for tower, curves in found.effects.items():
        for name, there in curves.items():
            for way, effects in there.items():
                shares = found.shares[tower][name][way]
                for layer, (effect, share) in enumerate(zip(effects, shares, strict=True)):
                    yield _row("stream", tower, layer, name, "", way, effect, share)


def _edges(found: EdgeCurves) -> Iterator[Row]:
    for edge, there in found.effects.items():
        for way, effects in there.items():
            for layer, (effect, share) in enumerate(
                zip(effects, found.shares[edge][way], strict=True)
            ):
                yield _row("edge", "lm", layer, edge, "", way, effect, share)


def _direct(found: Attribution, gap: float) -> Iterator[Row]:
    for layer, shares in enumerate(found.heads):
        for head, share in enumerate(shares):
            name = str(Head(layer, head))
            yield _row("direct", "lm", layer, "head", name, "", share * gap, share)
        for part, share in (("mlp", found.mlps[layer]), ("rest", found.rest[layer])):
            yield _row("direct", "lm", layer, part, "", "", share * gap, share)


def _head_paths(found: HeadPaths) -> Iterator[Row]:
    names = [str(one) for one in found.sets]
    for way, effects in found.effects.items():
        shares = found.shares[way]
        for index, (inputs, sender) in enumerate(found.ways):
            where = f"{inputs} from {sender}"
            for place, heads in enumerate(names):
                at = index, place
                yield _row("head path", "lm", None, where, heads, way, effects[at], shares[at])
    for way, effects in found.vision_effects.items():
        shares, where = found.vision_shares[way], "keys+values from region of the vision layer"
        for layer in range(len(effects)):
            for place, heads in enumerate(names):
                at = layer, place
                yield _row("head path", "vision", layer, where, heads, way, effects[at], shares[at])


def curves(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return a column of one pair's rows, or of their means, as ``path.pt`` holds it.

    Curves over the layers by tokens (or edge) and direction, and what named heads hear by
    direction; ``attribution_…`` where LD was attributed.
    """
    view, tower = table["view"], table["tower"]
    direct, paths = table[view == "direct"], table[view == "head path"]
    found: dict[str, Any] = {
        "stream": _by_layer(table[(view == "stream") & (tower == "lm")], column),
        "vision": _by_layer(table[(view == "stream") & (tower == "vision")], column),
        "edges": _by_layer(table[view == "edge"], column),
        "head_paths": _by_set(paths[paths["tower"] == "lm"], column),
        "head_paths_from_vision": _by_set(paths[paths["tower"] == "vision"], column),
    }
    if len(direct):
        parts = {name: tensor(rows[column]) for name, rows in direct.groupby("where", sort=False)}
        layers = len(parts["mlp"])
        found["attribution_heads"] = parts["head"].view(layers, -1)
        found["attribution_mlps"], found["attribution_rest"] = parts["mlp"], parts["rest"]
    return found


def scale_of(study: Study, vlm: VLM) -> dict[str, int]:
    """Return what the layers of the curves stand for: windows, and which layer is read."""
    layer = vlm.feature_layer
    return {"window": study.path.window, "feature_layer": -1 if layer is None else layer}


def labels(table: pd.DataFrame) -> dict[str, Any]:
    """Return what stands along the axes of ``head_paths``: sets of heads, and ways."""
    paths = table[(table["view"] == "head path") & (table["tower"] == "lm")]
    ways = (str(where).partition(" from ") for where in paths["where"].unique())
    return {
        "heads": [str(one) for one in paths["heads"].unique()],
        "ways": [[inputs, sender] for inputs, _, sender in ways],
    }


def tensor(values: ArrayLike) -> Tensor:
    """Return values as float32."""
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=torch.float32)


def _by_layer(table: pd.DataFrame, column: str) -> dict[str, ByDirection]:
    found: dict[str, ByDirection] = {}
    for (where, way), rows in table.groupby(["where", "direction"], sort=False):
        found.setdefault(str(where), {})[str(way)] = tensor(rows[column])
    return found


def _by_set(table: pd.DataFrame, column: str) -> ByDirection:
    """Cut rows into one tensor a direction: ``[ways or vision layers, sets]``."""
    found: ByDirection = {}
    for way, rows in table.groupby("direction", sort=False):
        found[str(way)] = tensor(rows[column]).view(-1, rows["heads"].nunique())
    return found

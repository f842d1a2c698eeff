"""Edges between heads: estimated for all, exact for the first and for as many random ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor

from headpatch.core.question import Context
from headpatch.heads import Head
from headpatch.present.parts import Part, Words, grid
from headpatch.questions.sweep.columns import EDGES, IG
from headpatch.stats.agreement import agreement

if TYPE_CHECKING:
    import pandas

    from headpatch.core.session import Session

_LARGEST, _RANDOM = "largest", "random"
_WAYS: Final = ("noising", "denoising")
_WHAT: Final = (
    "An edge runs from a head's writes at all tokens to a later head's z at the answer position: "
    "that head alone hears what the first would write in the other run. Estimates are of every "
    "edge (approx.pt), to first order; the exact effects, of the {n} largest and of as many random "
    "ones of each direction, say what they are worth."
)


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges of one pair: the columns of ``edges.csv``, and every estimate in logits.

    `scores` are ``[layers, heads, layers, heads]``, sender before receiver, by kind and direction
    as `headpatch.questions.sweep.agreement.Estimates` names them.
    """

    table: "pandas.DataFrame"
    scores: Mapping[str, Tensor]


def edges_of(session: "Session") -> Edges:
    """Estimate every edge, and patch some of them."""
    import pandas as pd

    from headpatch.engine.edges import Edge, edge_effects, edge_scores

    options, vlm, base = session.study.sweep, session.vlm, session.base
    found = {"": edge_scores(vlm, base)}
    if options.ig is not None:
        found[IG] = edge_scores(vlm, base, options.ig)
    count = options.edges or 0
    chosen, rows = list[Edge](), list[dict[str, Any]]()
    for run, way in enumerate(_WAYS):
        of_run = [one[run] for one in found.values()]
        for place, role in _places(of_run, count, session.study.seed):
            sender, receiver = Head(place[0], place[1]), Head(place[2], place[3])
            chosen.append(Edge(run, sender, receiver))
            names = {"pair": session.pair.name, "direction": way, "role": role}
            own = {f"approx{by.replace('-', '_')}": float(one[run][place])
                   for by, one in found.items()}  # fmt: skip
            rows.append({**names, "sender": str(sender), "receiver": str(receiver), **own})
    gap = base.ld_with - base.ld_without
    for row, effect in zip(rows, edge_effects(vlm, base, chosen), strict=True):
        sign = -1 if row["direction"] == "noising" else 1
        row |= {"effect": effect, "normalized": sign * effect / gap}
    scores = {f"resample{by}_{way}": one[run] for by, one in found.items()
              for run, way in enumerate(_WAYS)}  # fmt: skip
    return Edges(pd.DataFrame(EDGES.ordered(pd.DataFrame(rows))), scores)


def _places(
    scores: Sequence[Tensor], count: int, seed: int
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the places of each estimate's largest edges, each once, and of random ones."""
    layers, heads = scores[0].shape[:2]
    first: dict[int, str] = {}
    for one in scores:
        order = one.abs().flatten().topk(min(count, one.numel()))
        first |= dict.fromkeys(order.indices[order.values > 0].tolist(), _LARGEST)
    sender, _, receiver, _ = np.indices((layers, heads, layers, heads), dtype=np.int16)
    there = np.flatnonzero((sender < receiver).ravel())
    rng = np.random.default_rng([seed % 2**64, layers])  # numpy takes no negative seed
    for place in rng.choice(there, min(count, len(there)), replace=False).tolist():
        first.setdefault(place, _RANDOM)
    for place, role in first.items():
        yield tuple(map(int, np.unravel_index(place, scores[0].shape))), role


def edges_view(table: "pandas.DataFrame", context: Context) -> Iterator[Part]:
    """Show the edges of largest exact effect, and what the estimates are worth."""
    count = int(context.options.get("edges") or 0)
    shown = table.loc[table["effect"].abs().sort_values(ascending=False, kind="stable").index]
    by = [name for name in ("approx", "approx_ig") if name in table]
    cells: dict[str, Any] = {
        "from": "sender",
        "to": "receiver",
        "effect": "effect",
        "normalized": "normalized",
        **{name.replace("_", " "): name for name in by},
        "chosen": "role",
    }
    for way, part in shown.groupby("direction", sort=True):
        yield grid(f"Edges between heads, {way}: largest effects", part.head(10), cells, EDGES)
    said = []
    for name in by:
        for role in (_LARGEST, _RANDOM):
            part = table[table["role"] == role]
            if len(part) > 1:
                measured = agreement(part[name].to_numpy(), part["effect"].to_numpy(), count)
                r = "undefined" if isnan(measured.pearson) else f"{measured.pearson:+.2f}"
                said.append(f"{name.replace('_', ' ')}, {len(part)} {role}: {r}")
    yield Words(f"{_WHAT.format(n=count)} Pearson's r with the exact effects: {'; '.join(said)}.")

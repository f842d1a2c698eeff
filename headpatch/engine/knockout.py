"""Attention knockout on a pair: cut edges in one run and measure the shift of LD.

Two paths give the same numbers. The plain one is whole forward passes. The resumed one starts at
the first layer that is cut, from what the untouched run left there, and carries only the positions
from the first query on: a cut changes nothing before it, in layers or (read causally) in
positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from headpatch.engine.attention import Mask, attention_rows, weigh
from headpatch.engine.forward import forward
from headpatch.engine.from_layer import (
    ResumedSite,
    answer_of,
    apart,
    refusal,
    resuming,
    run_in_order,
)
from headpatch.engine.interventions import Cut, edges_by_layer
from headpatch.engine.patching import Baseline, OnProgress, Outcome
from headpatch.engine.prefill import Prefill
from headpatch.engine.taps import allowed_edges
from headpatch.engine.widening import step
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Knockout:
    """Edges of language-model heads, cut in one run of the pair: see `Cut`.

    Without any key nothing is cut, which measures the noise floor.
    """

    run: int
    heads: HeadSet
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    own: bool = False

    def cut(self, row: int) -> Cut:
        """Return it as row `row` of a batch."""
        return Cut(row, self.heads, self.queries, self.keys, self.own)

    @property
    def entry(self) -> int:
        """The first layer that is cut."""
        return min(head.layer for head in self.heads)

    @property
    def start(self) -> int:
        """The first position that may change."""
        return int(self.queries.min())


def knock_out(
    vlm: VLM,
    base: Baseline,
    knockouts: Sequence[Knockout],
    on_progress: OnProgress | None = None,
    resumed: bool = False,
) -> list[Outcome[Knockout]]:
    """Run knockouts, several to a batch.

    With `resumed` from the first layer that is cut (see `disagreement`); `base`
    must then keep prefills from the first query of any knockout, else it is a ValueError.
    """

    def logits(rows: list[Knockout]) -> Tensor:
        run = rows[0].run
        if resumed:
            return _resumed(vlm, base.trace.prefills[run], rows)
        prompt = base.prompt.select(run).repeat(len(rows) + 1)
        cuts = [one.cut(row) for row, one in enumerate(rows, start=1)]
        return forward(vlm, prompt, cuts=cuts, exact=True).logits

    refused = partial(_refusal, base) if resumed else None
    return run_in_order(vlm, base, knockouts, attrgetter("entry"), logits, refused, on_progress)


def _refusal(base: Baseline, one: Knockout) -> str:
    return refusal(base.trace.prefills, one.start)


def disagreement(vlm: VLM, base: Baseline, probes: Sequence[Knockout]) -> float:
    """Return how far resumed and whole passes lie apart on `probes`, in logits.

    Infinite where a pass cannot be resumed; otherwise rounding, if resuming is exact.
    """
    if any(_refusal(base, one) for one in probes):
        return float("inf")
    return apart(
        lambda: knock_out(vlm, base, probes, resumed=True), lambda: knock_out(vlm, base, probes)
    )


@dataclass(eq=False)
class _Site(ResumedSite):
    """The attention of one layer while a pass is resumed, less its cut edges."""

    cuts: list[tuple[Cut, list[int]]] = field(default_factory=list)

    def __call__(
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        if not self.cuts:
            return super().__call__(module, query, key, value, mask, **options)
        state = self.prefill.layers[self.layer]
        rows, heads, suffix, _ = query.shape
        key = torch.cat([state.key.expand(rows, -1, -1, -1), key], 2)
        value = torch.cat([state.value.expand(rows, -1, -1, -1), value], 2)
        here = torch.arange(suffix, device=query.device)
        shape = rows, heads, suffix, key.shape[2]
        allowed, _ = allowed_edges(self.cuts, here + self.prefill.start, shape)
        kept = attention_rows(module, query, key, state.mask, here, allowed, **options)
        return weigh(kept, value)


@torch.no_grad()
def _resumed(
    vlm: VLM, prefill: Prefill, rows: Sequence[Knockout]
) -> Float[Tensor, "rows_ vocabulary"]:
    """Return the answer logits of every row, the untouched one first."""
    sites = [_Site(prefill, layer) for layer in range(len(prefill.layers))]
    for row, one in enumerate(rows, start=1):
        cut = one.cut(row)
        for _, layer, numbers in edges_by_layer(vlm, cut):
            sites[layer].cuts.append((cut, numbers))
    first = min(one.entry for one in rows)
    hidden = prefill.layers[first].hidden.expand(len(rows) + 1, -1, -1)
    with resuming(vlm, sites):
        for index in range(first, len(sites)):
            hidden = step(vlm, prefill, index, hidden)
        return answer_of(vlm, hidden, prefill)

"""Greedy answers while heads are changed: at the prompt, and at every token that is said.

transformers' own generation runs, with its cache, through headpatch's attention function: a pass of
the whole prompt, whose z is edited where `headpatch.engine.patching.z_edits` says, then a pass a
token, whose only z is changed too, if asked for; attention that is re-weighted is so there as well.
So what is said is what plain transformers says with hooks on the attention output projections, and
with attention whose weights are edited, token for token.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from headpatch.engine.answers import greedily, up_to_the_end
from headpatch.engine.attention import Mask, tapped
from headpatch.engine.interventions import Intervention, edges_by_layer
from headpatch.engine.memory import halving, split
from headpatch.engine.patching import PLAIN_BATCH, Baseline, OnProgress, ZMeans, cut_of, z_edits
from headpatch.engine.precision import is_low, raised
from headpatch.engine.taps import Site, at_outputs
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.kinds import KINDS
from headpatch.models.joined import joined
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class TokenEdit:
    """One head's z in one row of a batch, at every token that is said."""

    row: int
    head: Head
    factor: float  # of the head's own z there: 0 takes it away
    value: Tensor | None = None  # ``[head_dim]``, in its place


@dataclass(eq=False)
class _Site(Site):
    """A tap that changes z in the pass of the prompt, and in those of single tokens."""

    length: int = 0  # of the prompt
    tokens: list[TokenEdit] = field(default_factory=list)
    read: int = 0  # tokens, before the pass that runs

    @property
    def edited(self) -> bool:
        """Whether a z is replaced here, in the prompt or at a token."""
        return bool(self.edits or self.tokens)

    def __call__(
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        if query.shape[2] not in (1, self.length):
            raise RunError(f"{query.shape[2]} tokens were read at once, neither the prompt nor one")
        z = super().__call__(module, query, key, value, mask, **options)
        self.read += query.shape[2]
        return z

    def _replace(self, z: Tensor) -> Tensor:
        if z.shape[1] == self.length:
            return super()._replace(z)
        z = z.clone()
        for one in self.tokens:
            own = z[one.row, 0, one.head.head]
            own.copy_(own * one.factor if one.value is None else one.value.to(own))
        return z

    def _cut(self, z: Tensor, *taken: Any, **options: Any) -> Tensor:
        """Leave out keys that a cache with a window has let go of; the others count from there."""
        _, query, key, *_ = taken
        gone, every = self.read + query.shape[2] - key.shape[2], self.cuts
        self.cuts = [
            (
                replace(cut, queries=cut.queries - gone, keys=cut.keys[cut.keys >= gone] - gone),
                heads,
            )
            for cut, heads in every
        ]
        try:
            return super()._cut(z, *taken, **options)
        finally:
            self.cuts = every


@torch.no_grad()
def generate_changed(
    vlm: VLM,
    base: Baseline,
    interventions: Sequence[Intervention],
    tokens: int,
    through_text: bool = True,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> list[list[int]]:
    """Return at most `tokens` greedy tokens of the untouched run, then of it under each change.

    All changes are of one run and of language-model heads; without `through_text` they end with
    the prompt. At a token that is said, z becomes 0 (`zero`), alpha times itself (`scale`) or its
    mean at the answer position (`mean`), or follows from attention that is re-weighted there, too
    (`reweight`): `resample` and its like, which have no z there, are a
    ValueError. Changes of the prompt are those of `headpatch.engine.patching.patch`: `scale` takes
    the untouched run's z. Low-precision weights are computed with in float32. Ids end before the
    first special token; what does not fit into memory is halved, as everywhere.
    """
    (run,) = {one.run for one in interventions} or {0}
    base = base.seen_from(run)
    prompt = base.prompt.select(run)

    def passes(asked: list[Intervention]) -> list[list[int]]:
        batch = prompt.repeat(len(asked) + 1)
        sites = _sites(vlm, base, asked, tokens if through_text else 0, means)
        inputs = {
            key: value.float() if is_low(vlm) and value.is_floating_point() else value
            for key, value in batch.inputs.items()
        }
        with ExitStack() as stack:
            for one in (raised(vlm), at_outputs([vlm.lm], sites), tapped(vlm.parts, sites)):
                stack.enter_context(one)
            stack.enter_context(greedily(vlm))
            ids = vlm.model.generate(
                **joined(inputs),
                max_new_tokens=tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
            )
        return up_to_the_end(vlm, ids[:, batch.spans.length :].tolist())

    found: list[list[int]] = []
    batches = split(list(interventions), PLAIN_BATCH - 1) or [[]]
    for _, said in halving(batches, passes, vlm.device):
        found += said if not found else said[1:]
        if on_progress:
            on_progress(len(found) - 1, len(interventions))
    return found


def _sites(
    vlm: VLM, base: Baseline, asked: Sequence[Intervention], tokens: int, means: ZMeans | None
) -> dict[Module, _Site]:
    """Hang up taps; changes go on for so many tokens after the prompt."""
    sites: dict[Module, _Site] = {}
    length = base.prompt.spans.length

    def at(head: Head) -> _Site:
        if head.tower != "lm":
            raise ValueError(f"{head} is no head of the language model")
        return sites.setdefault(vlm.attention(head), _Site(length=length))

    for row, one in enumerate(asked, start=1):
        for edit in z_edits(vlm, row, one, base, means):
            at(edit.head).edits.append(edit)
        if (cut := cut_of(row, one, base)) is not None:
            said = torch.arange(length, length + tokens)
            cut = replace(cut, queries=torch.cat([cut.queries, said.to(cut.queries)]))
            for _, layer, numbers in edges_by_layer(vlm, cut):
                at(Head(layer, numbers[0])).cuts.append((cut, numbers))
        elif tokens:
            for head in one.heads:
                at(head).tokens.append(_token_edit(row, head, one, means))
    return sites


def _token_edit(row: int, head: Head, one: Intervention, means: ZMeans | None) -> TokenEdit:
    source = KINDS[one.kind].source
    if source == "nothing":
        return TokenEdit(row, head, 0.0)
    if source == "own":
        return TokenEdit(row, head, 1.0 if one.alpha is None else one.alpha)
    if source == "mean" and means is not None:
        return TokenEdit(row, head, 1.0, means["lm"][head.layer][-1, head.head])
    raise ValueError(f"kind {one.kind!r} has no z at a token that is said")

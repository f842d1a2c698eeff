"""Every head in one widening pass.

A change at the last positions leaves every earlier key and value as it was. So the pair is run
once, the keys and values are kept, and then the layers are walked once with a batch that starts as
the untouched run alone: at each layer, rows whose heads sit there join it as copies of the
untouched row with those heads' z replaced, and walk on together. Every row is exact: it does the
arithmetic of its own forward pass, less what it shares with the untouched run.

The model's own layers do the work. Only attention differs: the kept prefix is attended by all rows
in one batched product, without a copy of it for each row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import Module, functional

from headpatch.engine.attention import Mask, tapped
from headpatch.engine.delta_forward import deviating
from headpatch.engine.precision import lowered_difference, split_product, weights_there
from headpatch.engine.prefill import LayerState, Prefill
from headpatch.engine.replay import Replays, replays_of
from headpatch.engine.shared_prefix import attend_deviating, attend_own
from headpatch.engine.softcap import capped
from headpatch.engine.trees import Packed, Tree
from headpatch.engine.walk_plan import Chunk, Early, Edits
from headpatch.engine.walk_reads import Given, in_one_piece
from headpatch.models.vlm import VLM, device_of


@dataclass(eq=False)
class _Site:
    """One layer during a walk: its attention, and what enters its output projection.

    Rows join at the output projection. Until there they are the untouched run, whose z is kept
    (`own`; nothing where rows are deviations), so that q, k and v are not computed for them:
    `going` rows are there before, and `joining` come. In the last layer the answer position alone
    asks and goes on from there; the others are keys and values.
    """

    prefill: Prefill
    layer: int
    source: Float[Tensor, "sources suffix heads dim"]
    positions: Int[Tensor, " positions"] | None
    edits: Edits | None = None
    early: Early | None = None
    going: int = 0
    joining: int = 0
    own: Tensor = field(init=False)
    state: LayerState = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.prefill.layers[self.layer]
        self.own = self.state.z
        if self.positions is not None:
            self.positions = self.positions.to(self.own.device)
        if self.prefill.points is not None:
            self.source = lowered_difference(self.source, self.state.z, self.prefill.points.low)
            self.own = torch.zeros_like(self.source[:1])

    @property
    def answer_only(self) -> bool:
        """Whether only the answer position is needed after the attention."""
        return self.layer == len(self.prefill.layers) - 1

    def __call__(
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        state, points, suffix = self.state, self.prefill.points, query.shape[2]
        if state.known is not None:
            return attend_deviating(query, key, value, state)
        asked = 1 if self.answer_only else suffix
        query = query[:, :, -asked:]
        if points is None:
            z = attend_own(module, query, key, value, state, options)
        else:
            whole = query + state.query[:, :, -asked:], key + state.own_key, value + state.own_value
            z = attend_own(module, *whole, state, options)
            z = lowered_difference(z, state.z[:, -asked:], points.low)
        return z if asked == suffix else z.expand(-1, suffix, -1, -1).contiguous()

    def enter(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let only rows into the attention that were there before; one at least, for its shape."""
        rows = max(self.going, 1)
        if args:
            return (args[0][:rows], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"][:rows]}

    def leave(self, _: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        """Put all rows' z together, and replace what is to be replaced."""
        z = args[0] if len(args[0]) == self.going else args[0][: self.going]
        z = z.unflatten(-1, self.own.shape[2:])
        if self.joining:
            z = torch.cat([z, self.own.expand(self.joining, -1, -1, -1)])
        if self.edits is not None:
            self._replace(z, self.edits)
        if self.early is not None:
            self._replace_early(z, self.early)
        if self.answer_only:
            z = z[:, -1:]
        return (z.flatten(2),)

    def _replace(self, z: Float[Tensor, "rows suffix heads dim"], edits: Edits) -> None:
        rows, heads, sources = edits.to(z.device).unbind(1)
        if self.positions is None:
            z[rows, :, heads] = self.source[sources, :, heads].to(z.dtype)
        else:
            where = self.positions[None, :]
            place = (rows[:, None], where, heads[:, None])
            z[place] = self.source[sources[:, None], where, heads[:, None]].to(z.dtype)

    def _replace_early(self, z: Float[Tensor, "rows suffix heads dim"], early: Early) -> None:
        first = z[: len(early.source)]  # a view
        heads, source = early.heads[self.layer].to(z.device), self.source[early.source.to(z.device)]
        where = slice(None) if self.positions is None else self.positions
        put = source[:, where].to(z.dtype)
        first[:, where] = torch.where(heads[:, None, :, None], put, first[:, where])


@contextmanager
def _watching(vlm: VLM, sites: Sequence[_Site]) -> Iterator[None]:
    """Let each site see what enters its attention and output projection."""
    with ExitStack() as stack:
        for site in sites:
            attention, output = vlm.lm.attentions[site.layer], vlm.lm.outputs[site.layer]
            stack.callback(attention.register_forward_pre_hook(site.enter, with_kwargs=True).remove)
            stack.callback(output.register_forward_pre_hook(site.leave).remove)
            if site.answer_only:
                for part in vlm.lm.layers[site.layer].children():
                    if part is not attention and any(part.children()):
                        stack.callback(part.register_forward_pre_hook(_answer).remove)
            name, suffix = vlm.family.lm_query, site.state.hidden.shape[1]
            if site.answer_only and suffix > 1 and name:
                queries = attention.get_submodule(name)
                stack.callback(queries.register_forward_pre_hook(_answer).remove)
                stack.callback(queries.register_forward_hook(_everywhere(suffix)).remove)
        yield


def _answer(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let only the answer position into an MLP."""
    # What it gives is added to every position of the stream; only the last is looked at.
    return (args[0][:, -1:], *args[1:])


def _everywhere(suffix: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    """Let the answer's query stand at every position, since the attention expects one there."""

    def spread(_: nn.Module, __: tuple[Any, ...], query: Tensor) -> Tensor:
        return query.expand(-1, suffix, -1).contiguous()

    return spread


@torch.no_grad()
def walk(
    vlm: VLM,
    prefill: Prefill,
    chunks: Sequence[Chunk],
    source: Sequence[Tensor],
    positions: Int[Tensor, " positions"] | None = None,
    tokens: Int[Tensor, " tokens"] | None = None,
) -> Iterator[tuple[Chunk, Float[Tensor, "rows tokens"]]]:
    """Walk each chunk through the layers; yield its answer logits, the untouched row first.

    In float32 the untouched run walks along as the first row, so that what a batch's shape does to
    rounding cancels. Over low-precision weights rows are deviations from it, and it need not.

    `source` is of `headpatch.engine.prefill.sources`; `positions` are those of the suffix that are
    changed, counted from its start, None for all; `tokens`, whose logits are wanted, None for all.
    """
    given = Given(prefill, source, positions, tokens)
    replays = None if prefill.points is None else replays_of(vlm)
    if replays is not None:
        yield from _at_once(vlm, given, chunks, replays)
        return
    with _entered(vlm, given) as sites:
        for chunk in chunks:
            logits = unembed(vlm, _through(vlm, prefill, chunk, sites), prefill, tokens)
            yield chunk, chunk.asked(logits)


def _at_once(
    vlm: VLM, given: Given, chunks: Sequence[Chunk], replays: Replays
) -> Iterator[tuple[Chunk, Float[Tensor, "rows tokens"]]]:
    """Walk chunks whose launches are recorded, or will be (see `headpatch.engine.replay`)."""
    kept = in_one_piece(vlm, given.prefill)
    where, tokens = (
        None if one is None else one.to(vlm.device, non_blocking=True)
        for one in (given.positions, given.tokens)
    )

    def compute(read: tuple[Tree, ...]) -> Tensor:
        (kept, *more), edits, early = read
        prefill: Prefill = kept.tree() if isinstance(kept, Packed) else kept
        own, like = Given(prefill, *more), replace(chunk, edits=edits, early=early)
        with _entered(vlm, own) as sites:
            return unembed(vlm, _through(vlm, prefill, like, sites), prefill, own.tokens)

    for chunk in chunks:
        read = (kept, given.source, where, tokens), chunk.edits, chunk.early
        logits, key = replays.played(("walk", chunk.joining), compute, read)
        if logits is None or not replays.proved(key):
            own = compute(read)
            if logits is not None:
                replays.prove(key, logits, own)
            logits = own
        yield chunk, chunk.asked(logits)


@contextmanager
def _entered(vlm: VLM, given: Given) -> Iterator[list[_Site]]:
    """Let the model's layers walk; return what stands at each."""
    prefill, source = given.prefill, given.source
    sites = [_Site(prefill, layer, one, given.positions) for layer, one in enumerate(source)]
    taps = dict(zip(vlm.lm.attentions, sites, strict=True))
    with tapped(vlm.parts, taps), deviating(prefill.points), _watching(vlm, sites):
        yield sites


def _through(
    vlm: VLM, prefill: Prefill, chunk: Chunk, sites: Sequence[_Site]
) -> Float[Tensor, "rows width"]:
    """Return the rows' last hidden state at the answer position, before the final norm."""
    points, rows = prefill.points, int(prefill.points is None)
    hidden = prefill.layers[chunk.first].hidden[:rows]
    nothing = torch.zeros_like(prefill.layers[chunk.first].hidden)
    for index in range(chunk.first, len(vlm.lm.layers)):
        state, site, joining = prefill.layers[index], sites[index], chunk.joining[index]
        site.going, site.joining, site.edits = rows, joining, chunk.edits[index]
        site.early = chunk.early
        if joining:
            own = state.hidden if points is None else nothing.to(hidden.device)
            hidden = torch.cat([hidden, own.expand(joining, -1, -1)])
            rows += joining
        hidden = step(vlm, prefill, index, hidden, deviations=points is not None)
    if points is None:
        return hidden[:, -1]
    before = points.inputs[vlm.final_norm][:, -1]
    return before + hidden[:, -1].to(before.device)


def step(
    vlm: VLM,
    prefill: Prefill,
    index: int,
    hidden: Float[Tensor, "rows suffix width"],
    deviations: bool = False,
) -> Float[Tensor, "rows suffix width"]:
    """Run one decoder layer on the suffix of some rows, and add what the model adds itself.

    Unless rows are `deviations` from a run to which that is added, too. What is returned lies where
    the next layer computes.
    """
    state, following = prefill.layers[index], prefill.layers[index + 1 : index + 2]
    output = vlm.lm.layers[index](hidden, attention_mask=state.mask, **state.options)
    found: Tensor = output[0] if isinstance(output, tuple) else output
    found = found if deviations or state.added is None else found + state.added
    return found.to(following[0].hidden.device) if following else found


def unembed(
    vlm: VLM,
    hidden: Float[Tensor, "rows width"],
    prefill: Prefill,
    tokens: Int[Tensor, " tokens"] | None = None,
) -> Float[Tensor, "rows_ tokens"]:
    """Final norm and unembedding in float32; of `tokens` alone, or of the whole vocabulary.

    The untouched run's row, if it did not walk along, is put first.
    """
    head: Any = vlm.unembedding
    device, points = device_of(head), prefill.points
    x: Tensor = vlm.final_norm(hidden).to(device)
    logits: Tensor
    if points is not None:
        x = torch.cat([points.inputs[head][:, -1], x])
    with weights_there(head):
        if tokens is not None:
            where = tokens.to(device)
            logits = functional.linear(x.float(), head.weight[where].float())
            if head.bias is not None:
                logits = logits + head.bias[where].float()
        elif x.dtype == head.weight.dtype:
            logits = functional.linear(x, head.weight, head.bias).float()
        else:
            logits = split_product(x, head.weight)
    return capped(logits, prefill.cap)

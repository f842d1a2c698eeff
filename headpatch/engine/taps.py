"""What passes read and edit at each attention module of the two towers.

A forward pass is bound by how fast its kernels can be launched, so of the answer position's
attention rows a layer adds one small product alone, straight into a buffer that holds all layers;
the rest is done for all at once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import Module

from headpatch.engine.attention import (
    Edges,
    Key,
    Mask,
    Options,
    Query,
    Tap,
    attention_rows,
    is_causal,
    plain_attention,
    to_rows,
    weigh,
)
from headpatch.engine.interventions import Cut, ZEdit
from headpatch.engine.precision import batched_product
from headpatch.engine.prefill import Capture
from headpatch.errors import RunError
from headpatch.models.vlm import Stack


class Way(NamedTuple):
    """What layers have in common whose rows can be finished together.

    The keys' shape (runs, key-value heads, keys, head_dim), the number of keys that the answer sees
    where no mask says so, the `id` of transformers' mask, and so on.
    """

    keys: torch.Size
    heads: int
    device: torch.device
    scaling: float
    softcap: float | None
    seen: int
    mask: int


@dataclass(eq=False)
class _Group:
    """The scores of layers of one way, filled as layers run.

    Neither scaled nor masked, ``[runs, layers, kv_heads, heads of one, keys]``, float32; `slots`
    are
    their parts, a list for each run.
    """

    scores: Tensor
    slots: list[list[Tensor]]
    row_mask: Tensor | None  # the answer's row of the mask, None where it sees every key
    layers: list[int] = field(default_factory=list)  # which have come, in the order of the slots


class AnswerRows:
    """Collects one pass's rows of the answer's position, over so many layers."""

    def __init__(self, position: int, layers: int, without: int = 0) -> None:
        self.position, self.layers, self._without = position, layers, without
        self._groups: dict[Way, _Group] = {}
        self._masks: list[Tensor] = []  # held, so that an id stays one mask's

    def tap(self, layer: int) -> Tap:
        """Return a tap that does nothing but record this layer."""

        def record(
            module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
        ) -> Tensor:
            self.record(layer, module, query, key, mask, options)
            return plain_attention(module, query, key, value, mask, **options)

        return record

    def record(
        self, layer: int, module: Module, query: Query, key: Key, mask: Mask, options: Options
    ) -> None:
        """Multiply the answer's query with every key of this layer."""
        shape, (_, heads, length, _) = key.shape, query.shape
        _, kv_heads, keys, width = shape
        causal = mask is None and is_causal(module, length, options)
        seen = self.position + 1 + keys - length if causal else keys
        scaling = options.get("scaling")
        scaling = width**-0.5 if scaling is None else scaling
        way = Way(shape, heads, key.device, scaling, options.get("softcap"), seen, id(mask))
        group = self._groups.get(way) or self._new(way, mask)
        slot, grouped = len(group.layers), heads // kv_heads
        group.layers.append(layer)
        # Views of one call each: on the host, indexing costs as much as the product.
        of_run, of_head, of_query, within = query.stride()
        run, head, token, along = key.stride()
        at, first = query.storage_offset() + self.position * of_query, key.storage_offset()
        asked = (kv_heads, grouped, width), (grouped * of_head, of_head, within)
        known = (kv_heads, width, keys), (head, along, token)
        for index, slots in enumerate(group.slots):
            answer = query.as_strided(*asked, at + index * of_run)
            turned = key.as_strided(*known, first + index * run)
            batched_product(answer, turned, slots[slot])

    def _new(self, way: Way, mask: Tensor | None) -> _Group:
        runs, kv_heads, keys, _ = way.keys
        shape = runs, self.layers, kv_heads, way.heads // kv_heads, keys
        scores = torch.empty(shape, device=way.device)
        row_mask = None
        if mask is not None:
            self._masks.append(mask)
            row = mask[..., self.position, :keys]
            row_mask = row.unsqueeze(1) if row.ndim == 3 else row  # over a run's layers
        elif way.seen < keys:
            row_mask = torch.arange(keys, device=way.device) < way.seen
        slots = [list(run.unbind()) for run in scores.unbind()]
        group = self._groups[way] = _Group(scores, slots, row_mask)
        return group

    def taken(self) -> list[tuple[Way, _Group]]:
        """Hand over the scores of all layers that have run."""
        groups, self._groups = self._groups, {}
        return [
            (way._replace(mask=n), replace(one, slots=[], scores=one.scores[:, : len(one.layers)]))
            for n, (way, one) in enumerate(groups.items())  # a mask's `id` is of one pass alone
        ]

    def give(self, taken: list[tuple[Way, _Group]]) -> None:
        """Take the scores of all layers."""
        self._groups = dict(taken)

    def stacked(self, tokens: int) -> Float[Tensor, "batch layers heads tokens"]:
        """Return the rows of all layers, in their order, on the first one's device.

        A query that sees no key has a row of zeros; a layer that attends to something else than
        `tokens` tokens, or has no heads, has NaN.
        """
        if sum(len(group.layers) for group in self._groups.values()) + self._without != self.layers:
            raise RunError("an attention module never ran through headpatch's attention function")
        found: Tensor | None = None
        for way, group in self._groups.items():
            scores = group.scores[:, : len(group.layers)].flatten(2, 3)
            rows = to_rows(scores.mul_(way.scaling), group.row_mask, way.softcap)
            there = rows.shape[-1] == tokens
            if there and group.layers == list(range(self.layers)):
                return rows
            if found is None:
                found = rows.new_full((len(rows), self.layers, way.heads, tokens), torch.nan)
            if there:
                found[:, group.layers] = rows.to(found.device)
        assert found is not None
        return found


def allowed_edges(
    cuts: Sequence[tuple[Cut, list[int]]],
    queries: Int[Tensor, " queries"],
    shape: tuple[int, int, int, int],
) -> tuple[Edges, Bool[Tensor, "rows queries heads"]]:
    """Say which edges cuts leave at one layer, and which queries of which heads they concern.

    Each cut comes with its heads' numbers in this layer; `queries` are their positions in the
    prompt, ascending; `shape` is rows, heads, queries, keys. Where a cut multiplies edges, of each
    the logarithm of its factor.
    """
    device = queries.device
    removed = all(cut.factor == 0 for cut, _ in cuts)
    allowed = torch.ones(shape, dtype=torch.bool, device=device)
    if not removed:
        allowed = torch.zeros(shape, device=device)
    touched = torch.zeros(shape[0], shape[2], shape[1], dtype=torch.bool, device=device)
    for cut, numbers in cuts:
        keys, heads = cut.keys.to(device), torch.tensor(numbers, device=device)
        where = torch.isin(queries, cut.queries.to(device)).nonzero()[:, 0]
        edges = cut.row, heads[:, None, None], where[:, None], keys
        own = keys == queries[where, None]
        if removed:
            allowed[edges] &= own & (not cut.own)
        else:
            factor = math.log(cut.factor) if cut.factor else -math.inf
            allowed[edges] = torch.where(own & (not cut.own), 0.0, factor)
        touched[cut.row, where[:, None], heads] = True
    return allowed, touched


class Put(NamedTuple):
    """What is put in the place of z at one layer, at the same positions in all rows."""

    heads: Bool[Tensor, "rows heads"]
    values: Float[Tensor, "rows positions heads dim"]
    positions: Int[Tensor, " positions"]

    def into(self, z: Tensor) -> Tensor:
        """Return z, ``[rows, tokens, heads, dim]``, with these heads' replaced."""
        z = z.clone()
        before, heads = z[:, self.positions], self.heads[:, None, :, None]
        z[:, self.positions] = torch.where(heads, self.values.to(z.dtype), before)
        return z


@dataclass(eq=False)
class Site:
    """A tap that reads and edits one attention module in the plain pass."""

    edits: list[ZEdit] = field(default_factory=list)
    cuts: list[tuple[Cut, list[int]]] = field(default_factory=list)
    answer_rows: "AnswerRows | None" = None
    keep_z: bool = False
    capture: Capture | None = None
    layer: int = 0
    z: Tensor | None = None

    put: Put | None = None  # in place of `edits`
    at_output: bool = False  # whether z is read and changed where it enters the projection

    @property
    def used(self) -> bool:
        """Whether anything is read or changed here."""
        return bool(self.edits or self.cuts or self.keep_z)

    @property
    def edited(self) -> bool:
        """Whether a z is replaced here."""
        return bool(self.edits) or self.put is not None

    @property
    def particular(self) -> bool:
        """Whether what is launched here hangs on the pair, beside edits: edges are cut."""
        return bool(self.cuts)

    def taken(self) -> Any:
        """Hand over what is kept of z."""
        z, self.z = self.z, None
        return z

    def give(self, taken: Any) -> None:
        """Keep what an equal pass has taken."""
        self.z = taken

    def __call__(  # noqa: D102
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        z = plain_attention(module, query, key, value, mask, **options)
        if self.cuts:
            z = self._cut(z, module, query, key, value, mask, **options)
        if self.keep_z and not self.at_output:
            self._take(z)
        if self.capture is not None:
            self.capture.keep(self.layer, query, key, value, mask, z, options)
        if self.edited and not self.at_output:
            z = self._replace(z)
        if self.answer_rows is not None:
            self.answer_rows.record(self.layer, module, query, key, mask, options)
        return z

    def enter(self, heads: int) -> Callable[[Module, tuple[Any, ...]], tuple[Any, ...]]:
        """Return a hook that reads and changes z as it enters the output projection."""

        def hook(_: Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].unflatten(-1, (heads, -1))
            z = z if z.ndim == 4 else z[None]
            if self.keep_z:
                self._take(z)
            return (self._replace(z).reshape(args[0].shape) if self.edited else args[0], *args[1:])

        return hook

    def _take(self, z: Tensor) -> None:
        self.z = z

    def kept(self) -> Tensor | None:
        """Z of all runs, ``[runs, tokens, heads, dim]``."""
        return self.z

    def _replace(self, z: Tensor) -> Tensor:
        if self.put is not None:
            return self.put.into(z)
        z = z.clone()
        for same in together(self.edits):
            rows, heads = (
                sent(torch.tensor(numbers), z)[:, None]
                for numbers in zip(*((one.row, one.head.head) for one in same), strict=True)
            )
            where = sent(same[0].positions, z)
            z[rows, where, heads] = values_of(same, len(where), z)
        return z

    def _cut(self, z: Tensor, *taken: Any, **options: Any) -> Tensor:
        module, query, key, value, mask = taken
        first, tokens = key.shape[2] - query.shape[2], key.shape[2]  # a cache holds those before
        queries = torch.cat([cut.queries for cut, _ in self.cuts]).unique().to(z.device)
        queries = queries[(queries >= first) & (queries < tokens)]
        if not len(queries):
            return z
        shape, here = (len(z), z.shape[2], len(queries), tokens), queries - first
        allowed, touched = allowed_edges(self.cuts, queries, shape)
        rows = attention_rows(module, query, key, mask, here, allowed, **options)
        z = z.clone()
        z[:, here] = torch.where(touched[..., None], weigh(rows, value), z[:, here])
        return z


def together(edits: Sequence[ZEdit], of_one_row: bool = False) -> Iterator[list[ZEdit]]:
    """Put edits together that are made at once: at the same positions, perhaps of one row.

    Of several of one head the last counts.
    """
    for _, same in groupby(edits, key=lambda one: (id(one.positions), of_one_row and one.row)):
        yield list({(one.row, one.head): one for one in same}.values())


def values_of(edits: Sequence[ZEdit], positions: int, z: Tensor) -> Float[Tensor, "edits at dim"]:
    """Return what edits at as many positions put in the place of `z`."""
    zero = z.new_zeros(positions, z.shape[-1])
    return torch.stack([zero if one.value is None else one.value.to(zero) for one in edits])


def sent(numbers: Tensor, to: Tensor) -> Tensor:
    """Return numbers where `to` lies, without waiting for what is launched there."""
    return numbers.to(to.device, non_blocking=True)


@contextmanager
def at_outputs(stacks: Sequence[Stack], sites: Mapping[nn.Module, Site]) -> Iterator[None]:
    """Let sites meet z at the projection, in towers where something lies before it."""
    with ExitStack() as hooks:
        for stack in stacks:
            pairs = zip(stack.attentions, stack.outputs, strict=True)
            for attention, output in pairs if stack.at_output else ():
                if (site := sites.get(attention)) is not None:
                    site.at_output = True
                    handle = output.register_forward_pre_hook(site.enter(stack.grid.heads))
                    hooks.callback(handle.remove)
        yield

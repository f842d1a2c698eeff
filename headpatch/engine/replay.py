"""Passes that run again on inputs of the same shapes, launched all at once.

On a GPU a pass over a model of 7B waits for Python to launch some two thousand kernels, one by one,
not for the kernels. Over many pairs of one prompt length the launches are the same, pair after
pair. So when a pass of some shape runs for the second time, its launches are recorded (a CUDA
graph). The third runs both ways: a recording that does not give what the pass itself gives is never
used. From then on one launch does it all: the same kernels on the same operands, hence the same
numbers, bit for bit. What such a pass reads is copied to where the recorded launches read, and what
it gives is copied from where they write.

What is recorded runs no Python when it is launched again. So nothing is recorded where somebody
looks into the layers, or has changed what they do: hooks, another forward, autocast.
"""

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from transformers.utils import output_capturing

from headpatch.engine.memory import released_if_short
from headpatch.engine.precision import kept_raised, raising_runs
from headpatch.engine.trees import Foreign, Tree, changed, copy, form, put
from headpatch.models.vlm import VLM

Made = TypeVar("Made")
_BEFORE = 1  # passes of a shape that are not recorded: kernels are compiled then, formulas found
_CLOSE = 1e-5  # of a recorded pass to the pass itself, relative to the largest number of a tensor
# Bytes, and of what is free at first: where recordings take so much, no other is made.
_MOST, _SHARE = 6 << 30, 0.125


@runtime_checkable
class Recorder(Protocol):
    """Records what a function launches."""

    def record(self, run: Callable[[], Tree]) -> Tree:
        """Record what it launches; return where what it gives is written, whenever it is played."""

    def play(self) -> None:
        """Launch it again."""


class _Room:
    """Where recordings of one device take their memory: one is launched at a time.

    What one has freed another takes only if both are recorded on the same stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream, self.pool = device, None, None
        if device.type == "cuda":
            self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()


class _CudaGraph:
    """A CUDA graph."""

    def __init__(self, room: _Room) -> None:
        self._room, self._graph = room, torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], Tree]) -> Tree:
        stream, current = self._room.stream, torch.cuda.current_stream(self._room.device)
        assert stream is not None
        stream.wait_stream(current)
        collecting = gc.isenabled()
        gc.disable()  # what it frees on the device would end up in the recording
        try:
            with torch.cuda.stream(stream):
                self._graph.capture_begin(pool=self._room.pool, capture_error_mode="thread_local")
                try:
                    made = run()
                finally:
                    self._graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        current.wait_stream(stream)
        return made

    def play(self) -> None:
        self._graph.replay()


RECORDERS: dict[str, Callable[[_Room], Recorder]] = {"cuda": _CudaGraph}
"""By type of device; passes on others run as ever."""


@dataclass(frozen=True, eq=False)
class _Recording:
    """A recorded pass: where it reads, and what it writes."""

    recorder: Recorder
    given: Sequence[Tensor]
    made: Tree
    tensors: Sequence[Tensor]  # those of what it made

    def play(self, given: Sequence[Tensor]) -> Tree:
        copy(self.given, given)
        self.recorder.play()
        copies = [torch.empty_like(one) for one in self.tensors]
        copy(copies, self.tensors)
        places = {id(one): other for one, other in zip(self.tensors, copies, strict=True)}
        return put(self.made, places)


class Replays:
    """The recorded passes of one model; see the module."""

    def __init__(self, vlm: VLM) -> None:
        self._room, self._taken = _Room(vlm.device), 0
        self._most = min(_MOST, int(_SHARE * _free(vlm.device)))
        # Where recordings read: all of them from the same places, one after the other.
        self._places: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._refused, self._proved = set[Hashable](), set[Hashable]()
        self._recordings: dict[Hashable, _Recording] = {}
        stacks = [vlm.lm] if vlm.vision is None else [vlm.lm, vlm.vision]
        layers = [layer for stack in stacks for layer in stack.layers]
        modules = [module for layer in layers for module in layer.modules()]
        self._runs = [(module.__dict__, run) for module, run in raising_runs(vlm)]
        known = {id(module) for module in layers} | {id(module) for module, _ in raising_runs(vlm)}
        self._plain = [module.__dict__ for module in modules if id(module) not in known]
        self._hooks = [
            hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks)
        ]

    @property
    def looked_into(self) -> bool:
        """Whether somebody looks into the layers, or has changed what is in them, beside `raised`.

        Layers as a whole may do something else: those are not launched at once (`at_once`).
        """
        hooks = [hook for some in self._hooks if some for hook in some.values()]
        return (
            any("forward" in own for own in self._plain)
            or any(own.get("forward", run) is not run for own, run in self._runs)
            or not all(map(_silent, hooks))
            or bool(every_module._has_any_global_hook())
            or torch.is_autocast_enabled(self._room.device.type)
        )

    def played(
        self, what: Hashable, compute: Callable[[Tree], Made], given: Tree
    ) -> tuple[Made | None, Hashable]:
        """Return what `compute` gives of `given`, if it was recorded before; else None.

        `what` says what `compute` does, beyond the shapes of what it is given: the same launches
        follow from the same. The second that is returned names it for `proved` and the like.
        """
        tensors: list[Tensor] = []
        try:
            key: Hashable = what, form(given, tensors, {})
        except Foreign:
            return None, None
        if any(one.device != self._room.device for one in tensors):  # it would stay as it is now
            return None, None
        if (known := self._recordings.get(key)) is not None:
            return known.play(tensors), key
        self._seen[key] += 1
        if key not in self._refused and self._seen[key] > _BEFORE and self._taken < self._most:
            self._record(key, compute, given, tensors)
        return None, key

    def refuse(self, key: Hashable) -> None:
        """Never record this, nor launch a recording of it."""
        self._refused.add(key)
        self._recordings.pop(key, None)

    def proved(self, key: Hashable) -> bool:
        """Whether a recording was seen to give what the pass itself gives."""
        return key in self._proved

    def prove(self, key: Hashable, found: Tree, expected: Tree) -> None:
        """Hold what a recording gave against what the pass itself gave, of the same."""
        if _close(found, expected):
            self._proved.add(key)
            return
        self.refuse(key)
        words = "a recorded pass does not give what the pass itself gives"
        warnings.warn(f"{words}: it is not used, which is slower", stacklevel=2)

    def _record(
        self, key: Hashable, compute: Callable[[Tree], Tree], given: Tree, tensors: Sequence[Tensor]
    ) -> None:
        if self._room.device.type == "cuda":  # what such passes took so far goes
            torch.cuda.empty_cache()
        before = _reserved(self._room.device)
        try:
            own = self._inputs(tensors)
            copy(own, tensors)
            places = {id(one): place for one, place in zip(tensors, own, strict=True)}
            recorder = RECORDERS[self._room.device.type](self._room)
            made = recorder.record(lambda: changed(compute(put(given, places)), Tensor.contiguous))
        except (RuntimeError, torch.OutOfMemoryError):  # something waits for the device, say
            self.refuse(key)
            return
        of_made: list[Tensor] = []
        form(made, of_made, {})
        self._recordings[key] = _Recording(recorder, own, made, of_made)
        self._taken += max(_reserved(self._room.device) - before, 0)

    def _inputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return where a recording reads such tensors: places that others read from, too."""
        used: Counter[tuple[torch.Size, torch.dtype]] = Counter()
        found = []
        for one in tensors:
            kind = one.shape, one.dtype
            places = self._places.setdefault(kind, [])
            if used[kind] == len(places):
                with torch.inference_mode(False):  # written to in whatever mode a pass runs
                    places.append(torch.empty(one.shape, dtype=one.dtype, device=one.device))
            found.append(places[used[kind]])
            used[kind] += 1
        return found

    def release(self) -> None:
        """Give back all memory, and record nothing more."""
        self._recordings.clear()
        self._places.clear()
        self._room, self._most = _Room(self._room.device), 0


def _reserved(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _free(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 40
    free, _ = torch.cuda.mem_get_info(device)
    return free


def _close(found: Tree, expected: Tree) -> bool:
    ours, theirs = list[Tensor](), list[Tensor]()
    if form(found, ours, {}) != form(expected, theirs, {}):
        return False

    def alike(one: Tensor, other: Tensor) -> bool:
        if not other.is_floating_point():
            return torch.equal(one, other)
        largest = float(other[other.isfinite()].abs().max()) if other.isfinite().any() else 0.0
        return torch.allclose(one, other, _CLOSE, _CLOSE * largest, equal_nan=True)

    return all(map(alike, ours, theirs))


class Seen(list[Any]):
    """A hook that takes note of what a layer gives, and changes nothing."""

    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        """Take note."""
        self.append(output)


def _silent(hook: Any) -> bool:
    """Whether a hook changes nothing, and sees what it must where layers are launched at once.

    Those that transformers leaves on modules are handed what layers give, and are asked for nothing
    else here.
    """
    return isinstance(hook, Seen) or (getattr(hook, "__module__", "") == output_capturing.__name__)


_recorded: "WeakKeyDictionary[nn.Module, Replays]" = WeakKeyDictionary()


@contextmanager
def recorded(vlm: VLM, wanted: bool = True) -> Iterator[None]:
    """Record passes that run again and again within this context, if that is `wanted`.

    For a question of many pairs: in it nobody changes the model's weights. Nothing changes within
    another such context, nor where a model is not all on one GPU.
    """
    devices = vlm.devices()
    on_one = len(devices) == 1 and devices[0].type in RECORDERS
    hooked = any("_hf_hook" in vars(layer) for layer in vlm.lm.layers)  # weights may come and go
    if not wanted or vlm.model in _recorded or not on_one or hooked:
        yield
        return
    with kept_raised(vlm):
        replays = _recorded[vlm.model] = Replays(vlm)
        with released_if_short(replays.release):
            try:
                yield
            finally:
                del _recorded[vlm.model]


def is_recorded(vlm: VLM) -> bool:
    """Whether this is within `recorded`, for a model whose passes can be."""
    return vlm.model in _recorded


def replays_of(vlm: VLM) -> Replays | None:
    """Return the recordings of a model's passes; None where none may be made or launched now."""
    known = _recorded.get(vlm.model)
    return None if known is None or known.looked_into else known

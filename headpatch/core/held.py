"""Pairs that stay open, so that their pictures are not run again: the first ones that fit."""

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from headpatch.core.session import Session
from headpatch.engine.trees import tensors_in
from headpatch.engine.walk_reads import lean as lean_prefill
from headpatch.heads import Tower

_GIB: Final = 1 << 30
_SHARE: Final = {"cpu": 0.25, "cuda": 0.5}  # of what is free: the rest is for the work on them
_MOST: Final = {"cpu": 4 * _GIB, "cuda": 12 * _GIB}
"""Bytes, where a study says nothing; what is free in a machine's memory may belong to others."""


class Held:
    """Open pairs by name, the first ones that fit into so many GiB; None: `_room`."""

    def __init__(self, device: torch.device, hold: float | None = None, lean: bool = False) -> None:
        self.sessions: dict[str, Session] = {}
        self._lean = lean
        self._left = _room(device) if hold is None else int(hold * _GIB)

    def offer(self, session: Session, wanted: Collection[str] | None = None) -> None:
        """Keep the pair, unless there is no room for it or it is kept already.

        `wanted` names the pairs that are asked for from now on: any other makes room for them.
        """
        name = session.pair.name
        if name in self.sessions:
            return
        session = lean(session) if self._lean else session
        size = size_of(session)
        others = [] if wanted is None else [one for one in self.sessions if one not in wanted]
        while size > self._left and others:
            self._left += size_of(self.sessions.pop(others.pop()))
        if size <= self._left:
            self.sessions[name] = session
            self._left -= size
            if session.vlm.device.type == "cpu":
                _give_back()


def lean(session: Session) -> Session:
    """Return a pair with what changes of heads by resampling and by the mean read, and no more.

    Over low-precision weights, of prompts of one length: of the keys and values before what is
    changed, those in low precision, which deviations are multiplied with; of z, what is changed.
    """
    base = session.base
    trace = base.trace
    if session.vision or base.prompt.each or not trace.prefills or not trace.prefills[0].points:
        return session

    prefills = tuple(lean_prefill(session.vlm, one) for one in trace.prefills)
    start = trace.prefills[0].start
    z: dict[Tower, list[Tensor]] = {"lm": [one[:, start:].clone() for one in trace.z["lm"]]}
    trace = replace(trace, prefills=prefills, z=z, z_from=start)
    return replace(session, base=replace(base, trace=trace))


def _give_back() -> None:
    """Return to the system what lies free between tensors that stay: more than half of them."""
    with suppress(OSError, AttributeError):  # the C library is another one
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _room(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return min(int(_SHARE["cuda"] * free), _MOST["cuda"])
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return _MOST["cpu"]
    return min(int(_SHARE["cpu"] * free), _MOST["cpu"])


def size_of(session: Session) -> int:
    """Return about how much memory a pair takes: its tensors and its pictures."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(session.base))
    stored = {one.data_ptr(): one.nbytes() for one in storages}
    return sum(stored.values()) + sum(
        image.width * image.height * len(image.getbands()) for image in session.pair.images
    )

"""Pairs that stay open, so that their pictures are not run again: the first ones that fit."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import torch

from headpatch.core.session import Session
from headpatch.engine.memory import Parked, parked, tensors_in
from headpatch.engine.patching import Baseline

_GIB: Final = 1 << 30
_SHARE: Final = 0.25  # of the machine's memory that is free: the rest is for the work on them
_MOST: Final = {"cpu": 4 * _GIB, "cuda": 32 * _GIB}
"""Bytes, where a study says nothing; what is free in a machine's memory may belong to others."""


class Waiting(Mapping[str, Session]):
    """Open pairs by name. What an accelerator computed waits in the machine's own memory.

    Copying it there and back takes a tenth of the time of running the pair again, and the
    accelerator's memory does not fill up with pairs.
    """

    def __init__(self) -> None:
        self._pairs: dict[str, tuple[Session, Parked[Baseline]]] = {}
        self.size = 0  # bytes

    def keep(self, session: Session) -> None:
        """Take a pair that is not here."""
        away = parked(session.base)
        self._pairs[session.pair.name] = replace(session, base=away.value), away
        self.size += size_of(session)

    def __getitem__(self, name: str) -> Session:
        session, away = self._pairs[name]
        return replace(session, base=away.back())

    def __contains__(self, name: object) -> bool:
        return name in self._pairs  # without bringing it back

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class Held:
    """Keeps the first pairs that fit into so many GiB (None: `_room`), those `known` among them."""

    def __init__(
        self,
        device: torch.device,
        hold: float | None = None,
        known: Mapping[str, Session] | None = None,
    ) -> None:
        self.sessions = known if isinstance(known, Waiting) else Waiting()
        self._most = _room(device, self.sessions.size) if hold is None else int(hold * _GIB)

    def offer(self, session: Session) -> None:
        """Keep the pair, unless there is no room for it or it is kept already."""
        kept = self.sessions
        if session.pair.name not in kept and kept.size + size_of(session) <= self._most:
            kept.keep(session)
            if session.vlm.device.type == "cpu":
                _give_back()


def _give_back() -> None:
    """Return to the system what lies free between tensors that stay: more than half of them."""
    with suppress(OSError, AttributeError):  # the C library is another one
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _room(device: torch.device, taken: int) -> int:
    """Return for how many bytes there is room, of which so many are taken."""
    most = _MOST.get(device.type, _MOST["cpu"])
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return most
    return min(int(_SHARE * (free + taken)), most)


def size_of(session: Session) -> int:
    """Return about how much memory a pair takes: its tensors and its pictures."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(session.base))
    stored = {one.data_ptr(): one.nbytes() for one in storages}
    pictures = (session.pair.with_image, session.pair.without_image)
    return sum(stored.values()) + sum(
        image.width * image.height * len(image.getbands()) for image in pictures
    )

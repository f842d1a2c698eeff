"""Pairs that stay open, so that their pictures are not run again: the first ones that fit."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from headpatch.core.session import Session
from headpatch.engine.memory import Parked, parked, tensors_in
from headpatch.engine.patching import Baseline

_SHARE = 0.25  # of the host's memory that is free: the rest is for the work, and for others
_MOST_ON_CPU = 2 << 30  # bytes; beyond, the work on a CPU takes longer than running pairs again


class Waiting(Mapping[str, Session]):
    """Open pairs by name. What an accelerator computed waits in the host's memory."""

    def __init__(self) -> None:
        self._pairs: dict[str, tuple[Session, Parked[Baseline]]] = {}
        self.size = 0  # bytes

    def keep(self, session: Session) -> None:
        """Take a pair, in place of one of its name."""
        away = parked(session.base)
        self._pairs[session.pair.name] = replace(session, base=away.value), away
        self.size += size_of(session)

    def __getitem__(self, name: str) -> Session:
        session, away = self._pairs[name]
        return replace(session, base=away.back())

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, name: object) -> bool:
        return name in self._pairs  # without bringing it back


class Held:
    """Keeps the first pairs that fit in the host's memory, beside those that are kept already."""

    def __init__(self, device: torch.device, known: Mapping[str, Session] | None = None) -> None:
        self.sessions = known if isinstance(known, Waiting) else Waiting()
        self._most = _room(device) + self.sessions.size

    def offer(self, session: Session) -> None:
        """Keep the pair, unless there is no room for it or it is kept already."""
        kept = self.sessions
        if session.pair.name not in kept and kept.size + size_of(session) <= self._most:
            kept.keep(session)


def _room(device: torch.device) -> int:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return _MOST_ON_CPU
    share = int(_SHARE * free)
    return share if device.type == "cuda" else min(share, _MOST_ON_CPU)


def size_of(session: Session) -> int:
    """Return about how much memory a pair takes: its tensors and its pictures."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(session.base))
    stored = {one.data_ptr(): one.nbytes() for one in storages}
    pictures = (session.pair.with_image, session.pair.without_image)
    return sum(stored.values()) + sum(
        image.width * image.height * len(image.getbands()) for image in pictures
    )

"""Pairs that stay open, so that their pictures are not run again: the first ones that fit."""

import os

import torch

from headpatch.core.session import Session
from headpatch.engine.memory import tensors_in

_SHARE = 0.25  # of what is free: the rest is for the work on them
_MOST_ON_CPU = 2 << 30  # bytes; what is free there may belong to others


class Held:
    """Open pairs by name, the first ones that fit."""

    def __init__(self, device: torch.device) -> None:
        self.sessions: dict[str, Session] = {}
        self._left = _room(device)

    def offer(self, session: Session) -> None:
        """Keep the pair, unless there is no room for it or it is kept already."""
        size, name = size_of(session), session.pair.name
        if name not in self.sessions and size <= self._left:
            self.sessions[name] = session
            self._left -= size


def _room(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(_SHARE * free)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return _MOST_ON_CPU
    return min(int(_SHARE * free), _MOST_ON_CPU)


def size_of(session: Session) -> int:
    """Return about how much memory a pair takes: its tensors and its pictures."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(session.base))
    stored = {one.data_ptr(): one.nbytes() for one in storages}
    pictures = (session.pair.with_image, session.pair.without_image)
    return sum(stored.values()) + sum(
        image.width * image.height * len(image.getbands()) for image in pictures
    )

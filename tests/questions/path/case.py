"""The planted circuit opened for `headpatch path`, cutting in windows of one layer."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from headpatch.core.session import Session, open_session
from headpatch.models.vlm import VLM
from tests.planted import planted, planted_study

CLOSE = 1e-3
_NOISING = {
    "region": (8, 1, 0, 0),
    "other": (0, 1, 1, 0),
    "words": (0, 1, 1, 0),
    "answer": (0, 1, 6, 8),
    "before": (0, 0, 0, 0),
}
HELD = {
    "noising": _NOISING,
    "denoising": _NOISING | {"region": (8, 5, 0, 0), "answer": (0, 5, 6, 8)},
}
"""Votes of 8 that each class of tokens still holds entering layers 0 to 3 (`tests.planted`)."""


@lru_cache
def vlm() -> VLM:
    return planted().vlm


@lru_cache
def opened(region: str = "top-left", heads: str = "1.1,0.2,2.0") -> Session:
    """Heads: the looker, the blind writer and the note reader."""
    with TemporaryDirectory() as folder:
        flags = {"region": region, "path.window": 1, "path.heads": heads}
        return open_session(planted_study(Path(folder), **flags), vlm(), "answer")

"""Finished pairs of a long run, one file each, so that a killed run can go on later."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from headpatch import __version__
from headpatch.errors import InputError, RunError
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair

_SUFFIX, _UNFINISHED = ".pt", ".part"


def key(vlm: VLM, pair: Pair, asked: Mapping[str, Any]) -> str:
    """Name what is measured of a pair: whatever its numbers depend on, hashed.

    Parameters
    ----------
    asked
        What is measured and how, in words and numbers.
    """
    content = {
        "asked": asked,
        "name": pair.name,
        "question": pair.question,
        "region": pair.region.box,
        "pictures": [
            hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
            for image in (pair.with_image, pair.without_image)
        ],
        "weights": vlm.fingerprint,
        "device": str(vlm.device),
        "dtype": str(vlm.dtype),
        "headpatch": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Finished:
    """A folder of finished pairs, each whole or not there.

    Attributes
    ----------
    folder
        There only between the first finished pair and `remove`.
    count
        Pairs found there when the run began, or finished since.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def open(self, resume: bool | None, what: str, parts: str = "pairs") -> None:
        """Look at what an earlier run has left.

        Parameters
        ----------
        resume
            True goes on from it, False discards it, None refuses to decide.
        what, parts
            Kind of run, and what is kept of it, for messages.

        Raises
        ------
        InputError
            If something is left and nothing was said about it.
        """
        if resume is False:
            self.remove()
            return
        self.count = len(self._files())
        if self.count and resume is None:
            raise InputError(
                "--out",
                f"{self.folder} holds {self.count:,} finished {parts} of an interrupted {what}",
                "to be told what to do with them",
                "Use --resume to go on from there or --no-resume to start over; "
                f"{parts} of another study, model or dataset are not used.",
            )

    def load(self, name: str) -> dict[str, Any] | None:
        """Return what was saved under a key; a file that cannot be read counts as none."""
        try:
            found: dict[str, Any] = torch.load(self._path(name), weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            return None
        except Exception as error:  # torch raises pickle's errors for a damaged file
            if type(error).__module__ not in ("pickle", "_pickle"):
                raise
            return None
        return found

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a pair; it is there as a whole or not at all.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        temporary = self.folder / f"{uuid4().hex}{_UNFINISHED}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(dict(content), temporary)
            os.replace(temporary, self._path(name))
        except OSError as error:
            raise RunError(f"--out: {self.folder} cannot be written ({error})") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self.count += 1

    def remove(self) -> None:
        """Delete the pairs, and the folder if nothing else is in it."""
        for path in (*self._files(), *self.folder.glob(f"*{_UNFINISHED}")):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        self.count = 0

    def _files(self) -> Sequence[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

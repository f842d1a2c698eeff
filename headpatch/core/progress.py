"""How an analysis of several stages says where it is."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from headpatch.engine.patching import OnProgress

Stages: TypeAlias = Callable[[str], AbstractContextManager[OnProgress]]
"""Begins a stage, by a name such as ``Changing heads``; while it lasts, what it gives is called
with (done, total). The command line and notebooks show a bar for it."""


def reporting(on_progress: OnProgress | None) -> Stages:
    """Return stages that all call `on_progress`; None says nothing."""

    @contextmanager
    def stage(_: str) -> Iterator[OnProgress]:
        yield on_progress or (lambda _done, _total: None)

    return stage

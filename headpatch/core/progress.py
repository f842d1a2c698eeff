"""How an analysis of several stages says where it is, and the bar that people see."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TypeAlias

from rich.console import Console
from tqdm.auto import tqdm

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


Progress: TypeAlias = OnProgress | Literal[False] | None
"""Called with (done, total), stage by stage. None shows a bar to whoever watches; False nothing."""

_PATIENCE = 1.0  # seconds


def stages_of(on_progress: Progress) -> Stages:
    """Return stages that tell what the caller of a function wants to know.

    Examples
    --------
    >>> with stages_of(lambda done, total: print(f"{done}/{total}"))("Changing heads") as advance:
    ...     advance(3, 4)
    3/4
    """
    console = Console(stderr=True)
    watched = console.is_terminal or console.is_jupyter
    return _bar if on_progress is None and watched else reporting(on_progress or None)


@contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    with tqdm(desc=what, leave=False, dynamic_ncols=True, delay=_PATIENCE) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance

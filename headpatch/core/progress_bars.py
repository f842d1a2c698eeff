"""What a person sees while a call of the API runs: a bar, where somebody watches.

As in TransformerLens, the bars are those of tqdm, and they show by themselves; but only on a
terminal or in a notebook, and only for what takes more than a second. ``on_progress=False`` or
tqdm's own ``TQDM_DISABLE=1`` turns them off.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from rich.console import Console
from tqdm.auto import tqdm

from headpatch.core.progress import Stages, reporting
from headpatch.engine.patching import OnProgress

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

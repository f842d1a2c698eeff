"""A worker to which things happen as a plan in a file says: it dies, is slow, finds no space."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headpatch.core import gate, store, untouched
from headpatch.core.workers.worker import Worker
from headpatch.pairs.manifest import Entry

PLAN: Final = "HEADPATCH_TEST_PLAN"
"""Names the file in the environment of workers."""


class Faulty(Worker):
    """A `Worker` of the plan.

    ``kill``: how often opening a pair, by its name, ends the process; ``pause``: seconds that all
    take longer for each pair, ``slow``: by worker; ``full``: the worker that cannot write.
    """

    def __init__(self, ask: Callable[..., Any], name: str, here: Any) -> None:
        super().__init__(ask, name, here)
        open_pair, write = gate.run_entry, store.write_whole

        def opened(study: Any, vlm: Any, entry: Entry, *where: Any) -> Any:
            plan = _plan()
            if _once_more(entry.name, plan.get("kill", {}).get(entry.name, 0)):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(plan.get("pause", 0) + plan.get("slow", {}).get(name, 0))
            return open_pair(study, vlm, entry, *where)

        def written(path: Path, content: bytes, make: bool = True) -> None:
            if _plan().get("full") == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content, make)

        gate.run_entry = untouched.run_entry = opened  # type: ignore[attr-defined]
        store.write_whole = written  # type: ignore[attr-defined]


def _plan() -> dict[str, Any]:
    path = Path(os.environ[PLAN])
    plan: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return plan


def _once_more(name: str, most: int) -> bool:
    """Take one of so many times, counted over all processes."""
    for count in range(most):
        try:
            Path(f"{os.environ[PLAN]}.{name}.{count}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False

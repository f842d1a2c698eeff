"""Commands run in forks of one process that has everything loaded, and what they leave behind.

A fork starts in milliseconds where a new process imports for seconds, and it can be killed, or be
given limits and patches of its own.
"""

import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from headpatch.cli import main as command_line
from headpatch.core.output.records import SHARED, Records, digest
from headpatch.core.study.record import RUN
from tests.command import Said, of_pair
from tests.planted import planted_dataset, planted_study, save_planted
from tests.tiny import QUESTION

KILLED = -signal.SIGKILL
HUNG = 1000  # no process ends with this code
CRASHED = 70  # an exception that the command line let through

PRELOADED = (
    "torch", "yaml", "pandas", "matplotlib", "scipy.stats", "transformers", "typer",
    "headpatch.reports", "headpatch.api", "headpatch.questions.verdict.judgement",
)  # fmt: skip

STUDY = """\
model: {place}/model
verdict: {{top: 5, nulls: 0, vision: 2, controls: 0, attribution: 0, random: 1, noise: 1,
           groups: 40, search: 4, followed: 3}}
pairs: {{resamples: 200, manifest: {place}/pairs}}
claims:
- head 1.1 is necessary
- head 1.2 is causal
- head 1.0 is redundant
- head 2.3 is inert
- head 1.1 looks at the region
- the model looks at the region
- heads 0.3 and 1.0 are redundant
- layers 0-1 hold the sensitive heads
- the answer reads the region in layers 0-1
- heads 0.3 and 1.0 work together
- the heads of vision layer 0 are necessary
"""


class Forks:
    """A folder with the planted model, a pair, a dataset and a study, and commands about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = root / "place"
        self.study = self.place / "study.yaml"
        save_planted(self.place / "model", noise=0.05)
        planted_study(self.place)  # for its pictures
        planted_dataset(self.place / "pairs", 12)
        self.study.write_text(STUDY.format(place=self.place), encoding="utf-8")
        for name in PRELOADED:
            import_module(name)
        import_module("torch").set_num_threads(1)

    def commands(self) -> dict[str, list[object]]:
        """Command lines that write into a folder, all but their ``--out``."""
        pair = [*of_pair(self.place), "--question", QUESTION]
        pairs = ["--model", self.place / "model", "--pairs", self.place / "pairs", "--limit", 4]
        return {
            "ablate a head": ["ablate", *pair, "--heads", "1.1"],
            "ablate two heads": ["ablate", *pair, "--heads", "1.2,2.0"],
            "sweep": ["sweep", *pair, "--kinds", "zero"],
            "rank": ["rank", *pair],
            "cut": ["cut", *pair, "--heads", "1.1"],
            "rank pairs": ["rank", *pairs],
            "ablate pairs": ["ablate", *pairs, "--heads", "1.1", "--kinds", "zero"],
            "verdict": ["verdict", "--config", self.study],
        }

    def run(
        self,
        words: Sequence[object],
        before: Callable[[], object] = lambda: None,
        kill_after: float = math.inf,
        limit: float = 120,
    ) -> Said:
        """Run a command line in a fork, `before` first in it; seconds until killed, until hung.

        The code that is returned is `KILLED` or `HUNG` if that is how it ended.
        """
        out, err = self.root / "out.txt", self.root / "err.txt"
        sys.stdout.flush()  # or the fork would write what waits to be printed once more
        child = os.fork()
        if child == 0:
            _become(words, before, out, err)
        code = _ending(child, kill_after, limit)
        return Said(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def must(self, words: Sequence[object], limit: float = 120) -> Said:
        """Run a command line on which the campaign builds."""
        said = self.run(words, limit=limit)
        if said.code != 0:
            raise RuntimeError(f"{words[0]} ended with {said.code}: {said.err}")
        return said


def _become(words: Sequence[object], before: Callable[[], object], out: Path, err: Path) -> None:
    """Run a command line in this fork, which ends with it."""
    code = CRASHED
    try:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["headpatch", *map(str, words)]
        # Twelve pairs are quick, and enough to judge on where nobody reads the intervals.
        pytest.MonkeyPatch().setattr("headpatch.core.saved_verdict.LEAST", 6)
        before()
        command_line()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # nothing of the parent's may be cleaned up here


def _ending(child: int, kill_after: float, limit: float) -> int:
    began = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if passed > min(kill_after, limit):
            os.kill(child, signal.SIGKILL)
        if passed > limit:
            os.waitpid(child, 0)
            return HUNG
        time.sleep(0.002)


def kill_at(number: int, after: bool) -> Callable[[], None]:
    """Let this process die just before or after its n-th change of the file system."""
    count = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == number and after:
                real(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return counted

    def install() -> None:
        for name in ("replace", "fsync", "unlink", "rmdir", "rename"):
            setattr(os, name, dying(getattr(os, name)))

    return install


def limit_files(size: int) -> Callable[[], None]:
    """Let no file of this process grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def results(folder: Path) -> dict[str, str]:
    """The digest of each table and tensor file in a folder."""
    return {
        path.name: digest(path)
        for path in folder.iterdir()
        if path.suffix in (".csv", ".pt") and path.name[0] != "." and path.is_file()
    }


def faults_of(folder: Path) -> list[str]:
    """Say where a folder that a run has just left is not as its ``run.yaml`` says."""
    left = [path.name for path in folder.iterdir() if path.name.startswith(".headpatch")]
    faults = [f"left {left}"] if left else []
    found = results(folder)
    if not (folder / RUN).exists():
        return [*faults, *(["files without run.yaml"] if found else [])]
    named: set[str] = set()
    for record in Records.read(folder).every:
        if record.changed:
            faults.append(f"{record.verb}'s record was changed")
        for name, value in (record.files or {}).items():
            named.add(name)
            if not (folder / name).is_file():
                faults.append(f"{record.verb}'s {name} is gone")
            elif name not in SHARED and digest(folder / name) != value:
                faults.append(f"{record.verb}'s {name} is another")
    loose = set(found) - named
    return [*faults, *([f"nobody wrote {sorted(loose)}"] if loose else [])]


def raw_lines(err: str) -> list[str]:
    """What stderr holds that is not headpatch's own line."""
    lines = filter(None, err.splitlines())
    return [one for one in lines if not one.startswith("headpatch: ") or "Traceback" in one]

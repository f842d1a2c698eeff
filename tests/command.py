"""The command line run in this process, as `headpatch ...` would, and what it leaves behind."""

import csv
import io
import json
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from rich.console import Console

from headpatch.cli import main
from headpatch.core import session
from headpatch.present.parts import Part
from headpatch.present.tables import renderables

_load = session.load


def load_once(name: str = "demo", *more: object) -> Any:
    """Load a model as commands do, once as long as the files of its folder stay as they are."""
    if any(isinstance(one, dict) for one in more):  # a device map
        return _load(name, *more)
    there = sorted(path for path in Path(name).glob("*") if path.is_file())
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in there]
    return _loaded(name, more, tuple(files))


@lru_cache(maxsize=4)
def _loaded(name: str, more: tuple[Any, ...], files: tuple[object, ...]) -> Any:
    return _load(name, *more)


class Said(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What a script reads: the whole of stdout is one strict JSON object on one line."""

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is not JSON")

        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line, parse_constant=refuse)
        return found


def headpatch(*words: object) -> Said:
    """Run ``headpatch("rank", "--top", 3)``; nothing it patches outlives the call."""
    out, err = io.StringIO(), io.StringIO()
    terminate = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["headpatch", *map(str, words)])
        if session.load is _load:
            patch.setattr(session, "load", load_once)
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            signal.signal(signal.SIGTERM, terminate)
    assert isinstance(left.value.code, int)
    return Said(left.value.code, out.getvalue(), err.getvalue())


def done(*words: object) -> Said:
    """Run a command that must succeed in silence, but for its price."""
    said = headpatch(*words)
    assert (said.code, unpriced(said.err)) == (0, ""), said.err
    return said


def unpriced(err: str) -> str:
    """Return what was said on stderr, without what a long question takes."""
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if " changed runs are to come " not in line)


def ran(*words: object, draws: bool = False) -> Said:
    """Run a command that must succeed; its figures are left blank unless it `draws`."""
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            patch.setattr(
                "headpatch.core.output.writing.draw", lambda part, target, **_: target.touch()
            )
        said = headpatch(*words)
    assert said.code == 0, said.err
    return said


def refused(*words: object, code: int = 2) -> str:
    """Run a command that must fail; return its one line."""
    said = headpatch(*words)
    assert said.out == ""
    (line,) = unpriced(said.err).splitlines()
    assert line.startswith("headpatch: ")
    assert "Traceback" not in line
    assert said.code == code, line
    return line.removeprefix("headpatch: ")


def refused_early(*words: object) -> str:
    """Run a command that must fail before its model is loaded; return its one line."""

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.session.load", load)
        return refused(*words)


def of_pair(place: Path) -> list[object]:
    """The flags of a model and a pair of pictures that lie in a folder."""
    pictures = ("--with", place / "with.png", "--without", place / "without.png")
    return ["--model", place / "model", *pictures]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder, with its size and the time of its last change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in (folder, *sorted(folder.rglob("*")))
    }


def edit_record(
    folder: Path, verb: str, study: Mapping[str, Any] | None = None, **run: Any
) -> None:
    """Change what a verb's record says, as if it had been run so; its files are not checked."""
    path = folder / "run.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    one = content if content["run"]["verb"] == verb else content["earlier"][verb]
    one["study"] |= study or {}
    one["run"] |= run
    for name in ("checksum", "files"):
        one["run"].pop(name, None)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def printed(parts: Iterable[Part], width: int = 200) -> str:
    """Return what a terminal shows of a view."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(*renderables(parts))
    return capture.get()


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table that a command wrote."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))

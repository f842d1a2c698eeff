"""Who watches a call of the API sees a bar; who does not sees nothing, and who asks is called."""

import os
import pty
import termios
from collections.abc import Callable
from functools import partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from time import sleep

import pytest

import headpatch as hp
from headpatch.core import progress
from headpatch.core.progress import Progress, stages_of
from tests.planted import HEADS, planted, planted_study

LOOKER, WRITER = HEADS["looker"].head, HEADS["blind writer"].head
END = "\x1e"
QUICK = {"kinds": ["mean"], "directions": ["noising"], "reference": 2}

CALLS: dict[str, Callable[[hp.Session, Progress], object]] = {
    "ablate": lambda session, told: hp.ablate(session, LOOKER, None, told, **QUICK),
    "sweep": lambda session, told: hp.sweep(session, None, None, told, **QUICK),
    "cut": lambda session, told: hp.cut(session, told, edges=["answer-region"], window=1),
    "combine": lambda session, told: hp.combine(session, [LOOKER, WRITER], None, told, **QUICK),
    "path": lambda session, told: hp.path(session, [LOOKER], told, window=1),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> hp.Session:
    study = planted_study(tmp_path_factory.mktemp("pictures"))
    return hp.open_session(study, planted().vlm, positions="answer")


def on_a_terminal(call: Callable[[], object], patience: float = 0.0) -> str:
    """What a terminal shows while something runs."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with os.fdopen(theirs, "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr("sys.stderr", stderr)
        patch.setattr(progress, "_PATIENCE", patience)
        call()
        stderr.write(END)
        stderr.flush()
        shown = ""
        while not shown.endswith(END):  # what was written need not be there at once
            shown += os.read(ours, 1_000_000).decode()
        os.close(ours)
        return shown.removesuffix(END)


@pytest.mark.parametrize("name", CALLS)
def test_progress_is_told_stage_by_stage(name: str, session: hp.Session) -> None:
    told: list[tuple[int, int]] = []
    CALLS[name](session, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert all(0 <= done <= total for done, total in told)
    for (done, total), (later, of) in pairwise(told):
        assert later >= done or of != total or later <= 1  # or the next stage begins


@pytest.mark.parametrize("name", CALLS)
def test_a_terminal_shows_a_bar_and_nothing_is_left_of_it(name: str, session: hp.Session) -> None:
    shown = on_a_terminal(lambda: CALLS[name](session, None))
    assert "it/s" in shown
    assert shown.rsplit("\r", 2)[-2].strip() == ""


def test_the_bar_names_the_stages(session: hp.Session) -> None:
    shown = on_a_terminal(lambda: CALLS["sweep"](session, None))
    assert shown.index("Averaging reference pairs:") < shown.index("Changing heads:")


def test_the_bar_counts() -> None:
    def call() -> None:
        with stages_of(None)("Changing heads") as advance:
            for done in range(3):
                advance(done, 3)
                sleep(0.12)  # a bar is drawn ten times a second

    assert "Changing heads:  67%" in on_a_terminal(call)


@pytest.mark.parametrize("told", [False, lambda _done, _total: None])
def test_who_wants_no_bar_sees_none(told: Progress, session: hp.Session) -> None:
    for call in CALLS.values():
        assert on_a_terminal(partial(call, session, told)) == ""


def test_what_is_quick_shows_nothing() -> None:
    def call() -> None:
        with stages_of(None)("Changing heads") as advance:
            advance(1, 2)
            advance(2, 2)

    assert on_a_terminal(call, patience=60.0) == ""


def test_a_file_gets_no_bar(session: hp.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    log = StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    CALLS["ablate"](session, None)
    assert log.getvalue() == ""


def test_pairs_are_counted_while_they_are_drawn(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    hp.draw_pairs(2, tmp_path, size=48, on_progress=lambda *now: told.append(now))
    assert told == [(1, 2), (2, 2)]

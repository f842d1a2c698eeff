"""What is said of a run's price, and how much of it is left: all stages that are to come."""

import pytest

from headpatch.cli import show
from headpatch.core.outlook import UNTOUCHED, Outlook, Stage, price_words


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


STAGES = (Stage("First", 100, 20.0), Stage("Second", 400, 80.0))


def test_the_price_names_pairs_runs_and_passes() -> None:
    assert price_words(STAGES, 10) == (
        "10 pairs, if all pass: about 500 changed runs are to come (first: 100; second: 400), at "
        "about 100 forward passes where the fast paths are exact"
    )


def test_time_left_covers_all_stages() -> None:
    """Where every pass takes a second, what is left is the passes that are left."""
    clock = Clock()
    outlook = Outlook(clock)
    outlook.announce(STAGES, 5)  # 10 untouched runs
    outlook.begin("Loading the model")  # of which nobody knows
    clock.now += 7.0
    assert outlook.left(0, 1) is None
    outlook.end()
    passes = 110.0
    for stage, cost in {UNTOUCHED: 10.0, "First": 20.0, "Second": 80.0}.items():
        outlook.begin(stage)
        for done in range(1, 11):
            clock.now += cost / 10
            passes -= cost / 10
            assert outlook.left(done, 10) == pytest.approx(passes)
        assert outlook.end() == pytest.approx(cost)


def test_the_price_is_said_once_when_the_first_priced_stage_begins() -> None:
    said = list[str]()
    outlook = Outlook(Clock(), said.append)
    outlook.announce(STAGES, 1)
    for stage in ("Loading the model", "Running both pictures"):
        outlook.begin(stage)
        outlook.end()
    assert not said  # a refusal up to here is one line
    for stage in ("First", "Second"):
        outlook.begin(stage)
        outlook.end()
    assert said == [price_words(STAGES, 1)]
    outlook.announce(STAGES, 10)
    outlook.begin(UNTOUCHED)  # of many pairs it is said before any is run
    assert said[1:] == [price_words(STAGES, 10)]
    outlook.end()
    outlook.announce((), 10)
    outlook.begin(UNTOUCHED)
    outlook.end()
    outlook.add(STAGES[:1], 10)  # known only now
    assert len(said) == 2
    outlook.begin("First")
    assert said[2:] == [price_words(STAGES[:1], 10)]


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    outlook = Outlook(clock)
    outlook.announce(STAGES, 1)
    with show.progress("First", False, outlook) as advance:
        for done in range(1, 101):
            clock.now += 1.0
            advance(done, 100)
    with show.progress("Second", False, outlook) as advance:
        clock.now += 5.0
        advance(1, 10)  # too soon for a line
    with show.progress("First", True, outlook) as advance:
        clock.now += 500.0
        advance(1, 2)
    assert capsys.readouterr().err.splitlines() == [
        "headpatch: First: 30 of 100, about 8 min left",
        "headpatch: First: 60 of 100, about 8 min left",
        "headpatch: First: 90 of 100, about 7 min left",
        "headpatch: First: done in 2 min",
    ]

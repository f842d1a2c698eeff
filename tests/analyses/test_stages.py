"""Stages tell whoever asked, and nobody else."""

from headpatch.core.progress import reporting


def test_every_stage_reports_to_the_one_who_asked() -> None:
    told: list[tuple[int, int]] = []
    stages = reporting(lambda done, total: told.append((done, total)))
    for name, total in (("Averaging reference pairs", 2), ("Changing heads", 3)):
        with stages(name) as advance:
            advance(1, total)
    assert told == [(1, 2), (1, 3)]


def test_where_nobody_asked_nothing_is_told() -> None:
    with reporting(None)("Changing heads") as advance:
        advance(1, 2)

"""Fast paths are refused or used for a dataset, not for whichever of its pairs comes first."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.fast_paths import decide
from headpatch.core.gate import sessions
from headpatch.core.session import run_both
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.disk import tensor_bytes
from headpatch.engine import selfcheck
from headpatch.engine.selfcheck import Check, Checks
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.questions.verdict.measure import Runner
from headpatch.questions.verdict.pair_record import Task
from tests.datasets import noisy_pairs
from tests.tiny import tiny_vlm

# The last two are asked otherwise in prompts of other lengths, which no pair has.
SHORT, LONG = "is there a red square ?", "is there a red square in the image ?"
SIDED = "is there a red square at the top left ?"
QUESTIONS = [SHORT, SHORT, LONG, SHORT, LONG, SIDED, SIDED]
TASK = Task(nulls=True, vision=True)


@pytest.fixture(name="vlm")
def model() -> VLM:
    return tiny_vlm()


@pytest.fixture(name="entries")
def table(tmp_path: Path) -> tuple[Entry, ...]:
    return Manifest.read(noisy_pairs(tmp_path, QUESTIONS)).entries


def refusing(
    monkeypatch: pytest.MonkeyPatch, vlm: VLM, entries: Sequence[Entry], refused: Sequence[int]
) -> list[int]:
    """Let the widening pass be found wrong on some pairs; returns which pairs are compared."""
    study, compared, check = Study(), list[int](), selfcheck.check
    lds = [run_both(study, vlm, one.pair(), "answer").base.ld_with for one in entries]

    def made(vlm: VLM, base: Any, *rest: Any) -> Check:
        found = check(vlm, base, *rest)
        if base.ld_with not in lds:  # asked otherwise
            return found
        compared.append(lds.index(base.ld_with))
        return replace(found, worst=0.5) if compared[-1] in refused else found

    monkeypatch.setattr(selfcheck, "check", made)
    return compared


def study_of_all() -> Study:
    return Study.make(None, {"force": True, "ablate.reference": 0})


def surveyed(vlm: VLM, entries: Sequence[Entry], hold: bool = False) -> Survey:
    return survey(study_of_all(), vlm, entries, "answer", hold=hold)


@pytest.mark.parametrize(
    ("refused", "slow", "compared"),
    [
        ((), (), [0, 2, 5]),
        ((0, 2), (0, 2), [0, 1, 2, 4, 5]),  # those pairs alone: the next of their length agrees
        ((0, 1), (0, 1, 3), [0, 1, 2, 5]),  # both refuse: so it is for the third
        ((3, 4), (), [0, 2, 5]),
    ],
)
def test_the_first_two_pairs_of_a_length_decide(
    refused: Sequence[int], slow: Sequence[int], compared: list[int],
    vlm: VLM, entries: tuple[Entry, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Alike in the survey, where some are opened again, and where pairs are opened for once."""
    made = refusing(monkeypatch, vlm, entries, refused)
    found = surveyed(vlm, entries)
    assert made == compared
    assert found.widens is not bool(slow)
    made.clear()
    again = decide(study_of_all(), vlm, map(Entry.pair, entries), "answer")
    assert made == compared
    for some in (entries, entries[::-1], entries[3:], entries[1:2]):
        for checks in (found.checks, again):
            opened = sessions(study_of_all(), vlm, some, "answer", checks=checks)
            paths = {one.pair.name: one.widens for one in opened}
            assert paths == {one.name: entries.index(one) not in slow for one in some}
    assert made == compared  # nothing was compared again


def test_a_pair_measures_the_same_whenever_and_whoever_else_is_measured(
    vlm: VLM, entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is asked otherwise, and in the vision tower; byte by byte."""
    refusing(monkeypatch, vlm, entries, (0,))
    study = study_of_all()

    def measured(some: Sequence[Entry], folder: str, hold: bool = False) -> dict[str, bytes]:
        store = Store(tmp_path / folder)
        runner = Runner(study, vlm, surveyed(vlm, entries, hold), store, None, 1)
        tasks = [TASK] * len(entries)
        records = runner.measured(some, tasks[: len(some)], runner.decided(entries, tasks))
        return {one.name: tensor_bytes(one.to_saved()) for one in records}

    whole = measured(entries, "whole", hold=True)
    assert len(whole) == len(entries)
    assert measured(entries[::-1], "backwards") == whole
    assert {name: whole[name] for name in (entries[5].name, entries[1].name)} == measured(
        [entries[5], entries[1]], "some"
    )


def test_a_resumed_run_of_those_asked_otherwise_is_the_same(
    vlm: VLM, entries: tuple[Entry, ...], tmp_path: Path
) -> None:
    study, found = study_of_all(), surveyed(vlm, entries)

    def records(folder: str, stop: int | None = None) -> list[bytes]:
        runner = Runner(study, vlm, found, Store(tmp_path / folder), None, 1)
        measured = runner.measured(entries, [TASK] * len(entries))
        some = [next(measured) for _ in range(stop)] if stop else list(measured)
        return [tensor_bytes(one.to_saved()) for one in some]

    records("killed", stop=3)
    assert records("killed") == records("whole")


def test_those_asked_otherwise_are_compared_once_for_each_length(
    vlm: VLM, entries: tuple[Entry, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, found, made = study_of_all(), surveyed(vlm, entries), list[int]()
    check = selfcheck.check
    monkeypatch.setattr(
        selfcheck,
        "check",
        lambda *args: made.append(args[1].prompt.spans.length) or check(*args),
    )
    runner = Runner(study, vlm, found, Store(tmp_path / "kept"), None, 1)
    assert len(list(runner.measured(entries, [TASK] * len(entries)))) == len(entries)
    assert len(made) == len(set(made))
    assert isinstance(found.checks, Checks)

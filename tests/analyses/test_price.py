"""What a run costs besides its rows, against the whole passes that hooks count."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headpatch.core.cost import Beside, cost, inexact, left, plan, slow_pairs
from headpatch.core.effects import floor_of, intervene
from headpatch.core.mean_activations import mean_z, reference_pairs
from headpatch.core.session import Session, open_session
from headpatch.core.study.study import Study
from headpatch.engine.selfcheck import Check
from headpatch.heads import Head
from headpatch.questions.ablate.measure import plan as plan_ablation
from tests.datasets import tiny_study
from tests.tiny import SHAPES, tiny_vlm


def opened(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> Session:
    """A tiny random model on noisy pictures."""
    study = tiny_study(folder, **{f"sweep.{key}": value for key, value in options.items()})
    return open_session(study, tiny_vlm(SHAPES["plain"], dtype=dtype), "answer")


@contextmanager
def whole_passes(session: Session) -> Iterator[list[int]]:
    """Count the rows of the model's own passes."""
    rows: list[int] = []

    def count(_: object, __: object, keys: dict[str, Any], ___: object) -> None:
        rows.append(len(keys["input_ids"]))

    handle = session.vlm.model.register_forward_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def test_the_mean_costs_both_runs_of_each_reference_pair(tmp_path: Path) -> None:
    session = opened(tmp_path, reference=3)
    job = plan(session)
    with whole_passes(session) as rows:
        mean_z(session, None, session.study.sweep.reference)
    assert job.beside == Beside(means=sum(rows)) == Beside(means=6)
    assert job.total == job.passes + 6
    assert plan(opened(tmp_path, reference=3, kinds=("zero",))).beside == Beside()


def test_rows_of_low_precision_are_checked_again(tmp_path: Path) -> None:
    session = opened(tmp_path, torch.bfloat16, kinds=("zero",))
    assert session.widens
    job = plan(session)
    outcomes = intervene(session, job.asked)
    with whole_passes(session) as rows:
        floor_of(session, outcomes)
    assert 0 < sum(rows) <= job.beside.rechecks <= sum(rows) + 1


def test_what_is_finished_costs_nothing_more(tmp_path: Path) -> None:
    session = opened(tmp_path, reference=16)
    job = plan(session)
    half = left(session, job, job.asked[::2])
    assert half.passes == cost(session, job.asked[1::2], job.size)
    assert left(session, job, job.asked).total == half.beside.total == job.beside.total == 32
    assert cost(session, (), tower="vision") == 0


def test_no_scene_is_drawn_for_a_users_own_pictures_unless_it_is_asked_for(tmp_path: Path) -> None:
    session = opened(tmp_path, reference=None, kinds=("mean",))
    assert plan(session).beside == Beside()
    with whole_passes(session) as rows:
        means = mean_z(session, reference=None)["lm"]
    assert not rows
    torch.testing.assert_close(means[0], session.base.trace.z["lm"][0].mean(0))
    bundled = Study().pair()
    assert [reference_pairs(bundled, asked) for asked in (None, 0, 3)] == [16, 0, 3]
    assert [reference_pairs(session.pair, asked) for asked in (None, 0, 3)] == [0, 0, 3]


@pytest.mark.parametrize("reference", [0, 2])
def test_ablate_tells_the_same(tmp_path: Path, reference: int) -> None:
    session = opened(tmp_path)
    session = replace(session, study=session.study.override({"ablate.reference": reference}))
    job = plan_ablation(session, [Head(1, 2)])
    assert job.passes == cost(session, job.interventions)
    assert job.beside == Beside(means=2 * reference)


def test_the_price_of_a_refusal_is_told_with_its_factor(tmp_path: Path) -> None:
    """12 heads take 12 rows and 2 untouched ones; by a widening pass a part of one."""
    session = opened(tmp_path)
    assert inexact(session) == ""
    words = inexact(replace(session, fast=Check(0.5, 1e-4)))
    assert "is not exact for tiny at positions answer (it is off by 5.0e-01 logits)" in words
    found = re.search(r"about (\S+) times as many passes \((\S+) instead of (\S+) for", words)
    assert found is not None
    factor, many, few = map(float, found.groups())
    assert many == 12 + 2
    assert few == round(many / factor, 1)


def test_pairs_that_go_the_slow_way_are_named() -> None:
    slow = {"why": ["a"], "another why": ["b", "c", "d", "e", "f"]}
    assert slow_pairs(slow, 9) == ("pair a: why", "pairs b, c, d and 2 more: another why")
    assert slow_pairs({"why": ["a", "b"]}, 2) == ("why",)

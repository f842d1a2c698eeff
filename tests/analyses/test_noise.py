"""The noise floor is as large as what rounding does to an effect."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from headpatch.core.effects import FEW, floor_of, intervene
from headpatch.core.session import Session
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome, patch
from headpatch.engine.selfcheck import Check, Checks
from headpatch.heads import Head, HeadSet
from headpatch.questions.ablate.question import ablate
from headpatch.questions.combine import effects as combine
from headpatch.questions.path.heads import head_paths
from headpatch.questions.sweep.question import Sweep, sweep
from headpatch.questions.trace.question import trace
from headpatch.questions.verdict import measure as verdict
from headpatch.questions.verdict.pair_record import Task
from tests.questions.sweep.test_effects import effects_of, noisy_session
from tests.questions.sweep.test_vision import opened
from tests.tiny import tiny_vlm


def self_patches(found: Sweep) -> float:
    rows = found.effects[found.effects["role"] == "noise floor"]
    return float(rows["effect"].abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_held_against_float32_arithmetic(dtype: torch.dtype) -> None:
    session = noisy_session("grouped-query", "answer", dtype, kinds=("zero", "resample"))
    found = sweep(session)
    exact = [one.effect for one in patch(session.vlm, session.base, list(found.plan.asked))]
    effects = effects_of(found)
    off = np.abs(effects - np.array(exact))
    assert off.max() > 10 * self_patches(found), "patching with its own z alone shows too little"
    # Rounding grows with the effect: what it does to most of them is what a small one must pass.
    assert found.noise_floor >= off[np.argsort(-np.abs(effects))[:7]].max() > np.median(off)


def test_it_covers_what_the_size_of_a_chunk_does() -> None:
    session = noisy_session("grouped-query", "answer", torch.bfloat16, kinds=("zero", "resample"))
    found = sweep(session)
    for rows in (1, 5):
        other = intervene(session, list(found.plan.asked), rows=rows)
        moved = np.abs(effects_of(found) - np.array([one.effect for one in other]))
        assert moved.max() <= found.noise_floor


def test_float32_shows_what_sets_the_fast_path_apart() -> None:
    """Where patching a head with its own z changes no bit, too."""
    session = noisy_session("grouped-query", "answer", kinds=("resample",))
    found = sweep(session)
    assert session.fast is not None
    assert found.noise_floor == max(self_patches(found), session.fast.worst) > 0
    off = replace(session, fast=Check(3e-5, 1e-4))
    assert sweep(off).noise_floor == 3e-5
    assert any(row["below_floor"] for row in sweep(off).top(16)) is any(
        abs(row["effect"]) <= 3e-5 for row in found.top(16)
    )
    plainly = replace(session, fast=Check(0.5, 1e-4))  # not used, so it does not count
    assert sweep(plainly).noise_floor < 1e-4


def test_each_tower_has_the_floor_of_its_own_path() -> None:
    session = replace(opened(tiny_vlm()), fast_vision=Check(2e-5, 1e-4), fast=Check(7e-5, 1e-4))
    head = HeadSet.parse("v0.1")
    itself, other = (
        Outcome(Intervention(head, kind, "noising"), 1.0, effect, 0, 0)  # type: ignore[arg-type]
        for kind, effect in (("self", 1e-6), ("zero", 0.5))
    )
    assert floor_of(session, [itself, other]) == 2e-5
    text = replace(other, intervention=Intervention(HeadSet.parse("0.1"), "zero", "noising"))
    assert floor_of(session, [itself, other, text]) == 7e-5
    assert floor_of(replace(session, fast_vision=None, fast=None), [itself, text]) == 1e-6


def test_ablate_shows_it_too() -> None:
    session = noisy_session("grouped-query", "answer", torch.bfloat16)
    kinds = session.study.ablate.model_copy(update={"kinds": ("zero", "resample")})
    study = session.study.model_copy(update={"ablate": kinds})
    found = ablate(replace(session, study=study), [Head(0, 1), Head(1, 2)])
    assert session.fast is not None
    assert found.noise_floor >= session.fast.worst > 0


TWO = (Head(0, 1), Head(1, 2))


def combined(session: Session) -> float:
    return combine.measure(session, combine.Plan.of(session.study, TWO)).floor


def followed(session: Session) -> float:
    return head_paths(session, TWO).noise_floor


def traced(session: Session) -> float:
    study = session.study.override({"trace.answer": "Yes", "trace.noise": 1})
    (token,) = trace(replace(session, study=study)).tokens
    # A head patched plainly with its own z may change no bit.
    assert min(token.floors["logit"], token.floors["logprob"]) > 0 or not session.widens
    return token.floors["contrast"]


def judged(session: Session) -> float:
    study = session.study.override({"verdict.noise": 1})
    rng, means = np.random.default_rng(0), {"lm": [z[0] for z in session.base.trace.z["lm"]]}
    task = Task((HeadSet(TWO),))
    return verdict.measure(replace(session, study=study), task, means, Checks(), rng).floor


FLOORS: dict[str, Callable[[Session], float]] = {
    "combine": combined, "path": followed, "trace": traced, "verdict": judged,
}  # fmt: skip
"""Beside those of `ablate` and `sweep`."""


@pytest.mark.parametrize("verb", FLOORS)
def test_every_question_counts_what_sets_the_fast_path_apart(verb: str) -> None:
    session = noisy_session("grouped-query", "answer")
    assert FLOORS[verb](replace(session, fast=Check(3e-5, 1e-4))) == 3e-5
    assert FLOORS[verb](replace(session, fast=Check(0.5, 1e-4))) < 1e-4  # not used


@pytest.mark.parametrize("verb", FLOORS)
def test_every_question_is_held_against_float32_in_low_precision(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its largest effects; so no floor is lower for one question than for another."""
    session = noisy_session("grouped-query", "answer", torch.bfloat16)
    assert session.fast is not None and session.widens
    asked: list[int] = []

    def plain(*given: object, **more: object) -> list[Outcome]:
        found = patch(*given, **more)  # type: ignore[arg-type]
        asked.append(len(found))
        return [replace(one, effect=one.effect + 0.25) for one in found]

    monkeypatch.setattr("headpatch.core.effects.patch", plain)
    assert FLOORS[verb](session) == pytest.approx(0.25, abs=0.1)
    assert 0 < sum(asked) <= (7 if verb == "combine" else FEW)


def test_effects_of_means_alone_are_held_against_float32_too() -> None:
    session = noisy_session("grouped-query", "answer", torch.bfloat16, kinds=("mean",))
    means = {"lm": [z.mean(0) for z in session.base.trace.z["lm"]]}
    found = sweep(session, means=means)
    asked = [one for one in found.plan.asked if one.kind == "mean"]
    exact = np.array([one.effect for one in patch(session.vlm, session.base, asked, means)])
    off = np.abs(effects_of(found)[: len(asked)] - exact)
    assert found.noise_floor >= off[np.argsort(-np.abs(exact))[:5]].max() > self_patches(found)

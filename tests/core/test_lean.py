"""Pairs that stay open with less: what a verdict does to them comes out as if all were kept."""

import pytest

import headpatch as hp
from headpatch.core.effects import floor_of, intervene
from headpatch.core.held import Held, lean, size_of
from headpatch.core.mean_activations import MeanZ
from headpatch.core.session import Session, checked, run_both
from headpatch.engine.interventions import Intervention
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM


@pytest.fixture(scope="module")
def low() -> VLM:
    return hp.load("demo", dtype="bfloat16")


@pytest.fixture(scope="module")
def session(low: VLM) -> Session:
    study = hp.Study()
    return checked(run_both(study, low, study.pair(), "answer"))


def test_changes_of_a_lean_pair_are_those_of_the_whole(session: Session) -> None:
    less, means = lean(session), MeanZ("answer")
    means.add(means.of_pair(session), 2)
    heads = [HeadSet.parse(text) for text in ("0.3", "16.26", "23.9", "23.9+21.14+31.1")]
    asked = [
        Intervention(one, kind, way, "answer")
        for kind in ("resample", "mean", "self")
        for way in ("noising", "denoising")
        for one in heads
    ]
    found, expected = (
        intervene(one, asked, means.of(one), answers_only=True) for one in (less, session)
    )
    assert found == expected
    assert floor_of(less, found, means.of(less), 2) == floor_of(
        session, expected, means.of(session), 2
    )


def test_a_lean_pair_takes_far_less_memory(session: Session) -> None:
    assert size_of(lean(session)) < 0.4 * size_of(session)
    held = Held(session.vlm.device, None, lean=True)
    held.offer(session)
    (kept,) = held.sessions.values()
    assert size_of(kept) < 0.4 * size_of(session)


def test_pairs_in_float32_stay_as_they_are() -> None:
    study = hp.Study()
    whole = run_both(study, hp.load("demo"), study.pair(), "answer")
    assert lean(whole) is whole

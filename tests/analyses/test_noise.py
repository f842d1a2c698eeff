"""The noise floor is as large as what rounding does to an effect."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headpatch.analyses.ablate.one import ablate
from headpatch.analyses.session import intervene
from headpatch.analyses.sweep.one import Sweep, sweep
from headpatch.engine.patching import patch
from headpatch.heads import Head
from tests.analyses.test_sweep import effects_of, noisy_session


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


def test_float32_shows_the_self_patches() -> None:
    found = sweep(noisy_session("grouped-query", "answer", kinds=("resample",)))
    assert found.noise_floor == self_patches(found)


def test_ablate_shows_it_too() -> None:
    session = noisy_session("grouped-query", "answer", torch.bfloat16)
    kinds = session.study.ablate.model_copy(update={"kinds": ("zero", "resample")})
    study = session.study.model_copy(update={"ablate": kinds})
    found = ablate(replace(session, study=study), [Head(0, 1), Head(1, 2)])
    assert session.fast is not None
    assert found.noise_floor >= session.fast.worst > 0

"""Kind `scale`: alpha times a head's own z, on every path, in every verb that takes kinds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

import headpatch as hp
from headpatch.core.cost import plan
from headpatch.core.session import Session
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.core.teacher_forcing import Answer
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import Baseline, Outcome, patch
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import widen
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.questions.sweep.finished_rows import FinishedRows, keys_of
from headpatch.questions.trace.token_runner import TokenRunner
from tests.command import of_pair, ran
from tests.datasets import noisy_pairs, tiny_study
from tests.engine.oracle import Twin
from tests.planted import save_planted
from tests.tiny import SHAPES, tiny_pair, tiny_vlm

ROUNDING = 2e-5  # logits, of float32 through a tiny model in batches of different shapes
SETS = {"lm": ("0.1", "1.2", "2.0+0.3"), "vision": ("v0.1", "v1.0+v0.2", "v0.1+1.2")}
Run = Callable[[VLM, Baseline, list[Intervention]], list[Outcome]]
PATHS: dict[str, tuple[str, Run]] = {
    "plain": ("lm", patch),
    "widening": ("lm", widen),
    "plain, vision": ("vision", patch),
    "resumed, vision": ("vision", patch_vision),
}


def pair_of(scope: Positions, dtype: torch.dtype = torch.float32) -> tuple[VLM, Baseline]:
    return tiny_pair("grouped-query", "lm", "vision", suffix=scope, dtype=dtype, exact=True)


def asked(
    tower: str, kind: str, alpha: float | None = None, scope: Positions = "answer"
) -> list[Intervention]:
    return [
        Intervention(HeadSet.parse(heads), kind, way, scope, "patches", alpha)
        for heads in SETS[tower]
        for way in get_args(Direction)
    ]


def effects(outcomes: list[Outcome]) -> list[float]:
    return [one.effect for one in outcomes]


@pytest.mark.parametrize("scope", ["answer", "question"])
@pytest.mark.parametrize("path", PATHS)
def test_it_equals_a_slow_hook(path: str, scope: Positions) -> None:
    (vlm, base), (tower, run) = pair_of(scope), PATHS[path]
    twin = Twin(vlm, base)
    for alpha in (2.0, -0.5):
        for outcome in run(vlm, base, asked(tower, "scale", alpha, scope)):
            expected = twin.ld(outcome.intervention)
            assert outcome.ld == pytest.approx(expected, abs=ROUNDING), outcome.intervention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_a_head_is_zero_and_all_of_it_no_change(path: str, dtype: torch.dtype) -> None:
    (vlm, base), (tower, run) = pair_of("answer", dtype), PATHS[path]
    zero, none, whole = (
        effects(run(vlm, base, asked(tower, *kind)))
        for kind in (("zero",), ("scale", 0.0), ("scale", 1.0))
    )
    floor = max(map(abs, effects(run(vlm, base, asked(tower, "self")))))
    assert none == pytest.approx(zero, abs=1e-6)
    assert max(map(abs, zero)) > 1e-3
    assert max(map(abs, whole)) <= floor + 1e-6


def test_deviations_of_low_precision_agree_with_whole_passes() -> None:
    vlm, base = pair_of("question", torch.bfloat16)
    one = asked("lm", "scale", 2.0, "question")
    slow, fast = effects(patch(vlm, base, one)), effects(widen(vlm, base, one))
    assert base.trace.prefills[0].points is not None
    assert fast == pytest.approx(slow, abs=0.02 * max(map(abs, slow)))


def test_several_factors_walk_together() -> None:
    vlm, base = pair_of("answer")
    mixed = [*asked("lm", "scale", 2.0), *asked("lm", "zero"), *asked("lm", "scale", 0.5)]
    assert effects(widen(vlm, base, mixed)) == pytest.approx(
        effects(patch(vlm, base, mixed)), abs=ROUNDING
    )


def test_its_estimate_is_linear_in_alpha() -> None:
    vlm, base = pair_of("answer")
    pair = gradients(vlm, base.prompt)
    zero = attribute(pair, "zero", "noising")
    for alpha in (0.0, 0.5, 1.0, 3.0):
        for tower, estimate in attribute(pair, "scale", "noising", None, alpha).items():
            torch.testing.assert_close(estimate, (1 - alpha) * zero[tower], rtol=1e-4, atol=1e-6)


def test_a_change_says_its_factor_or_has_none() -> None:
    with pytest.raises(ValueError, match="needs alpha"):
        Intervention(HeadSet.parse("0.1"), "scale", "noising")
    zero = Intervention(HeadSet.parse("0.1"), "zero", "noising")
    assert replace(zero, alpha=2.0) == zero
    for wrong in (float("nan"), float("inf"), "much"):
        with pytest.raises(InputError, match="alpha"):
            Study.make(None, {"sweep.alpha": wrong})


def session_of(folder: Path, **keys: object) -> Session:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    return hp.open_session(tiny_study(folder, **keys), vlm, positions="answer")


def test_finished_units_of_another_factor_are_not_taken(tmp_path: Path) -> None:
    keys, names = set[str](), set[str]()
    for alpha in (0.5, 2.0):
        options = {"kinds": ("scale",), "alpha": alpha}
        one = session_of(tmp_path, **{f"{v}.{k}": x for v in ("sweep", "trace")
                                      for k, x in options.items()})  # fmt: skip
        keys.add(keys_of(one.study, one.vlm, one.pair, None)[one.pair.name])
        runner = TokenRunner(one.study, one.vlm, None, 1, lambda *_: None)
        names.update(runner.names(one.pair, Answer("with", (1,), ("Yes",), "Yes"), None))
    assert len(keys) == len(names) == 2
    finished = FinishedRows(Store(tmp_path / "rows"), {one.pair.name: keys.pop()})
    change = plan(one).asked[0]
    with finished.writing(one.pair.name) as add:
        add(Outcome(change, 1.0, 0.5, 1, 2))
    assert finished.finished(one.pair.name) == {change: Outcome(change, 1.0, 0.5, 1, 2)}
    assert change.alpha == 2.0


def same(table: pd.DataFrame, alpha: float, name: str = "effect") -> None:
    """Hold alpha 0 against kind `zero` of the same table, which has the column `alpha`."""
    where = table["kind"] == "scale"
    assert set(table.loc[where, "alpha"]) == {alpha}
    assert table.loc[~where, "alpha"].isna().all()
    if alpha == 0:
        np.testing.assert_allclose(
            table.loc[where, name], table.loc[table["kind"] == "zero", name], atol=1e-5
        )


@pytest.mark.usefixtures("draft")
def test_every_verb_takes_it_and_says_alpha(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    ways: dict[str, Any] = {"kinds": ["zero", "scale"], "alpha": 0}
    found = hp.ablate(session, "0.1,v0.2,1.2", controls=1, **ways)
    same(found.named, 0)
    scaled = hp.ablate(session, "0.1,1.2", controls=1, kinds=["scale"], alpha=0.25)
    assert scaled.summary.startswith("Scaling 0.1+1.2 by 0.25 (answer): ")
    swept = hp.sweep(session, approx=True, layers=True, noise=1, **ways)
    same(swept.named, 0)
    same(swept.named, 0, "approx")
    assert (swept.saved["alpha"], swept.approx["alpha"]) == (0, 0)
    same(hp.sweep(session, tower="vision", noise=1, **ways).named, 0)
    combined = hp.combine(session, heads="0.1,1.2,2.0", **ways)
    same(combined.table, 0)
    traced = hp.trace(session, tokens=1, noise=1, **ways)
    same(traced.table(), 0)
    assert traced.saved()["alpha"] == 0
    for one in (swept, combined, traced):
        hp.plot(one)
    plain = hp.sweep(session, kinds=["zero"], noise=1)
    assert "alpha" not in plain.effects and "alpha" not in plain.saved


def test_over_many_pairs(tmp_path: Path) -> None:
    noisy_pairs(tmp_path, ["Is there anything in the top left corner?"] * 3)
    study = Study.make(None, {"force": True, "pairs.manifest": str(tmp_path / "manifest.csv")})
    pairs = hp.open_pairs(study, vlm=tiny_vlm(SHAPES["grouped-query"]))
    ways: dict[str, Any] = {"kinds": ["zero", "scale"], "alpha": 0}
    same(hp.ablate(pairs, "0.1,1.2", controls=0, **ways).means, 0)
    swept = hp.sweep(pairs, noise=1, **ways)
    same(swept.means, 0)
    assert swept.saved["alpha"] == 0


def test_the_command_line(tmp_path: Path) -> None:
    save_planted(tmp_path / "model", noise=0.3)
    tiny_study(tmp_path)
    words = [*of_pair(tmp_path), "--force", "--json", "--kinds", "scale", "--alpha", 2,
             "--out", tmp_path / "out"]  # fmt: skip
    found = ran("ablate", "--heads", "0.1", *words, "--controls", 0).json
    assert {row["alpha"] for row in found["effects"]} == {2}
    found = ran("sweep", *words).json
    assert {row["alpha"] for row in (*found["top"], *found["largest"])} == {2}

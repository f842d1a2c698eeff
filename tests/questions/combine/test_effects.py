"""What two heads do together: the planted circuit's numbers, and words that the numbers allow."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Pairs
from headpatch.core.head_selection import choose, choose_heads, single_effects
from headpatch.core.progress import stages_of
from headpatch.core.question import Call, Context
from headpatch.core.ranking import order
from headpatch.core.session import Session, open_session
from headpatch.core.study.study import Study
from headpatch.engine.patching import patch
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.pairs.manifest import Manifest
from headpatch.questions.ablate.question import ablate
from headpatch.questions.combine import selfrepair
from headpatch.questions.combine.effects import (
    Combinations,
    Effects,
    Plan,
    changes,
    judge,
    measure,
)
from headpatch.questions.combine.view import summary
from headpatch.stats.interactions import interaction_label, joint_reading
from tests.datasets import planted_pairs, tiny_study
from tests.planted import HEADS, planted, planted_study
from tests.tiny import SHAPES, tiny_vlm

ONE = np.zeros(1, dtype=np.int64)  # a pair alone is one scene


@lru_cache
def vlm():
    return planted().vlm


@lru_cache
def opened(positions: str = "answer", kinds: tuple[str, ...] = ("resample",)) -> Session:
    options = {"combine.positions": positions, "combine.kinds": kinds, "ablate.kinds": kinds}
    with TemporaryDirectory() as folder:
        return open_session(planted_study(Path(folder), **options), vlm(), positions)  # type: ignore[arg-type]


def combined(*names: str, positions: str = "answer") -> Combinations:
    session = opened(positions)
    plan = Plan.of(session.study, [HEADS[name].head for name in names])
    return judge(session.study, plan, [measure(session, plan)], ONE)


def row(found: Combinations, direction: str, *names: str) -> pd.Series:
    heads = str(HeadSet(tuple(HEADS[name].head for name in names)))
    table = found.table
    (index,) = table.index[(table["heads"] == heads) & (table["direction"] == direction)]
    return table.loc[index]


@pytest.mark.parametrize(
    ("names", "positions", "noising", "denoising", "words"),
    [
        (("redundant a", "redundant b"), "answer", (0, 0.5), (1.0, 0.5), "either would do"),
        (("looker", "blind writer"), "answer", (3 / 8, 3 / 8), (3 / 8, 3 / 8), "independent"),
        (("looker", "suppressor"), "answer", (1 / 8, 1 / 8), (1 / 8, 1 / 8), "independent"),
        (("note writer", "note reader"), "question", (2 / 8, 1 / 8), (2 / 8, 1 / 8),
         "in series, or the same thing twice"),
    ],
)  # fmt: skip
def test_planted_pairs(
    names: tuple[str, str], positions: str, noising: tuple[float, float],
    denoising: tuple[float, float], words: str,
) -> None:  # fmt: skip
    found = combined(*names, positions=positions)
    seen = []
    for direction, (alone, both) in (("noising", noising), ("denoising", denoising)):
        one = row(found, direction, *names)
        assert one["sum"] == pytest.approx(alone, abs=1e-3)
        assert one["normalized"] == pytest.approx(both, abs=1e-3)
        assert one["interaction"] == pytest.approx(both - alone, abs=1e-3)
        assert one["interaction_low"] <= one["interaction"] <= one["interaction_high"]
        seen.append(one["word"])
    assert joint_reading(*seen) == words


def test_every_two_and_all_of_them() -> None:
    found = combined("redundant a", "redundant b", "looker")
    here = found.table[found.table["direction"] == "noising"]
    assert here["role"].tolist() == ["head"] * 3 + ["pair"] * 3 + ["all"]
    whole = here.iloc[-1]
    shares = [whole["normalized"], whole["interaction"]]
    assert shares == pytest.approx([6 / 8, 4 / 8], abs=1e-3)
    assert whole["word"] == "redundancy"
    assert here[here["role"] == "head"]["interaction"].isna().all()
    assert found.largest(1)["heads"].tolist() == ["0.3+1.0"] * 2
    assert "either would do" in summary(found.table, Context())
    assert "One pair of pictures shows one case" in summary(found.table, Context())
    assert "INVALID" in summary(found.table, Context(valid=False))
    repaired = ["0.3", "1.0", "1.1", "0.3+1.0", "0.3+1.0+1.1"]
    assert list(map(str, found.repaired)) == repaired


def test_joint_effects_are_those_of_ablate() -> None:
    session = opened(kinds=("zero", "resample"))
    heads = [HEADS["looker"].head, HEADS["redundant a"].head]
    plan = Plan.of(session.study, heads)
    found = judge(session.study, plan, [measure(session, plan)], ONE).table
    ablated = ablate(session, heads).named
    keys = ["heads", "kind", "direction"]
    both = found.merge(ablated, on=keys, suffixes=("", "_ablated"))
    assert len(both) == 3 * 2 * 2
    np.testing.assert_allclose(both["effect"], both["effect_ablated"], atol=1e-6)
    np.testing.assert_allclose(both["normalized"], both["normalized_ablated"], atol=1e-6)


def test_heads_are_named_or_picked_by_effect_and_attention() -> None:
    session = opened()
    grid, ranking = session.vlm.lm.grid, order(session)

    def picked(**options: object) -> list[str]:
        study = Study.make(None, {f"combine.{key}": value for key, value in options.items()})
        effects = lambda: single_effects(session, "answer")  # noqa: E731
        return [str(head) for head in choose(grid, study.combine, effects, lambda: ranking)]

    assert picked(heads="1.1,0.3") == ["1.1", "0.3"]
    assert picked(top=2, by=("attention",)) == [str(head) for head in ranking[:2]]
    strongest = picked(top=1, by=("effect",))
    assert strongest == [str(HEADS["looker"].head), str(HEADS["redundant a"].head)]
    assert picked(top=1) == [*strongest, str(ranking[0])]


@pytest.mark.parametrize(
    ("direction", "sign", "against", "opposed", "expected"),
    [
        ("noising", 1, False, False, "redundancy"),
        ("noising", -1, False, False, "synergy"),
        ("denoising", 1, False, False, "synergy"),
        ("denoising", -1, False, False, "redundancy"),
        ("noising", -1, True, False, "redundancy"),  # of two that work against the answer
        ("denoising", -1, True, False, "synergy"),
        ("noising", 1, False, True, "opposed"),
    ],
)
def test_words(direction: str, sign: int, against: bool, opposed: bool, expected: str) -> None:
    found = interaction_label(direction, sign, small=False, against=against, opposed=opposed)  # type: ignore[arg-type]
    assert found == expected
    assert interaction_label(direction, 0, True, against, opposed) == "independence"  # type: ignore[arg-type]
    assert interaction_label(direction, 0, False, against, opposed) == "undecided"  # type: ignore[arg-type]


def many(pairs: int, noise: float, joint: float, copies: int = 1) -> Combinations:
    """Made-up effects of two heads over pairs: 0.1 and 0.05 alone, `joint` together.

    Each pair comes `copies` times, which is one scene.
    """
    study = Study.make(None, {"verdict.delta": 0.02, "combine.directions": ("noising",)})
    plan = Plan.of(study, [Head(0, 0), Head(1, 0)])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(pairs):
        effect = np.array([[0.1, 0.05, joint]]) + noise * rng.normal(size=(1, 3))
        found.append(Effects(-10 * effect, effect, 1e-6, 10.0))
    return judge(study, plan, found * copies, np.tile(np.arange(pairs), copies))


@pytest.mark.parametrize(
    ("pairs", "noise", "joint", "expected"),
    [
        (30, 0.03, 0.6, "redundancy"),
        (30, 0.03, 0.05, "synergy"),
        (200, 0.03, 0.15, "independence"),
        (5, 0.1, 0.15, "undecided"),
        (30, 0.03, 0.165, "undecided"),  # not beyond δ, and not within it for sure
    ],
)
def test_over_many_pairs_words_follow_intervals(
    pairs: int, noise: float, joint: float, expected: str
) -> None:
    found = many(pairs, noise, joint)
    two = found.table.iloc[2]
    assert two["word"] == expected
    assert two["interaction_low"] < two["interaction"] < two["interaction_high"]
    assert two["interaction"] == pytest.approx(joint - 0.15, abs=4 * noise)
    assert found.table["pairs"].tolist() == [pairs] * 3
    if expected == "redundancy":
        assert two["q"] < 0.05
    assert "Means over" in summary(found.table, Context())


@pytest.mark.parametrize(
    ("noising", "denoising", "both"),
    [
        ((0.1, 0.1, 0.6), (0.3, 0.3, 0.3), "either would do"),
        ((0.3, 0.3, 0.3), (0.1, 0.1, 0.6), "both are needed"),
        ((0, 0, 0.5), (0, 0, 0.5), "a threshold: the answer turns only when both are changed"),
        ((0.3, 0.3, 0.3), (0.3, 0.3, 0.3), "in series, or the same thing twice"),
        ((0.1, 0.1, 0.2), (0.1, 0.1, 0.2), "independent"),
        ((0.1, 0.1, 0.6), (0.1, 0.1, 0.2), "the directions differ"),
        ((0.1, 0.1, 0.6), (0.1, 0.1, 0.22), "undecided"),
        ((0.3, -0.3, 0.3), (0.1, 0.1, 0.6), "opposed"),
    ],
)
def test_two_heads_are_named_by_both_directions(
    noising: tuple[float, ...], denoising: tuple[float, ...], both: str
) -> None:
    """The word of one direction is the same for a threshold as for either-or."""
    study = Study.make(None, {"verdict.delta": 0.02})
    plan = Plan.of(study, [Head(0, 0), Head(1, 0)])
    effect, noise = np.array([noising, denoising]), np.random.default_rng(1)
    found = [
        Effects(-10 * effect, effect + 0.002 * noise.normal(size=(2, 3)), 1e-6, 10.0)
        for _ in range(20)
    ]
    table = judge(study, plan, found, np.arange(20)).table
    assert table.groupby("role")["both"].unique().map(list).to_dict() == {
        "head": [""],
        "pair": [both],
    }
    assert f"resample 1 {both}." in summary(table, Context())
    assert f"both directions: {both}." in summary(table, Context())


def test_one_direction_alone_names_no_two_heads() -> None:
    found = many(30, 0.03, 0.6).table
    assert set(found["both"]) == {""}
    assert "noising 1 redundancy." in summary(found, Context())


def test_copies_of_pairs_show_no_more_than_the_pairs() -> None:
    once, often = (many(12, 0.1, 0.3, copies).table for copies in (1, 5))
    assert often.pop("pairs").tolist() == [60] * 3
    pd.testing.assert_frame_equal(once.drop(columns="pairs"), often)


def test_a_pair_without_a_difference_is_left_out_of_means() -> None:
    study = Study.make(None, {"combine.directions": ("noising",)})
    plan = Plan.of(study, [Head(0, 0), Head(1, 0)])
    good = Effects(np.full((1, 3), -1.0), np.full((1, 3), 0.5), 1e-6, 2.0)
    bad = Effects(np.zeros((1, 3)), np.full((1, 3), np.nan), 1e-6, 0.0)
    assert judge(study, plan, [good, bad], np.arange(2)).pairs == 1
    undefined = judge(study, plan, [bad], ONE).table
    assert undefined["normalized"].isna().all()
    assert summary(undefined, Context())


CALL = Call(stages_of(False))


def test_over_a_dataset_heads_are_picked_and_judged_on_different_pairs(tmp_path: Path) -> None:
    manifest = Manifest.read(planted_pairs(tmp_path))
    study = Study.make(None, {"combine.top": 1, "pairs.resamples": 200})
    seen = survey(study, vlm(), manifest.entries, "answer")
    opened_pairs = Pairs(study, vlm(), seen, "answer")
    chosen = choose_heads(opened_pairs, CALL, study.combine)
    assert (chosen.chosen_on, len(chosen.entries)) == (2, 2)
    found = hp.combine(opened_pairs)
    assert found.combinations.pairs == 2
    assert "Heads were picked on 2 other pairs and judged on 2." in found.summary
    judged = hp.combine(opened_pairs, "0.3,1.0")
    assert judged.combinations.pairs == 4
    assert "picked" not in judged.summary
    assert row(judged.combinations, "noising", "redundant a", "redundant b")["word"] == "redundancy"
    assert judged.repair is not None
    both = judged.repair.table.query("heads == '0.3+1.0'")
    assert both["total"].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    fewer = survey(study, vlm(), manifest.entries[:3], "answer")
    with pytest.raises(InputError, match="at least 4"):
        choose_heads(replace(opened_pairs, survey=fewer), CALL, study.combine)


# --- self-repair


def repaired(*sets: str, positions: str = "answer") -> selfrepair.SelfRepair:
    session = opened(positions)
    asked = changes(session.study, [HeadSet.parse(text) for text in sets])
    return selfrepair.judge(session.study, [selfrepair.measure(session, asked)], ONE)


def test_planted_direct_and_total_effects() -> None:
    """The looker votes itself; the redundant pair's red becomes a vote in the MLP of layer 2."""
    found = repaired("1.1", "0.3", "0.3+1.0")
    noising = found.table[found.table["direction"] == "noising"].set_index("heads")
    expected = {"1.1": (2, 2, 0), "0.3": (0, 0, 0), "0.3+1.0": (0, 4, 4)}
    for heads, (direct, total, mlps) in expected.items():
        one = noising.loc[heads]
        figures = [one["direct"], one["renormed"], one["total"], one["mlps"], one["repair"]]
        want = [direct / 8, direct / 8, total / 8, mlps / 8, (direct - total) / 8]
        assert figures == pytest.approx(want, abs=1e-3), heads
    parts = found.parts[(found.parts["heads"] == "0.3+1.0") & (found.parts["rank"] == 1)]
    assert parts["part"].tolist() == ["mlp 2", "mlp 2"]
    assert parts["change"].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    denoising = found.table[found.table["direction"] == "denoising"].set_index("heads")
    assert denoising.loc["0.3", "total"] == pytest.approx(0.5, abs=1e-3)


def test_a_note_writer_acts_through_its_reader() -> None:
    found = repaired("0.1", positions="question")
    one = found.table.iloc[0]
    assert (one["direct"], one["total"], one["other_heads"]) == pytest.approx(
        (0, 1 / 8, 1 / 8), abs=1e-3
    )
    assert found.parts["part"].iloc[0] == str(HEADS["note reader"].head)


@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
def test_the_parts_add_up_to_the_total_which_is_the_effect(shape: str, tmp_path: Path) -> None:
    study = tiny_study(tmp_path, **{"combine.kinds": ("zero", "resample", "mean")})
    session = open_session(study, tiny_vlm(SHAPES[shape]), "answer")
    means = {"lm": [z.mean(0) for z in session.base.trace.z["lm"]]}
    sets = [HeadSet.parse(text) for text in ("0.1", "1.0+1.2", "0.0+1.3")]
    asked = changes(study, sets)
    found = selfrepair.measure(session, asked, means)
    figures = found.figures
    whole = sum(figures[name] for name in ("direct", "other_heads", "mlps", "biases", "norm"))
    np.testing.assert_allclose(whole, figures["total"], atol=1e-4)
    np.testing.assert_allclose(figures["direct"] - figures["total"], figures["repair"], atol=1e-9)
    gap = session.base.ld_with - session.base.ld_without
    for one, outcome in zip(asked, patch(session.vlm, session.base, asked, means), strict=True):
        share = outcome.effect / gap * (-1 if one.direction == "noising" else 1)
        place = asked.index(one)
        assert figures["total"][place] == pytest.approx(share, abs=1e-3)
        earlier = found.heads[place, : min(head.layer for head in one.heads)]
        assert np.abs(earlier).max(initial=0.0) < 1e-3  # nothing before the heads moves

"""`ablate` finds the effects that were planted (see `tests.planted`)."""

from functools import lru_cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest

from headpatch.core.effects import resolve
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import Session, open_session
from headpatch.heads import Head, HeadSet, Selection
from headpatch.questions.ablate.measure import plan
from headpatch.questions.ablate.question import Ablation, ablate
from tests.planted import (
    HEADS,
    LD_WITH,
    LD_WITHOUT,
    SILENT,
    planted,
    planted_study,
    says_instead,
)
from tests.refusals import refusal

CLOSE = 1e-4  # logits
SPAN = LD_WITH - LD_WITHOUT
DIRECTIONS = ("noising", "denoising")


@lru_cache
def ablated(heads: str, positions: str = "answer", controls: int = 0) -> tuple[Session, Ablation]:
    """With the mean over the pair's own two runs, so that it can be worked out by hand."""
    with TemporaryDirectory() as folder:
        study = planted_study(
            Path(folder),
            **{"ablate.positions": positions, "ablate.controls": controls, "ablate.reference": 0},
        )
        session = open_session(study, planted().vlm, study.ablate.positions)
    return session, ablate(session, HeadSet.parse(heads).heads, mean_z(session))


def row_of(ablation: Ablation, heads: str, kind: str, direction: str) -> pd.Series:
    table = ablation.named
    (row,) = table[
        (table["heads"] == heads) & (table["kind"] == kind) & (table["direction"] == direction)
    ].iloc
    return row


@pytest.mark.parametrize("name", HEADS)
def test_a_head_alone(name: str) -> None:
    planted_head = HEADS[name]
    heads = str(planted_head.head)
    _, ablation = ablated(heads, planted_head.scope)
    for direction, expected, base, sign in (
        ("noising", planted_head.necessity, LD_WITH, -1),
        ("denoising", planted_head.sufficiency, LD_WITHOUT, 1),
    ):
        row = row_of(ablation, heads, "resample", direction)
        assert row["normalized"] == pytest.approx(expected, abs=CLOSE)
        assert row["effect"] == pytest.approx(sign * expected * SPAN, abs=CLOSE)
        assert row["ld"] == pytest.approx(base + sign * expected * SPAN, abs=CLOSE)
        assert row["ld_with"] == pytest.approx(LD_WITH, abs=CLOSE)
        assert row["ld_without"] == pytest.approx(LD_WITHOUT, abs=CLOSE)
        assert row["positions"] == planted_head.scope
        assert row["role"] == "head"


def test_the_redundant_pair_one_by_one_and_jointly() -> None:
    _, ablation = ablated("0.3+1.0")
    for alone in ("0.3", "1.0"):
        shares = [row_of(ablation, alone, "resample", way)["normalized"] for way in DIRECTIONS]
        assert shares == pytest.approx([0, 4 / 8], abs=CLOSE)
    for kind, noising in (("resample", 4 / 8), ("zero", 4 / 8), ("mean", 0)):
        joint = row_of(ablation, "0.3+1.0", kind, "noising")
        assert joint["role"] == "joint"
        assert joint["normalized"] == pytest.approx(noising, abs=CLOSE)


def test_the_three_kinds_differ_where_a_head_always_writes() -> None:
    """The blind writer adds 2 with the object and 1 without; the mean is 1.5."""
    _, ablation = ablated("0.2")
    expected = {"zero": (-2, -1), "mean": (-0.5, 0.5), "resample": (-1, 1)}
    for kind, effects in expected.items():
        measured = [row_of(ablation, "0.2", kind, way)["effect"] for way in DIRECTIONS]
        assert measured == pytest.approx(effects, abs=CLOSE)


def test_the_answer_turns_with_the_vote() -> None:
    """The looker (2) and the pair (4) together outweigh LD = +4; the looker alone does not."""
    _, ablation = ablated("0.3+1.0+1.1")
    joint = row_of(ablation, "0.3+1.0+1.1", "resample", "noising")
    assert joint["ld"] == pytest.approx(-2, abs=CLOSE)
    assert (joint["answer_before"], joint["answer_after"]) == ("Yes", "No")
    alone = row_of(ablation, "1.1", "resample", "noising")
    assert (alone["answer_before"], alone["answer_after"]) == ("Yes", "Yes")
    back = row_of(ablation, "0.3+1.0+1.1", "resample", "denoising")
    assert back["ld"] == pytest.approx(2, abs=CLOSE)
    assert (back["answer_before"], back["answer_after"]) == ("No", "Yes")


def test_looking_is_not_deciding() -> None:
    """The two heads that look most do nothing; one that never moves does an eighth."""
    _, ablation = ablated("0.2+1.2+2.2")
    for kind, way, watcher in product(("zero", "mean", "resample"), DIRECTIONS, ("1.2", "2.2")):
        assert row_of(ablation, watcher, kind, way)["effect"] == pytest.approx(0, abs=1e-5)
    blind = row_of(ablation, "0.2", "resample", "noising")["normalized"]
    assert blind == pytest.approx(1 / 8, abs=CLOSE)


def test_heads_named_one_by_one_by_layer_and_by_range() -> None:
    """Each alone, in the order given, then all of them together."""
    session, _ = ablated("1.1")
    for words, heads in {
        "1.1": "1.1",
        "2.0,0.1": "2.0 0.1 0.1+2.0",
        "layer:1": "1.0 1.1 1.2 1.3 1.0+1.1+1.2+1.3",
        "2.1-2.3": "2.1 2.2 2.3 2.1+2.2+2.3",
        "3.0-3.0,1.2": "3.0 1.2 1.2+3.0",
    }.items():
        job = plan(session, resolve(Selection.parse(words), session.vlm))
        sets = {str(one.members): one.role for one in job.asked if one.role in ("head", "joint")}
        assert list(sets) == heads.split()
        assert [role == "joint" for role in sets.values()] == ["+" in name for name in sets]


@pytest.mark.parametrize("scope", ["answer", "question", "image", "all"])
def test_a_head_acts_where_it_was_planted(scope: str) -> None:
    """At the answer, in the question (which the answer position belongs to), in the image."""
    reached = {"answer": {"answer"}, "question": {"answer", "question"}, "image": {"image"}}
    acting = reached.get(scope, {"answer", "question", "image"})
    named = [HEADS[name] for name in ("looker", "note writer", "pool writer")]
    heads = "+".join(str(planted_head.head) for planted_head in named)
    _, ablation = ablated(heads, scope)
    assert set(ablation.named["positions"]) == {scope}
    for planted_head in named:
        for direction, expected in zip(
            DIRECTIONS, (planted_head.necessity, planted_head.sufficiency), strict=True
        ):
            share = row_of(ablation, str(planted_head.head), "resample", direction)["normalized"]
            here = planted_head.scope in acting
            assert share == pytest.approx(expected if here else 0, abs=CLOSE)
    joint = row_of(ablation, str(HeadSet.parse(heads)), "resample", "noising")["normalized"]
    acted = sum(planted_head.necessity for planted_head in named if planted_head.scope in acting)
    assert joint == pytest.approx(acted, abs=CLOSE)


def test_controls_are_other_heads_of_the_same_layers() -> None:
    _, ablation = ablated("1.1+2.0", controls=5)
    table = ablation.effects
    controls = table[table["role"] == "control"]
    for text in controls["heads"].unique():
        drawn = HeadSet.parse(text)
        assert not {Head(1, 1), Head(2, 0)} & set(drawn)
        assert {head.layer for head in drawn} <= {1, 2}
    whole = "1.0+1.1+1.2+1.3"  # no head of this layer is left to draw
    alone = row_of(ablated(whole, controls=5)[1], whole, "resample", "noising")
    assert alone["control_n"] == 0 and pd.isna(alone["control_mean"])
    joint = row_of(ablation, "1.1+2.0", "resample", "noising")
    pairs = controls[controls["heads"].str.contains("+", regex=False)]
    pairs = pairs[(pairs["kind"] == "resample") & (pairs["direction"] == "noising")]
    assert joint["control_n"] == 5
    assert joint["control_mean"] == pytest.approx(pairs["normalized"].mean(), abs=1e-9)
    assert joint["control_sd"] == pytest.approx(pairs["normalized"].std(), abs=1e-9)
    # Control effects are the planted ones as well: of layer 1 here 0 or −1/8, of layer 2 0 or 1/8.
    alone = {str(planted_head.head): planted_head.necessity for planted_head in HEADS.values()}
    for _, row in pairs.iterrows():
        expected = sum(alone.get(part, 0) for part in row["heads"].split("+"))
        assert row["normalized"] == pytest.approx(expected, abs=CLOSE)


def test_the_noise_floor_is_small_and_written_down() -> None:
    _, ablation = ablated("1.1+1.3")
    floor = ablation.effects[ablation.effects["role"] == "noise floor"]
    assert set(floor["kind"]) == {"self"}
    assert ablation.noise_floor == floor["effect"].abs().max() < 1e-5
    assert "noise floor" not in set(ablation.named["role"])


def test_the_summary_is_one_line_that_says_what_was_found() -> None:
    summary = ablated("0.3+1.0")[1].summary
    assert "\n" not in summary
    for part in ("0.3+1.0", "answer", "+50.0%", "-4.000 logits", "'No'", "One pair"):
        assert part in summary
    silent = ablated(str(SILENT[-1]))[1].summary
    assert "noise floor" in silent


def test_a_study_whose_answers_the_model_does_not_say_is_refused_unless_forced(
    tmp_path: Path,
) -> None:
    """LD is as it was; but the model says another word, with a probability of nearly 1."""
    vlm, study = planted().vlm, planted_study(tmp_path)
    ordinary = open_session(study, vlm)
    assert ordinary.valid and ordinary.cautions == ()
    assert ordinary.readings[0].p_answers == pytest.approx(1)
    with says_instead(vlm, "A", 75):
        message = refusal(open_session, study, vlm)
        session = open_session(study.model_copy(update={"force": True}), vlm)
    present, absent = session.readings
    for part in ("with the object", "without it", "says 'A' (probability 1)", "--force",
                 f"{present.p_answers:.3g}"):  # fmt: skip
        assert part in message
    assert session.base.ld_with == pytest.approx(ordinary.base.ld_with)
    assert not session.valid
    assert present.p_answers == pytest.approx(absent.p_answers, rel=1e-3)
    assert 0 < present.p_answers < 1e-8
    assert (present.rank_yes, present.rank_no, absent.rank_yes) == (2, 3, 3)


def test_answers_that_are_unlikely_are_a_caution_that_names_their_variants(tmp_path: Path) -> None:
    vlm, study = planted().vlm, planted_study(tmp_path)
    with says_instead(vlm, "Yes", 54):
        session = open_session(study, vlm)
    assert session.valid
    present, _ = session.readings
    assert 0.01 < present.p_answers < 0.5
    (first, _) = session.cautions
    assert first.startswith("with the object the model says 'Yes' (probability 0.")
    assert f"; 'Yes' holds {present.variants[0][1]:.2g}" in first


def test_a_study_whose_answers_do_not_flip_is_refused_unless_forced(tmp_path: Path) -> None:
    """Left and right swapped: the object is not where the question asks, and the model says No."""
    vlm = planted().vlm
    study = planted_study(tmp_path)
    swapped = {"with_": study.without, "without": study.with_}
    backwards = study.model_copy(update=swapped)
    message = refusal(open_session, backwards, vlm, "answer")
    for part in ("LD_with = -4.000", "LD_without = +4.000", "--force"):
        assert part in message
    session = open_session(backwards.model_copy(update={"force": True}), vlm, "answer")
    assert not session.valid
    forced = ablate(session, [Head(1, 1)], mean_z(session))
    assert "INVALID" in forced.summary

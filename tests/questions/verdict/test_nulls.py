"""Each null passes where nothing is wrong, and fails where its own thing is."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headpatch.heads import Head
from headpatch.questions.verdict.nulls import Null, failed, judge_nulls, table
from headpatch.questions.verdict.pair_record import Other, PairRecord
from headpatch.stats.verdict_labels import Rule

RULE = Rule(delta=0.02, level=0.95, resamples=300, seed=0)
PAIRS, SHAPE = 12, (2, 4)
ACTS, LOOKS = Head(1, 2), Head(0, 1)
GAP = 8.0
Change = Callable[[PairRecord], PairRecord]


def at(head: Head, value: float) -> np.ndarray:
    found = np.zeros(SHAPE)
    found[head.layer, head.head] = value
    return found


def pair(index: int) -> PairRecord:
    """A head that acts (30%) and one that looks (0.5); both move along when mirrored."""
    rng = np.random.default_rng(index)

    def noise() -> np.ndarray:
        return rng.normal(0, 1e-3, SHAPE)

    effects = {f"resample_{way}": at(ACTS, 0.3) + noise() for way in ("noising", "denoising")}
    shift = at(ACTS, 0.3 * GAP)
    return PairRecord(
        f"p{index}", 4.0, -4.0, effects, 1e-6, 1e-6, np.zeros(0), unread=0.0,
        wrong_place=Other(-4.0, -4.1, noise(), noise(), noise()),
        mirrored=Other(4.0, -4.0, at(LOOKS, 0.5) + noise(), -shift + noise(), shift + noise()),
    )  # fmt: skip


def judged(change: Change = lambda one: one, **more: object) -> list[Null]:
    pairs = [change(pair(index)) for index in range(PAIRS)]
    rng = np.random.default_rng(9)
    given = {
        "attention": np.stack([at(LOOKS, 0.5)] * PAIRS),
        "picked": (LOOKS,),
        "chosen": (ACTS,),
        "random_effects": rng.normal(0, 0.01, (40, PAIRS)),
        "chosen_effect": np.full(PAIRS, 0.3),
        "nothing": 1e-6,
    }
    return judge_nulls(pairs, rule=RULE, **(given | more))  # type: ignore[arg-type]


def wrong_place(**fields: object) -> Change:
    def change(one: PairRecord) -> PairRecord:
        assert one.wrong_place is not None
        return replace(one, wrong_place=replace(one.wrong_place, **fields))

    return change


def mirror(**fields: object) -> Change:
    def change(one: PairRecord) -> PairRecord:
        assert one.mirrored is not None
        return replace(one, mirrored=replace(one.mirrored, **fields))

    return change


def test_all_pass_where_nothing_is_wrong() -> None:
    found = judged()
    assert failed(found) == []
    assert {one.outcome for one in found} == {"passed"}
    assert list(table(found).columns) == [
        "null", "figure", "value", "limit", "outcome", "pairs", "note",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "more", "null", "figure"),
    [
        (None, {"nothing": 0.03}, "self-patch", "largest"),
        (wrong_place(ld_with=1.0), {}, "wrong place", "share of pairs"),
        (wrong_place(noising=at(Head(0, 3), -0.1 * GAP)), {}, "wrong place", "heads with"),
        (wrong_place(denoising=at(Head(0, 3), -0.1 * GAP)), {}, "wrong place", "heads with"),
        (wrong_place(attention=at(LOOKS, 0.3)), {}, "wrong place", "attention"),
        (mirror(ld_with=-1.0), {}, "mirrored", "share of pairs"),
        (mirror(attention=at(LOOKS, -0.2)), {}, "mirrored", "attention"),
        (mirror(noising=at(ACTS, 1.0), denoising=at(ACTS, 0.1)), {}, "mirrored", "effect"),
        (lambda one: replace(one, unread=1e-9), {}, "unread vision layers", "largest"),
        (None, {"chosen_effect": np.full(PAIRS, 0.001)}, "random heads", "p that"),
    ],
)
def test_each_fails_for_its_own_reason(
    change: Change | None, more: dict[str, object], null: str, figure: str
) -> None:
    found = judged(change or (lambda one: one), **more)
    wrong = [one for one in found if one.outcome == "failed"]
    assert [(one.null, one.figure.startswith(figure)) for one in wrong] == [(null, True)]
    assert failed(found) == [null]
    if figure == "heads with":
        assert wrong[0].note == "0.3"


def test_what_cannot_be_asked_is_not_tested_and_says_why() -> None:
    found = judged(
        lambda one: replace(one, wrong_place=None, mirrored=None, unread=float("nan")),
        chosen=(),
        chosen_effect=None,
        random_effects=np.zeros((0, PAIRS)),
    )
    untested = [one for one in found if one.outcome == "not tested"]
    assert {one.null for one in untested} == {
        "wrong place",
        "mirrored",
        "unread vision layers",
        "random heads",
    }
    assert all(one.note and np.isnan(one.value) for one in untested)
    assert failed(found) == []


def test_without_chosen_heads_the_mirror_still_tests_the_rest() -> None:
    found = [one for one in judged(chosen=()) if one.null == "mirrored"]
    assert [one.outcome for one in found] == ["passed", "passed", "not tested"]


def test_the_least_p_is_said_to_be_the_least() -> None:
    assert judged()[-1].note == "beats all 40 (p = 0.049, the least that 40 can give)"
    effects = np.zeros((80, PAIRS))
    effects[0] = 1.0
    found = judged(random_effects=effects)[-1]
    assert (found.outcome, found.note) == ("passed", "")


def test_too_few_random_sets_cannot_tell() -> None:
    found = judged(random_effects=np.zeros((38, PAIRS)))
    assert found[-1].outcome == "not tested" and "38" in found[-1].note

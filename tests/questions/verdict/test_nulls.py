"""Nulls pass where nothing is wrong, and fail where their own thing is; pairs asked otherwise."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from headpatch.heads import Head
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from headpatch.questions.verdict.nulls import Null, failed, judge_nulls, mirrored, wrong_place
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
        mirrored=Other(4.0, -4.0, at(LOOKS, 0.5) + noise(), -shift + noise(), shift + noise())
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


def otherwise(name: str, **fields: object) -> Change:
    return lambda one: replace(one, **{name: replace(getattr(one, name), **fields)})


elsewhere, mirror = partial(otherwise, "wrong_place"), partial(otherwise, "mirrored")


def test_all_pass_where_nothing_is_wrong() -> None:
    found = judged()
    assert failed(found) == []
    assert {one.outcome for one in found} == {"passed"}
    assert list(pd.DataFrame(found).columns) == [
        "null", "figure", "value", "low", "high", "limit", "outcome", "pairs", "note"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "more", "null", "figure"),
    [
        (None, {"nothing": 0.003}, "self-patch", "largest"),
        (elsewhere(ld_with=1.0), {}, "wrong place", "share of pairs"),
        (elsewhere(noising=at(Head(0, 3), -0.1 * GAP)), {}, "wrong place", "heads with"),
        (elsewhere(denoising=at(Head(0, 3), -0.1 * GAP)), {}, "wrong place", "heads with"),
        (elsewhere(attention=at(LOOKS, 0.3)), {}, "wrong place", "attention"),
        (mirror(ld_with=-1.0), {}, "mirrored", "share of pairs"),
        (mirror(attention=at(LOOKS, -0.2)), {}, "mirrored", "attention"),
        (mirror(noising=at(ACTS, 1.0), denoising=at(ACTS, 0.1)), {}, "mirrored", "effect"),
        (lambda one: replace(one, unread=1e-9), {}, "unread vision layers", "largest"),
        (None, {"chosen_effect": np.full(PAIRS, 0.001)}, "random heads", "share of random"),
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
    names = {"wrong place", "mirrored", "unread vision layers", "random heads"}
    assert {one.null for one in untested} == names
    assert all(one.note and np.isnan(one.value) for one in untested)
    assert failed(found) == []


def test_without_chosen_heads_the_mirror_still_tests_the_rest() -> None:
    found = [one for one in judged(chosen=()) if one.null == "mirrored"]
    assert [one.outcome for one in found] == ["passed", "passed", "not tested"]


def test_the_share_of_random_sets_stands_beside_its_p() -> None:
    first = judged()[-1]
    assert (first.value, first.outcome, first.note) == (
        0,
        "passed",
        "40 sets; p = 0.049, never below 0.049",
    )
    effects = np.zeros((40, PAIRS))
    effects[:5] = -1.0  # as large in size
    few = judged(random_effects=effects)[-1]
    assert (few.value, few.outcome) == (5 / 40, "passed") and few.low < 0.05
    effects[5] = 1.0
    assert judged(random_effects=effects)[-1].outcome == "failed"


def test_too_few_random_sets_cannot_tell() -> None:
    found = judged(random_effects=np.zeros((38, PAIRS)))
    assert found[-1].outcome == "not tested" and "38" in found[-1].note


def of_pairs(count: int, turned: float, kept: float, rng: np.random.Generator) -> list[Null]:
    """A model that turns its answer in some mirrored pairs, and finds some of its effect again."""

    def mirrored_pair(index: int) -> PairRecord:
        def noise(size: float) -> np.ndarray:
            return rng.normal(0, size, SHAPE)

        one, turns = pair(index), rng.random() < turned
        strays, shift = rng.random() < 1 - turned, at(ACTS, 0.3 * GAP * kept) + noise(0.3)
        other = Other(
            4.0 if turns else -4.0, -4.0, at(LOOKS, 0.5 * kept) + noise(0.1), -shift, shift
        )
        astray = Other(4.0 if strays else -4.0, -4.1, noise(0.02), noise(0.1), noise(0.1))
        return replace(one, mirrored=other, wrong_place=astray)

    pairs = [mirrored_pair(index) for index in range(count)]
    attention = np.stack([at(LOOKS, 0.5) + rng.normal(0, 0.1, SHAPE) for _ in pairs])
    more = (LOOKS,), (ACTS,), rng.normal(0, 0.01, (40, count)), np.full(count, 0.3), 1e-6, RULE
    return judge_nulls(pairs, attention, *more)


def failures(count: int, turned: float, kept: float, studies: int) -> dict[str, float]:
    """How often each null's figure fails; and how often its plain value lies beyond the limit."""
    rng, found = np.random.default_rng(3), dict[str, float]()
    for _ in range(studies):
        for one in of_pairs(count, turned, kept, rng):
            name = f"{one.null}: {one.figure.split()[0]}"
            found[name] = found.get(name, 0) + (one.outcome == "failed") / studies
            if one.limit.startswith("at "):
                least, limit = one.limit.split()[1] == "least", float(one.limit.split()[2])
                beyond = one.value < limit if least else one.value > limit
                found[f"{name}, plainly"] = found.get(f"{name}, plainly", 0) + beyond / studies
    return found


def test_few_pairs_do_not_fail_a_model_that_is_right() -> None:
    """At their limits: rates 0.95 and 0.05, half of the effect and of the attention found again."""
    found = failures(16, turned=0.95, kept=0.5, studies=300)
    for name in ("mirrored: share", "mirrored: effect", "mirrored: attention"):
        assert found[f"{name}, plainly"] > 0.4  # what a bare comparison does
        assert found[name] <= 0.06
    assert found["wrong place: share, plainly"] > 0.4
    assert max(rate for name, rate in found.items() if "plainly" not in name) <= 0.06


def test_what_is_wrong_still_fails() -> None:
    found = failures(16, turned=0.6, kept=0.1, studies=60)
    for name in (
        "mirrored: share",
        "mirrored: effect",
        "mirrored: attention",
        "wrong place: share",
    ):
        assert found[name] > 0.8


def test_a_null_that_could_never_fail_is_not_tested() -> None:
    """What it is a share of is not known over so few pairs."""
    rng = np.random.default_rng(0)
    unknown = np.stack([rng.normal(0, 1, SHAPE) for _ in range(PAIRS)])
    looks = [one for one in judged(attention=unknown) if one.figure.startswith("attention")]
    assert {one.outcome for one in looks} == {"not tested"}
    assert all("not shown to differ from 0" in one.note for one in looks)


def pictures(question: str, region: str, *things: tuple[int, int]) -> Pair:
    """Black 60 px pictures; the with-picture has a white square at the region's centre."""
    where = Region.parse(region)
    images = []
    for found in (True, False):
        image = Image.new("RGB", (60, 60))
        pen = ImageDraw.Draw(image)
        for x, y in things:
            pen.rectangle((x, y, x + 4, y + 4), fill="red")
        if found:
            x, y = round(30 * (where.left + where.right)), round(30 * (where.top + where.bottom))
            pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill="white")
        images.append(image)
    return Pair("p", images[0], images[1], question, where)


@pytest.mark.parametrize(
    ("question", "region", "said", "moved"),
    [
        ("Anything top left?", "top-left", "Anything top right?", "top-right"),
        ("Left bottom, LEFT?", "bottom-left", "Right bottom, Right?", "bottom-right"),
        ("Is it on the right half?", "right-half", "Is it on the left half?", "left-half"),
        ("左上角有东西吗?", "top-left-corner", "右上角有东西吗?", "top-right-corner"),
        ("At the left?", "0,0.2,0.3,0.6", "At the right?", "0.7,0.2,1,0.6"),
    ],
)
def test_mirrored_moves_pictures_region_and_words(
    question: str, region: str, said: str, moved: str
) -> None:
    one = pictures(question, region)
    other = mirrored(one)
    assert other is not None
    assert (other.question, other.region.name) == (said, moved)
    for image in ("with_image", "without_image"):
        before, after = (np.asarray(getattr(each, image)) for each in (one, other))
        np.testing.assert_array_equal(before[:, ::-1], after)
    back = mirrored(other)
    assert back is not None
    np.testing.assert_allclose(back.region.box, one.region.box, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(back.with_image), np.asarray(one.with_image))


@pytest.mark.parametrize(
    ("question", "region"),
    [
        ("Is there anything in the center?", "center"),  # nothing moves
        ("Is there anything at the left?", "center"),  # only the words would
        ("Is there anything here?", "top-left"),  # only the region would
        ("Is it a leftover of yesterday?", "top-left"),  # no word of its own
    ],
)
def test_what_cannot_be_turned_is_not(question: str, region: str) -> None:
    assert mirrored(pictures(question, region)) is None
    assert wrong_place(pictures(question, region)) is None


@pytest.mark.parametrize(
    ("things", "region"),
    [
        ((), "bottom-right"),
        (((50, 50),), "top-right"),
        (((50, 50), (50, 5), (5, 50)), "bottom-right"),
        (((28, 28),), "bottom-right"),  # in the middle: reaches each quadrant
    ],
)
def test_the_wrong_place_is_the_opposite_corner_unless_something_is_there(
    things: tuple[tuple[int, int], ...], region: str
) -> None:
    one = pictures("Is there anything in the top left corner?", "top-left", *things)
    other = wrong_place(one)
    assert other is not None and other.region.name == region
    corner = region.replace("-", " ")
    assert other.question == f"Is there anything in the {corner} corner?"
    assert other.with_image is one.with_image and other.without_image is one.without_image


def test_the_wrong_place_does_not_overlap_the_right_one() -> None:
    half = wrong_place(pictures("Anything in the left half?", "left-half"))
    assert half is not None and half.region.name == "right-half"
    assert wrong_place(pictures("Anything at the left?", "0,0,0.8,1")) is None

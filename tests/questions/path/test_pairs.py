"""The information path over many pairs: means are those of the pairs one by one, and as planted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Pairs
from headpatch.core.gate import study_of
from headpatch.core.progress import Stages, reporting
from headpatch.core.question import Call
from headpatch.core.session import open_session
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.questions.path.question import QUESTION, FollowedPaths
from headpatch.questions.path.tables import KEYS, MeasuredPair, OverPairs
from headpatch.stats.intervals import mean_interval
from tests.datasets import lasting_folder, noisy_pairs, planted_pairs
from tests.questions.path.case import CLOSE, HELD
from tests.questions.path.case import vlm as planted_vlm
from tests.tiny import tiny_vlm

FLAGS = {"path.window": 1, "pairs.resamples": 200}


def elsewhere(table: Path, rows: tuple[int, ...], region: str = "bottom-right") -> Path:
    """Name another region for some pairs than the one where their object is."""
    lines = table.read_text(encoding="utf-8").splitlines()
    for row in rows:
        lines[row + 1] = lines[row + 1].replace("top-left", region)
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def surveyed(study: Study, table: Path, vlm: VLM) -> Pairs:
    return Pairs(study, vlm, survey(study, vlm, Manifest.read(table).entries))


def follow(pairs: Pairs, store: Store, stages: Stages | None = None) -> FollowedPaths:
    return QUESTION.answer(pairs, Call(stages or reporting(None), store=store))


def kept() -> Store:
    return Store(lasting_folder() / "kept")


# --- the planted circuit: what the mean must be


@lru_cache
def planted_paths() -> FollowedPaths:
    """Three pairs, the object elsewhere in each; of the last, the region named is another one."""
    study = Study.make(None, {**FLAGS, "path.heads": "1.1,2.0"})
    seen = surveyed(study, elsewhere(planted_pairs(lasting_folder(), count=3), (2,)), planted_vlm())
    return follow(seen, kept())


def test_tokens_are_aligned_by_class_not_by_place() -> None:
    """On the last pair the object's tokens are `other`, and the last patch, a pool, is region."""
    saved = planted_paths().saved
    for direction, there in HELD.items():
        held = {name: np.array(votes) / 8 for name, votes in there.items()}
        expected = held | {
            "region": (2 * held["region"] + held["other"]) / 3,
            "other": (2 * held["other"] + held["region"]) / 3,
        }
        for name, curve in expected.items():
            found = saved["stream"][name][direction].tolist()
            assert found == pytest.approx(curve, abs=CLOSE), (name, direction)
    low, high = (saved[f"stream_{end}"] for end in ("low", "high"))
    assert low["region"]["noising"][0] < 2 / 3 < high["region"]["noising"][0]
    for end in (low, high):  # all three pairs show the same
        assert end["answer"]["noising"].tolist() == pytest.approx([0, 1 / 8, 6 / 8, 1], abs=CLOSE)


def test_planted_means_of_the_other_views() -> None:
    found = planted_paths()
    saved, means = found.saved, found.means.set_index(list(KEYS))["normalized"]
    assert saved["attribution_mlps"].tolist() == pytest.approx([0, 0, 4 / 8, 0], abs=CLOSE)
    heads = (2 + 1 - 1 + 1 + 1) / 8  # looker, blind writer, suppressor, both readers
    assert float(saved["attribution_layers"].sum()) == pytest.approx(heads, abs=CLOSE)
    assert float(saved["attribution_layers_low"].sum()) == pytest.approx(heads, abs=CLOSE)
    assert saved["heads"] == ["1.1", "2.0", "1.1+2.0"]
    way = "head path", "lm", "", "values from region", "1.1", "noising"
    assert means[way] == pytest.approx(2 / 3 * 2 / 8, abs=CLOSE)  # two of three regions hold it
    assert means["edge", "lm", 1, "answer-region", "", "noising"] == pytest.approx(
        2 / 3 * 1 / 8, abs=CLOSE
    )
    assert (saved["pairs"], saved["pairs_heads"], saved["feature_layer"]) == (3, 3, 1)


def test_words_go_no_further_than_the_numbers() -> None:
    words = " ".join(planted_paths().summary)
    for said in (
        "The vision tower's output carries 100% [100% to 100%] up to layer 1; the layer after it "
        "carries 0% at most, on any pair.",
        # two of three pairs show it: not enough that the interval's lower end lies above half
        "The region's image tokens carry at most 67% [",
        "] in layer 0 (noising: half or more on 2 of 3 pairs)",
        "The answer position carries half of the difference or more from layer 2 on (noising: "
        "75% [75% to 75%] or more, on 3 of 3 pairs), from layer 1 on (denoising: 62% [62% to 62%] "
        "or more, on 3 of 3 pairs).",
        "It is held twice in layer 1, each on 3 of 3 pairs",
        "Cutting attention in 1 layer takes, where the mean is largest: answer → region",
        "MLP 2 50% [50% to 50%]",
        "picked on these pairs",
        "Paths to 1.1 (noising): all inputs 25% [25% to 25%], its values at the region 17% [",
        "means over 3 pairs; in brackets the 95% interval over pairs",
        "They speak of pairs like these.",
    ):
        assert said in words, said


# --- the slow twin


NOISY = Study.make(None, {**FLAGS, "force": True, "path.heads": "0.1,2.3", "path.window": 2,
                          "path.edges": ("answer-region", "words-other")})  # fmt: skip
QUESTIONS = ("is there a red square ?", "is there a red square in the image ?")


@lru_cache
def noisy() -> Pairs:
    """Pairs whose prompts differ in length, so that no token's place is another's."""
    return surveyed(NOISY, noisy_pairs(lasting_folder(), QUESTIONS), tiny_vlm())


@lru_cache
def noisy_paths() -> FollowedPaths:
    return follow(noisy(), kept())


@lru_cache
def one_by_one() -> tuple[pd.DataFrame, ...]:
    """The slow twin: each pair opened and followed by itself, as its own study."""
    tables = []
    for entry in noisy().survey.entries:
        session = open_session(study_of(NOISY, entry), tiny_vlm(), "answer")
        tables.append(hp.path(session).table.assign(pair=entry.name))
    return tuple(tables)


def test_a_mean_is_that_of_the_pairs_one_by_one() -> None:
    slow, found = pd.concat(one_by_one(), ignore_index=True), noisy_paths()
    pd.testing.assert_frame_equal(found.table, slow, check_exact=False, rtol=1e-4, atol=1e-5)
    assert list(found.table["pair"].unique()) == [one.name for one in noisy().survey.entries]
    by_row = slow.groupby(list(KEYS), sort=False)[["effect", "normalized"]]
    mean = found.means.set_index(list(KEYS))
    pd.testing.assert_frame_equal(
        mean[["effect", "normalized"]], by_row.mean(), check_exact=False, rtol=1e-4, atol=1e-5
    )
    for column in ("effect", "normalized"):
        assert (mean[f"{column}_low"] <= mean[column] + 1e-12).all()
        assert (mean[column] <= mean[f"{column}_high"] + 1e-12).all()
    assert set(mean["pairs"]) == {2}
    half = by_row.agg(lambda one: (one >= 0.5).sum())["normalized"]
    assert (mean["half"] == half).all()
    some = "stream", "lm", 2, "answer", "", "denoising"
    each = np.array([one.set_index(list(KEYS)).loc[some, "normalized"] for one in one_by_one()])
    by_hand = mean_interval(each[:, None], 0.95, 200, np.random.default_rng(0))
    assert mean.loc[some, ["normalized_low", "normalized_high"]].tolist() == pytest.approx(
        [by_hand.low[0], by_hand.high[0]], abs=1e-5
    )
    assert 0 < found.noise_floor < 1e-3


def test_a_row_that_some_pairs_lack_is_a_mean_over_the_others() -> None:
    first, second = one_by_one()
    lacking = second[second["where"] != "other"]
    found = OverPairs(NOISY, [lacking, first, second], np.arange(3)).means
    part = found[found["where"] == "other"]
    assert set(part["pairs"]) == {2}
    whole = found[found["where"] == "words"]
    assert set(whole["pairs"]) == {3}
    others = [one.loc[one["where"] == "other", "normalized"] for one in (first, second)]
    assert part["normalized"].to_numpy() == pytest.approx(np.mean(others, 0), abs=1e-9)
    alone = OverPairs(NOISY, [first, lacking[lacking["where"] != "words"]], np.arange(2)).means
    words = alone.loc[alone["where"] == "words", ["normalized", "normalized_low"]]
    assert words.isna().all(axis=None)


# --- heads that rankings pick


def test_heads_are_picked_and_judged_on_different_pairs() -> None:
    picking = {"path.top": 1, "path.by": ("effect",), "path.edges": ("words-region",)}
    study = Study.make(None, FLAGS | picking)
    seen = surveyed(study, planted_pairs(lasting_folder()), planted_vlm())
    found = follow(seen, kept())
    assert (found.saved["pairs"], found.saved["pairs_heads"]) == (4, 2)
    counts = found.means.groupby("view")["pairs"].unique()
    assert {view: one.tolist() for view, one in counts.items()} == {
        "direct": [4], "edge": [4], "head path": [2], "stream": [4],
    }  # fmt: skip
    assert "1.1" in found.saved["heads"]
    said = "The heads were picked on 2 of the pairs; the paths to them are means over the other 2."
    assert said in found.summary
    few = replace(seen, survey=replace(seen.survey, entries=seen.entries[:3]))
    with pytest.raises(InputError, match="at least 4"):
        follow(few, kept())


# --- what is kept


def test_finished_pairs_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    finished, measured, named = kept(), MeasuredPair.of, []

    @contextmanager
    def stages(what: str) -> Iterator[OnProgress]:
        yield lambda done, total: named.append((what, done, total))

    def until_one(session, heads, stages):
        if finished.count == 1:
            raise KeyboardInterrupt
        return measured(session, heads, stages)

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredPair, "of", until_one)
        with pytest.raises(KeyboardInterrupt):
            follow(noisy(), finished, stages)
    assert finished.count == 1
    assert named == [("Following the object", 1, 2)]
    again = follow(noisy(), finished, stages)
    assert finished.count == 2
    assert named[1:] == [("Following the object", done, 2) for done in (1, 2)]
    pd.testing.assert_frame_equal(again.table, noisy_paths().table)
    pd.testing.assert_frame_equal(again.means, noisy_paths().means)
    assert again.summary == noisy_paths().summary
    assert again.noise_floor == noisy_paths().noise_floor  # the check of the first pair is kept

    def none(*_: object) -> None:
        raise AssertionError("a finished pair was measured again")

    monkeypatch.setattr(MeasuredPair, "of", none)
    follow(noisy(), finished)
    other = NOISY.override({"path.window": 1})
    with pytest.raises(AssertionError, match="measured again"):  # another study's are not used
        follow(replace(noisy(), study=other), finished)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("window", 5, "--window: 5 layers; expected at most 4"),
        ("heads", "9.0", "--heads: 9.0 is out of range"),
        ("top", 99, "--top: 99; expected at most 16 heads"),
    ],
)
def test_what_the_model_lacks_is_refused_before_any_pair_runs(
    option: str, value: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        QUESTION.check_model(Study.make(None, FLAGS | {f"path.{option}": value}), planted_vlm())


def test_a_pair_that_cannot_be_followed_is_named() -> None:
    study = Study.make(None, {**FLAGS, "path.heads": "1.1"})
    table = elsewhere(planted_pairs(lasting_folder(), count=2), (0,), "image")
    seen = surveyed(study, table, planted_vlm())
    with pytest.raises(InputError, match=r"line 2, --edges: other: the region image is the whole"):
        follow(seen, kept())

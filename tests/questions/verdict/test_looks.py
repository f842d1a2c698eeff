"""Judging after every batch of pairs: planned looks, their α, and where a study stops."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headpatch.core.baseline_runs import survey
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.manifest import Manifest
from headpatch.questions.verdict.judgement import run
from headpatch.questions.verdict.looks import check, looks
from tests.planted import planted, planted_dataset
from tests.questions.verdict.test_planted import QUICK

BATCH, PAIRS = 12, 36


@pytest.fixture(autouse=True)
def _few_pairs_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.saved_verdict.LEAST", BATCH // 2)


def study(**options: object) -> Study:
    return Study.make(None, {**QUICK, "verdict.until_decided": BATCH, **options})


def test_looks_are_planned_and_share_alpha_by_the_pairs_that_they_add() -> None:
    planned = looks(study(), np.arange(30))
    assert [len(one.places) for one in planned] == [12, 24, 30]
    assert sum(one.rule.alpha for one in planned) == pytest.approx(0.05)
    assert planned[0].rule.alpha == pytest.approx(0.05 * 12 / 30)
    for first, second in pairwise(planned):
        assert set(first.places) < set(second.places)
    assert [list(one.places) for one in looks(study(), np.arange(30))] == [
        list(one.places) for one in planned
    ]
    (only,) = looks(study(**{"verdict.until_decided": None}), np.arange(30))
    assert only.rule.alpha == pytest.approx(0.05) and only.facts == {}


def test_pairs_of_a_scene_come_together() -> None:
    scenes = np.repeat(np.arange(10), 3)
    first = looks(study(), scenes)[0]
    counts = pd.Series(scenes[first.places]).value_counts()
    assert (counts == 3).all()


def test_a_study_stops_once_all_is_decided_and_judges_the_pairs_so_far(tmp_path: Path) -> None:
    """The circuit's effects hardly vary: the first look decides every head."""
    made = planted(0.05, 0)
    entries = Manifest.read(planted_dataset(tmp_path / "pairs", PAIRS)).entries
    seen = survey(study(), made.vlm, entries, "answer")
    store = Store(tmp_path / "finished")
    found = run(study(), made.vlm, seen, store)
    assert found.look.facts == {
        "look": 1,
        "looks": 3,
        "judged": 12,
        "level": round(1 - 0.05 / 3, 12),
    }
    assert len(found.saved["pairs"]) == BATCH and found.saved["level"] > 0.98
    assert not (found.verdicts.heads["verdict"] == "undecided").any()
    few = Manifest.of(entries[i] for i in looks(study(), seen.scenes)[0].places)
    alone = study(**{"verdict.until_decided": None, "pairs.level": 1 - 0.05 / 3})
    twin = run(
        alone, made.vlm, survey(alone, made.vlm, few.entries, "answer"), Store(tmp_path / "b")
    )
    columns = ["verdict", "necessity", "necessity_low", "sufficiency_high", "attention_rank"]
    pd.testing.assert_frame_equal(found.verdicts.heads[columns], twin.verdicts.heads[columns])


def test_heads_that_stay_open_take_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planted(0.05, 0)
    entries = Manifest.read(planted_dataset(tmp_path / "pairs", PAIRS)).entries
    seen = survey(study(), made.vlm, entries, "answer")
    asked: list[int] = []

    def undecided(*given: object) -> int:
        asked.append(1)
        return 1

    monkeypatch.setattr("headpatch.questions.verdict.judgement.open_heads", undecided)
    found = run(study(), made.vlm, seen, Store(tmp_path / "finished"))
    assert (len(asked), found.look.number, len(found.saved["pairs"])) == (2, 3, PAIRS)


@pytest.mark.parametrize(
    ("options", "count", "said"),
    [
        ({"verdict.until_decided": 8}, 36, "--until-decided: 8 pairs, of which 4 would judge"),
        ({"verdict.until_decided": 12}, 121, "--until-decided: 12: 11 looks at 121 pairs"),
        ({"verdict.until_decided": None, "verdict.decide": "1.1"}, 36, "--until-decided N beside"),
        ({"verdict.decide": "top:3"}, 36, "heads of the language model by name"),
        ({"verdict.decide": "one"}, 36, "--decide"),
    ],
)
def test_looks_that_cannot_be_are_refused(
    options: dict[str, object], count: int, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(study(**options), count)
    assert said in str(caught.value)

"""Where resampled z comes from: the pair's own other run, or a random other pair's."""

from pathlib import Path

import numpy as np
import pytest

from headpatch.core.baseline_runs import survey
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.manifest import Manifest
from headpatch.questions.verdict.judgement import Judgement, run
from tests.planted import HEADS, planted, planted_dataset
from tests.questions.verdict.test_planted import QUICK

PAIRS = 12


@pytest.fixture(autouse=True)
def _few_pairs_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judgement]:
    folder, made = tmp_path_factory.mktemp("source"), planted(0.05, 0)
    entries = Manifest.read(planted_dataset(folder / "pairs", PAIRS)).entries
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)
        for source in ("twin", "other"):
            study = Study.make(None, {**QUICK, "verdict.source": source, "verdict.nulls": 4})
            seen = survey(study, made.vlm, entries, "answer")
            found[source] = run(study, made.vlm, seen, Store(folder / source))
    return found


def test_the_circuit_does_not_care_whose_other_answer_it_gets(both: dict[str, Judgement]) -> None:
    """Its pairs differ in noise only, so that classes and effects stay; the figures do not."""
    twin, other = (both[source].verdicts.heads for source in ("twin", "other"))
    for one in HEADS.values():
        rows = [table.iloc[one.head.layer * 4 + one.head.head] for table in (twin, other)]
        assert rows[0]["verdict"] == rows[1]["verdict"]
        assert rows[0]["necessity"] == pytest.approx(rows[1]["necessity"], abs=2e-3)
    values = [both[source].saved["resample_noising"].numpy() for source in ("twin", "other")]
    assert 0 < np.abs(values[0] - values[1]).max() < 1e-2
    means = [both[source].saved["mean_noising"].numpy() for source in ("twin", "other")]
    np.testing.assert_array_equal(*means)


def test_nulls_that_ask_a_pair_otherwise_are_not_tested_then(both: dict[str, Judgement]) -> None:
    by_name = {one.null: one for one in both["other"].nulls}
    for name in ("wrong place", "mirrored"):
        assert by_name[name].outcome == "not tested"
        assert by_name[name].note == "z is taken from other pairs"
    assert {one.null: one for one in both["twin"].nulls}["wrong place"].outcome != "not tested"


def test_pairs_without_another_like_them_are_refused(tmp_path: Path) -> None:
    made = planted(0.05, 0)
    entries = Manifest.read(planted_dataset(tmp_path / "pairs", PAIRS)).entries
    study = Study.make(None, {**QUICK, "verdict.source": "other"})
    seen = survey(study, made.vlm, entries, "answer")
    layouts = {name: one._replace(tokens=i) for i, (name, one) in enumerate(seen.layouts.items())}
    object.__setattr__(seen, "layouts", layouts)
    with pytest.raises(InputError, match="--source: no other pair has a prompt like that of"):
        run(study, made.vlm, seen, Store(tmp_path / "finished"))

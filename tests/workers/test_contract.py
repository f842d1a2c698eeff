"""Every question of pairs, answered by two workers: byte for byte what one process writes."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import headpatch as hp
from headpatch.core.question import Result, Verb
from headpatch.core.workers.handed import Handed
from headpatch.core.workers.worker import Asked, _rows
from headpatch.questions.evaluate.question import QUESTION
from tests.command import headpatch
from tests.contract.cases import BOTH, OVER_PAIRS, study_of
from tests.long import ALL
from tests.planted import planted
from tests.workers.conftest import Plan

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL_VERDICT = {"nulls": 2, "vision": 2, "attribution": 2, "random": 1, "noise": 1}


@pytest.fixture(scope="module")
def study(place: Path) -> hp.Study:
    return hp.Study().override({"model": str(place / "model"), "pairs.resamples": 200})


@pytest.fixture(scope="module")
def opened(a_ray: Any, place: Path, study: hp.Study) -> Iterator[hp.Pairs]:
    pairs = hp.open_pairs(study, place / "pairs", workers=2, on_progress=False)
    yield pairs
    assert pairs.crew is not None
    pairs.crew.close()


@pytest.fixture(scope="module")
def alone(place: Path, study: hp.Study) -> hp.Pairs:
    return hp.open_pairs(study, place / "pairs", on_progress=False)


def written(result: Result, folder: Path) -> dict[str, Any]:
    """Save a result; return its files, but for when it ran."""
    result.save(folder)
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = yaml.safe_load(found["run.yaml"])
    for name in ("when", "checksum"):
        del run["run"][name]
    return found | {"run.yaml": run}


SOME = [verb for verb in OVER_PAIRS if ALL or verb.name in ("ablate", "trace")]


def test_the_driver_holds_no_weights(opened: hp.Pairs, alone: hp.Pairs) -> None:
    assert {one.device.type for one in opened.vlm.model.parameters()} == {"meta"}
    assert opened.vlm.lm.grid == alone.vlm.lm.grid
    assert opened.vlm.identity == alone.vlm.identity
    assert not opened.survey.held
    assert opened.gate.equals(alone.gate)
    assert opened.study == alone.study


@pytest.mark.parametrize("verb", SOME, ids=lambda verb: verb.name)
def test_the_same_bytes(verb: Verb, opened: hp.Pairs, alone: hp.Pairs, tmp_path: Path) -> None:
    ask, options = getattr(hp, verb.name), study_of(verb, many=True)
    together = written(ask(opened, **options), tmp_path / "two")
    assert together == written(ask(alone, **options), tmp_path / "one")
    assert together


def test_a_refusal_is_the_same_line(opened: hp.Pairs, alone: hp.Pairs) -> None:
    lines = []
    for pairs in (opened, alone):
        with pytest.raises(hp.InputError) as error:
            hp.ablate(pairs, "99.1")
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    with pytest.raises(hp.InputError, match="workers, vlm"):
        hp.open_pairs(n=2, vlm=alone.vlm, workers=2)


@pytest.mark.parametrize("source", ["rows", "pairs"])
def test_labelled_rows_are_asked_by_workers(
    source: str, plan: Plan, place: Path, tmp_path: Path
) -> None:
    """Byte for byte what one process writes, of a table of pictures and of the runs of pairs."""
    with (place / "pairs" / "manifest.csv").open(newline="") as stream:
        pairs = list(csv.DictReader(stream))
    lines = [f"{one[run]},{one['question']},{answer}" for one in pairs
             for run, answer in (("with", "Yes"), ("without", "No"))]  # fmt: skip
    rows = place / "pairs" / "rows.csv"
    rows.write_text("\n".join(("image,question,answer", *lines, "gone.png,Is it?,Yes\n")))
    words = ("evaluate", "--heads", BOTH, "--kinds", "zero,mean", "--controls", 2, "--model",
             place / "model")  # fmt: skip
    asked = ("--rows", rows) if source == "rows" else ("--pairs", place / "pairs")
    for out, more in (("one", ()), ("two", ("--workers", 2))):
        said = headpatch(*words, *asked, "--out", tmp_path / out, *more)
        assert said.code == 0, said.err
    assert re.search(r"2 workers measured \d+ and \d+ units", said.err)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.csv")}
        for out in ("one", "two")
    )
    assert first == second
    assert ("refused.csv" in first) == (source == "rows")
    assert not (tmp_path / "two" / ".evaluate-rows").exists()


def test_a_row_that_ended_workers_is_refused_with_the_reason(place: Path) -> None:
    study = hp.Study().override({"pairs.manifest": str(place / "pairs")})
    listed = QUESTION.listed(study)
    share = Handed(lambda *_: None, "worker 1", 1, {"p01/with": "2 workers died"})
    rows = _rows(listed, Asked("evaluate", study, {}, place), planted().vlm, share)
    assert [(one.row, one.reason) for one in rows.refused] == [("p01/with", "2 workers died")]
    assert [one.name for one in rows.entries] == [
        one.name for one in listed.entries if one.name != "p01/with"
    ]

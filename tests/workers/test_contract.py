"""Every question of pairs, answered by two workers: byte for byte what one process writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import headpatch as hp
from headpatch.core.question import Result, Verb
from tests.contract.cases import OVER_PAIRS, study_of
from tests.long import ALL

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

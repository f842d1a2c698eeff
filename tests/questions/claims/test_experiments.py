"""What claims need beside a verdict, on a circuit whose vision tower is made to matter."""

import numpy as np
import pytest

from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.heads import Head
from headpatch.pairs.manifest import Manifest
from headpatch.questions.claims.experiments import Experiment, Measured, run_experiments
from tests.circuit import ALL, Circuit
from tests.planted import FORM, HEADS, planted, planted_dataset

SPANS = [Experiment("vision span", layers=span) for span in ((0, 0), (1, 1), (0, 1), (2, 2))]
CUTS = [Experiment("cut", layers=(1, 1), queries=queries) for queries in ("answer", "words")]
EITHER = (HEADS["redundant a"].head, HEADS["redundant b"].head)
TWO = [Experiment("interaction", heads) for heads in (EITHER, (Head(1, 1), Head(2, 0)))]
SETS = [Experiment("joint", heads) for heads in (EITHER, (Head(1, 1), Head(1, 2)))]
LAYERS = [Experiment("span", layers=span) for span in ((0, 1), (2, 2), (0, 3))]
READ = [
    Experiment("cut", layers=(0, 1), queries="answer", keys="image"),
    Experiment("cut", layers=(0, 0), queries="words", keys="image"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    folder = tmp_path_factory.mktemp("followed")
    entries = Manifest.read(planted_dataset(folder / "pairs", 2)).entries
    asks, finished = [*CUTS, *TWO, *SETS, *LAYERS, *READ], Store(folder / "kept")
    study, seeing = Study.make(None, {"cut.controls": 2}), planted()
    plain = run_experiments(study, seeing.vlm, entries, asks, finished)
    circuit = Circuit.of(seeing.vlm.model, FORM)
    # This head finds the object, and brightens all
    circuit.plant_vision_head(
        "v1.1", attends={"region": ALL}, reads={"bright": 4.0}, writes={"bright": 1.0}
    )
    finished.remove()
    return plain | run_experiments(study, seeing.vlm, entries, SPANS, finished)


def means(found: dict[str, Measured], ask: Experiment) -> dict[str, float]:
    assert not found[ask.name].why_not
    return {name: float(values.mean()) for name, values in found[ask.name].figures.items()}


def test_a_span_of_vision_layers_is_compared_with_the_others_that_are_read(
    found: dict[str, Measured],
) -> None:
    """Layer 2 is not read: no layer is compared with it."""
    none, acts, both, unread = (means(found, ask) for ask in SPANS)
    assert acts["necessity"] > 0.02 and acts["elsewhere"] == pytest.approx(0, abs=1e-5)
    assert none["necessity"] == pytest.approx(0, abs=1e-5)
    assert none["elsewhere"] == pytest.approx(acts["necessity"])
    assert both == {"necessity": pytest.approx(acts["necessity"], rel=1e-3)}
    assert unread["necessity"] == 0 and unread["elsewhere"] == pytest.approx(
        np.mean([acts["necessity"], 0]), rel=1e-3
    )


def test_heads_that_read_from_the_answer_are_not_cut_with_the_questions_words(
    found: dict[str, Measured],
) -> None:
    answer, words = (means(found, ask)["region"] for ask in CUTS)
    assert answer == pytest.approx(1 / 8, abs=1e-5)  # the looker, less the suppressor
    assert words == pytest.approx(0, abs=1e-5)


def test_two_heads_are_changed_both_ways(found: dict[str, Measured]) -> None:
    either, added = (means(found, ask) for ask in TWO)
    assert either == pytest.approx(
        {"noising both": 4 / 8, "noising 0.3": 0, "noising 1.0": 0,
         "denoising both": 4 / 8, "denoising 0.3": 4 / 8, "denoising 1.0": 4 / 8},
        abs=1e-4
    )  # fmt: skip
    for way in ("noising", "denoising"):
        assert added[f"{way} both"] == pytest.approx(
            added[f"{way} 1.1"] + added[f"{way} 2.0"], abs=1e-4
        )


def test_a_set_is_changed_both_ways_and_compared_with_others_of_its_layers(
    found: dict[str, Measured],
) -> None:
    """The redundant pair takes 4/8 with it, both ways; 1.1 and 1.2 of layer 1 leave 1.0 and 1.3."""
    either, two = (means(found, ask) for ask in SETS)
    assert (either["necessity"], either["sufficiency"]) == pytest.approx((4 / 8, 4 / 8), abs=1e-4)
    assert two == pytest.approx(
        {"necessity": 2 / 8, "sufficiency": 2 / 8, "elsewhere": -1 / 8}, abs=1e-4
    )


def test_layers_are_compared_with_as_many_others(found: dict[str, Measured]) -> None:
    """At the answer: 1/8 + 4/8 + 2/8 − 1/8 in layers 0 and 1; 2/8 in layer 2, nothing in 3."""
    low, two, every = (means(found, ask) for ask in LAYERS)
    assert low == pytest.approx({"necessity": 6 / 8, "elsewhere": 2 / 8}, abs=1e-4)
    # as much as layers 1 and 0 and 3: of the redundant pair each layer alone takes nothing
    assert two == pytest.approx({"necessity": 2 / 8, "elsewhere": 2 / 8 / 3}, abs=1e-4)
    assert every == {"necessity": pytest.approx(1, abs=1e-4)}


def test_the_whole_image_is_cut_without_controls(found: dict[str, Measured]) -> None:
    answer, words = (means(found, ask) for ask in READ)
    assert words == {"image": pytest.approx(1 / 8, abs=1e-4)}  # the note writer
    assert answer.keys() == {"image"} and answer["image"] > 6 / 8

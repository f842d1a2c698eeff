"""Windows lie where they should; what the model does not have, or makes no sense, is refused."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from headpatch.core.study import Study
from headpatch.errors import InputError
from headpatch.questions.cut.plan import places, plan
from tests.analyses.test_cut import opened


@pytest.mark.parametrize(
    ("window", "spans"),
    [
        (1, ["0", "1", "2", "3"]),
        (3, ["0-1", "0-2", "1-3", "2-3"]),
        (4, ["0-1", "0-2", "0-3", "1-3"]),
    ],
)
def test_windows_are_centred_and_clipped(window: int, spans: list[str]) -> None:
    """From centre − window // 2 on, `window` layers, less those that the model has not."""
    session = opened(**{"cut.window": window})
    cut_at = list(places(session))
    assert [place.name for place in cut_at] == spans
    for place in cut_at:
        first, last = place.layers or (0, 0)
        assert len(place.heads) == 4 * (last - first + 1)
        assert {head.layer for head in place.heads} == set(range(first, last + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut.window": 5}, "--window: 5 layers; expected at most 4 in this model"),
        ({"cut.layers": "2-4"}, "--layers: 2-4; expected layers 0-3 in this model"),
        ({"cut.layers": "4"}, "--layers: 4; expected layers 0-3 in this model"),
        ({"cut.heads": "4.0"}, "--heads: 4.0 is out of range"),
        ({"cut.heads": "v0.1"}, "v0.1 is a vision head"),
        ({"region": "0,0,0.05,0.05", "cut.window": 2}, "--region: 0,0,0.05,0.05 holds no patch"),
        ({"region": "image", "cut.window": 2}, "--edges: other: the region image is the whole"),
    ],
)
def test_what_the_model_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    session = opened(**options)
    with pytest.raises(InputError) as caught:
        plan(session)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": ("answer-sky",)}, "--edges: 'answer-sky'; expected from-to"),
        ({"edges": ("answer",)}, "--edges: 'answer'; expected from-to"),
        ({"edges": ("answer-",)}, "--edges: 'answer-'; expected from-to"),
        ({"edges": ("",)}, "--edges: an empty edge; expected from-to"),
        ({"edges": ()}, "--edges: (); expected a list of at least 1 item"),
        (
            {"edges": ("a-b-c",)},
            "each end one of answer, question, words, image, region, other, all",
        ),
        ({"edges": ("answer-answer",)}, "answer-answer cuts nothing"),
        ({"edges": ("answer-image", "answer-image")}, "an edge is named twice"),
        ({"window": 0}, "--window: 0; expected"),
        ({"controls": -1}, "--controls: -1; expected"),
        ({"layers": "14-10"}, "--layers: '14-10' runs backwards"),
        ({"layers": "ten"}, "--layers: 'ten'; expected first-last"),
        ({"layers": "1", "heads": "1.1"}, "--heads, --layers: both of them"),
        ({"heads": "L1H1"}, "--heads: 'L1H1' is not a head"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_unread(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Study.make(None, {f"cut.{key}": value for key, value in options.items()})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_studys_cut_reads_back() -> None:
    flags = {"cut.edges": ("all-other", "answer-answer"), "cut.itself": True, "cut.layers": "3"}
    study = Study.make(None, flags)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(study.to_yaml(), encoding="utf-8")
        again = Study.make(file, None)
    assert again.cut == study.cut

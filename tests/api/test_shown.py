"""What a notebook and an editor show: a line, a small table, options by name; and refusals."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headpatch as hp
from headpatch.core.question import Result, verbs
from tests.planted import HEADS, planted, planted_dataset, planted_study

WRITER = HEADS["blind writer"].head


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> hp.Session:
    folder = tmp_path_factory.mktemp("pictures")
    return hp.open_session(planted_study(folder), planted().vlm, positions="answer")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> hp.Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    planted_dataset(folder, 3)
    return hp.open_pairs(pairs=folder, vlm=planted().vlm)


def test_every_result_is_a_line() -> None:
    kinds = {one for one in (getattr(hp, name) for name in hp.__all__) if inspect.isclass(one)}
    results = {one for one in kinds if issubclass(one, Result)}
    assert len(results) >= len(verbs())
    assert {one.__repr__ for one in results} == {Result.__repr__}


def test_what_is_open_and_found_is_a_line_and_a_table(session: hp.Session, pairs: hp.Pairs) -> None:
    found = hp.ablate(session, [WRITER], kinds="resample", controls=0)
    many = hp.ablate(pairs, [WRITER], kinds=["resample"], controls=0)
    assert repr(found).startswith("<Ablation of 1 pair: effects.csv (")
    assert repr(many).startswith("<Ablation of 3 pairs: effects.csv (")
    for one in (session, pairs, found, many):
        assert "\n" not in repr(one) and len(repr(one)) < 200
        shown = one._repr_html_()
        assert "<table" in shown and shown.count("<tr") <= 11
    assert (
        repr(session.vlm)
        == "<VLM planted: LlavaForConditionalGeneration, 4 layers × 4 heads, on cpu>"
    )
    checked = hp.check(session)
    assert "\n" not in repr(checked) and "<table" not in checked._repr_html_()


def test_text_of_a_user_is_escaped(session: hp.Session) -> None:
    pair = hp.make_pair(*session.pair.images, "Is <b>it</b> there?", session.pair.region)
    asked = hp.open_session(session.study.override({"force": True}), session.vlm, pair=pair)
    assert "<b>it" not in asked._repr_html_() and "&lt;b&gt;it" in asked._repr_html_()


def test_a_study_shows_what_is_not_as_by_default() -> None:
    assert repr(hp.Study()) == "Study()"
    changed = hp.Study().override({"seed": 3, "sweep.kinds": ["zero"]})
    assert repr(changed) == "Study(seed=3, sweep=SweepOptions(kinds=('zero',)))"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"seed": "x"}, "seed: 'x'; expected a whole number"),
     ({"colour": "red"}, "colour: an unknown key"),
     ({"rank": {"top": 0}}, "rank.top: 0; expected at least 1")],
)  # fmt: skip
def test_a_study_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(hp.InputError, match=message) as refused:
        hp.Study(**values)
    assert "\n" not in str(refused.value)


def test_what_is_not_open_is_refused() -> None:
    """In a process without the checks of types that tests have."""
    calls = [one.name for one in verbs() if one.name not in ("compare", "evaluate", "claims")]
    code = """if True:
        import sys
        import headpatch as hp
        for name in sys.argv[1:]:
            for given in ("x", 3):
                try:
                    getattr(hp, name)(given)
                except hp.InputError as error:
                    print(name, error)
    """
    told = subprocess.run(
        [sys.executable, "-c", code, *calls], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(told) == 2 * len(calls)
    for place, line in enumerate(told):
        name, argument, kind = calls[place // 2], "session|study", ("str", "int")[place % 2]
        assert re.match(f"{name} ({argument}): a {kind}; expected", line), line


def test_names_are_listed_without_what_is_not_public() -> None:
    listed = [name for name in dir(hp) if not name.startswith("_")]
    assert listed == sorted(hp.__all__)


def test_a_page_of_a_folder(session: hp.Session, tmp_path: Path) -> None:
    hp.rank(session).save(tmp_path)
    page = hp.report(tmp_path)
    assert page == tmp_path / "report.html" and page.stat().st_size > 1e5
    with pytest.raises(hp.InputError, match="nowhere"):
        hp.report(tmp_path / "nowhere")


def test_a_picture_may_be_a_file_a_picture_or_an_array(session: hp.Session, tmp_path: Path) -> None:
    pictures = [np.asarray(session.pair.with_image).copy() for _ in range(4)]
    for place, pixels in enumerate(pictures):
        pixels[0, 0] = place  # else they were one pair
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    given = (tmp_path / "0.png", str(tmp_path / "1.png"), Image.fromarray(pictures[2]), pictures[3])
    second = np.asarray(session.pair.without_image)
    for one, pixels in zip(given, pictures, strict=True):
        pair = hp.make_pair(one, second, "Is it there?", session.pair.region)
        assert np.array_equal(np.asarray(pair.with_image), pixels)
    asked = {"question": session.study.question, "region": session.study.region}
    rows = [
        {"with": one, "without": second, "scene": str(place), **asked}
        for place, one in enumerate(given)
    ]
    assert len(hp.open_pairs(session.study, rows, vlm=session.vlm).entries) == len(given)

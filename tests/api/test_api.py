"""What the public functions add: options, other positions, runs, figures; and silence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

import headpatch as hp
from tests.planted import HEADS, LD_WITH, LD_WITHOUT, planted, planted_dataset, planted_study

LOOKER, WRITER = HEADS["looker"].head, HEADS["blind writer"].head


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def session(folder: Path) -> hp.Session:
    return hp.open_session(planted_study(folder), planted().vlm, positions="answer")


@pytest.fixture(autouse=True)
def _nothing_prints(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def test_an_option_overrides_the_study(session: hp.Session) -> None:
    found = hp.ablate(session, [LOOKER, WRITER], kinds=["zero"], directions=["noising"])
    assert set(found.named["kind"]) == {"zero"}
    assert len(found.named) == 3  # two heads, and both
    assert len(session.study.ablate.kinds) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["zap"]}, "--kinds"),
        ({"colour": "red"}, "unknown key"),
        ({"controls": -1}, "--controls"),
    ],
)
def test_a_wrong_option_is_named(
    session: hp.Session, options: dict[str, object], message: str
) -> None:
    with pytest.raises(hp.InputError, match=message):
        hp.ablate(session, LOOKER, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: hp.combine(one, [LOOKER, WRITER], top=2), "--heads, --top: both"),
        (lambda one: hp.path(one, LOOKER, by=["effect"]), "--heads, --by: both"),
        (lambda one: hp.trace(one, answer="Yes", forced="without"), "--answer, --forced: both"),
        (lambda one: hp.rollout(one, answer="Yes", forced="with"), "--answer, --forced: both"),
        (lambda one: hp.ablate(one, LOOKER, vision_positions="patches"), "no vision head in"),
    ],
)
def test_a_call_refuses_together_what_the_command_line_does(
    session: hp.Session, call: Callable[[hp.Session], object], message: str
) -> None:
    with pytest.raises(hp.InputError, match=message):
        call(session)


def test_heads_may_be_named_in_any_way(session: hp.Session) -> None:
    ways = (f"{LOOKER},{WRITER}", [LOOKER, WRITER], hp.HeadSet.of(LOOKER, WRITER))
    tables = [hp.ablate(session, way, kinds=["zero"], controls=0).named for way in ways]
    first = tables[0].sort_values(["heads", "direction"], ignore_index=True)
    for table in tables[1:]:
        other = table.sort_values(["heads", "direction"], ignore_index=True)
        pd.testing.assert_frame_equal(first, other)


@pytest.mark.parametrize("opened_at", [None, "answer", "question"])
def test_a_session_serves_other_positions(folder: Path, opened_at: str | None) -> None:
    """It is opened anew where what it kept is not enough; the effects are the same."""
    study, vlm = planted_study(folder), planted().vlm
    one = hp.open_session(study, vlm, opened_at)  # type: ignore[arg-type]
    fitting = hp.open_session(study, vlm, "question")
    found, expected = (
        hp.sweep(opened, kinds=["resample"], positions="question").saved["effect"]
        for opened in (one, fitting)
    )
    assert found.keys() == expected.keys()
    for way, effects in found.items():
        assert effects.allclose(expected[way], atol=1e-5)
    assert "vision_cls_diff" in hp.rank(one).spatial or "vision_patch_diff" in hp.rank(one).spatial


def test_a_pair_of_ones_own(folder: Path) -> None:
    study = planted_study(folder)
    pair = hp.make_pair(folder / "with.png", str(folder / "without.png"), study.question, "0,0,1,1")
    opened = hp.open_session(hp.Study(), planted().vlm, pair=pair)
    lds = opened.base.ld_with, opened.base.ld_without
    assert lds == pytest.approx((LD_WITH, LD_WITHOUT), abs=1e-4)
    assert opened.study.question == study.question
    assert opened.region_tokens.all()


def test_every_result_can_be_drawn(session: hp.Session) -> None:
    before = dict(mpl.rcParams)
    combined = hp.combine(session, [LOOKER, WRITER])
    found = {
        "heads": hp.rank(session),
        "sweep": hp.sweep(session, kinds=["zero"]),
        "effects": hp.ablate(session, LOOKER, kinds=["zero"]),
        "cuts": hp.cut(session, edges=["answer-region"], window=1, controls=2),
        "combinations": combined,
        "path": hp.path(session, LOOKER, window=1),
        "trace": hp.trace(session, tokens=1),
        "rollout": hp.rollout(session, draws=2),
    }
    for kind, one in found.items():
        named, first = hp.plot(one, kind), hp.plot(one)
        png = named._repr_png_()  # type: ignore[attr-defined]
        assert png.startswith(b"\x89PNG")
        assert png == first._repr_png_()  # type: ignore[attr-defined]
    assert dict(mpl.rcParams) == before
    assert combined.noise_floor < 1e-4


def test_a_run_that_was_saved_is_drawn_as_it_was(session: hp.Session, tmp_path: Path) -> None:
    swept = hp.sweep(session, kinds=["zero"])
    swept.save(tmp_path)
    run = hp.read_run(tmp_path)
    assert run.study.question == session.study.question
    assert list(run) == ["effects.csv", "sweep.pt"]
    assert run.tensors["sweep"]["normalized"].keys() == swept.saved["normalized"].keys()
    assert len(run.tables["effects"]) == len(swept.effects)
    drawn = [hp.plot(one) for one in (swept, run, tmp_path, str(tmp_path))]
    assert len({one._repr_png_() for one in drawn}) == 1  # type: ignore[attr-defined]
    assert (tmp_path / "sweep.png").is_file()


def test_what_cannot_be_drawn_is_refused(session: hp.Session, tmp_path: Path) -> None:
    with pytest.raises(hp.InputError, match="one of sweep"):
        hp.plot(hp.sweep(session, kinds=["zero"]), "overlays")
    with pytest.raises(hp.InputError, match="a int"):
        hp.plot(3)
    with pytest.raises(hp.InputError, match=r"no run\.yaml"):
        hp.plot(tmp_path)
    with pytest.raises(hp.InputError, match=r"no run\.yaml"):
        hp.read_run(tmp_path / "nowhere")


def test_a_missing_file_names_those_that_are_there(session: hp.Session, tmp_path: Path) -> None:
    hp.rank(session, overlays=0).save(tmp_path)
    with pytest.raises(KeyError, match=r"holds no sweep\.pt; it holds .*heads\.csv"):
        hp.read_run(tmp_path)["sweep.pt"]


def test_drawn_pairs_are_drawn_again_and_others_are_left_alone(tmp_path: Path) -> None:
    first = hp.draw_pairs(4, tmp_path, size=48)
    again = hp.draw_pairs(4, tmp_path, size=48)
    assert first == again
    assert len(first.entries) == 4
    with pytest.raises(hp.InputError, match=r"manifest\.csv is not what these options"):
        hp.draw_pairs(4, tmp_path, size=48, seed=1)
    assert hp.draw_pairs(4, tmp_path / "other", size=48, seed=1) != first


def test_a_verdict_over_pairs_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.saved_verdict.LEAST", 6)
    study = hp.Study.make(flags={"pairs.resamples": 200})
    manifest = planted_dataset(tmp_path / "pairs", 12)
    options = {"top": 5, "nulls": 2, "vision": 2, "controls": 0, "attribution": 0, "partners": 2}
    kept = tmp_path / "kept"
    opened = hp.open_pairs(study, manifest, vlm=planted().vlm)
    found = hp.verdict(pairs=opened, keep=kept, **options)
    assert opened.survey.held and not found.survey.held  # a result keeps no pair open
    assert (opened.study.verdict.top, found.study.verdict.top) == (20, 5)
    heads = found.heads.set_index(["layer", "head"])["verdict"]
    assert heads[LOOKER.layer, LOOKER.head] == "necessary+sufficient"
    assert len(found.gate) == 12
    assert not kept.exists()  # finished pairs are of no more use
    assert "Of the 5 heads that attention picks out" in found.summary
    assert set(found.nulls["outcome"]) <= {"passed", "failed", "not tested"}
    assert hp.plot(found).axes[0].get_title(loc="left") == "Necessity (noising)"
    assert len(hp.plot(found, "faithfulness").axes) == 2


def test_too_few_pairs_are_refused_before_the_model_loads(tmp_path: Path) -> None:
    with pytest.raises(hp.InputError, match="--pairs: 4 pairs"):
        hp.verdict(hp.Study(model="nowhere"), hp.draw_pairs(4, tmp_path, size=48))


def test_names_are_listed_for_completion() -> None:
    assert set(hp.__all__) <= set(dir(hp))

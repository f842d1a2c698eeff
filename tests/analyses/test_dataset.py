"""Pairs at the gate: who passes is run with its own question, who does not is named."""

import weakref
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.dataset import Pairs
from headpatch.core.effects import resolve
from headpatch.core.gate import Gated, sessions
from headpatch.core.mean_activations import MeanZ
from headpatch.core.session import Session, open_session
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.engine import selfcheck
from headpatch.engine.forward import Keep, forward
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.pairs.pair import make_pair
from headpatch.pairs.region import BY_DIFFERENCE, BY_IMAGE, REGIONS
from headpatch.questions.ablate.question import ablate
from headpatch.questions.rank.question import rank
from headpatch.questions.trace.question import trace
from headpatch.questions.verdict import judgement as verdict
from tests.command import printed
from tests.datasets import noisy_pairs, planted_pairs, sweep_pairs
from tests.planted import planted, says_instead
from tests.tiny import tiny_vlm

SHORT, LONG = "is there a red square ?", "is there a red square in the image ?"


@lru_cache
def vlms() -> tuple[VLM, VLM]:
    return planted().vlm, tiny_vlm()


def study(**options: object) -> Study:
    return Study.make(None, options)


def opened(path: Path, vlm: VLM, **options: object) -> tuple[list[Session], list[Gated]]:
    judged: list[Gated] = []
    found = sessions(study(**options), vlm, Manifest.read(path).entries, "answer", judged.append)
    return list(found), judged


def test_each_session_is_that_of_its_pair_alone(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path), vlms()
    found, judged = opened(path, vlm)
    assert [one.pair.name for one in found] == ["p0", "p1", "p2", "p3"]
    assert all(one.passed and not one.reason for one in judged)
    for session, entry in zip(found, Manifest.read(path).entries, strict=True):
        assert session.valid and session.widens
        alone = open_session(session.study, vlm, "answer")
        assert session.study.question == entry.question
        assert session.pair.region == alone.pair.region == entry.region
        assert (session.base.ld_with, session.base.ld_without) == (
            alone.base.ld_with, alone.base.ld_without,
        )  # fmt: skip


def test_who_fails_is_not_run_but_named_with_both_lds(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, swapped=[1]), vlms()
    found, judged = opened(path, vlm)
    assert [one.pair.name for one in found] == ["p0", "p2", "p3"]
    assert [one.passed for one in judged] == [True, False, True, True]
    (failed,) = [one for one in judged if not one.passed]
    assert failed.reason == "No with the object, Yes without it"
    assert failed.ld_with < 0 < failed.ld_without
    passed = judged[0]
    assert failed.ld_with == pytest.approx(passed.ld_without, abs=1e-4)


def test_the_margin_is_the_distance_of_the_lds(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, count=2), vlms()
    _, judged = opened(path, vlm)
    apart = min(one.ld_with - one.ld_without for one in judged)
    assert len(opened(path, vlm, **{"pairs.margin": apart - 0.01})[0]) == 2
    with pytest.raises(InputError, match=r"none of 2 pairs passes .*apart by less than"):
        opened(path, vlm, **{"pairs.margin": apart + 0.01})


def test_all_failing_is_an_error_after_all_were_judged(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, swapped=[0, 1], count=2), vlms()
    judged: list[Gated] = []
    found = sessions(study(), vlm, Manifest.read(path).entries, on_gate=judged.append)
    with pytest.raises(InputError, match=r"^--pairs: none of 2 pairs .*line 2: LD_with = -.* --f"):
        list(found)
    assert [one.passed for one in judged] == [False, False]


def test_a_pair_that_is_answered_by_neither_does_not_pass(tmp_path: Path) -> None:
    path, vlm = planted_pairs(tmp_path, swapped=[0], count=3), planted().vlm
    with says_instead(vlm, "A", 75):
        with pytest.raises(InputError, match=r"none of 3 pairs passes the gate .*'A' \(p 1.00\)"):
            surveyed(path, vlm)
        forced = surveyed(path, vlm, force=True)
    counts = {"pairs": 3, "scenes": 3, "passed": 0, "wrong_sign": 1, "neither": 3, "doubtful": 0}
    assert forced.counts == counts
    columns = forced.gate_columns()
    assert columns["top_with"] == columns["top_without"] == ["A"] * 3
    assert max(columns["p_yes_with"]) < 1e-8
    neither = "'A' (p 1.00) with the object, 'A' (p 1.00) without it"
    assert columns["reason"] == [f"No with the object, Yes without it, {neither}", neither, neither]
    assert columns["said_with"] == columns["said_without"] == ["neither"] * 3


def test_pairs_whose_answers_are_unlikely_pass_and_are_counted(tmp_path: Path) -> None:
    path, vlm = planted_pairs(tmp_path, count=2), planted().vlm
    with says_instead(vlm, "A", 51.5), says_instead(vlm, "B", 51.5):
        found = surveyed(path, vlm)
    assert found.valid
    counts = {"pairs": 2, "scenes": 2, "passed": 2, "wrong_sign": 0, "neither": 0, "doubtful": 2}
    assert found.counts == counts
    (caution,) = found.cautions
    assert caution.startswith("in 2 of 2 pairs Yes and No have less than 0.5 of the probability")
    assert found.prompts == ("USER: <image>\n{question} ASSISTANT:",)


def test_ld_of_the_right_sign_does_not_pass_where_another_word_wins(tmp_path: Path) -> None:
    path, vlm = planted_pairs(tmp_path, count=2), planted().vlm
    with says_instead(vlm, "A", 54):  # Yes and No have 0.12 of the probability
        found = surveyed(path, vlm, force=True)
        single = found.open(study(force=True), vlm, None, vision=False)
        (first, *_) = [single(entry).cautions for entry in found.entries]
    assert {one.reason for one in found.gated} == {
        "'A' (p 0.88) with the object, 'A' (p 0.88) without it"
    }
    counts = {"pairs": 2, "scenes": 2, "passed": 0, "wrong_sign": 0, "neither": 2, "doubtful": 0}
    assert found.counts == counts
    assert first[0].startswith("with the object the model says 'A' (probability 0.879); Yes and No")
    line = Pairs(study(force=True), vlm, found).summary
    assert "0 of 2 pairs pass" in line and "2 pairs have a run that says neither answer." in line


@pytest.mark.parametrize(
    ("word", "reason", "spelling"),
    [
        ("Yes", "'Yes' (p 0.88) without it", "'Yes' (p 0.88) with the object, "),
        ("No", "'No' (p 0.88) with the object", "'No' (p 0.88) with the object, "),
    ],
)
def test_another_spelling_is_that_answer_and_is_named(
    word: str, reason: str, spelling: str, tmp_path: Path
) -> None:
    """The answers' tokens have a space before them; these have none, and win in both runs."""
    path, vlm = planted_pairs(tmp_path, count=2), planted().vlm
    with says_instead(vlm, word, 54):
        apart = surveyed(path, vlm, force=True)
        summed = surveyed(path, vlm, force=True, sum_variants=True)
    assert {one.reason for one in apart.gated} == {reason}
    assert apart.gate_columns()["spelling"][0].startswith(spelling)
    assert apart.counts["neither"] == apart.counts["wrong_sign"] == 0
    for one, other in zip(summed.gated, apart.gated, strict=True):  # LD = ln(P(Yes) / P(No))
        for run, (ld, was) in enumerate(zip(lds_of(one), lds_of(other), strict=True)):
            reading, before = one.readings[run], other.readings[run]
            assert ld == pytest.approx(np.log(reading.p_yes / reading.p_no), abs=1e-4)
            assert abs(ld - was) > 0.5
            assert reading.p_answers == pytest.approx(before.p_answers + before.p_top, abs=1e-6)
    assert summed.counts["wrong_sign"] == 2  # both runs say it, all spellings together


def lds_of(one: Gated) -> tuple[float, float]:
    return one.ld_with, one.ld_without


def test_a_forced_study_runs_them_and_is_not_valid(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, swapped=[0], count=2), vlms()
    found, judged = opened(path, vlm, force=True)
    assert [one.valid for one in found] == [one.passed for one in judged] == [False, True]


def test_the_fast_path_is_checked_once_for_each_length_of_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (_, vlm) = noisy_pairs(tmp_path, [SHORT, SHORT, LONG, SHORT, LONG]), vlms()
    checked, check = [], selfcheck.check
    monkeypatch.setattr(
        selfcheck,
        "check",
        lambda *args: checked.append(args[1].prompt.spans.length) or check(*args),
    )
    found, _ = opened(path, vlm, force=True)
    assert len(found) == 5
    assert all(one.widens for one in found)
    lengths = [one.prompt.spans.length for one in found]
    assert checked == list(dict.fromkeys(lengths))
    assert len(checked) == 2


def test_a_session_is_gone_before_the_next_pair_is_run(tmp_path: Path) -> None:
    path, (_, vlm) = noisy_pairs(tmp_path, [SHORT] * 3), vlms()
    entries = Manifest.read(path).entries
    opened_ones: list[weakref.ref[Session]] = []
    alive = []

    def judge(_: Gated) -> None:
        alive.append(sum(one() is not None for one in opened_ones))

    for session in sessions(study(force=True), vlm, entries, "answer", judge):
        opened_ones.append(weakref.ref(session))
        del session
    assert alive == [0, 0, 0]
    assert len(opened_ones) == 3


def test_what_is_wrong_with_a_pair_is_said_of_its_line(tmp_path: Path) -> None:
    path, (_, vlm) = noisy_pairs(tmp_path, [SHORT, "is <image> there ?"]), vlms()
    found, judged = opened(path, vlm, force=True)
    assert [one.refused for one in judged] == [False, True] and len(found) == 1
    assert judged[1].reason.startswith("question: it holds the image token <image>")
    text = path.read_text().replace("top-left", '"0,0,0.01,0.01"', 1)
    path.write_text(text)
    judged.clear()
    found = list(sessions(study(force=True), vlm, Manifest.read(path).entries, None, judged.append))
    assert not found and all(one.refused and np.isnan(one.ld_with) for one in judged)
    assert "region: 0,0,0.01,0.01 holds no patch centre" in judged[0].reason
    with pytest.raises(
        InputError, match=r"none of 2 pairs can be run \(line 2: region: .*line 3: q"
    ):
        opened(path, vlm)


def surveyed(path: Path, vlm: VLM, positions: str | None = None, **options: object) -> Survey:
    return survey(study(**options), vlm, Manifest.read(path).entries, positions)


def test_a_survey_has_what_rank_finds_pair_by_pair(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, swapped=[1]), vlms()
    found = surveyed(path, vlm)
    assert [one.name for one in found.entries] == ["p0", "p2", "p3"]
    assert found.valid and not found.widens
    assert surveyed(path, vlm, "answer").widens
    for index, entry in enumerate(found.entries):
        flags = {"with": str(entry.with_path), "without": str(entry.without_path)}
        alone = Study.make(None, {**flags, "question": entry.question, "region": "top-left"})
        per_head = rank(open_session(alone, vlm)).per_head
        for name, values in found.masses.items():
            np.testing.assert_allclose(values[index], per_head[name], atol=1e-6)
    gate = found.gate_columns()
    assert gate["passed"] == [True, False, True, True]
    assert gate["place"] == ["(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)"]


def test_a_pair_whose_region_holds_every_patch_cannot_be_compared(tmp_path: Path) -> None:
    """Its line is named where heads are ranked; named heads and whole sweeps run without ranks."""
    path, (vlm, _) = planted_pairs(tmp_path), vlms()
    header, first, second, *others = path.read_text().splitlines(keepends=True)
    second = second.replace("top-left", '"0,0,0.99,1"')
    path.write_text("".join([header, first, second, *others]))
    found = surveyed(path, vlm, "answer")
    for compared in (
        lambda: found.order("diff"), lambda: rank(Pairs(study(), vlm, found)),
        lambda: verdict.run(study(), vlm, found, Store(tmp_path / "kept")),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"manifest\.csv, line 3, region: 0,0.* holds all 16"):
            compared()
    assert np.isnan(found.masses["diff"][1]).all() and np.isfinite(found.masses["diff"][0]).all()
    heads = resolve(Selection.parse("1.1"), vlm, lambda: found.order("diff"))
    pairs = Pairs(study(**{"ablate.kinds": ["zero"]}), vlm, found, "answer")
    effects = ablate(pairs, heads, controls=0)
    assert set(effects.effects["pair"]) == {"p0", "p1", "p2", "p3"}
    swept = sweep_pairs(study(**{"sweep.kinds": ["zero"]}), vlm, found)
    assert swept.means["attention_rank"].isna().all() and "attention_rank" not in swept.saved


@pytest.mark.parametrize("region", ["image", "none"])
def test_one_pair_without_a_place_has_all_compared_by_raw_image_mass(
    region: str, tmp_path: Path
) -> None:
    """The object of one of four pairs has no place: a mean needs one measure for all."""
    path, (vlm, _) = planted_pairs(tmp_path), vlms()
    header, first, second, *others = path.read_text().splitlines(keepends=True)
    if region == "none":  # of two sizes, so that no box tells where they differ
        Image.open(tmp_path / "1.png").resize((112, 112), Image.Resampling.NEAREST).save(
            tmp_path / "1.png"
        )
    path.write_text("".join([header, first, second.replace("top-left", region), *others]))
    found = surveyed(path, vlm, "answer")
    some = "(1 of 4 pairs name no region; all are compared alike)"
    assert found.yardstick == f"{BY_IMAGE} {some}"
    for index, entry in enumerate(found.entries):
        session = found.open(study(), vlm, "answer", vision=False)(entry)
        rows = session.base.trace.lm_rows[..., session.prompt.image_positions].sum(-1)
        for name, run in (("with", 0), ("without", 1)):
            for suffix in ("", "_raw"):
                got = found.masses[f"{name}{suffix}"][index]
                np.testing.assert_allclose(got, rows[run], atol=1e-6)
    ranked = rank(Pairs(study(), vlm, found))
    assert ranked.origin.run["compared_by"] == found.yardstick
    assert (ranked.heads["diff"] == ranked.heads["diff_raw"]).all()
    assert set(ranked.heads["compared_by"]) == {"image"}
    traced = trace(Pairs(study(), vlm, found, "answer"), tokens=1, forced="with", noise=1)
    mean = traced.saved()["diff"][0].numpy()  # of all pairs by one measure, as the ranking's
    for place, diff in ranked.heads.set_index(["layer", "head"])["diff"].items():
        assert mean[place] == pytest.approx(diff, abs=1e-6)
    words = printed(traced.origin.verb.question().view(traced.files(), traced.origin.context))
    assert "whose attention to the image, as a part of all," in " ".join(words.split())
    said = printed(ranked.origin.verb.question().view(ranked.files(), ranked.origin.context))
    assert "Heads are compared by raw image mass" in " ".join(said.split())
    assert "Attention to the image from the answer position" in " ".join(said.split())


def test_pairs_without_regions_are_compared_where_they_differ(tmp_path: Path) -> None:
    """The object's patch alone: the looker gives it 45 of 60 parts with the object, 1 without."""
    path, (vlm, _) = planted_pairs(tmp_path), vlms()
    named = surveyed(path, vlm)
    assert (
        named.yardstick == "" and "compared_by" not in rank(Pairs(study(), vlm, named)).origin.run
    )
    path.write_text(path.read_text().replace("top-left", ""))
    found = surveyed(path, vlm)
    assert found.yardstick == BY_DIFFERENCE
    np.testing.assert_allclose(found.masses["with"][:, 1, 1], 45 / 60, atol=1e-5)
    np.testing.assert_allclose(found.masses["without"][:, 1, 1], 1 / 16, atol=1e-5)


def test_fewer_than_two_pairs_have_no_interval(tmp_path: Path) -> None:
    path, (vlm, _) = planted_pairs(tmp_path, swapped=[1, 2, 3]), vlms()
    with pytest.raises(InputError, match="1 of 4 pairs pass the gate; expected at least 2"):
        surveyed(path, vlm)


@pytest.mark.parametrize("positions", ["answer", "question", "all"])
def test_mean_z_is_the_mean_over_both_runs_of_every_pair(tmp_path: Path, positions: str) -> None:
    path, (_, vlm) = noisy_pairs(tmp_path, [SHORT] * 3), vlms()
    found = surveyed(path, vlm, positions, force=True)
    assert isinstance(found.reference, MeanZ)
    entries = Manifest.read(path).entries
    session, *_ = sessions(study(force=True), vlm, entries[:1], "answer")
    means = found.reference.of(session)["lm"]
    every = []
    for entry in entries:
        pair = make_pair(entry.with_path, entry.without_path, SHORT, REGIONS["top-left"])
        prompt = encode(vlm, [pair.with_image, pair.without_image], SHORT)
        every.append(forward(vlm, prompt, keep=Keep(z=("lm",)), exact=True).z["lm"])
    for layer, mean in enumerate(means):
        slow = torch.cat([z[layer] for z in every]).mean(0)
        where = session.prompt.spans.positions(positions)
        torch.testing.assert_close(mean[where], slow[where], atol=1e-6, rtol=0)


def test_unequal_prompts_have_a_mean_at_the_answer_only(tmp_path: Path) -> None:
    path, (_, vlm) = noisy_pairs(tmp_path, [SHORT, LONG]), vlms()
    assert surveyed(path, vlm, "question", force=True).reference is None
    found = surveyed(path, vlm, "answer", force=True)
    assert found.reference is not None
    opened_ones = list(sessions(study(force=True), vlm, found.entries, "answer"))
    last = [one.base.trace.z["lm"][0][:, -1] for one in opened_ones]
    slow = torch.cat(last).mean(0)
    for session in opened_ones:
        torch.testing.assert_close(found.reference.of(session)["lm"][0][-1], slow)

"""One picture, asked two questions: numbers worked out by hand, and every family against hooks.

The circuit: the picture's white patch gives head 0.1 a vote of 2 whatever is asked. Only the first
question holds the word *left*. Head 0.0 looks for it from the answer and votes 6; head 0.2 looks
for it from the question mark and leaves a note there, which head 1.0 reads at the answer: a vote of
2. LD = vote − 5, so LD_with = 6 + 2 + 2 − 5 = 5, LD_without = 2 − 5 = −3, and the gap is 8.
"""

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import headpatch as hp
from headpatch.engine.forward import Keep
from headpatch.engine.patching import patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair, make_pair
from tests.circuit import ALL, Circuit
from tests.datasets import write_table
from tests.engine.oracle import Change, Oracle
from tests.families.builders import BUILDERS, build
from tests.families.measure import SCOPES, has, interventions, measure, worst_effect
from tests.planted import FORM, FOUND, planted_image, planted_processor
from tests.refusals import refusal
from tests.tiny import QUESTION, image_pair, tiny_tokenizer

OTHER = QUESTION.replace("left", "it")
GAP = 8.0
NECESSITY = {"answer": {"0.0": 6 / 8, "1.0": 2 / 8}, "question": {"0.2": 2 / 8}, "image": {}}
"""Of resampling each head, in the narrowest scope in which it acts; all others, and all of the
vision tower, whose runs see one picture: 0. Sufficiency is the same."""


@lru_cache
def circuit() -> VLM:
    form = replace(FORM, layers=2, features=(*FORM.features[:-1], "left"))
    made = Circuit(form, FOUND)
    words = tiny_tokenizer().convert_tokens_to_ids(["▁left", "▁it"])
    assert tiny_tokenizer().unk_token_id not in words and len({*words}) == 2
    language = made.model.model.language_model
    language.embed_tokens.weight[words[0], made.dimension("left")] = 1
    word = {"left": 1.0}
    made.plant_head("0.0", at="ask", attends={"left": ALL}, reads=word, writes={"vote": 6})
    made.plant_head("0.1", at="ask", attends={"image": ALL}, reads={"image": 1}, writes={"vote": 2})
    made.plant_head("0.2", at="relay", attends={"left": ALL}, reads=word, writes={"note": 1})
    made.plant_head("1.0", at="ask", attends={"relay": ALL}, reads={"note": 1}, writes={"vote": 2})
    return VLM(made.model, planted_processor(), "asked twice", "asked twice")


def pair() -> Pair:
    return make_pair(planted_image(True), None, QUESTION, question_without=OTHER)


@pytest.mark.parametrize("scope", NECESSITY)
def test_effects_are_those_worked_out_by_hand(scope: str) -> None:
    session = hp.open_session(hp.Study(), circuit(), scope, pair())
    assert (session.base.ld_with, session.base.ld_without) == pytest.approx((5, -3), abs=1e-4)
    assert session.valid and session.widens
    swept = hp.sweep(session, kinds=["resample"], positions=scope, on_progress=False).effects
    expected = {**(NECESSITY["answer"] if scope == "question" else {}), **NECESSITY[scope]}
    for _, row in swept[swept["kind"] == "resample"].iterrows():
        assert row["normalized"] == pytest.approx(expected.get(row["heads"], 0), abs=1e-4)
    zeroed = hp.ablate(session, "0.1", kinds=["zero"], positions=scope, controls=0).effects
    zeroed = zeroed[zeroed["kind"] == "zero"]["effect"].tolist()
    assert zeroed == pytest.approx([0 if scope == "image" else -2] * 2, abs=1e-4)


def test_changes_of_the_vision_tower_are_void() -> None:
    session = hp.open_session(hp.Study(), circuit(), None, pair(), vision=True)
    assert session.resumes
    swept = hp.sweep(session, kinds=["resample"], tower="vision", on_progress=False).effects
    np.testing.assert_allclose(swept["effect"], 0, atol=1e-5)


def test_every_question_takes_such_a_pair() -> None:
    """Heads are compared by raw image mass: the image reader's is 1 in both runs."""
    session = hp.open_session(hp.Study(), circuit(), "answer", pair())
    ranked = hp.rank(session, top=8)
    image_reader = ranked.heads[(ranked.heads["layer"] == 0) & (ranked.heads["head"] == 1)]
    assert image_reader[["diff", "with", "without"]].to_numpy()[0] == pytest.approx([0, 1, 1])
    assert (ranked.with_run["question"], ranked.without_run["question"]) == (QUESTION, OTHER)
    tokens = [run["tokens"] for run in (ranked.with_run, ranked.without_run)]
    assert ["▁left" in one for one in tokens] == [True, False]
    assert "raw image mass" in ranked.origin.run["compared_by"]
    assert hp.combine(session, heads="0.0,1.0", kinds=["resample"], on_progress=False)
    assert hp.trace(session, tokens=1, answer="Yes", on_progress=False)
    found = hp.path(session, heads="1.0", edges=["answer-words"], window=1, on_progress=False)
    assert found.files()


def table(folder: Path, count: int = 4) -> Path:
    """Pairs of one picture each; of the last two the roles of Yes and No are exchanged."""
    rows = []
    for index in range(count):
        planted_image(True, other=(3, index)).save(folder / f"{index}.png")
        asked, answers = (QUESTION, OTHER), "Yes,No"
        if index >= 2:
            asked, answers = asked[::-1], "No,Yes"
        rows.append({"with": f"{index}.png", "question": asked[0], "question_without": asked[1],
                     "answers": answers, "name": f"p{index}"})  # fmt: skip
    return write_table(folder, rows)


def test_over_pairs_each_row_has_its_own_answers(tmp_path: Path) -> None:
    """With roles exchanged LD is logit(No) − logit(Yes): 3 and −5, and the gap is 8 again."""
    opened = hp.open_pairs(hp.Study(), table(tmp_path), vlm=circuit(), on_progress=False)
    gate = opened.gate
    assert gate["passed"].all()
    np.testing.assert_allclose(gate["ld_with"], [5, 5, 3, 3], atol=1e-4)
    np.testing.assert_allclose(gate["ld_without"], [-3, -3, -5, -5], atol=1e-4)
    assert gate["answers"].tolist() == ["Yes, No"] * 2 + ["No, Yes"] * 2
    assert gate["question_without"].tolist() == [OTHER] * 2 + [QUESTION] * 2
    assert (gate["said_with"] == "yes").all() and (gate["said_without"] == "no").all()
    assert set(gate.columns) >= {"pair", "answers"} and "name" not in gate
    swept = hp.sweep(opened, kinds=["resample"], on_progress=False).means
    for _, row in swept.iterrows():
        assert row["normalized"] == pytest.approx(
            NECESSITY["answer"].get(row["heads"], 0), abs=1e-4
        )
    assert "each pair's right answer" in " ".join(view_words(opened))


def view_words(opened: hp.Pairs) -> list[str]:
    from headpatch.core.gate_view import gate
    from headpatch.present.parts import Words

    parts = gate(opened.survey.gate_columns(), opened.study.pairs.margin)
    return [part.text for part in parts if isinstance(part, Words)]


LONGER = OTHER.replace("it", "it it it")
"""Two tokens more than QUESTION, in its middle: *it it it* has no counterpart, nor has *left*."""


def longer_pair() -> Pair:
    return make_pair(planted_image(True), None, QUESTION, question_without=LONGER)


@pytest.mark.parametrize("scope", NECESSITY)
def test_questions_of_other_lengths_are_aligned_by_what_they_share(scope: str) -> None:
    """The heads that vote at the answer, and the one that leaves a note at the question mark, do so
    at tokens that both questions have: all numbers are those of questions of one length."""
    session = hp.open_session(hp.Study(), circuit(), scope, longer_pair())
    assert [one.spans.length for one in session.prompt.each] == [
        len(encode(circuit(), [planted_image(True)], one).input_ids) for one in (QUESTION, LONGER)
    ]
    assert (session.base.ld_with, session.base.ld_without) == pytest.approx((5, -3), abs=1e-4)
    assert session.widens and "1 with ('left') and 3 without ('it it it')" in session.cautions[-1]
    expected = {**(NECESSITY["answer"] if scope == "question" else {}), **NECESSITY[scope]}
    swept = hp.sweep(session, kinds=["resample", "zero"], positions=scope, on_progress=False)
    for _, row in swept.effects[swept.effects["kind"] == "resample"].iterrows():
        assert row["normalized"] == pytest.approx(expected.get(row["heads"], 0), abs=1e-4)
    if scope == "answer":
        means = hp.ablate(session, "0.0", kinds=["mean"], controls=0).effects
        effects = means[means["kind"] == "mean"]["effect"].tolist()
        assert effects == pytest.approx([-3, 3], abs=1e-4)  # the mean of a vote of 6 and of none
    else:
        line = refusal(hp.ablate, session, "0.0", kinds=["mean"], positions=scope, of="--kinds")
        assert f"mean at positions {scope} of prompts of" in line


def test_what_follows_places_of_tokens_refuses_questions_of_other_lengths(tmp_path: Path) -> None:
    session = hp.open_session(hp.Study(), circuit(), "answer", longer_pair())
    assert hp.rank(session, top=8).with_run["lm_rows"].shape[-1] == session.prompt.spans.length
    assert hp.combine(session, heads="0.0,1.0", kinds=["resample"], on_progress=False)
    traced = hp.trace(session, tokens=1, answer="Yes", kinds=["mean"], on_progress=False)
    assert len(traced.tokens) == 1
    edges = {"edges": ["answer-words"], "window": 1}
    asked = {"heads": "1.0", **edges}
    for one, options in ((hp.path, asked), (hp.cut, edges), (hp.rollout, {})):
        line = refusal(one, session, of="question_without", **options)
        assert "two questions of as many tokens" in line
    rows = table(tmp_path).read_text().replace("top it", "top it it it", 1)
    (tmp_path / "manifest.csv").write_text(rows)
    opened = hp.open_pairs(hp.Study(), tmp_path, vlm=circuit(), on_progress=False)
    assert opened.gate["passed"].all() and "in 1 of 4 pairs" in opened.survey.cautions[-1]
    swept = hp.sweep(opened, kinds=["resample"], approx=True, on_progress=False)
    for _, row in swept.means.iterrows():
        expected = NECESSITY["answer"].get(row["heads"], 0)
        assert row["normalized"] == pytest.approx(expected, abs=1e-4)
    cut = hp.cut(opened, edges=["answer-words"], window=1, on_progress=False)
    gate = cut.origin.gate
    assert gate is not None and gate["passed"] == [False, True, True, True]
    assert gate["reason"][0].startswith("question_without: prompts of ")


FAMILIES = list(BUILDERS) if os.environ.get("HEADPATCH_FAMILIES") == "all" else list(BUILDERS)[::5]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_questions_are_exact_in_every_family(family: str) -> None:
    """The same words in another order: as many tokens to every tokenizer."""
    vlm, image = build(family), image_pair((84, 56))[0]
    prompt = encode(vlm, [image, image], ["Is it red?", "Is red it?"])
    assert not bool((prompt.inputs["input_ids"][0] == prompt.inputs["input_ids"][1]).all())
    alone = [encode(vlm, [image], one) for one in ("Is it red?", "Is red it?")]
    for run, one in enumerate(alone):
        for name, value in one.inputs.items():
            np.testing.assert_array_equal(prompt.select(run).inputs[name], value)
    found = measure(vlm, prompt)
    assert max(found.z.values()) <= 2e-5 and found.rows <= 1e-6 and found.vision_fast <= 2e-5
    for scope in (one for one in SCOPES if has(prompt, one)):
        assert found.edits[scope].worst <= 2e-5, scope
        fast = found.fast[scope]
        assert fast.exact and fast.worst <= 2e-5, scope


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_of_other_lengths_are_exact_in_every_family(family: str) -> None:
    """Each run against two plain passes with hooks: z of the other run's tokens' counterparts."""
    vlm, image = build(family), image_pair((84, 56))[0]
    prompt = encode(vlm, [image, image], ["Is it red?", "Is it not a big red thing?"])
    oracle, heads = Oracle(vlm), [Head(layer, 0) for layer in (0, vlm.lm.grid.layers - 1)]
    untouched = [oracle.ld(prompt, run) for run in (0, 1)]
    z = [oracle.z(one.inputs)["lm"] for one in prompt.each]
    for scope in (one for one in SCOPES if has(prompt, one)):
        keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, scope))
        base = run_pair(vlm, prompt, keep)
        assert check(vlm, base, scope).exact or base.trace.prefills[0].refused
        asked = interventions(heads, scope)
        outcomes = patch(vlm, base, asked, batch=5)
        if not base.trace.prefills[0].refused:
            assert worst_effect(outcomes, widen(vlm, base, asked)) <= 2e-5
        for one, outcome in zip(asked, outcomes, strict=True):
            (head,), own = one.heads, prompt.each[one.run]
            at = own.spans.positions(scope)
            value = None
            if one.kind == "resample":
                there = prompt.partners(one.run)[at]
                at = at[there >= 0]
                value = z[1 - one.run][head.layer].flatten(0, -3)[there[there >= 0], head.head]
            changed = oracle.ld(prompt, one.run, [Change(head, at, value)])
            assert abs(changed - untouched[one.run] - outcome.effect) <= 2e-5

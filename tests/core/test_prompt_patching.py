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
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair, make_pair
from tests.circuit import ALL, Circuit
from tests.datasets import write_table
from tests.families.builders import BUILDERS, build
from tests.families.measure import SCOPES, has, measure
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


def test_questions_of_other_lengths_are_refused_with_both_counts(tmp_path: Path) -> None:
    longer = make_pair(planted_image(True), None, QUESTION, question_without=f"{OTHER} it?")
    line = refusal(hp.open_session, hp.Study(), circuit(), None, longer, of="question_without")
    counts = [
        len(encode(circuit(), [planted_image(True)], one).input_ids) for one in longer.questions
    ]
    assert f"a prompt of {counts[1]} tokens, and one of {counts[0]}" in line
    rows = table(tmp_path).read_text().splitlines()
    bad = rows[1].replace("top it", "top it it").replace("p0", "bad").replace("0.png", "1.png")
    (tmp_path / "manifest.csv").write_text("\n".join([*rows, bad]) + "\n")
    opened = hp.open_pairs(hp.Study(), tmp_path, vlm=circuit(), on_progress=False)
    last = opened.gate.iloc[-1]
    assert not last["passed"] and last["reason"].startswith("question_without: a prompt of ")
    assert len(opened.entries) == 4


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

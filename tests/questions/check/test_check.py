"""`headpatch check` says what a model is, which scopes are exact, and what it cannot change."""

import json
from pathlib import Path

import pytest

from headpatch.core.ask import ask
from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.engine.selfcheck import Check
from headpatch.models.vlm import VLM
from headpatch.questions.check.question import QUESTION, Report, Scope
from tests.command import contents, headpatch, refused
from tests.families import builders
from tests.planted import planted, planted_study
from tests.tiny import SHAPES, save_tiny, tiny_vlm


def check(study: Study, vlm: VLM) -> Report:
    forced = study.model_copy(update={"force": True})
    return ask(QUESTION, open_session(forced, vlm), {}, False)


def test_check_tells_what_the_model_is_and_that_every_scope_is_exact(tmp_path: Path) -> None:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    report = check(planted_study(tmp_path), vlm)
    facts = report.facts
    assert facts["language_model"] == {
        "layers": 3, "heads": 4, "head_dim": 8, "key_value_heads": 2, "grouped_query": True,
        "hidden_size": 32,
    }  # fmt: skip
    assert facts["vision_tower"]["feature_layer"] == 1
    assert (facts["image_tokens"], facts["image_grid"]) == (16, [4, 4])
    assert [(name, one["text"]) for name, one in facts["answers"].items()] == [
        ("Yes", "▁Yes"), ("No", "▁No"),
    ]  # fmt: skip
    assert report.seconds > 0
    for scope in (*report.scopes.values(), *report.vision.values()):
        assert isinstance(scope, Scope)
        assert scope.exact and scope.worst <= scope.allowed
        assert scope.noise_floor < 1e-5
        assert scope.passes > scope.passes_once > 0
    costs = [scope.passes_once for scope in report.scopes.values()]
    assert costs == sorted(costs)
    vision = {name: (scope.tokens, scope.suffix) for name, scope in report.vision.items()}
    assert vision == {"class": (1, 17), "patches": (16, 17), "all": (17, 17)}
    assert report.limits == (
        "Vision layers after 1 never reach the language model: their effect is 0 by construction.",
    )


def test_check_needs_no_valid_study_and_says_where_the_fast_path_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.engine.selfcheck.check", lambda *_: Check(0.5, 1e-4))
    why = Check(float("inf"), 1e-4, "TypeError: as asked")
    monkeypatch.setattr("headpatch.questions.check.question.check_vision", lambda *_: why)
    study = planted_study(tmp_path)
    swapped = study.model_copy(update={"with_": study.without, "without": study.with_})
    report = check(swapped, planted().vlm)
    assert not report.facts["valid"]
    assert report.facts["ld_with"] < 0 < report.facts["ld_without"]
    slow = [one for one in report.limits if "not exact" in one]
    assert len(slow) == 4 + 3
    assert slow[-1] == (
        "Vision tower, all tokens: the resumed pass is not exact here (TypeError: as asked); every "
        "row is a forward pass of its own."
    )
    scope = report.scopes["answer"]
    assert isinstance(scope, Scope)
    assert scope.passes_once == 16 + 3  # heads, and the untouched rows of three batches


def test_check_says_which_tower_it_cannot_change(tmp_path: Path) -> None:
    vlm = builders.build("llava (siglip)")
    report = check(planted_study(tmp_path), vlm)
    assert report.vision["class"] == "class: the tower has no class token"
    assert isinstance(report.vision["patches"], Scope)
    report = check(planted_study(tmp_path), builders.build(builders.STRANGE))
    assert report.vision == {}
    assert "Heads of the vision tower cannot be changed in this family." in report.limits


def test_check_says_which_scope_a_prompt_lacks(tmp_path: Path) -> None:
    study = planted_study(tmp_path, prompt="USER: {question} <image>")
    report = check(study, planted().vlm)
    assert report.scopes["question"] == "question: the prompt has none"
    assert isinstance(report.scopes["answer"], Scope)


# The command


def test_check_prints_what_the_model_is(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    before = contents(tmp_path)
    said = headpatch("check", "--model", tmp_path / "model")
    assert said.code == 0, said.err
    words = " ".join(said.out.split())
    for part in (
        "family llava", "3 layers × 4 heads, 8 a head", "every head with keys of its own",
        "token", "'▁Yes'", "16 of them of the image", "4 × 4 patches", "exact", "noise floor",
        "Vision layers after 1 never reach the language model",
        "'<s> USER: <image>×16\\nIs there anything in the top left corner? ASSISTANT:'",
        "says with", "says without", "Yes 0.00", "(rank ", "no valid study",
    ):  # fmt: skip
        assert part in words
    assert said.out.count(" exact ") == 4 + 3
    assert "Sweeps of every vision head" in words
    assert contents(tmp_path) == before


def test_check_gives_a_script_the_same(place: Path) -> None:
    found = headpatch("check", "--model", place / "model", "--json").json
    assert found["family"] == "llava"
    assert found["language_model"]["layers"] == found["language_model"]["heads"] == 4
    assert list(found["positions"]) == ["answer", "question", "image", "all"]
    assert list(found["vision_positions"]) == ["class", "patches", "all"]
    for scope in (*found["positions"].values(), *found["vision_positions"].values()):
        assert scope["exact"] is True and scope["worst"] <= scope["allowed"]
    assert found["seconds_forward"] > 0
    assert found["prompt"] == f"<s> USER: <image>×16\n{found['question']} ASSISTANT:"
    reading = found["answer_probabilities"]["with"]
    assert {reading["rank_yes"], reading["rank_no"]} == {1, 2}
    assert found["valid"] == (not found["invalid_because"])


def test_check_names_an_end_token_that_it_leaves_out(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    file = tmp_path / "model/tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    content["post_processor"]["single"].append(end)
    content["post_processor"]["special_tokens"]["</s>"] = {
        "id": "</s>", "ids": [2], "tokens": ["</s>"],
    }  # fmt: skip
    file.write_text(json.dumps(content), "utf-8")
    found = headpatch("check", "--model", tmp_path / "model", "--json").json
    assert found["prompt"].endswith(" ASSISTANT:")
    assert "The tokenizer ends every text with </s>" in " ".join(found["limits"])


def test_check_refuses_what_is_no_model(tmp_path: Path) -> None:
    assert refused("check", "--model", tmp_path / "none").startswith("--model: ")

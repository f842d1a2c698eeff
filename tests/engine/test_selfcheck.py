"""When a fast path may be used: it agrees with the plain one, or says by name why it may not."""

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from headpatch.engine import selfcheck, vision
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import VisionPositions
from headpatch.engine.patching import Baseline, run_pair
from headpatch.engine.selfcheck import Check, Checks, check, check_vision
from headpatch.errors import InputError
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from tests.tiny import tiny_pair, tiny_prompt, tiny_vlm

ROUNDING = 2e-5


def pair_of(name: str = "deep-vision") -> tuple[VLM, Baseline]:
    return tiny_pair(name, "lm", "vision", suffix="answer")


def failing(error: Exception) -> Any:
    def run(*_: Any) -> None:
        raise error

    return run


def test_memory_that_runs_out_is_not_called_inexact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain path would take more of it."""
    vlm, base = pair_of()
    monkeypatch.setattr("headpatch.engine.widen.walk", failing(torch.OutOfMemoryError("as asked")))
    with pytest.raises(InputError, match="--device: cpu has too little memory for one row"):
        check(vlm, base, "answer")
    monkeypatch.setattr(vision, "_outputs", failing(torch.OutOfMemoryError("as asked")))
    with pytest.raises(torch.OutOfMemoryError, match="as asked"):
        check_vision(vlm, base)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TypeError("a layer that takes\nsomething else"), "TypeError: a layer that takes"),
        (AttributeError(), "AttributeError"),
        (RuntimeError("shapes (3) and (4)"), "RuntimeError: shapes (3) and (4)"),
    ],
)
def test_what_cannot_run_is_named(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, base = pair_of()
    monkeypatch.setattr("headpatch.engine.widen.walk", failing(error))
    monkeypatch.setattr(vision, "_outputs", failing(error))
    for found in (check(vlm, base, "answer"), check_vision(vlm, base)):
        said = f"its layers do not run on a part of the pass alone ({reason})"
        assert (found.exact, found.worst, found.reason) == (False, float("inf"), said)
        assert found.why == said


def test_what_differs_is_said_in_logits() -> None:
    assert Check(0.25, 1e-4).why == "it is off by 2.5e-01 logits"
    assert not Check(float("nan"), 1e-4).exact


def test_a_prompt_that_cannot_be_widened_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of()
    prefills = tuple(replace(one, refused="read both ways") for one in base.trace.prefills)
    monkeypatch.setattr("headpatch.engine.comparison.patch", failing(AssertionError("it was")))
    found = check(vlm, replace(base, trace=replace(base.trace, prefills=prefills)), "answer")
    assert (found.exact, found.why) == (False, "read both ways")


@pytest.mark.parametrize("scope", get_args(VisionPositions))
@pytest.mark.parametrize("name", ["plain", "deep-vision", "class-token-kept"])
def test_resumed_passes_of_the_tower_are_exact(name: str, scope: VisionPositions) -> None:
    found = check_vision(*pair_of(name), scope)
    assert found.exact
    assert found.worst < ROUNDING


def test_layers_that_are_handed_back_wrongly_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of()
    rows = vision._rows

    def swapped(output: Any, run: int, pair: Prompt, batch: Prompt, at: int) -> Any:
        return rows(output, 1 - run, pair, batch, at)

    monkeypatch.setattr(vision, "_rows", swapped)
    found = check_vision(vlm, base)
    assert not found.exact
    assert 1e-2 < found.worst < float("inf")


def test_a_tower_that_does_not_keep_pictures_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of()
    monkeypatch.setattr(vision, "_hidden", lambda _: torch.zeros(3, 17, 24))
    found = check_vision(vlm, base)
    assert found.why == "tiny: a vision layer does not run once, picture after picture"


RIGHT, WRONG = Check(0.0, 1e-4), Check(0.5, 1e-4)


def comparing(monkeypatch: pytest.MonkeyPatch, *outcomes: Check) -> list[str]:
    """Let comparisons come out like this, one after the other; return what was compared."""
    made, left = list[str](), list(outcomes)

    def making(name: str) -> Any:
        def make(*_: Any) -> Check:
            made.append(name)
            return left.pop(0)

        return make

    monkeypatch.setattr(selfcheck, "check", making("lm"))
    monkeypatch.setattr(selfcheck, "check_vision", making("vision"))
    return made


def test_each_shape_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of()
    made, checks = comparing(monkeypatch, RIGHT, RIGHT, RIGHT), Checks()
    assert checks.vision(vlm, base, "a") is checks.vision(vlm, base, "b")
    assert checks.lm(vlm, base, "answer", "a") is checks.lm(vlm, base, "answer", "b")
    other, longer = tiny_vlm(), tiny_prompt(tiny_vlm(), "is there a red square in the image ?")
    keep = Keep(z=("vision",), suffix=longer.spans.answer)
    checks.lm(other, run_pair(other, longer, keep), "answer", "b")
    assert made == ["vision", "lm", "lm"]


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([RIGHT], "rrrr"),
        ([WRONG, RIGHT], "wrrr"),  # one pair does not decide for the others, nor they for it
        ([WRONG, WRONG], "wwww"),
    ],
)
def test_a_refusal_takes_two_pairs(
    outcomes: list[Check], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, base = pair_of()
    made, checks = comparing(monkeypatch, *outcomes), Checks()
    words = {True: "r", False: "w"}
    assert "".join(words[checks.lm(vlm, base, "answer", pair).exact] for pair in "abcd") == said
    assert len(made) == len(outcomes)
    decided = checks.decided()
    again = "".join(words[decided.lm(vlm, base, "answer", pair).exact] for pair in "dcba")
    assert again == said[::-1]


def test_what_is_decided_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does not matter in which order, or where, pairs of another shape come later."""
    vlm, base = pair_of()
    made, decided = comparing(monkeypatch, WRONG, RIGHT, RIGHT), Checks().decided()
    assert [decided.lm(vlm, base, "answer", pair).exact for pair in "aba"] == [False, True, True]
    assert len(made) == 3
    alone = Checks({("lm", (base.trace.prefills[0].tokens, base.trace.prefills[0].start)):
                    {"a": WRONG}}).decided()  # fmt: skip
    comparing(monkeypatch, RIGHT)
    assert not alone.lm(vlm, base, "answer", "a").exact
    assert alone.lm(vlm, base, "answer", "b").exact


def test_low_precision_is_allowed_the_rounding_of_its_largest_effect() -> None:
    vlm, base = tiny_pair("deep-vision", "vision", dtype=torch.bfloat16, exact=True)
    found = check_vision(vlm, base)
    assert found.exact
    assert found.worst < ROUNDING  # both paths are in float32
    assert found.allowed >= 1e-4

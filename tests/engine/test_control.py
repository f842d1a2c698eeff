"""Whether headpatch changes the model's own heads: held against hooks in a plain forward pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from headpatch.core import session as sessions
from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.engine import control
from headpatch.engine.control import why_not
from headpatch.engine.forward import Keep
from headpatch.engine.patching import run_pair
from headpatch.engine.taps import Site
from headpatch.engine.tower_taps import TowerSite
from headpatch.errors import InputError
from headpatch.heads import Grid, Tower
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from tests.families.builders import build, prompt_of
from tests.questions.check.test_check import check
from tests.tiny import image_pair, tiny_pair

BOTH: tuple[Tower, ...] = ("lm", "vision")
Wrong = Callable[[VLM, Tower], None]


def why(vlm: VLM, tower: Tower) -> str:
    return why_not(vlm, run_pair(vlm, prompt_of(vlm), Keep(z=("lm", "vision"))), tower)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_no_reason(dtype: torch.dtype) -> None:
    vlm, base = tiny_pair("deep-vision", *BOTH, dtype=dtype, exact=True)
    assert [why_not(vlm, base, tower) for tower in BOTH] == ["", ""]


def entry(vlm: VLM, tower: Tower, **changes: Any) -> None:
    """Let headpatch know something else of a tower than what is there."""
    vlm.__dict__[tower] = replace(vlm.stack(tower), **changes)


def shifted(vlm: VLM, tower: Tower) -> None:
    known = vlm.stack(tower)
    entry(vlm, tower, attentions=[*known.attentions[1:], known.attentions[0]])


def other_projection(vlm: VLM, tower: Tower) -> None:
    known = vlm.stack(tower)
    entry(vlm, tower, outputs=[one.get_submodule("v_proj") for one in known.attentions])


def fewer_layers(vlm: VLM, tower: Tower) -> None:
    known = vlm.stack(tower)
    parts = ("layers", "attentions", "outputs")
    cut = {name: list(getattr(known, name))[1:] for name in parts}
    grid = Grid(known.grid.layers - 1, known.grid.heads, tower)
    entry(vlm, tower, **cut, grid=grid)


@pytest.mark.parametrize("tower", BOTH)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (shifted, "layer 0"),
        (other_projection, "output projection of layer 0 is another module"),
        (fewer_layers, "output projection of layer 0 is another module"),
    ],
)
def test_a_wrong_entry_of_a_tower_is_seen(wrong: Wrong, said: str, tower: Tower) -> None:
    vlm = build("llava")
    wrong(vlm, tower)
    assert said in why(vlm, tower)


def test_tokens_of_a_tower_are_counted_as_they_were_seen() -> None:
    """Qwen-VL's tower takes the patches of all runs in one row; no entry is asked for it."""
    vlm = build("qwen2_vl")
    vlm.__dict__["family"] = replace(vlm.family, one_row=False)
    assert why(vlm, "vision") == ""


def test_a_layer_that_is_read_but_thought_not_to_be_is_seen() -> None:
    vlm = build("llava")
    assert vlm.feature_layer == 1
    vlm.__dict__["feature_layer"] = 0
    prompt = prompt_of(vlm)
    whole = run_pair(vlm, prompt, Keep(z=("lm",)))
    assert "untouched LD" in why_not(vlm, whole, "lm")


@pytest.mark.parametrize("tower", BOTH)
def test_heads_that_are_permuted_are_seen(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site if tower == "lm" else TowerSite
    real = site._replace

    def swapped(self: Site, z: Tensor) -> Tensor:
        return real(self, z.flip(2)).flip(2)

    monkeypatch.setattr(site, "_replace", swapped)
    assert "changing" in why(build("llava"), tower)
    monkeypatch.undo()
    take = site._take
    monkeypatch.setattr(site, "_take", lambda self, z: take(self, z.flip(2)))
    assert "is not what enters" in why(build("llava"), tower)


def test_a_model_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tower] = []

    def compared(_: VLM, __: Any, tower: Tower, ___: Any) -> str:
        made.append(tower)
        return ""

    monkeypatch.setattr(control, "_compared", compared)
    vlm = build("llava")
    for tower in ("lm", "lm", "vision"):
        why(vlm, tower)
    assert made == ["lm", "vision"]


def opening(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Pair]:
    monkeypatch.setattr(sessions, "load", lambda *_: vlm)
    pair = Pair("a-b", *image_pair(), "Is it red?", Region.parse("top-left"))
    return Study().override({"force": True, "sweep.reference": 0}), pair


@pytest.mark.parametrize(("tower", "words"), [("lm", "language model"), ("vision", "vision tower")])
def test_heads_out_of_control_are_refused_in_a_line_and_reading_goes_on(
    tower: Tower, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = build("llava")
    shifted(vlm, tower)
    study, pair = opening(vlm, monkeypatch)
    positions, vision = ("answer", False) if tower == "lm" else (None, True)
    with pytest.raises(InputError, match=f"^heads of the {words}: headpatch cannot control them"):
        open_session(study, positions=positions, pair=pair, vision=vision)
    assert open_session(study, pair=pair).valid in (True, False)


@pytest.mark.parametrize("tower", BOTH)
def test_check_shows_what_is_out_of_control(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = build("llava")
    shifted(vlm, tower)
    study, pair = opening(vlm, monkeypatch)
    monkeypatch.setattr(Study, "pair", lambda _: pair)
    report = check(study, vlm)
    lost, other = (report.scopes, report.vision)[:: 1 if tower == "lm" else -1]
    assert all("cannot control" in str(one) for one in lost.values())
    assert not any("cannot control" in str(one) for one in other.values())
    assert sum("cannot control" in one for one in report.limits) == 1

"""The planted circuit through the engine: numbers worked out by hand (see `tests.planted`)."""

from functools import lru_cache
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch

from headpatch.engine.answers import generate
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Cut, Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, ZMeans, patch, run_pair
from headpatch.heads import Head, HeadSet
from headpatch.models.spans import Positions
from tests.engine.numpy_llava import Pass, run
from tests.planted import HEADS, LD_WITH, LD_WITHOUT, SILENT, VISION_ODDS, Planted, planted
from tests.tiny import PLAIN

CLOSE = 1e-4  # logits; what C = 10⁴ leaves of the norms, and float32
SPAN = LD_WITH - LD_WITHOUT
KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(Positions)
NOISING, DENOISING = DIRECTIONS
every_head = pytest.mark.parametrize("name", HEADS)


@lru_cache
def circuit(noise: float = 0.0, seed: int = 0) -> tuple[Planted, Baseline]:
    made = planted(noise, seed)
    keep = Keep(lm_rows=True, vision_rows=True, z=("lm",))
    return made, run_pair(made.vlm, made.prompt, keep)


def own_means(base: Baseline) -> ZMeans:
    """Over the pair's own two runs."""
    return {"lm": [z.mean(0) for z in base.trace.z["lm"]]}


def normalized(heads: str, kind: str, scope: Positions = "answer") -> list[float]:
    """Noising and denoising."""
    made, base = circuit()
    asked = [Intervention(HeadSet.parse(heads), kind, one, scope) for one in DIRECTIONS]
    noised, denoised = patch(made.vlm, base, asked, own_means(base))
    return [-noised.effect / SPAN, denoised.effect / SPAN]


def eighths(noising: float, denoising: float) -> object:
    return pytest.approx([noising / 8, denoising / 8], abs=CLOSE)


def label(name: str) -> str:
    return str(HEADS[name].head)


def test_the_runs_answer_yes_and_no() -> None:
    made, base = circuit()
    assert base.ld_with == pytest.approx(LD_WITH, abs=CLOSE)
    assert base.ld_without == pytest.approx(LD_WITHOUT, abs=CLOSE)
    assert generate(made.vlm, made.prompt) == ["Yes", "No"]


@every_head
def test_attention_to_the_region(name: str) -> None:
    made, base = circuit()
    expected = HEADS[name]
    assert base.trace.lm_rows is not None
    row = base.trace.lm_rows[:, expected.head.layer, expected.head.head].double()
    image = row[:, made.prompt.image_positions]
    raw = image[:, [0, 1, 4, 5]].sum(1)
    share = raw / image.sum(1)
    assert share.tolist() == pytest.approx([expected.share_with, expected.share_without], abs=1e-6)
    if expected.raw_with is not None:
        assert raw.tolist() == pytest.approx([expected.raw_with, expected.raw_without], abs=1e-6)


def test_attention_of_heads_that_look_at_text_too() -> None:
    """Of 30 tokens 14 are text: 1/30 each where nothing is asked; the faint head's all but all."""
    made, base = circuit()
    assert base.trace.lm_rows is not None
    tokens = made.prompt.spans.length
    text = tokens - 16
    regions = base.trace.lm_rows[..., made.prompt.image_positions[[0, 1, 4, 5]]].double().sum(-1)
    for head in (HEADS["note writer"].head, HEADS["pool writer"].head, *SILENT):
        assert regions[:, head.layer, head.head].tolist() == pytest.approx([4 / tokens] * 2)
    faint = regions[:, 2, 2].tolist()
    expected = [1488e-6 / (text + 1500e-6), 4e-6 / (text + 16e-6)]
    assert faint == pytest.approx(expected, rel=1e-4)


def test_attention_in_the_vision_tower() -> None:
    """A bright patch weighs 7, a dark one and the class token 1; the other heads look evenly."""
    _, base = circuit()
    with_row = np.array([1.0] + [VISION_ODDS if patch in (5, 13) else 1 for patch in range(16)])
    without_row = np.array([1.0] + [VISION_ODDS if patch == 13 else 1 for patch in range(16)])
    for rows in (base.trace.vision_class_rows, base.trace.vision_patch_rows):
        assert rows is not None
        for run_index, weights in ((WITH, with_row), (WITHOUT, without_row)):
            expected = np.full((3, 2, 17), 1 / 17)
            expected[0, 1] = weights / weights.sum()
            np.testing.assert_allclose(rows[run_index], expected, atol=1e-5)


@every_head
def test_necessity_and_sufficiency(name: str) -> None:
    """In its own scope and everywhere; nothing in a scope without it."""
    expected, heads = HEADS[name], label(name)
    for scope in (expected.scope, "all"):
        found = normalized(heads, "resample", scope)
        assert found == pytest.approx([expected.necessity, expected.sufficiency], abs=CLOSE)
    inert = {"answer": ["image"], "question": ["answer", "image"], "image": ["answer", "question"]}
    for scope in inert[expected.scope]:
        assert normalized(heads, "resample", scope) == eighths(0, 0)


def test_the_redundant_pair_is_necessary_only_together() -> None:
    pair = f"{label('redundant a')}+{label('redundant b')}"
    assert normalized(pair, "resample") == eighths(4, 4)
    assert normalized(pair, "zero")[0] == pytest.approx(4 / 8, abs=CLOSE)
    # Halved evidence: 0.5 alone is in the middle of the clamp, 0.5 + 0.5 is at its top.
    assert normalized(pair, "mean") == eighths(0, 4)
    alone = normalized(label("redundant a"), "mean")
    assert alone[1] == pytest.approx(2 / 8, abs=CLOSE)


def test_a_chain_counts_once() -> None:
    """Writer and reader are in series: both together do no more than either, unlike a sum."""
    for chain in ("note", "pool"):
        heads = f"{label(f'{chain} writer')}+{label(f'{chain} reader')}"
        assert normalized(heads, "resample", "all") == eighths(1, 1)


def test_parallel_heads_add_up() -> None:
    heads = "+".join(label(name) for name in ("looker", "blind writer", "suppressor"))
    assert normalized(heads, "resample") == eighths(2, 2)


def test_zero_and_mean_take_away_what_a_head_always_writes() -> None:
    """The blind writer adds 2 with, 1 without: zeroing removes 2 or 1, not the difference."""
    heads = label("blind writer")
    assert normalized(heads, "zero") == eighths(2, -1)
    assert normalized(heads, "mean") == eighths(0.5, 0.5)


def test_the_answer_changes_when_the_vote_turns() -> None:
    made, base = circuit()
    decisive = HeadSet.parse("+".join(label(n) for n in ("looker", "redundant a", "redundant b")))
    flips, stays = patch(
        made.vlm,
        base,
        [Intervention(heads, "resample", NOISING) for heads in (decisive, HeadSet.parse("1.1"))],
    )
    answers = made.prompt.answers
    assert flips.ld == pytest.approx(LD_WITH - 6, abs=CLOSE)
    assert (flips.token_before, flips.token) == (answers.yes, answers.no)
    assert stays.ld == pytest.approx(LD_WITH - 2, abs=CLOSE)
    assert stays.token == answers.yes


def test_cutting_the_looker_off_from_the_object_renormalises() -> None:
    """Its 3/4 on the object goes to the 15 other patches, which hold nothing to read."""
    made, base = circuit()
    object_at = made.prompt.image_positions[[5]]
    answer = torch.tensor([made.prompt.spans.answer])
    cut = forward(made.vlm, made.prompt.select(WITH), cuts=[Cut(0, Head(1, 1), answer, object_at)])
    assert float(cut.ld(made.prompt)[0]) == pytest.approx(LD_WITH - 2, abs=CLOSE)
    # The suppressor cut off from all else: its half on the object becomes all, and −1 becomes −2.
    others = torch.tensor([p for p in made.prompt.image_positions.tolist() if p != int(object_at)])
    cut = forward(made.vlm, made.prompt.select(WITH), cuts=[Cut(0, Head(1, 3), answer, others)])
    assert float(cut.ld(made.prompt)[0]) == pytest.approx(LD_WITH - 1, abs=CLOSE)
    assert base.ld_with == pytest.approx(LD_WITH, abs=CLOSE)


@pytest.mark.parametrize(("noise", "seed"), [(0.0, 0), (0.02, 1), (0.3, 2)])
def test_every_head_kind_direction_and_scope_equals_the_formulas(noise: float, seed: int) -> None:
    """Against numpy; with noise every silent head has some effect too."""
    made, base = circuit(noise, seed)
    ids = made.prompt.input_ids.numpy()
    pixels = made.prompt.inputs["pixel_values"].double().numpy()
    runs = [run(made.vlm.model, ids, pixels[index]) for index in (WITH, WITHOUT)]
    answers = made.prompt.answers

    def ld(found: Pass) -> float:
        return float(found.logits[answers.yes] - found.logits[answers.no])

    assert [base.ld_with, base.ld_without] == pytest.approx([ld(one) for one in runs], abs=CLOSE)
    sets = [HeadSet.of(head) for head in made.vlm.lm.grid] + [HeadSet.parse("0.3+1.0")]
    asked = [
        Intervention(heads, kind, direction, scope)
        for heads, (kind, direction, scope) in product(
            sets,
            [
                ("resample", NOISING, "answer"),
                ("resample", DENOISING, "all"),
                ("zero", NOISING, "question"),
                ("mean", DENOISING, "image"),
            ],
        )
    ]
    for outcome in patch(made.vlm, base, asked, own_means(base), batch=32):
        one = outcome.intervention
        base_run = WITH if one.direction == NOISING else WITHOUT
        here = made.prompt.spans.positions(one.positions).tolist()
        edits = {}
        for head in one.heads:
            theirs = [found.z[head.layer][head.head] for found in runs]
            value = {
                "zero": 0 * theirs[0],
                "mean": sum(theirs) / 2,
                "resample": theirs[1 - base_run],
            }[one.kind]
            edits[head.layer, head.head] = (here, value[here])
        expected = ld(run(made.vlm.model, ids, pixels[base_run], edits))
        assert outcome.ld == pytest.approx(expected, abs=CLOSE), one


@pytest.mark.parametrize("seed", [1, 2])
def test_small_noise_leaves_the_numbers_standing(seed: int) -> None:
    made, base = circuit(0.02, seed)
    assert base.ld_with == pytest.approx(LD_WITH, abs=0.05)
    asked = [Intervention(HeadSet.of(head), "resample", NOISING) for head in SILENT]
    effects = [outcome.effect for outcome in patch(made.vlm, base, asked)]
    assert any(effects)
    assert effects == pytest.approx([0] * len(SILENT), abs=0.05)

"""`sweep` agrees with plain passes and finds what was planted; what is interrupted goes on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.core.cost import cost, plan
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import Session, open_session
from headpatch.engine import widen as engine
from headpatch.engine.forward import forward
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome, patch
from headpatch.engine.selfcheck import Check
from headpatch.engine.widen import rows_within, widen
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet
from headpatch.models.patches import Patches
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.questions.rank.question import rank
from headpatch.questions.sweep.asked import Listed
from headpatch.questions.sweep.question import Sweep, sweep
from headpatch.questions.sweep.table import SweptPair, measure
from tests.datasets import tiny_study
from tests.planted import HEADS, SILENT, planted, planted_study
from tests.questions.sweep.test_vision import swept as vision_swept
from tests.tiny import SHAPES, tiny_vlm

CLOSE = 1e-4  # logits, of the planted circuit: its arithmetic is exact to about 1e-6
ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model
WAYS = [f"{k}_{d}" for k in ("zero", "mean", "resample") for d in ("noising", "denoising")]


def opened(vlm: VLM, positions: Positions = "answer", **options: object) -> Session:
    """A session on the planted pictures, whatever the model says of them."""
    with TemporaryDirectory() as folder:
        keys = {f"sweep.{name}": value for name, value in options.items()}
        study = planted_study(
            Path(folder),
            **{"sweep.positions": positions, "sweep.reference": 0, "force": True, **keys},
        )
        return open_session(study, vlm, positions)


def noisy_session(
    name: str, positions: Positions, dtype: torch.dtype = torch.float32, **options: object
) -> Session:
    """A tiny random model on noisy pictures, where every head does something."""
    with TemporaryDirectory() as folder:
        keys = {"positions": positions, "reference": 0, **options}
        study = tiny_study(Path(folder), **{f"sweep.{key}": keys[key] for key in keys})
        return open_session(study, tiny_vlm(SHAPES[name], dtype=dtype), positions)


@lru_cache
def swept() -> tuple[Session, Sweep]:
    session = opened(planted().vlm)
    return session, sweep(session)


def effects_of(found: Sweep | SweptPair) -> np.ndarray:
    table = found.table if isinstance(found, SweptPair) else found.effects
    return table["effect"].to_numpy()


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("plain", "answer"),
        ("grouped-query", "question"),
        ("wide-heads", "all"),
        ("grouped-narrow-heads", "image"),
    ],
)
def test_every_row_agrees_with_a_plain_pass(name: str, positions: Positions) -> None:
    session = noisy_session(name, positions)
    assert session.widens
    means, job = mean_z(session, reference=0), plan(session)
    effects = effects_of(measure(session, job, means))
    slow = [one.effect for one in patch(session.vlm, session.base, job.asked, means)]
    np.testing.assert_allclose(effects, slow, atol=ROUNDING, rtol=0)
    assert np.abs(effects).max() > 100 * ROUNDING


def test_the_planted_heads_are_found() -> None:
    _, found = swept()
    assert list(found.saved["normalized"]) == WAYS
    maps = found.saved["normalized"]
    for one in HEADS.values():
        if one.scope == "answer":
            at = one.head.layer, one.head.head
            shares = [float(maps[f"resample_{way}"][at]) for way in ("noising", "denoising")]
            assert shares == pytest.approx([one.necessity, one.sufficiency], abs=CLOSE)
    for head in SILENT:
        assert all(abs(float(values[head.layer, head.head])) < CLOSE for values in maps.values())


def test_tensors_table_and_largest_say_the_same() -> None:
    session, found = swept()
    grid, rows = session.vlm.lm.grid, found.named
    for way, largest in zip(WAYS, found.largest(), strict=True):
        kind, direction = way.split("_")
        assert (largest["kind"], largest["direction"]) == (kind, direction)
        own = rows[(rows["kind"] == kind) & (rows["direction"] == direction)]
        assert list(own["heads"]) == list(map(str, grid))
        for column in ("effect", "normalized"):
            values = found.saved[column][way]
            assert values.dtype == torch.float32
            assert values.shape == (grid.layers, grid.heads)
            np.testing.assert_allclose(values.flatten(), own[column], rtol=1e-6)
        sizes, head = found.saved["effect"][way].abs(), Head.parse(largest["heads"])
        assert float(sizes[head.layer, head.head]) == float(sizes.max())
        assert abs(largest["effect"]) == pytest.approx(float(sizes.max()), rel=1e-6)


def test_effect_and_normalized_follow_their_definitions() -> None:
    _, found = swept()
    table = found.effects
    gap = table["ld_with"] - table["ld_without"]
    base = table["ld_with"].where(table["direction"] == "noising", table["ld_without"])
    sign = np.where(table["direction"] == "noising", -1, 1)
    pd.testing.assert_series_equal(table["ld"], base + table["effect"], check_names=False)
    np.testing.assert_allclose(table["normalized"], sign * table["effect"] / gap, atol=1e-9)


def test_heads_stand_beside_the_rank_that_rank_gives() -> None:
    session, found = swept()
    ranked = rank(session).heads.sort_values(["layer", "head"])["rank"]
    named = found.named
    for _, own in named.groupby(["kind", "direction"]):
        assert list(own["attention_rank"]) == list(ranked)
    np.testing.assert_array_equal(found.saved["attention_rank"], rank(session).per_head["rank"])


def test_spearman_is_that_of_the_ranks() -> None:
    _, found = swept()
    looks = pd.Series(found.saved["attention_diff"].flatten().numpy()).rank()
    for way in WAYS:
        does = pd.Series(found.saved["effect"][way].abs().flatten().numpy()).rank()
        assert found.correlations[way] == pytest.approx(looks.corr(does), abs=1e-5)


def test_the_noise_floor_is_the_largest_effect_of_a_seeded_sample_of_self_patches() -> None:
    session = opened(planted().vlm, noise=5, kinds=("zero",))
    first, again = sweep(session), sweep(session)
    selves = first.effects[first.effects["role"] == "noise floor"]
    assert set(selves["kind"]) == {"self"}
    assert len(selves) == 5 * 2
    assert first.plan.noise == 5
    assert first.noise_floor == selves["effect"].abs().max() < 1e-5
    pd.testing.assert_frame_equal(first.effects, again.effects)
    other = replace(session, study=session.study.model_copy(update={"seed": 1}))
    drawn = {str(one.heads) for one in plan(other).asked if one.kind == "self"}
    assert drawn != set(selves["heads"])
    everything = opened(planted().vlm, noise=10**6, kinds=("zero",))
    assert plan(everything).noise == len(list(session.vlm.lm.grid))


def test_the_top_is_sorted_by_effect_and_marks_what_is_not_above_the_floor() -> None:
    _, found = swept()
    rows = found.top(16)
    assert [row["direction"] for row in rows] == ["noising"] * 16 + ["denoising"] * 16
    for own in (rows[:16], rows[16:]):
        assert [row["place"] for row in own] == list(range(1, 17))
        sizes = [abs(row["effect"]) for row in own]
        assert sizes == sorted(sizes, reverse=True)
    for row in rows:
        assert row["below_floor"] == (abs(row["effect"]) <= found.noise_floor)
        assert set(row["normalized"]) == {"zero", "mean", "resample"}
    assert rows[0]["heads"] == str(HEADS["looker"].head)
    assert {row["heads"] for row in rows[16:18]} == {"0.3", "1.0"}


def test_sets_are_changed_together_in_their_own_order() -> None:
    session = opened(planted().vlm, kinds=("resample",))
    sets = [HeadSet.parse(text) for text in ("0.3+1.0", "1.1", "2.3", "0.3+1.0")]
    found = sweep(session, sets)
    assert found.saved["heads"] == ["0.3+1.0", "1.1", "2.3"]
    shares = found.saved["normalized"]["resample_noising"].tolist()
    assert shares == pytest.approx([4 / 8, 2 / 8, 0], abs=CLOSE)
    assert list(found.named["role"].unique()) == ["set", "head"]
    ranks = found.named.set_index("heads")["attention_rank"]
    assert ranks.loc["0.3+1.0"].isna().all()
    assert ranks.loc["1.1"].notna().all()
    assert found.correlations == {}
    assert "attention_rank" not in found.saved


@pytest.mark.parametrize("sets", [[], [HeadSet(())], [HeadSet.parse("9.0")]])
def test_sets_that_are_none_are_refused(sets: list[HeadSet]) -> None:
    session, _ = swept()
    with pytest.raises(InputError, match=r"^sets: "):
        plan(session, sets)


def test_the_plain_path_gives_the_same_table_at_its_own_price() -> None:
    session, found = swept()
    plainly = replace(session, fast=Check(float("inf"), CLOSE))
    assert not plainly.widens
    job = plan(plainly)
    each = len(job.asked) // 2  # a direction's rows, 7 to a batch beside its untouched row
    assert job.passes == 2 * (each + -(-each // 7))
    np.testing.assert_allclose(effects_of(measure(plainly, job)), effects_of(found), atol=ROUNDING)


@contextmanager
def multiplications(vlm: VLM) -> Iterator[list[int]]:
    """Count, layer call by layer call, what the decoder layers' weights are multiplied with."""
    counts: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], _: object) -> None:
        counts.append(inputs[0].numel() // module.in_features * module.weight.numel())

    with ExitStack() as stack:
        for layer in vlm.lm.layers:
            for module in layer.modules():
                if isinstance(module, torch.nn.Linear):
                    stack.callback(module.register_forward_hook(count).remove)
        yield counts


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("positions", ["answer", "question"])
def test_the_price_is_what_the_weights_are_multiplied_with(positions: Positions, size: int) -> None:
    """Counted by hooks on every linear module, over what a plain pass of the prompt takes."""
    session = noisy_session("grouped-query", positions, directions=("noising",))
    rng = np.random.default_rng(0)
    heads = list(session.vlm.lm.grid)
    sets = [
        HeadSet(tuple(heads[i] for i in rng.choice(12, rng.integers(1, 4), replace=False)))
        for _ in range(40)
    ]
    asked = [Intervention(one, "zero", "noising", positions) for one in sets]
    with multiplications(session.vlm) as plain:
        forward(session.vlm, session.prompt.select(0))
    with multiplications(session.vlm) as walked:
        widen(session.vlm, session.base, asked, rows=size)
    assert cost(session, asked, size) == pytest.approx(sum(walked) / sum(plain), rel=1e-2)


def test_a_budget_bounds_the_rows_and_changes_no_number() -> None:
    session = noisy_session("plain", "all", budget=1, kinds=("resample",))
    prefill, job = session.base.trace.prefills[0], plan(session)
    assert job.size is not None
    assert 1 <= job.size <= rows_within(session.vlm, prefill, 1 << 20)
    single = noisy_session("plain", "all", rows=1, kinds=("resample",))
    assert plan(single).size == 1
    effects = effects_of(measure(session, job))
    np.testing.assert_allclose(effects, effects_of(sweep(single)), atol=ROUNDING)


def test_a_budget_too_small_for_one_row_says_what_one_row_takes() -> None:
    session, _ = swept()
    prefill = session.base.trace.prefills[0]
    each = engine.row_bytes(session.vlm, prefill)
    assert rows_within(session.vlm, prefill, 2 * each) == 1
    with pytest.raises(InputError, match=r"--budget: 0 MiB; expected at least 1 MiB"):
        rows_within(session.vlm, prefill, 2 * each - 1)


@pytest.mark.parametrize("tower", ["lm", "vision"])
def test_finished_rows_are_taken_bit_for_bit_and_the_rest_is_run(tower: str) -> None:
    session, whole = swept() if tower == "lm" else vision_swept()
    job, kept = whole.plan, list[Outcome]()
    measure(session, job, on_outcome=kept.append)
    assert {one.intervention for one in kept} == set(job.asked) and len(kept) == len(job.asked)
    marked = {
        one.intervention: replace(one, effect=one.effect + 1.0, ld=one.ld + 1.0)
        for one in kept[:40]
    }
    calls, later = list[tuple[int, int]](), list[Outcome]()
    resumed = measure(session, job, None, lambda *call: calls.append(call), later.append, marked)
    assert len(later) == len(job.asked) - 40
    assert calls[-1] == (len(job.asked), len(job.asked))
    if tower == "lm":
        assert calls[0] == (41, len(job.asked))
    for one, effect, before in zip(job.asked, effects_of(resumed), effects_of(whole), strict=True):
        if one in marked:
            assert effect == marked[one].effect
        else:
            assert effect == pytest.approx(before, abs=ROUNDING)


def test_an_interrupt_leaves_the_model_as_it_was() -> None:
    """Also while the traceback still holds every frame, as in a notebook."""
    session, whole = swept()
    count = 0

    def stop(_: Outcome) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        measure(session, plan(session), on_outcome=stop)
    assert caught.tb is not None
    modules = session.vlm.model.modules()
    assert not any("tap" in name for module in modules for name in module.__dict__)
    np.testing.assert_array_equal(effects_of(sweep(session)), effects_of(whole))


def test_a_model_whose_image_is_not_attended_to_has_no_attention_rank() -> None:
    session, _ = swept()
    nowhere = Patches(np.empty((0, 4)), (0, 0))
    base = replace(session.base, prompt=replace(session.prompt, patches=nowhere))
    found = sweep(replace(session, base=base))
    assert found.effects["attention_rank"].isna().all()
    assert found.correlations == {}
    assert found.top(1)[0]["attention_rank"] is None


def test_a_flat_answer_has_undefined_shares_and_correlations() -> None:
    """Two runs with the same LD: the effect is there, its share of nothing is not."""
    session = opened(planted().vlm, kinds=("zero",))
    base = replace(session.base, ld_without=session.base.ld_with)
    found = sweep(replace(session, base=base))
    assert found.named["normalized"].isna().all()
    assert found.named["effect"].abs().max() > 1


# The file of sets


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sets.txt"


def test_a_file_of_sets(file: Path) -> None:
    file.write_text("\ufeff# redundant\n0.3+1.0\n\n  1.1   # looker\n1.0 + 0.3\n", "utf-8")
    listed = Listed.read(file)
    assert [number for number, _ in listed.lines] == [2, 4, 5]
    assert list(map(str, listed.within(Grid(4, 4)))) == ["0.3+1.0", "1.1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.0\n\n0.3+0.3\n", ", line 3: 0.3 is named twice in one set"),
        ("0.0\n24,17\n", ", line 2: '24,17' is not a head"),
        ("0.1 0.2\n", "Join the heads of a set by +"),
        ("# x\n0.1+\n", ", line 2: '' is not a head"),
        ("0.1\n0.1+4.0\n", ", line 2: 4.0 is out of range"),
        ("0.4\n", "expected layers 0-3 and heads 0-3"),
        ("v0.1\n", ", line 1: v0.1 is a vision head"),
        ("", " holds no set"),
        ("\n# nothing\n", " holds no set"),
        (b"\xff\xfe\x00", " is not UTF-8 text"),
        (None, ": No such file"),
    ],
)
def test_a_file_that_is_not_right_is_named(file: Path, text: str | bytes | None, said: str) -> None:
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        Listed.read(file).within(Grid(4, 4))
    assert str(caught.value).startswith("--sets") and str(file) in str(caught.value)
    assert said in str(caught.value)


def test_a_folder_is_no_file_of_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="directory"):
        Listed.read(tmp_path)

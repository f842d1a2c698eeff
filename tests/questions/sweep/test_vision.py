"""`sweep` of the vision tower: as plain passes say, its free control, and whole layers."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from headpatch.core.cost import cost, plan
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import Session, open_session
from headpatch.engine import vision
from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import patch
from headpatch.errors import InputError
from headpatch.heads import HeadSet, Tower
from headpatch.models.load import load
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.scene import Style, draw, sample_pair
from headpatch.questions.sweep.question import Sweep, sweep
from headpatch.questions.sweep.table import measure
from tests.datasets import tiny_study
from tests.families import builders
from tests.tiny import SHAPES, save_tiny, tiny_vlm

ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model
WAYS = [f"{k}_{d}" for k in ("zero", "mean", "resample") for d in ("noising", "denoising")]


def opened(vlm: VLM, tower: Tower = "vision", **options: object) -> Session:
    """A session on noisy pictures, where every head does something."""
    with TemporaryDirectory() as folder:
        keys = {
            "sweep.tower": tower,
            "sweep.reference": 0,
            "vision.positions": options.get("scope"),
        }
        keys |= {f"sweep.{key}": value for key, value in options.items() if key != "scope"}
        study = tiny_study(Path(folder), **keys)
        lm_positions = study.sweep.positions if tower == "lm" else None
        return open_session(study, vlm, lm_positions, vision=tower == "vision")


@lru_cache
def swept() -> tuple[Session, Sweep]:
    session = opened(tiny_vlm(SHAPES["deep-vision"]), layers=True)
    return session, sweep(session)


def assert_close(one: Sweep, other: Sweep) -> None:
    effects = one.effects["effect"], other.effects["effect"]
    np.testing.assert_allclose(*effects, atol=ROUNDING, rtol=0)


def test_every_row_agrees_with_a_plain_pass() -> None:
    session, found = swept()
    means = mean_z(session, None, 0, ("vision",))
    slow = patch(session.vlm, session.base, found.plan.asked, means)
    effects = found.effects["effect"].to_numpy()
    np.testing.assert_allclose(effects, [one.effect for one in slow], atol=ROUNDING, rtol=0)
    assert np.abs(effects).max() > 1000 * ROUNDING


def test_the_table_names_vision_heads_layers_and_the_scope() -> None:
    _, found = swept()
    table = found.effects
    assert list(table["role"].unique()) == ["head", "layer", "noise floor"]
    heads = table[table["role"] == "head"]
    assert len(heads) == 4 * 5 * 6
    assert list(heads["heads"][:6]) == ["v0.0", "v0.1", "v0.2", "v0.3", "v0.4", "v1.0"]
    layers = table[table["role"] == "layer"]
    assert len(layers) == 4 * 6
    assert layers["heads"].iloc[1] == "v1.0+v1.1+v1.2+v1.3+v1.4"
    assert set(table["positions"]) == {"all"}
    assert table["attention_rank"].isna().all()
    assert found.correlations == {}


def test_the_maps_are_layers_by_heads_and_whole_layers_apart() -> None:
    _, found = swept()
    assert (found.saved["tower"], found.saved["feature_layer"]) == ("vision", 2)
    for (kind, direction), rows in found.named.groupby(["kind", "direction"]):
        for role, shape, prefix in (("head", (4, 5), ""), ("layer", (4,), "layer_")):
            values = found.saved[f"{prefix}normalized"][f"{kind}_{direction}"]
            assert values.shape == shape
            own = rows.loc[rows["role"] == role, "normalized"]
            np.testing.assert_allclose(values.flatten(), own, rtol=1e-6)
    assert list(found.saved["normalized"]) == list(found.saved["layer_normalized"]) == WAYS


def test_heads_and_layers_are_listed_apart() -> None:
    _, found = swept()
    heads, layers = found.top(50), found.top(50, layers=True)
    assert len(heads) == 2 * 20
    assert all("+" not in row["heads"] for row in heads)
    assert {row["heads"] for row in layers} == {f"layer:v{i}" for i in range(4)}
    sizes = [abs(row["effect"]) for row in layers if row["direction"] == "noising"]
    assert sizes == sorted(sizes, reverse=True)


def test_what_the_language_model_does_not_read_moves_nothing() -> None:
    session, found = swept()
    assert found.unread is not None
    assert found.unread.layers == (3,)
    selves = found.effects["role"] == "noise floor"
    last = found.effects["heads"].str.startswith("v3.")
    assert found.unread.rows == last.sum()
    assert last[~selves].sum() == (5 + 1) * 6
    assert found.unread.largest == found.effects.loc[last, "effect"].abs().max() == 0
    sets = [HeadSet.parse("v2.0+v3.0"), HeadSet.parse("v0.1")]
    assert sweep(session, sets).unread is None


def test_a_model_that_reads_its_last_layer_has_no_free_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = tiny_vlm()
    monkeypatch.setattr(vlm.model.config, "vision_feature_layer", -1)
    found = sweep(opened(vlm, kinds=("zero",)))
    assert found.saved["feature_layer"] == 2
    assert found.unread is None
    assert (found.saved["effect"]["zero_noising"][2].abs() > 1e-3).all()


@pytest.mark.parametrize("scope", ["class", "patches"])
def test_the_scope_reaches_the_engine_and_the_table(scope: str) -> None:
    vlm = tiny_vlm(SHAPES["class-token-kept"])
    session = opened(vlm, kinds=("zero",), directions=("noising",), scope=scope)
    job = plan(session, tower="vision")
    found = measure(session, job)
    expected = vision.patch_vision(vlm, session.base, job.asked)
    assert list(found.table["effect"]) == [one.effect for one in expected]
    assert set(found.table["positions"]) == {scope}
    assert found.table["effect"].abs().max() > 1e-3


def test_the_price_is_that_of_the_batches() -> None:
    session, _ = swept()
    job = plan(session, tower="vision")
    assert job.tower == "vision"
    assert job.passes == vision.equivalents(session.vlm, session.base, job.asked)
    fewer = replace(session, study=session.study.override({"sweep.rows": 2}))
    small = plan(fewer, tower="vision")
    assert small.size == 2
    assert small.passes == vision.equivalents(session.vlm, session.base, small.asked, 3)
    assert cost(session, job.asked[:1], 1, "vision") < job.passes < small.passes


def test_a_tower_that_cannot_be_resumed_is_swept_by_whole_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resumed, found = swept()
    assert resumed.resumes
    monkeypatch.setattr(vision, "_outputs", _broken)
    session = opened(tiny_vlm(SHAPES["deep-vision"]), layers=True)
    assert session.fast_vision is not None and not session.resumes
    why = "its layers do not run on a part of the pass alone (TypeError: what this layer gives)"
    assert session.fast_vision.why == why
    plainly = sweep(session)
    assert_close(plainly, found)
    assert plainly.unread == found.unread  # still exactly 0
    chunks = [len(batch) for batch in vision._plan(session.vlm, plainly.plan.asked, 8)]
    whole = sum(chunks) + len(chunks)
    assert found.plan.passes < whole < plainly.plan.passes < whole * 1.3  # the control runs twice


def _broken(*_: object) -> None:
    raise TypeError("what this layer gives")


def test_the_mean_is_over_both_runs_of_each_drawn_pair() -> None:
    session, _ = swept()
    study = session.study
    means = mean_z(session, None, 2, ("vision", "lm"))
    assert set(means) == {"vision", "lm"}
    rng = np.random.default_rng([study.seed, 2])
    runs = []
    for _ in range(2):
        images = [draw(one, Style(56, 56)) for one in sample_pair(rng, "top left")]
        prompt = encode(session.vlm, images, study.question, study.answers, study.prompt)
        runs.append(forward(session.vlm, prompt, keep=Keep(z=("vision",))).z["vision"][1])
    torch.testing.assert_close(means["vision"][1], torch.cat(runs).mean(0))
    own = mean_z(session, None, 0, ("vision",))["vision"][0]
    torch.testing.assert_close(own, session.base.trace.z["vision"][0].mean(0))


@pytest.mark.parametrize("name", ["plain", "grouped-query"])
def test_whole_layers_of_the_language_model(name: str) -> None:
    session = opened(tiny_vlm(SHAPES[name]), "lm", layers=True, kinds=("resample",))
    found = sweep(session)
    assert found.plan.layers == session.vlm.lm.grid.whole_layers()
    slow = patch(session.vlm, session.base, found.plan.asked)
    np.testing.assert_allclose(
        found.effects["effect"], [one.effect for one in slow], atol=ROUNDING, rtol=0
    )
    assert found.top(1, layers=True)[0]["heads"].startswith("layer:")
    assert found.saved["layer_effect"]["resample_noising"].shape == (3,)
    assert found.unread is None
    without = sweep(opened(tiny_vlm(SHAPES[name]), "lm", kinds=("resample",)))
    assert "layer_effect" not in without.saved
    for way, values in without.saved["effect"].items():
        torch.testing.assert_close(values, found.saved["effect"][way], atol=ROUNDING, rtol=0)


def test_a_list_of_sets_has_no_layers_beside_it() -> None:
    session, _ = swept()
    job = plan(session, [HeadSet.parse("v0.1+v1.1")], "vision")
    assert job.layers == ()
    assert not job.every


@pytest.mark.parametrize(
    ("text", "tower", "part"),
    [("v0.1", "lm", "v0.1 is a vision head"), ("0.1", "vision", "0.1 is a language-model head")],
)
def test_heads_of_the_other_tower_are_refused(text: str, tower: Tower, part: str) -> None:
    session, _ = swept()
    with pytest.raises(InputError, match=f"sets: {part}"):
        plan(session, [HeadSet.parse(text)], tower)


def test_a_tower_that_cannot_be_changed_is_refused_in_one_line() -> None:
    session = replace(swept()[0], vlm=builders.build(builders.STRANGE))
    stripped = replace(session.base, trace=replace(session.base.trace, z={}))
    with pytest.raises(InputError, match=r"^vision heads: headpatch cannot change") as caught:
        sweep(replace(session, base=stripped))
    assert "language-model heads" in str(caught.value)


def test_a_class_token_that_is_not_there_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = opened(tiny_vlm(), scope="class")
    family = replace(session.vlm.family, class_token=False)
    monkeypatch.setitem(session.vlm.__dict__, "family", family)
    with pytest.raises(InputError, match="--positions: class: the tower has no class token"):
        plan(session, tower="vision")


def test_a_model_on_cpu_and_disk_gives_the_same_numbers_and_no_gradients(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    save_tiny(tmp_path)
    places = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu"}
    places |= {"model.language_model": "disk", "lm_head": "disk"}
    split = load(str(tmp_path), "cpu", "float32", places)
    offloaded = sweep(opened(split, kinds=("resample",)))
    whole = sweep(opened(load(str(tmp_path), "cpu", "float32"), kinds=("resample",)))
    assert_close(offloaded, whole)
    assert whole.effects["effect"].abs().max() > 1e-2
    with pytest.raises(InputError, match="--approx: some of its weights are offloaded"):
        sweep(opened(split, approx=True))

"""Estimates from gradients beside the exact sweep of the same run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

import headpatch as hp
from headpatch.core.cost import plan
from headpatch.core.mean_activations import mean_z
from headpatch.engine import attribution
from headpatch.engine.attribution import attribute, gradients, integrated
from headpatch.engine.edges import Edge, edge_effects
from headpatch.engine.interventions import vision_positions
from headpatch.engine.patching import Outcome
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Tower
from headpatch.present.parts import Words
from headpatch.questions.sweep.agreement import TOP
from headpatch.questions.sweep.edges import edges_view
from headpatch.questions.sweep.question import Sweep, sweep
from headpatch.questions.sweep.table import measure
from headpatch.stats.agreement import agreement
from tests.datasets import noisy_pairs
from tests.families import builders
from tests.questions.sweep.test_vision import opened
from tests.tiny import SHAPES, image_pair, tiny_model, tiny_vlm

both_towers = pytest.mark.parametrize("tower", ["lm", "vision"])


@pytest.fixture(scope="module")
def found() -> dict[str, Sweep]:
    return {
        tower: sweep(opened(tiny_vlm(SHAPES["deep-vision"]), tower, approx=True, layers=True))
        for tower in ("lm", "vision")
    }


@both_towers
def test_the_exact_effects_are_as_without_estimates(found: dict[str, Sweep], tower: Tower) -> None:
    without = sweep(opened(tiny_vlm(SHAPES["deep-vision"]), tower, layers=True))
    table = found[tower].effects
    assert list(table.columns) == [*without.effects.columns, "approx"]
    np.testing.assert_array_equal(table["effect"], without.effects["effect"])
    assert without.approx is None
    assert without.agreed == {}
    assert found[tower].plan.passes == without.plan.passes + 4


@both_towers
def test_an_estimate_is_the_sum_over_heads_and_changed_positions(
    found: dict[str, Sweep], tower: Tower
) -> None:
    session = opened(tiny_vlm(SHAPES["deep-vision"]), tower)
    means = mean_z(session, None, 0, (tower,))
    pair = gradients(session.vlm, session.prompt, (tower,))
    places = session.prompt.spans.positions("answer")
    if tower == "vision":
        places = vision_positions(session.vlm, session.base, "all")
    rows = found[tower].effects
    seen = 0
    for row in rows[rows["role"] != "noise floor"].itertuples():
        maps = attribute(pair, row.kind, row.direction, means)[tower][..., places]
        expected = sum(
            float(maps[head.layer, head.head].sum()) for head in HeadSet.parse(row.heads)
        )
        assert row.approx == pytest.approx(expected, abs=1e-5)
        seen += row.role == "layer"
    assert seen == 6 * session.vlm.stack(tower).grid.layers
    assert rows.loc[rows["role"] == "noise floor", "approx"].isna().all()


@both_towers
def test_what_is_saved(found: dict[str, Sweep], tower: Tower) -> None:
    one = found[tower]
    kept = one.approx
    assert kept is not None
    session = opened(tiny_vlm(SHAPES["deep-vision"]), tower)
    grid = session.vlm.stack(tower).grid
    tokens = session.prompt.spans.length if tower == "lm" else 17
    for name, exact in one.saved["effect"].items():
        assert kept["attribution"][name].shape == (grid.layers, grid.heads, tokens)
        summed = kept["attribution"][name][..., kept["places"]].sum(-1)
        torch.testing.assert_close(kept["approx"][name], summed, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(kept["effect"][name], exact)
        assert kept["approx"][name].dtype == kept["attribution"][name].dtype == torch.float32
    assert ("image_positions" in kept) is (tower == "lm")
    assert kept["tower"] == tower


@both_towers
def test_the_agreement_is_that_of_the_heads_that_reach_the_answer(
    found: dict[str, Sweep], tower: Tower
) -> None:
    one = found[tower]
    heads = one.effects[one.effects["role"] == "head"]
    if tower == "vision":  # layer 3 is not read: 0 on both sides by construction
        unread = heads[heads["heads"].str.startswith("v3.")]
        assert (unread[["effect", "approx"]] == 0).all(axis=None)
        heads = heads.drop(unread.index)
    for (kind, direction), rows in heads.groupby(["kind", "direction"]):
        agreed = one.agreed[f"{kind}_{direction}"]
        approx, exact = rows["approx"].to_numpy(), rows["effect"].to_numpy()
        assert agreed.measured == agreement(approx, exact, TOP)
        low, high = agreed.interval
        assert -1 <= low <= agreed.measured.pearson <= high <= 1
        figures = agreed.figures()
        assert figures["heads"] == len(rows)
        assert figures["top_recall_chance"] == min(TOP, len(rows)) / len(rows)
        assert one.approx is not None
        assert one.approx["agreement"][f"{kind}_{direction}"] == figures
    assert len(one.agreed) == 6


def test_the_top_shows_the_estimate_beside_the_effect(found: dict[str, Sweep]) -> None:
    for one in found.values():
        table = one.effects.set_index(["heads", "kind", "direction"])
        for row in one.top(3):
            where = (row["heads"], row["kind"], row["direction"])
            assert row["approx"] == pytest.approx(float(table.loc[where, "approx"]))


def test_sets_are_estimated_and_compared_as_sets() -> None:
    session = opened(tiny_vlm(), "lm", approx=True, kinds=("resample",))
    sets = [HeadSet.parse(text) for text in ("0.0+1.1", "1.2+2.3", "2.0")]
    one = sweep(session, sets)
    assert one.approx is not None
    assert one.approx["approx"]["resample_noising"].shape == (3,)
    assert {agreed.measured.heads for agreed in one.agreed.values()} == {3}
    single = sweep(session, sets[:1])
    assert single.agreed == {}  # nothing to correlate
    assert single.effects["approx"].notna().any()


def test_a_class_token_a_tile() -> None:
    """The whole picture and two tiles, each with a class token of its own."""
    vlm = builders.build("llava_next")
    session = opened(vlm, approx=True, kinds=("zero",), directions=("noising",), scope="class")
    one = sweep(session)
    assert one.approx is not None
    assert one.approx["places"].tolist() == [0, 17, 34]
    tokens = one.approx["attribution"]["zero_noising"].shape[-1]
    assert tokens == 3 * 17
    assert one.effects["effect"].abs().max() > 0


def test_estimates_do_not_hang_on_what_was_finished_before() -> None:
    session = opened(tiny_vlm(), approx=True, kinds=("mean",))
    job, kept = plan(session, tower="vision"), list[Outcome]()
    whole = measure(session, job, on_outcome=kept.append)
    again = measure(session, job, finished={one.intervention: one for one in kept})
    np.testing.assert_array_equal(again.table["approx"], whole.table["approx"])
    np.testing.assert_array_equal(again.table["effect"], whole.table["effect"])


def test_a_model_without_gradients_is_refused_before_anything_runs() -> None:
    session = opened(tiny_vlm(), "lm", approx=True)
    offloaded = cpu_offload(tiny_model(), torch.device("cpu"))
    session = replace(session, vlm=replace(session.vlm, model=offloaded))
    assert attribution.refused(session.vlm)
    with pytest.raises(InputError, match=r"^--approx: some of its weights are offloaded") as caught:
        plan(session)
    assert "Leave --approx out" in str(caught.value)


@both_towers
def test_integrated_gradients_stand_beside_the_estimates(tower: Tower) -> None:
    session = opened(tiny_vlm(SHAPES["deep-vision"]), tower)
    swept = sweep(session, kinds=["resample"], approx=True, ig=3)
    pair = gradients(session.vlm, session.prompt, (tower,))
    along = integrated(session.vlm, session.prompt, pair, 3, (tower,))
    places = session.prompt.spans.positions("answer")
    if tower == "vision":
        places = vision_positions(session.vlm, session.base, "all")
    assert swept.approx is not None
    for direction in ("noising", "denoising"):
        expected = attribute(along, "resample", direction)[tower][..., places].sum(-1).float()
        found = swept.approx["approx_ig"][f"resample_{direction}"]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        rows = swept.named[swept.named["direction"] == direction]
        np.testing.assert_allclose(rows["approx_ig"], expected.flatten(), atol=1e-6)
    assert list(swept.agreed) == [
        f"resample{by}_{way}" for by in ("", "-ig") for way in ("noising", "denoising")
    ]
    plain = sweep(session, kinds=["resample"], approx=True)
    assert swept.plan.passes == plain.plan.passes + 4
    with pytest.raises(InputError, match="--ig: no --approx"):
        sweep(session, kinds=["resample"], ig=3)
    with pytest.raises(InputError, match="--ig: --kinds zero"):
        sweep(session, kinds=["zero"], approx=True, ig=3)


def test_edges_are_estimated_and_the_first_and_random_ones_patched() -> None:
    session = opened(tiny_vlm(SHAPES["plain"]), "lm")
    quiet = {"kinds": ["resample"], "approx": True, "ig": 3, "on_progress": False}
    found = sweep(session, edges=4, **quiet)
    table = found.edges
    assert table is not None and found.approx is not None
    for place, way in enumerate(("noising", "denoising")):
        rows = table[table["direction"] == way]
        assert set(rows["role"]) == {"largest", "random"}
        for by, column in (("", "approx"), ("-ig", "approx_ig")):
            scores = found.approx["edges"][f"resample{by}_{way}"]
            largest = rows.loc[rows[column].abs().idxmax()]
            assert abs(largest[column]) == pytest.approx(float(scores.abs().max()))
            assert (rows["role"] == "largest").sum() >= 4
        edges = [
            Edge(
                place,
                Head(*map(int, one.sender.split("."))),
                Head(*map(int, one.receiver.split("."))),
            )
            for one in rows.itertuples()
        ]
        exact = edge_effects(session.vlm, session.base, edges)
        assert rows["effect"].tolist() == pytest.approx(exact, abs=1e-6)
        gap = session.base.ld_with - session.base.ld_without
        signed = np.array(exact) * (-1 if way == "noising" else 1) / gap
        assert rows["normalized"].tolist() == pytest.approx(signed.tolist(), abs=1e-6)
    again = sweep(session, edges=4, **quiet)
    assert again.edges is not None
    assert again.edges.equals(table)
    (words,) = [
        part.text for part in edges_view(table, found.origin.context) if isinstance(part, Words)
    ]
    assert "Pearson's r with the exact effects: approx, " in words


def test_edges_are_refused_where_they_mean_nothing(tmp_path: Path) -> None:
    for flags, words in (
        ({"edges": 3}, "no --approx"),
        ({"edges": 3, "approx": True}, "heads hear the other picture"),
        ({"edges": 3, "approx": True, "tower": "vision", "kinds": ("resample",)}, "vision tower"),
    ):
        with pytest.raises(InputError, match=words):
            hp.Study().override({f"sweep.{key}": value for key, value in flags.items()})
    vlm = builders.build("gemma3")
    pair = hp.make_pair(*image_pair((56, 56)), "Is it red?", "top-left")
    session = hp.open_session(hp.Study().override({"force": True}), vlm, "answer", pair)
    with pytest.raises(InputError, match="do not add what heads write as it is"):
        sweep(session, kinds=["resample"], approx=True, edges=2, on_progress=False)
    study, folder = hp.Study().override({"force": True}), noisy_pairs(tmp_path, ["Is it red?"] * 2)
    pairs = hp.open_pairs(study, folder, vlm=tiny_vlm(SHAPES["plain"]), on_progress=False)
    with pytest.raises(InputError, match="--edges, --pairs: both of them"):
        sweep(pairs, kinds=["resample"], approx=True, edges=2, on_progress=False)

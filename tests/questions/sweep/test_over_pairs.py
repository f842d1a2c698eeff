"""Sweeps of either tower over pairs: the slow twin opens each pair by itself."""

import numpy as np
import pytest
import torch

from headpatch.core import gate as dataset
from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.cost import opening, plan, refuse
from headpatch.core.gate import study_of
from headpatch.core.held import Held, size_of
from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.engine.patching import patch
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.questions.sweep.agreement import FIGURES
from headpatch.questions.sweep.question import Sweep, sweep
from headpatch.stats.agreement import agreement
from tests.datasets import any_model, lasting_folder, noisy_pairs, noisy_study, sweep_pairs
from tests.families import builders

QUESTIONS = ("is there a red square ?",) * 3
LONGER = "is there a red square in the image ?"
ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model


def study(**options: object) -> Study:
    """A study of pairs; its sweep's options, and `scope`, where vision heads are changed."""
    return noisy_study("sweep", **{"noise": 2, **options})


def surveyed(asked: Study, name: str, questions: tuple[str, ...], hold: bool = True) -> Survey:
    entries = Manifest.read(noisy_pairs(lasting_folder(), questions)).entries
    positions, vision = opening(asked)
    return survey(asked, any_model(name), entries, positions, vision=vision, hold=hold)


def run(asked: Study, name: str, questions: tuple[str, ...] = QUESTIONS) -> tuple[Survey, Sweep]:
    found = surveyed(asked, name, questions)
    return found, sweep_pairs(asked, any_model(name), found)


def one_by_one(asked: Study, vlm: VLM, found: Survey) -> list[Sweep]:
    """Each pair as a study of its own, with the dataset's mean z."""
    positions, vision = opening(asked)
    alone = []
    for entry in found.entries:
        session = open_session(study_of(asked, entry), vlm, positions, vision=vision)
        means = found.reference.of(session) if found.reference else None
        alone.append(sweep(session, means=means, on_progress=False))
    return alone


@pytest.mark.parametrize(
    ("name", "scope"), [("grouped-query", "class"), ("deep-vision", "patches")]
)
def test_vision_means_are_those_of_the_pairs_one_by_one(name: str, scope: str) -> None:
    ways = {"kinds": ("mean", "resample"), "noise": 1}
    asked = study(tower="vision", layers=True, scope=scope, **ways)
    found, done = run(asked, name)
    slow = one_by_one(asked, any_model(name), found)
    table = done.means
    for column in ("effect", "normalized"):
        each = np.stack([one.named[column] for one in slow])
        np.testing.assert_allclose(table[column], each.mean(0), atol=ROUNDING)
        assert (table[f"{column}_low"] <= table[column] + 1e-12).all()
    assert table["effect"].abs().max() > 100 * ROUNDING
    assert list(table["heads"]) == list(slow[0].named["heads"])
    assert set(table["role"]) == {"head", "layer"}
    assert set(table["positions"]) == {done.saved["positions"]} == {scope}
    assert list(table["attention_rank"].unique()) == [None]
    for way, values in done.saved["normalized"].items():
        for prefix in ("", "layer_"):
            each = torch.stack([one.saved[f"{prefix}normalized"][way] for one in slow])
            by_pair = done.saved[f"{prefix}normalized_by_pair"][way]
            torch.testing.assert_close(by_pair, each, atol=1e-5, rtol=1e-4)
        grid = any_model(name).stack("vision").grid
        assert values.shape == (grid.layers, grid.heads)
    assert done.unread is not None
    rows = sum(one.unread.rows for one in slow if one.unread)
    assert (done.unread.rows, done.unread.largest) == (rows, 0)
    assert done.saved["feature_layer"] == any_model(name).feature_layer
    assert done.saved["tower"] == "vision"


@pytest.mark.parametrize("name", ["grouped-query", "llava_next", "qwen2_5_vl"])
def test_vision_means_are_those_of_plain_passes(name: str) -> None:
    """A picture a row, in tiles, and all in one row; plain passes know nothing of layers."""
    asked = study(tower="vision", kinds=("zero", "resample"), directions=("noising",))
    found, done = run(asked, name, QUESTIONS[:2])
    slow = []
    for entry in found.entries:
        session = open_session(study_of(asked, entry), any_model(name), vision=True)
        job = plan(session, None, "vision")
        rows = patch(session.vlm, session.base, job.asked)
        slow.append([one.effect for one in rows if one.intervention.kind != "self"])
    np.testing.assert_allclose(done.means["effect"], np.mean(slow, 0), atol=ROUNDING)
    assert done.means["effect"].abs().max() > 100 * ROUNDING


def test_layers_of_the_language_model_over_pairs() -> None:
    asked = study(layers=True, kinds=("resample",))
    found, done = run(asked, "grouped-query")
    slow = one_by_one(asked, any_model("grouped-query"), found)
    each = np.stack([one.named["effect"] for one in slow])
    np.testing.assert_allclose(done.means["effect"], each.mean(0), atol=ROUNDING)
    top = done.top(2, layers=True)
    assert [row["place"] for row in top] == [1, 2, 1, 2]
    assert all(row["heads"].startswith("layer:") for row in top)
    assert all("+" not in row["heads"] for row in done.top(50))
    ranked = done.means.set_index("role")["attention_rank"]
    assert ranked.loc["layer"].isna().all()
    assert ranked.loc["head"].notna().all()


def test_the_mean_of_the_tower_is_over_both_runs_of_every_pair() -> None:
    asked = study(tower="vision", kinds=("mean",))
    found = surveyed(asked, "deep-vision", QUESTIONS)
    assert found.reference is not None
    opened = [
        open_session(study_of(asked, entry), any_model("deep-vision"), vision=True)
        for entry in found.entries
    ]
    mean = torch.cat([one.base.trace.z["vision"][1] for one in opened]).mean(0)
    torch.testing.assert_close(found.reference.of(opened[0])["vision"][1], mean)
    assert set(found.reference.of(opened[0])) == {"vision"}


# Each pair's pictures are run once


def test_held_pairs_are_not_run_again_and_give_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = []
    real = dataset.run_both
    monkeypatch.setattr(
        dataset, "run_both", lambda *words: runs.append(words[2].name) or real(*words)
    )
    tables, asked = [], study(kinds=("resample",))
    for hold, expected in ((True, 3), (False, 6)):
        runs.clear()
        found = surveyed(asked, "plain", QUESTIONS, hold)
        assert len(found.held) == (3 if hold else 0)
        tables.append(sweep_pairs(asked, any_model("plain"), found).means)
        assert len(runs) == expected
    np.testing.assert_array_equal(tables[0]["effect"], tables[1]["effect"])


def test_no_more_pairs_are_held_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = study(kinds=("resample",))
    held = surveyed(asked, "plain", QUESTIONS).held
    (size,) = {size_of(session) for session in held.values()}
    monkeypatch.setattr("headpatch.core.held._room", lambda _: int(2.5 * size))
    assert list(surveyed(asked, "plain", QUESTIONS).held) == list(held)[:2]


def test_pairs_that_are_wanted_take_the_room_of_others() -> None:
    asked = study(kinds=("resample",))
    first, second, third = surveyed(asked, "plain", QUESTIONS).held.values()
    held = Held(first.vlm.device, 2.5 * size_of(first) / 2**30)
    for session in (first, second, third):
        held.offer(session)
    assert list(held.sessions.values()) == [first, second]
    wanted = {second.pair.name, third.pair.name}
    for session in (second, third, first):
        held.offer(session, wanted)
    assert list(held.sessions.values()) == [second, third]


def test_what_a_pair_takes_is_its_tensors_and_pictures() -> None:
    asked = study(kinds=("resample",))
    (session, *_) = surveyed(asked, "plain", QUESTIONS).held.values()
    trace = session.base.trace
    least = sum(z.nbytes for z in trace.z["lm"]) + trace.lm_rows.nbytes
    layers = [layer for one in trace.prefills for layer in one.layers]
    least += sum(one.key.nbytes + one.value.nbytes for one in layers)
    assert least < size_of(session) < 3 * least
    held = Held(session.vlm.device)
    held.offer(session)
    assert list(held.sessions) == [session.pair.name]


# Estimates


@pytest.mark.parametrize("tower", ["lm", "vision"])
def test_the_agreement_is_that_of_the_pairs_and_of_their_means(tower: str) -> None:
    asked = study(tower=tower, approx=True, directions=("noising",), layers=True)
    found, done = run(asked, "deep-vision")
    slow = one_by_one(asked, any_model("deep-vision"), found)
    assert done.approx is not None
    assert set(done.agreed) == {"zero_noising", "mean_noising", "resample_noising"}
    for way, one in done.agreed.items():
        figures = one.figures()
        for name in FIGURES:
            each = [getattr(pair.agreed[way].measured, name) for pair in slow]
            assert figures[name] == pytest.approx(np.mean(each), abs=1e-3)
            assert figures[f"{name}_low"] <= figures[name] + 1e-12
            assert figures[name] <= figures[f"{name}_high"] + 1e-12
        approx, exact = (
            np.mean([getattr(pair.agreed[way], side) for pair in slow], 0)
            for side in ("approx", "exact")
        )
        of_means = agreement(approx, exact, figures["k"])
        assert figures["of_means_pearson"] == pytest.approx(of_means.pearson, abs=1e-3)
        assert figures["of_means_top_recall"] == pytest.approx(of_means.top_recall, abs=0.11)
        assert figures["pairs"] == 3
        assert done.approx["agreement"][way] == pytest.approx(figures, nan_ok=True)
        assert done.approx["agreement_by_pair"][way].shape == (3, 3)
        maps = torch.stack([pair.estimates.maps[way] for pair in slow if pair.estimates])
        torch.testing.assert_close(
            done.approx["attribution"][way], maps.mean(0), atol=1e-4, rtol=1e-3
        )
        each = torch.stack([pair.approx["approx"][way] for pair in slow if pair.approx])
        torch.testing.assert_close(done.approx["approx"][way], each.mean(0), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(done.approx["effect"][way], done.saved["effect"][way])
    rows = done.means[done.means["role"] == "layer"]
    assert rows["approx"].notna().all()
    assert ("image_positions" in done.approx) is (tower == "lm")


def test_positions_that_do_not_correspond_have_no_mean_map() -> None:
    asked = study(approx=True, kinds=("resample",), directions=("noising",))
    _, done = run(asked, "plain", (QUESTIONS[0], LONGER))
    assert done.approx is not None
    assert "attribution" not in done.approx and "places" not in done.approx
    assert done.approx["approx"]["resample_noising"].shape == (3, 4)


def test_one_set_has_nothing_to_agree_with() -> None:
    asked = study(approx=True, kinds=("resample",))
    found = surveyed(asked, "plain", QUESTIONS[:2])
    done = sweep_pairs(asked, any_model("plain"), found, [HeadSet.parse("0.1+1.2")])
    assert done.agreed == {}
    assert done.approx is not None and done.approx["agreement"] == {}
    assert done.means["approx"].notna().all()


# Bad input


def test_a_tower_that_cannot_be_changed_is_refused_before_a_pair_is_run() -> None:
    name = builders.STRANGE
    asked = study(tower="vision")
    with pytest.raises(InputError, match=r"^vision heads: headpatch cannot change"):
        surveyed(asked, name, QUESTIONS[:2])
    with pytest.raises(InputError, match=r"^vision heads: headpatch cannot change"):
        refuse(asked, any_model(name))

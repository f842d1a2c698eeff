"""Means over pairs are those of the pairs one by one, and planted heads come out as planted."""

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from headpatch.core.aggregate import intervals
from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.dataset import Pairs
from headpatch.core.gate import study_of
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.heads import Head, HeadSet
from headpatch.pairs.manifest import Manifest
from headpatch.questions.ablate.question import ablate
from headpatch.questions.rank.question import rank
from headpatch.stats.intervals import mean_interval
from tests.datasets import lasting_folder, noisy_pairs, planted_pairs, sweep_pairs
from tests.planted import HEADS, SILENT, planted
from tests.tiny import tiny_vlm

QUESTIONS = ["is there a red square ?"] * 3
LONGER = ["is there a red square in the image ?"]
FLAGS = {"force": True, "sweep.reference": 0, "ablate.reference": 0, "ablate.controls": 2}
NOISY = Study.make(None, {**FLAGS, "sweep.noise": 2, "pairs.resamples": 200})
CLOSE = 1e-4  # logits, of the planted circuit
ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model


@lru_cache
def noisy(questions: tuple[str, ...] = tuple(QUESTIONS)) -> Survey:
    path = noisy_pairs(lasting_folder(), questions)
    return survey(NOISY, tiny_vlm(), Manifest.read(path).entries, "answer")


def by_pair(found: Survey, column: str, heads: list[Head]) -> np.ndarray:
    """The slow twin: each pair opened by itself, as its own study."""
    values = []
    for entry in found.entries:
        session = open_session(study_of(NOISY, entry), tiny_vlm(), "answer")
        assert found.reference is not None
        values.append(ablate(session, heads, found.reference.of(session)).named[column])
    return np.stack(values)


def test_a_ranking_has_means_and_intervals_of_the_pairs() -> None:
    found = noisy()
    table = rank(Pairs(NOISY, tiny_vlm(), found)).heads
    heads = found.masses["diff"][0].size
    assert list(table["rank"]) == list(range(1, heads + 1))
    assert table["diff"].is_monotonic_decreasing
    assert set(table["pairs"]) == {3}
    assert table["diff"].between(table["diff_low"], table["diff_high"]).all()
    for row in table.to_dict("records"):
        each = found.masses["diff_raw"][:, row["layer"], row["head"]]
        assert row["diff_raw"] == pytest.approx(each.mean())
        slow = mean_interval(each[:, None], 0.95, 200, np.random.default_rng(0))
        ends = row["diff_raw_low"], row["diff_raw_high"]
        assert ends == pytest.approx((slow.low[0], slow.high[0]))
    first = found.order("diff")[0]
    assert (first.layer, first.head) == (table["layer"][0], table["head"][0])


def test_ablation_means_are_those_of_each_pair_by_itself() -> None:
    found, heads = noisy(), [Head(0, 1), Head(2, 3)]
    seen = []
    pairs = Pairs(NOISY, tiny_vlm(), found, "answer")
    done = ablate(pairs, heads, on_progress=lambda *one: seen.append(one))
    for column in ("effect", "normalized", "control_mean"):
        slow = by_pair(found, column, heads)
        np.testing.assert_allclose(done.means[column], slow.mean(0), atol=ROUNDING)
        assert (done.means[f"{column}_low"] <= done.means[column] + 1e-12).all()
    changed = by_pair(found, "answer_after", heads) != by_pair(found, "answer_before", heads)
    np.testing.assert_array_equal(done.means["answer_changed"], changed.mean(0))
    assert set(done.means["pairs"]) == {3}
    assert list(done.effects["pair"].unique()) == [entry.name for entry in found.entries]
    assert seen[-1][0] == seen[-1][1]
    assert [one for one, _ in seen] == sorted(one for one, _ in seen)
    assert done.noise_floor < ROUNDING


def test_a_sweep_has_the_ablations_numbers_for_every_head() -> None:
    found = noisy()
    done = sweep_pairs(NOISY, tiny_vlm(), found)
    heads = [Head(0, 1), Head(2, 3)]
    slow = ablate(Pairs(NOISY, tiny_vlm(), found, "answer"), heads).means
    single = slow[slow["role"] == "head"].set_index(["heads", "kind", "direction"])
    mine = done.means.set_index(["heads", "kind", "direction"]).loc[single.index]
    for column in ("effect", "normalized"):
        np.testing.assert_allclose(mine[column], single[column], atol=ROUNDING)
    rows = done.named
    for way, values in done.saved["normalized"].items():
        each = done.saved["normalized_by_pair"][way]
        assert each.shape == (3, *values.shape)
        np.testing.assert_allclose(each.mean(0), values, atol=1e-5)
        own = rows.loc[rows["kind"] + "_" + rows["direction"] == way, "normalized"]
        np.testing.assert_allclose(each.ravel(), own, atol=1e-5)
        assert (done.saved["normalized_low"][way] <= done.saved["normalized_high"][way]).all()


def test_sets_over_pairs_keep_their_order() -> None:
    sets = [HeadSet.parse("0.1+1.2"), HeadSet.parse("2.0")]
    done = sweep_pairs(NOISY, tiny_vlm(), noisy(), sets)
    assert done.means["attention_rank"].tolist()[0] is None
    assert done.saved["heads"] == ["0.1+1.2", "2.0"]
    assert [one["place"] for one in done.top(5)] == [1, 2, 1, 2]


def test_prompts_of_unequal_length_run_too() -> None:
    found = noisy((*QUESTIONS[:1], *LONGER))
    done = ablate(Pairs(NOISY, tiny_vlm(), found, "answer"), Head(1, 1))
    assert np.isfinite(done.means["normalized"]).all()


def test_where_there_is_no_mean_over_the_dataset_each_pair_has_its_own() -> None:
    """Away from the answer, positions of unequal prompts do not correspond."""
    changes = {"positions": "question", "kinds": ("mean",), "controls": 0}
    study = NOISY.model_copy(update={"ablate": NOISY.ablate.model_copy(update=changes)})
    entries = noisy((*QUESTIONS[:1], *LONGER)).entries
    found = survey(study, tiny_vlm(), entries, "question")
    assert found.reference is None
    done = ablate(Pairs(study, tiny_vlm(), found, "question"), Head(1, 1))
    slow = []
    for entry in entries:
        session = open_session(study_of(study, entry), tiny_vlm(), "question")
        slow.append(ablate(session, [Head(1, 1)], mean_z(session, reference=0)).named["effect"])
    np.testing.assert_allclose(done.means["effect"], np.mean(slow, axis=0), atol=ROUNDING)


def test_a_pair_without_a_difference_in_ld_leaves_the_normalized_mean() -> None:
    values = np.array([[1.0, np.nan, 0.2], [np.nan, np.nan, np.nan], [3.0, np.nan, 0.4]])
    mean, low, high = intervals(NOISY, values, np.arange(3))
    assert mean[0] == 2
    assert mean[2] == pytest.approx(0.3)
    assert np.isnan([mean[1], low[1], high[1]]).all()
    assert low[0] < 2 < high[0]


def test_planted_heads_come_out_as_planted(tmp_path: Path) -> None:
    """Wherever in the region the object is, the circuit does the same: means without spread."""
    vlm, study = planted().vlm, Study.make(None, {"sweep.kinds": ("resample",)})
    entries = Manifest.read(planted_pairs(tmp_path, swapped=[1])).entries
    found = survey(study, vlm, entries, "answer")
    maps = sweep_pairs(study, vlm, found).saved
    for one in HEADS.values():
        if one.scope == "answer":
            expected = {"noising": one.necessity, "denoising": one.sufficiency}
            for (way, effect), end in product(expected.items(), ("", "_low", "_high")):
                at = one.head.layer, one.head.head
                value = float(maps[f"normalized{end}"][f"resample_{way}"][at])
                assert value == pytest.approx(effect, abs=CLOSE)
    for head in SILENT:
        assert abs(float(maps["normalized"]["resample_noising"][head.layer, head.head])) < CLOSE

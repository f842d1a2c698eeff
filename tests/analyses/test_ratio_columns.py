"""Ratios of means in tables over pairs: by hand from the pairs' own tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from headpatch.core.aggregate import aggregate
from headpatch.core.dataset import Pairs
from headpatch.core.study.study import Study
from headpatch.present.column import RATIO_ENDS, Schema
from headpatch.present.effects_view import changed_name
from headpatch.present.ratio_words import ratio_words
from headpatch.questions.ablate.columns import EFFECTS, MEANS
from headpatch.questions.ablate.question import ablate
from headpatch.questions.combine.question import combine
from headpatch.questions.cut.question import cut
from headpatch.questions.path.question import path
from tests.analyses.test_many import NOISY, noisy
from tests.tiny import tiny_vlm

WAYS = ["heads", "kind", "direction"]
SMALL = Study.make(None, {"pairs.resamples": 200})


def pairs() -> Pairs:
    return Pairs(NOISY, tiny_vlm(), noisy(), "answer")


def by_hand(effects: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Sum of effects over sum of gaps, from a table of pairs."""
    gap = effects["ld_with"] - effects["ld_without"]
    sums = effects.assign(moved=effects["normalized"] * gap, gap=gap).groupby(keys, sort=False)
    return sums["moved"].sum() / sums["gap"].sum()


def test_named_heads_and_cuts_have_the_ratio_of_their_sums() -> None:
    found = ablate(pairs(), "0.1,1.2", kinds=["resample"], on_progress=False)
    assert found.means is not None
    expected = by_hand(found.effects[found.effects["role"].isin(["head", "joint"])], WAYS)
    rows = found.means[found.means["role"] != "control"].set_index(WAYS)
    for key, ratio in expected.items():
        assert rows.loc[key, "normalized_ratio"] == pytest.approx(ratio, abs=1e-9)
    sizes = found.effects[found.effects["role"] == "joint"].groupby("direction", sort=False)
    for direction, own in sizes:
        row = rows[(rows["role"] == "joint")].xs(direction, level="direction").iloc[0]
        size = own["normalized"].abs()
        assert row["normalized_top_pair"] == own.loc[size.idxmax(), "pair"]
        assert row["normalized_top_share"] == pytest.approx(size.max() / size.sum())
    cuts = cut(pairs(), edges=["answer-region"], window=1, on_progress=False)
    assert cuts.means is not None
    ratios = by_hand(cuts.effects[cuts.effects["role"] == "window"], ["layers", "run"])
    rows = cuts.means[cuts.means["role"] == "window"].set_index(["layers", "run"])
    for key, ratio in ratios.items():
        assert rows.loc[key, "normalized_ratio"] == pytest.approx(ratio, abs=1e-9)


def test_heads_together_and_paths_have_it_too() -> None:
    found = combine(pairs(), "0.1,1.2", kinds=["resample"], on_progress=False).table
    alone = ablate(pairs(), "0.1,1.2", kinds=["resample"], on_progress=False).means
    assert alone is not None
    same = found.merge(alone[alone["role"] != "control"], on=WAYS, suffixes=("", "_alone"))
    assert len(same) == 6  # two heads and both, in two directions
    for end in ("_ratio", "_ratio_low", "_ratio_high", "_top_share"):
        both = same[f"normalized{end}"], same[f"normalized{end}_alone"]
        np.testing.assert_allclose(*both, atol=2e-4)  # by other passes
    followed = path(pairs(), "0.1", edges=["answer-region"], window=1, on_progress=False)
    assert followed.means is not None
    gaps = noisy().ld_gaps
    where = {"view": "stream", "where": "region", "direction": "noising", "tower": "lm"}
    rows = followed.table.loc[(followed.table[list(where)] == pd.Series(where)).all(axis=1)]
    first = rows[rows["layer"] == 1]["normalized"].to_numpy()
    means = followed.means.loc[(followed.means[list(where)] == pd.Series(where)).all(axis=1)]
    (ratio,) = means[means["layer"] == 1]["normalized_ratio"]
    assert ratio == pytest.approx((first * gaps).sum() / gaps.sum(), abs=1e-6)


def tables(shares: list[list[float]], gaps: list[float]) -> list[pd.DataFrame]:
    """Two heads of some pairs, noised by resampling."""
    keys = {"kind": "resample", "direction": "noising", "positions": "answer", "role": "head"}
    return [
        pd.DataFrame(
            [
                {"pair": f"{place:04d}", "heads": heads, **keys, "ld_with": gap, "ld_without": 0.0,
                 "ld": gap - share * gap, "effect": -share * gap, "normalized": share}
                for heads, share in zip(("0.10", "1.2"), own, strict=True)
            ]
        )
        for place, (own, gap) in enumerate(zip(shares, gaps, strict=True))
    ]  # fmt: skip


def test_means_of_ratios_and_their_intervals_stay_as_they_were_to_the_last_bit() -> None:
    draw = np.random.default_rng(3)
    shares = draw.normal(0.1, 0.05, (12, 2))
    shares[3, 1] = np.nan  # a pair that lacks a row
    made = tables(shares.tolist(), draw.uniform(1, 20, 12).tolist())
    plain = Schema(EFFECTS.file, EFFECTS.row, tuple(replace(c, ratio=False) for c in EFFECTS))
    for gaps in ("pair", "pattern"):
        new, old = (
            aggregate(made, one, SMALL, np.arange(12), gaps=gaps) for one in (EFFECTS, plain)
        )
        added = [name for name in new if name not in old]
        assert added == [f"normalized{end}" for end in RATIO_ENDS]
        pd.testing.assert_frame_equal(new[list(old)], old, check_exact=True)
        whole = [place for place in range(12) if place != 3 or gaps == "pattern"]
        gap = np.array([one["ld_with"].iloc[0] for one in made])[whole]
        assert new["normalized_ratio"][0] == pytest.approx(
            (shares[whole, 0] * gap).sum() / gap.sum()
        )
    declared = [column.name for column in MEANS]
    assert declared.index("normalized_ratio") == declared.index("normalized_high") + 1


def test_a_sentence_names_the_pair_that_a_mean_hangs_on_and_is_silent_else() -> None:
    draw = np.random.default_rng(5)
    gaps = [1.1, *draw.uniform(18, 22, 29)]
    effects = draw.normal(0.3, 0.05, (30, 2))
    effects[0] = 2.0, 0.0  # logits: nearly twice the small gap, in one of the heads
    shares = effects / np.array(gaps)[:, None]
    shares[:, 1] = 0.1  # the other acts alike everywhere
    means = aggregate(
        tables(shares.tolist(), gaps), EFFECTS, SMALL, np.arange(len(gaps)), gaps="pair"
    )
    words = ratio_words(means.to_dict("records"), changed_name, 1e-6)
    assert words.startswith("In 1 of 2 rows one pair carries much of the mean, most for 0.10 (res")
    assert "pair 0000, 82% of the sum of sizes" in words
    assert ratio_words(means.to_dict("records")[1:], changed_name, 1e-6) == ""
    assert ratio_words(means.to_dict("records"), changed_name, 5.0) == ""  # within the noise floor
    old = [{name: row[name] for name in ("heads", "effect", "normalized")}
           for row in means.to_dict("records")]  # fmt: skip
    assert ratio_words(old, changed_name, 1e-6) == ""


def test_a_sentence_says_where_the_two_means_differ_beyond_their_intervals() -> None:
    gaps = np.r_[np.full(20, 2.0), np.full(20, 20.0)]
    shares = 0.4 / gaps * np.linspace(0.95, 1.05, 40)
    both = np.column_stack([shares, np.full(40, 0.1)])
    means = aggregate(
        tables(both.tolist(), gaps.tolist()), EFFECTS, SMALL, np.arange(len(gaps)), gaps="pair"
    )
    words = ratio_words(means.to_dict("records"), changed_name, 1e-6)
    mean, ratio = shares.mean(), (shares * gaps).sum() / gaps.sum()
    assert words.startswith("In 1 of 2 rows the mean of ratios and the ratio of means (sum of")
    assert f"most for 0.10 (resample, noising): {mean:+.4f} against {ratio:+.4f} [" in words

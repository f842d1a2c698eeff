"""The verdict classes, on arrays made to show each; and how often chance alone earns one."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headpatch.core.output.files import columns_of, write_columns
from headpatch.heads import Head, HeadSet
from headpatch.stats.verdict_labels import CAUSAL, Rule
from headpatch.stats.verdicts import Observed, judge

RULE = Rule(delta=0.02, level=0.95, resamples=400, seed=0)
PAIRS, LAYERS, HEADS = 60, 2, 6
CONTRACT = (
    "layer,head,verdict,attention_diff,attention_diff_q,necessity,necessity_low,necessity_high,"
    "necessity_q,sufficiency,sufficiency_low,sufficiency_high,sufficiency_q"
)


def observed(
    means: Mapping[str, tuple[float, float, float]],
    joint: Mapping[str, float] | None = None,
    noise: float = 0.004,
    seed: int = 0,
) -> Observed:
    """Arrays with those means (attention, necessity, sufficiency) at the heads named."""
    rng = np.random.default_rng(seed)
    arrays = rng.normal(0, noise, (3, PAIRS, LAYERS, HEADS))
    for name, values in means.items():
        head = Head.parse(name)
        arrays[:, :, head.layer, head.head] += np.array(values)[:, None]
    together = {
        HeadSet.parse(name): value + rng.normal(0, noise, PAIRS)
        for name, value in (joint or {}).items()
    }
    return Observed(*arrays, together)


def verdict_of(table: pd.DataFrame, name: str) -> pd.Series:
    head = Head.parse(name)
    return table.iloc[head.layer * HEADS + head.head]


def test_every_class_is_named() -> None:
    found = judge(
        observed(
            {
                "0.0": (0.3, 0.2, 0.1),
                "0.1": (0.0, 0.2, 0.0),
                "0.2": (0.0, 0.0, 0.2),
                "0.3": (0.1, -0.2, 0.0),
                "0.4": (0.3, 0.0, 0.0),
                "0.5": (-0.3, 0.0, 0.0),
                "1.0": (0.2, 0.0, 0.4),
                "1.1": (0.0, 0.0, 0.0),
                "1.3": (0.0, 0.0, -0.2),
                "1.4": (0.2, 0.019, 0.0),  # too near δ to say
            },
            {"1.0+1.1": 0.4, "1.0+1.2": 0.0, "0.1+1.2": 0.2},
        ),
        RULE,
    )
    named = {
        "0.0": "necessary+sufficient",
        "0.1": "necessary",
        "0.2": "sufficient",
        "0.3": "inhibitory",
        "0.4": "watches",
        "0.5": "looks away",
        "1.0": "redundant",
        "1.1": "redundant",
        "1.2": "inert",  # removed with a necessary head it adds nothing
        "1.3": "inhibitory",
        "1.4": "undecided",
        "1.5": "inert",
    }
    assert {name: verdict_of(found.heads, name)["verdict"] for name in named} == named
    assert verdict_of(found.heads, "1.0")["partners"] == "1.1;"
    assert verdict_of(found.heads, "1.1")["partners"] == "1.0;"
    assert (found.heads.loc[found.heads["verdict"] != "redundant", "partners"] == "").all()
    assert verdict_of(found.heads, "1.0")["sufficiency_low"] > 0.3
    assert list(found.sets["redundant"]) == [True, False, False]


def test_the_table_has_the_contracts_columns_first_and_every_head() -> None:
    table = judge(observed({}), RULE).heads
    assert ",".join(table.columns).startswith(CONTRACT)
    assert len(table) == LAYERS * HEADS
    assert list(zip(table["layer"], table["head"], strict=True)) == [
        (layer, head) for layer in range(LAYERS) for head in range(HEADS)
    ]
    for name in ("attention_diff", "necessity", "sufficiency"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    assert not table.isna().any().any()


@pytest.mark.parametrize(("noise", "verdict"), [(0.009, "undecided"), (0.3, "mixed")])
def test_wide_intervals_are_never_inert(noise: float, verdict: str) -> None:
    table = judge(observed({"0.0": (0.3, 0.0, 0.0)}, noise=noise, seed=1), RULE).heads
    assert set(table["verdict"]) == {verdict}


def test_a_surely_nonzero_effect_below_delta_is_not_causal() -> None:
    row = verdict_of(judge(observed({"0.0": (0.0, 0.008, 0.008)}), RULE).heads, "0.0")
    assert row["necessity_q"] < 0.001
    assert row["verdict"] == "inert"


def test_a_backup_of_a_necessary_head_is_redundant_and_the_other_stays_necessary() -> None:
    """Removing b alone costs 0.2, removing a as well costs 0.5: a stands in for b."""
    means = {"0.0": (0.0, 0.0, 0.0), "0.1": (0.0, 0.2, 0.2)}
    table = judge(observed(means, {"0.0+0.1": 0.5}), RULE).heads
    assert verdict_of(table, "0.0")["verdict"] == "redundant"
    assert verdict_of(table, "0.0")["partners"] == "0.1;"
    assert verdict_of(table, "0.1")["verdict"] == "necessary+sufficient"


def test_no_cell_of_partners_reads_as_a_number(tmp_path: Path) -> None:
    """Head 1.10 would come back as 1.1 where no cell holds more than one head."""
    values = np.random.default_rng(0).normal(0, 0.01, (40, 2, 12))
    joint = {HeadSet.parse("0.2+1.10"): np.full(40, 0.5)}
    judged = judge(Observed(values, values, values, joint), RULE).heads
    write_columns(tmp_path / "verdicts.csv", columns_of(judged))
    table = pd.read_csv(tmp_path / "verdicts.csv").set_index(["layer", "head"])
    assert table["partners"].dropna().to_dict() == {(0, 2): "1.10;", (1, 10): "0.2;"}


def test_removing_a_brake_is_no_redundancy() -> None:
    """Jointly less inhibitory than the sum, but still not necessary."""
    means = {"0.0": (0.0, 0.0, 0.0), "0.1": (0.0, -0.4, 0.0)}
    table = judge(observed(means, {"0.0+0.1": -0.1}), RULE).heads
    assert verdict_of(table, "0.0")["verdict"] == "inert"


def test_opposite_directions_keep_the_positive_name() -> None:
    row = verdict_of(judge(observed({"0.0": (0.0, 0.2, -0.2)}), RULE).heads, "0.0")
    assert row["verdict"] == "necessary"
    assert row["sufficiency_high"] < -RULE.delta


def test_heads_that_see_no_image_are_not_said_to_watch() -> None:
    seen = observed({})
    seen.attention[:, 0] = np.nan
    table = judge(seen, RULE).heads
    assert table.loc[table["layer"] == 0, "attention_diff"].isna().all()
    assert (table["verdict"] == "inert").all()


def test_effects_without_spread_are_judged_by_their_size() -> None:
    table = judge(observed({"0.0": (0.0, 0.125, 0.02)}, noise=0.0), RULE).heads
    assert verdict_of(table, "0.0")["verdict"] == "necessary"
    assert set(table["verdict"]) == {"necessary", "inert"}


def test_the_same_seed_gives_the_same_table() -> None:
    seen = observed({"0.0": (0.3, 0.2, 0.1)}, {"0.0+0.1": 0.3})
    first, second = judge(seen, RULE), judge(seen, RULE)
    pd.testing.assert_frame_equal(first.heads, second.heads)
    pd.testing.assert_frame_equal(first.sets, second.sets)


STUDIES = 200


def noise_of(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Effects with mean 0 and standard deviation 0.1."""
    if name == "normal":
        return rng.normal(0, 0.1, shape)
    if name == "skewed":
        return rng.exponential(0.1, shape) - 0.1
    # one in four pairs, as of a head of one quadrant, but with no effect on average
    return np.where(rng.random(shape) < 0.25, rng.normal(0, 0.2, shape), 0.0)


@pytest.mark.parametrize("name", ["normal", "skewed", "a quarter"])
def test_without_any_effect_few_heads_are_called_causal(name: str) -> None:
    """200 studies of 50 pairs, 64 heads and 28 joint sets that have no effect at all."""
    rule = Rule(delta=1e-6, level=0.95, resamples=100, seed=0)  # so that only chance holds back
    members = [HeadSet.of(Head(0, a), Head(0, b)) for a, b in combinations(range(8), 2)]
    called = studies = 0
    for study in range(STUDIES):
        rng = np.random.default_rng([study, 7])
        arrays = [noise_of(name, rng, (50, 4, 16)) for _ in range(3)]
        joint = {one: noise_of(name, rng, (50,)) for one in members}
        table = judge(Observed(*arrays, joint), rule).heads
        found = int(table["verdict"].isin(CAUSAL).sum())
        called += found
        studies += found > 0
    assert called / (STUDIES * 64) <= 0.05
    assert studies / STUDIES <= 0.1  # and hardly a study has even one


@pytest.mark.parametrize(
    ("labels", "most", "resamples", "seed"),
    [
        (CAUSAL, 0.075, 400, 8),  # 2.5% for each of two directions, and resampling
        (("watches", "inert"), 0.05, 50, 9),
    ],
)
def test_at_delta_itself_few_heads_are_said_to_act_or_not(
    labels: tuple[str, ...], most: float, resamples: int, seed: int
) -> None:
    """The worst case of both demands: effects of exactly δ, in both directions or in one alone."""
    rule, called = Rule(delta=0.1, level=0.95, resamples=resamples, seed=0), 0
    for study in range(STUDIES // 4):
        rng = np.random.default_rng([study, seed])
        looks, need, enough = (noise_of("normal", rng, (50, 4, 16)) for _ in range(3))
        enough = enough - 0.1 if labels is CAUSAL else 0 * enough
        table = judge(Observed(looks, need + 0.1, enough, {}), rule).heads
        called += int(table["verdict"].isin(labels).sum())
    assert called / (STUDIES // 4 * 64) <= most


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": Rule(0.0, 0.95, 100, 0)}, "delta"),
        ({"joint": {HeadSet.parse("0.0"): np.zeros(PAIRS)}}, "two heads"),
        ({"necessity": np.full((PAIRS, LAYERS, HEADS), np.nan)}, "finite"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    seen = observed({})
    fields = {
        name: change.get(name, getattr(seen, name))
        for name in ("attention", "necessity", "sufficiency", "joint")
    }
    with pytest.raises(ValueError, match=said):
        judge(Observed(**fields), change.get("rule", RULE))

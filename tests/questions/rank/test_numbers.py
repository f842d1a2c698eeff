"""`rank` finds the numbers that were planted (see `tests.planted`)."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from headpatch.core.ranking import differences, masses, order
from headpatch.core.session import Session, open_session
from headpatch.errors import InputError
from headpatch.questions.rank.question import Ranking, rank
from tests.planted import (
    HEADS,
    LD_WITH,
    LD_WITHOUT,
    SILENT,
    VISION_ODDS,
    planted,
    planted_study,
)

REGION = [0, 1, 4, 5]
QUADRANTS = {
    "top-left": REGION,
    "top-right": [2, 3, 6, 7],
    "bottom-left": [8, 9, 12, 13],
    "bottom-right": [10, 11, 14, 15],
}
COLUMNS = [
    "rank", "layer", "head", "diff", "with", "without", "diff_raw", "with_raw", "without_raw",
    "compared_by",
]  # fmt: skip
OBJECT, LAST = 5, 15  # patches
ODDS = {"looker": 45, "redundant a": 45, "redundant b": 45, "suppressor": 15, "decoy": 285,
        "faint": 1485}  # fmt: skip


@lru_cache
def ranked() -> tuple[Session, Ranking]:
    with TemporaryDirectory() as folder:
        session = open_session(planted_study(Path(folder)), planted().vlm)
    return session, rank(session)


def row_of(name: str) -> pd.Series:
    _, ranking = ranked()
    head, table = HEADS[name].head, ranking.heads
    (row,) = table[(table["layer"] == head.layer) & (table["head"] == head.head)].iloc
    return row


def labels(table: pd.DataFrame) -> list[str]:
    return [f"{layer}.{head}" for layer, head in zip(table["layer"], table["head"], strict=True)]


def shares(run: str) -> np.ndarray:
    """By hand: each head's distribution over the 16 patches, ``[16 heads, 16 patches]``."""
    found = np.full((4, 4, 16), 1 / 16)
    for name, odds in ODDS.items():
        if run == "with":
            row = np.ones(16)
            row[OBJECT] = odds
            found[HEADS[name].head.layer, HEADS[name].head.head] = row / row.sum()
    blind, pool = np.zeros(16), np.zeros(16)
    blind[REGION], pool[LAST] = 1 / 4, 1
    found[0, 2], found[2, 1] = blind, pool
    return found.reshape(16, 16)


def test_the_table_holds_every_head_once_in_order() -> None:
    session, ranking = ranked()
    table = ranking.heads
    assert list(table.columns) == COLUMNS
    assert table["rank"].tolist() == list(range(1, 17))
    assert set(zip(table["layer"], table["head"], strict=True)) == {
        (head.layer, head.head) for head in session.vlm.lm.grid
    }
    assert (np.diff(table["diff"]) <= 0).all()
    assert [str(head) for head in order(session)] == labels(table)


@pytest.mark.parametrize("name", HEADS)
def test_attention_differences(name: str) -> None:
    expected, row = HEADS[name], row_of(name)
    assert row["with"] == pytest.approx(expected.share_with, abs=1e-6)
    assert row["without"] == pytest.approx(expected.share_without, abs=1e-6)
    assert row["diff"] == pytest.approx(expected.diff, abs=1e-6)
    assert row["diff_raw"] == pytest.approx(row["with_raw"] - row["without_raw"], abs=1e-12)
    if expected.raw_with is not None:
        assert row["with_raw"] == pytest.approx(expected.raw_with, abs=1e-6)
        assert row["without_raw"] == pytest.approx(expected.raw_without, abs=1e-6)


def test_the_order_is_that_of_the_planted_differences() -> None:
    """0.742 faint, 0.71 decoy, 0.55 three times, 0.35, and nothing."""
    _, ranking = ranked()
    found = labels(ranking.heads)
    assert found[:2] == ["2.2", "1.2"]
    assert set(found[2:5]) == {"0.3", "1.0", "1.1"}
    assert found[5] == "1.3"
    assert ranking.heads["diff"][6:].to_numpy() == pytest.approx(0, abs=1e-6)


def test_the_faint_head_tops_the_ranking_with_next_to_no_attention() -> None:
    """Of all attention to the region, a ten-thousandth; the decoy next to it has 0.96."""
    faint, decoy = row_of("faint"), row_of("decoy")
    assert faint["rank"] == 1
    text = ranked()[0].prompt.spans.length - 16
    assert faint["diff_raw"] == pytest.approx(
        1488e-6 / (text + 1500e-6) - 4e-6 / (text + 16e-6), rel=1e-4
    )
    assert decoy["diff_raw"] == pytest.approx(0.71, abs=1e-6)


def test_heads_of_equal_difference_keep_layer_and_head_order() -> None:
    """Exact ties: silent heads do the same in both runs."""
    _, ranking = ranked()
    exact = ranking.heads[ranking.heads["diff"] == 0]
    places = list(zip(exact["layer"], exact["head"], strict=True))
    assert places == sorted(places)
    assert {(head.layer, head.head) for head in SILENT} <= set(places)


def test_where_the_top_heads_come_from() -> None:
    session, ranking = ranked()
    assert ranking.per_head["layer_counts"].tolist() == [4, 4, 4, 4]
    assert ranking.per_head["top"] == 16
    with TemporaryDirectory() as folder:
        study = planted_study(Path(folder), **{"rank.top": 6})
        top6 = rank(open_session(study, session.vlm))
    assert top6.per_head["layer_counts"].tolist() == [1, 4, 1, 0]
    assert top6.per_head["top"] == 6


def test_the_grids_hold_what_the_table_holds() -> None:
    _, ranking = ranked()
    for _, row in ranking.heads.iterrows():
        place = int(row["layer"]), int(row["head"])
        for name in ("rank", *(one for one in COLUMNS[3:] if one != "compared_by")):
            assert ranking.per_head[name][place] == pytest.approx(row[name], abs=1e-7)


def test_quadrants() -> None:
    _, ranking = ranked()
    found = ranking.spatial
    assert found["quadrant_names"] == list(QUADRANTS)
    for run in ("with", "without"):
        heads = shares(run)
        masses = np.stack([heads[:, patches].sum(1) for patches in QUADRANTS.values()], 1)
        np.testing.assert_allclose(found[f"quadrants_{run}"], masses.mean(0), atol=1e-6)
        by_layer = masses.reshape(4, 4, 4).mean(1)
        np.testing.assert_allclose(found[f"quadrants_by_layer_{run}"], by_layer, atol=1e-6)
        assert float(found[f"quadrants_{run}"].sum()) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        found["quadrants_diff"], found["quadrants_with"] - found["quadrants_without"], atol=1e-6
    )


def test_divergences_of_the_language_model() -> None:
    """Against scipy, on the distributions worked out by hand."""
    found = ranked()[1].spatial
    runs = shares("with"), shares("without")
    overall, by_layer = found["divergence_overall"], found["divergence_lm"]
    asked = [(overall, [run.mean(0) for run in runs])]
    for layer in range(4):
        got = {name: float(values[layer]) for name, values in by_layer.items()}
        asked.append((got, [run.reshape(4, 4, 16)[layer].mean(0) for run in runs]))
    for got, (with_run, without_run) in asked:
        distance = jensenshannon(with_run, without_run)
        assert got["kl"] == pytest.approx(entropy(with_run, without_run), abs=1e-5)
        assert got["js"] == pytest.approx(distance**2, abs=1e-6)
        assert got["js_distance"] == pytest.approx(distance, abs=1e-3 if distance < 1e-3 else 1e-5)


def test_the_vision_tower_layer_by_layer() -> None:
    """v0.1 gives a bright patch 7 and all else 1; its layer's other head and layers look evenly."""
    found = ranked()[1].spatial
    with_share, without_share = (3 + VISION_ODDS) / (14 + 2 * VISION_ODDS), 4 / (15 + VISION_ODDS)
    for query in ("cls", "patch"):
        for run, share in (("with", with_share), ("without", without_share)):
            expected = [(share + 1 / 4) / 2, 1 / 4, 1 / 4]
            np.testing.assert_allclose(found[f"vision_{query}_{run}"], expected, atol=1e-5)
        np.testing.assert_allclose(
            found[f"vision_{query}_diff"], [(with_share - without_share) / 2, 0, 0], atol=1e-5
        )
        raw = [((3 + VISION_ODDS) / (15 + 2 * VISION_ODDS) + 4 / 17) / 2, 4 / 17, 4 / 17]
        np.testing.assert_allclose(found[f"vision_{query}_with_raw"], raw, atol=1e-5)
        kl = found[f"divergence_vision_{query}"]["kl"]
        assert kl[0] > 1e-3
        np.testing.assert_allclose(kl[1:], 0, atol=1e-9)
    assert found["feature_layer"] == 1


def test_what_is_kept_of_each_run() -> None:
    session, ranking = ranked()
    assert ranking.answers == ("Yes", "No")
    runs = (ranking.with_run, LD_WITH, "Yes"), (ranking.without_run, LD_WITHOUT, "No")
    for kept, ld, answer in runs:
        assert kept["ld"] == pytest.approx(ld, abs=1e-4)
        assert kept["ld"] == pytest.approx(kept["logit_yes"] - kept["logit_no"], abs=1e-6)
        assert (kept["answer"], kept["valid"]) == (answer, True)
        assert kept["lm_rows"].sum(-1) == pytest.approx(1, abs=1e-5)
        assert len(kept["tokens"]) == session.prompt.spans.length
        assert {kept["tokens"][place] for place in kept["image_positions"]} == {"<image>"}


def test_other_regions_of_the_same_runs() -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder)
        vlm = planted().vlm
        whole = open_session(planted_study(place, region="0.1,0.1,0.9,0.9"), vlm)  # every centre
        for ranks_by_share in (rank, order, differences, masses):
            with pytest.raises(InputError, match=r"^--region: .* all 16 patches") as refusal:
                ranks_by_share(whole)
            assert "\n" not in str(refusal.value)
        image = rank(open_session(planted_study(place, region="image"), vlm)).heads
        for name in ("with", "without", "diff"):  # shares of the whole are 1: by raw mass, then
            np.testing.assert_array_equal(
                image[name], image["diff_raw" if name == "diff" else f"{name}_raw"]
            )
        right = rank(open_session(planted_study(place, region="0.25,0.25,0.5,0.5"), vlm)).heads
        none = open_session(planted_study(place, region="0,0,0.05,0.05"), vlm)
        with pytest.raises(InputError, match="no patch centre"):
            rank(none)
    looker = right[(right["layer"] == 1) & (right["head"] == 1)].iloc[0]
    assert looker["with"] == pytest.approx(45 / 60, abs=1e-6)
    assert looker["without"] == pytest.approx(1 / 16, abs=1e-6)

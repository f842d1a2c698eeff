"""`verdict` gives every planted head its class (see `tests.planted`), and no other head a cause."""

from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

from headpatch.core.baseline_runs import survey
from headpatch.core.question import Context
from headpatch.core.saved_verdict import halve, need_pairs
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.region import Region
from headpatch.questions.verdict.headline import headline_words, summarize
from headpatch.questions.verdict.judgement import Judgement, run
from headpatch.stats.verdict_labels import CAUSAL
from tests.planted import (
    GAP_WITH_TRIO,
    HEADS,
    SILENT,
    SILENT_BESIDE_TRIO,
    TRIO,
    planted,
    planted_dataset,
)

CLASSES = {
    "looker": "necessary+sufficient",
    "blind writer": "necessary+sufficient",
    "redundant a": "redundant",
    "redundant b": "redundant",
    "suppressor": "inhibitory",
    "note reader": "necessary+sufficient",
    "pool reader": "necessary+sufficient",
    "decoy": "watches",
    "faint": "inert",  # 0.99 of the next to nothing that it gives the image
    "note writer": "inert",  # it acts at the question mark,
    "pool writer": "inert",  # it acts at the last patch: both do nothing at the answer
}
NOISE = 0.05
QUICK = {
    "verdict.top": 5, "verdict.nulls": 0, "verdict.vision": 0, "verdict.controls": 0,
    "verdict.attribution": 0, "verdict.random": 1, "verdict.noise": 1, "verdict.groups": 60,
    "verdict.search": 2, "pairs.resamples": 200,
}  # fmt: skip
PAIRS = 12  # half of them judge what the others choose: the circuit's effects hardly vary


@pytest.fixture(autouse=True)
def _few_pairs_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)


@lru_cache
def judged(seed: int, trio: bool = False, **options: object) -> Judgement:
    study = Study.make(None, {**QUICK, **options})
    made = planted(NOISE, seed, trio)
    with TemporaryDirectory() as place:
        folder = Path(place)
        entries = Manifest.read(planted_dataset(folder / "pairs", PAIRS)).entries
        seen = survey(study, made.vlm, entries, study.verdict.positions)
        return run(study, made.vlm, seen, Store(folder / "finished"))


def row_of(found: Judgement, head: Head) -> pd.Series:
    return found.verdicts.heads.iloc[head.layer * 4 + head.head]


@pytest.mark.parametrize(
    ("seed", "trio"), [*((seed, True) for seed in range(10)), (0, False), (1, False)]
)
def test_every_planted_head_gets_its_class_and_no_other_is_causal(seed: int, trio: bool) -> None:
    """With the trio the model has every head of the one without."""
    found = judged(seed, trio)
    named = {name: row_of(found, planted.head)["verdict"] for name, planted in HEADS.items()}
    assert named == CLASSES
    for head in SILENT_BESIDE_TRIO if trio else SILENT:
        assert row_of(found, head)["verdict"] not in CAUSAL
    assert not (found.verdicts.heads["verdict"] == "undecided").any()


def test_the_figures_are_those_that_were_planted() -> None:
    found = judged(0)
    for one in HEADS.values():
        row = row_of(found, one.head)
        at_answer = one.scope == "answer"
        assert row["necessity"] == pytest.approx(one.necessity * at_answer, abs=2e-3)
        assert row["sufficiency"] == pytest.approx(one.sufficiency * at_answer, abs=2e-3)
        assert row["attention_diff"] == pytest.approx(one.diff, abs=1e-3)
    blind = row_of(found, HEADS["blind writer"].head)
    assert blind["necessity_mean_kind"] == pytest.approx(1 / 16, abs=2e-3)  # 2 and 1: 1.5


def test_redundant_heads_name_each_other_and_the_columns_show_that_each_suffices() -> None:
    found = judged(0)
    a, b = (row_of(found, HEADS[f"redundant {one}"].head) for one in "ab")
    assert (a["partners"], b["partners"]) == ("1.0;", "0.3;")
    for row in (a, b):
        assert abs(row["necessity"]) < 1e-3
        assert row["sufficiency_low"] > 0.4
    pairs = found.verdicts.sets[found.verdicts.sets["redundant"]].to_dict("records")
    assert [(pair["heads"], pair["part"]) for pair in pairs] == [("0.3+1.0", 1), ("0.3+1.0", 2)]
    for pair in pairs:
        assert pair["pairs"] == PAIRS // 2
        assert pair["joint"] == pytest.approx(4 / 8, abs=2e-3)
        assert pair["excess"] == pytest.approx(4 / 8, abs=2e-3)


@pytest.mark.parametrize("seed", range(10))
def test_three_that_stand_in_for_one_another_are_found_beside_the_two(seed: int) -> None:
    """No two of the three are missed, and no other head is called redundant."""
    found = judged(seed, True)
    heads = found.verdicts.heads
    partners = {str(head): row_of(found, head)["partners"] for head in TRIO}
    assert partners == {"2.3": "3.0+3.1;", "3.0": "2.3+3.1;", "3.1": "2.3+3.0;"}
    assert list(heads.loc[heads["verdict"] == "redundant", "partners"]) == [
        "1.0;", "0.3;", *partners.values()
    ]  # fmt: skip
    sets = found.verdicts.sets
    sets = sets[sets["part"] == 1].set_index("heads")
    assert set(sets.index[sets["redundant"]]) == {"0.3+1.0", "2.3+3.0+3.1"}
    three = sets.loc["2.3+3.0+3.1"]
    assert three["joint"] == pytest.approx(4 / GAP_WITH_TRIO, abs=2e-3)
    assert three["excess"] == pytest.approx(4 / GAP_WITH_TRIO, abs=2e-3)
    assert sets.loc["0.3+1.0", "joint"] == pytest.approx(4 / GAP_WITH_TRIO, abs=2e-3)


def test_two_by_two_three_heads_that_stand_in_for_one_another_are_not_found() -> None:
    """Why it goes from many to few: no pair of the three does anything."""
    found = judged(0, trio=True, **{"verdict.groups": 0, "verdict.search": 0})
    for head in TRIO:
        assert abs(row_of(found, head)["necessity"]) < 1e-3
        assert row_of(found, head)["verdict"] == "sufficient"


def test_the_headline_by_hand() -> None:
    """Attention picks faint, decoy, both redundant heads and the looker."""
    found = judged(0)
    headline = summarize(found.verdicts.heads, found.saved, 5, PAIRS)
    assert set(headline.picked) == {"2.2", "1.2", "0.3", "1.0", "1.1"}
    assert set(headline.picked_causal) == {"0.3", "1.0", "1.1"}
    assert set(headline.picked_within) == {"2.2", "1.2"} and headline.picked_undecided == ()
    assert set(headline.missed) == {"0.2", "1.3", "2.0", "2.1"}
    assert (headline.pairs, headline.heads) == (PAIRS, 16)
    by_k = {one.k: one for one in headline.precision}
    assert by_k[7].hits == 4  # with the suppressor and one noise head or reader
    assert by_k[5].chance == 5 / 16


def test_faithfulness_by_hand() -> None:
    """By effect a redundant head comes first: alone it carries half, and removed costs nothing."""
    table = judged(0).faithfulness

    def share(ranking: str, way: str, k: int) -> float:
        row = table[(table["ranking"] == ranking) & (table["way"] == way) & (table["k"] == k)]
        return float(row["share"].iloc[0])

    for ranking in ("attention", "effect", "random"):
        assert [share(ranking, way, k) for way, k in (("keep", 16), ("remove", 0))] == [1, 1]
        nothing = [share(ranking, way, k) for way, k in (("keep", 0), ("remove", 16))]
        assert nothing == pytest.approx([0, 0], abs=1e-5)
    for way, k, left in (("keep", 1, 4 / 8), ("remove", 1, 1), ("remove", 2, 4 / 8)):
        assert share("effect", way, k) == pytest.approx(left, abs=2e-3)
    assert share("effect", "keep", 8) == pytest.approx(1, abs=5e-3)
    assert share("attention", "keep", 2) == pytest.approx(0, abs=2e-3)  # faint and decoy


def test_the_nulls_see_that_the_circuit_does_not_read_the_question() -> None:
    """It says whether something is top left, whatever it is asked: the wrong place flips too."""
    found = judged(0, **{"verdict.nulls": 4, "verdict.vision": 2, "verdict.controls": 40})
    outcomes = {(one.null, one.figure[:5]): one.outcome for one in found.nulls}
    for null, figure, outcome in (
        ("self-patch", "large", "passed"),
        ("unread vision layers", "large", "passed"),
        ("wrong place", "share", "failed"),
        ("mirrored", "share", "failed"),
        ("random heads", "share", "not tested"),  # four heads a layer, most of them act
    ):
        assert outcomes[null, figure] == outcome
    assert set(found.verdicts.heads["failed_nulls"]) == {"wrong place;mirrored"}
    unread = next(one for one in found.nulls if one.null == "unread vision layers")
    assert unread.value == 0
    assert found.vision is not None
    np.testing.assert_allclose(found.vision["necessity"], 0, atol=1e-6)  # no vision head writes


def test_attribution_ranks_heads_where_it_is_asked() -> None:
    with_it = judged(0, **{"verdict.attribution": 2}).faithfulness
    assert "attribution" in set(with_it["ranking"])
    assert "attribution" not in set(judged(0).faithfulness["ranking"])


def test_finished_pairs_are_not_run_again_but_for_another_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, made = Study.make(None, QUICK), planted(NOISE, 0)
    entries = Manifest.read(planted_dataset(tmp_path / "pairs", PAIRS)).entries
    seen = survey(study, made.vlm, entries, "answer")
    uninterrupted, kept = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    whole = run(study, made.vlm, seen, uninterrupted)
    saved: list[str] = []

    def put(name: str, content: dict[str, object], stop: int | None = None) -> None:
        if len(saved) == stop:
            raise KeyboardInterrupt
        saved.append(name)
        Store.put(kept, name, content)

    monkeypatch.setattr(kept, "put", partial(put, stop=7))
    with pytest.raises(KeyboardInterrupt):
        run(study, made.vlm, seen, kept)
    monkeypatch.setattr(kept, "put", put)
    again = run(study, made.vlm, seen, kept)
    assert len(saved) == len(set(saved)) == uninterrupted.count
    for name in ("verdicts.heads", "faithfulness", "nulls"):
        first, second = (pd.DataFrame(attrgetter(name)(one)) for one in (whole, again))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert whole.noise_floor == again.noise_floor  # the first pair's self-check is kept
    run(Study.make(None, {**QUICK, "seed": 1}), made.vlm, seen, kept)
    assert len(saved) >= uninterrupted.count + PAIRS


@pytest.mark.parametrize(("count", "split"), [(100, 0.5), (41, 0.5), (60, 0.3), (50, 0.02)])
def test_halves_hold_each_region_alike_and_every_pair_once(count: int, split: float) -> None:
    study = Study.make(None, {"verdict.split": split})
    regions = ("top-left", "top-right", "bottom-left", "bottom-right")
    listed = [
        Entry(f"p{i:02}", Path("a"), Path("b"), "q", Region.parse(regions[i % 4]), i)
        for i in range(count)
    ]
    halves = halve(study, listed)
    assert len(halves.discovery) == round(split * count)
    both = [*halves.discovery, *halves.confirmation]
    assert sorted(one.name for one in both) == [one.name for one in listed]
    for region in ("top-left", "bottom-right"):
        share = np.mean([one.region.name == region for one in halves.confirmation])
        assert share == pytest.approx(1 / 4, abs=0.05)
    assert halve(study, listed) == halves
    assert halve(Study.make(None, {"verdict.split": split, "seed": 1}), listed) != halves


@pytest.mark.parametrize(
    ("count", "split", "said"),
    [
        (30, 0.5, "at least 40 pairs"),
        (40, 0.5, None),
        (24, 0.1, None),
        (21, 0.1, "at least 22 pairs"),
        (1, 0.5, "at least 40 pairs"),
        (40, 0.999, "leaves the confirmation half empty"),
        (40, 0.001, "leaves the discovery half empty"),
    ],
)
def test_too_few_pairs_are_refused_and_the_number_is_named(
    count: int, split: float, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    study = Study.make(None, {"verdict.split": split})
    if said is None:
        need_pairs(study, count, "--n")
        return
    with pytest.raises(InputError) as caught:
        need_pairs(study, count, "--n")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_rankings_have_their_verdict_beside() -> None:
    """By raw mass the blind writer comes first; what picks heads, and curves, follow the study."""
    found = judged(0, **{"rank.by": "raw", "verdict.rankings": ("diff", "entropy")})
    table = found.verdicts.heads
    assert row_of(found, HEADS["blind writer"].head)["attention_rank"] == 1
    default = judged(0).verdicts.heads
    columns = [name for name in table if name != "attention_rank"]
    pd.testing.assert_frame_equal(table[columns], default[columns])
    assert found.together["ranking"].unique().tolist() == ["raw", "attention", "entropy", "effect"]
    assert found.faithfulness["ranking"].unique().tolist() == [
        "raw", "attention", "entropy", "effect", "context", "random",
    ]  # fmt: skip
    first = found.faithfulness.query("way == 'keep' and k == 1").set_index("ranking")["share"]
    assert first["raw"] == pytest.approx(1 / 8, abs=0.01)  # the blind writer's; the faint head's:
    assert first["attention"] == pytest.approx(0, abs=0.01)
    own = found.together.query("ranking == 'attention'").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, judged(0).together.iloc[:2])
    assert set(found.saved["rho_of"]) == {"raw", "entropy"}
    facts = summarize(table, found.saved, 5, PAIRS, found.together, "raw")
    said = " ".join(headline_words(facts, Context(options={"delta": 0.02})))
    assert "heads that the ranking by raw attention mass picks out" in said
    assert "heads that attention picks on one part" in said
    assert "place in the ranking by spatial entropy" in said

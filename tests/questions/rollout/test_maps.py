"""`rollout` on the planted circuit: where its maps fall, and what their check finds."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from headpatch.core.session import Session, open_session
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.questions.rollout import perturbation
from headpatch.questions.rollout.maps import TokenMaps, roll_out
from headpatch.questions.rollout.perturbation import Check
from headpatch.stats.deletion_curves import RANDOM, REGION
from headpatch.stats.rankings import area_under, descending
from tests.families import builders
from tests.planted import LD_WITH, LD_WITHOUT, planted, planted_study
from tests.tiny import SHAPES, tiny_vlm

CLOSE = 1e-4
OBJECT = 5  # the patch at row 1, column 1
REGION_PATCHES = [0, 1, 4, 5]
SIZES = [0, 1, 2, 4, 8, 16]


def opened(vlm: VLM, **options: object) -> Session:
    with TemporaryDirectory() as folder:
        keys = {f"rollout.{key}": value for key, value in {"draws": 6, **options}.items()}
        return open_session(planted_study(Path(folder), force=True, **keys), vlm)


@lru_cache
def rolled_out(fill: str = "other") -> tuple[TokenMaps, Check]:
    rolled = roll_out(opened(planted().vlm, fill=fill))
    assert rolled.check is not None
    return rolled, rolled.check


def test_relevance_points_at_the_object() -> None:
    """Only the object's patch carries anything that moves LD to the answer position."""
    rolled, _ = rolled_out()
    assert [one.name for one in rolled.maps] == [
        "rollout_tokens", "rollout_patches", "relevance_tokens", "relevance_patches",
    ]  # fmt: skip
    for one in rolled.maps[2:]:
        assert one.values[0].argmax() == OBJECT
        assert one.shares[0][OBJECT] > 0.5
    for one in rolled.maps:
        assert (one.values >= 0).all()
        assert one.shares.sum(1) == pytest.approx(1)
        assert ((one.elsewhere >= -1e-6) & (one.elsewhere <= 1)).all()


def test_deleting_the_object_is_the_whole_difference() -> None:
    """The pictures differ in one patch: LD jumps where it is replaced, and nowhere else."""
    rolled, check = rolled_out()
    curves = check.curves
    assert sorted(curves["k"].unique()) == SIZES
    for run, start, end in (("with", LD_WITH, LD_WITHOUT), ("without", LD_WITHOUT, LD_WITH)):
        here = curves[curves["run"].eq(run)]
        for way, first, last in (("delete", start, end), ("insert", end, start)):
            for one in rolled.maps:
                order = descending(one.values[int(run == "without")])
                when = int(np.flatnonzero(order == OBJECT)[0])
                rows = here[here["way"].eq(way) & here["order"].eq(one.name)]
                expected = [first if k <= when else last for k in SIZES]
                assert rows["ld"].tolist() == pytest.approx(expected, abs=CLOSE)
                shares = [float(k > when) for k in SIZES]
                assert rows["share"].tolist() == pytest.approx(shares, abs=CLOSE)
    region = curves[curves["order"] == REGION]
    assert region["k"].tolist() == [4] * 4
    assert region["share"].tolist() == pytest.approx([1] * 4, abs=CLOSE)
    assert check.noise_floor < CLOSE


def test_areas_stand_beside_random_orders() -> None:
    _, check = rolled_out()
    curves, areas = check.curves, check.areas
    assert len(areas) == 2 * 2 * 4
    for row in areas.to_dict("records"):
        here = curves[curves["run"].eq(row["run"]) & curves["way"].eq(row["way"])]
        own = here[here["order"].eq(row["map"])]["share"].to_numpy()
        assert row["area"] == pytest.approx(float(area_under(SIZES, own)))
        null = [
            float(area_under(SIZES, rows["share"].to_numpy()))
            for _, rows in here[here["order"] == RANDOM].groupby("draw")
        ]
        assert row["random_n"] == len(null) == 6
        assert row["random_mean"] == pytest.approx(np.mean(null))
        assert row["random_below"] == sum(one < row["area"] for one in null)
        assert (row["region_size"], row["region"]) == (4, pytest.approx(1, abs=CLOSE))
    best = areas[areas["map"].eq("relevance_patches") & areas["run"].eq("with")]
    assert (best["random_below"] >= 5).all()
    assert best["at_region_size"].tolist() == pytest.approx([1, 1], abs=CLOSE)


def test_a_grey_patch_is_dimmer_than_what_the_circuit_finds() -> None:
    """The mean of the with-picture is 2/16: no patch of that is bright, so LD falls all the same.

    All patches grey is not the other run's picture, but its LD is the same here.
    """
    _, check = rolled_out("mean")
    rows = check.curves
    rows = rows[rows["run"].eq("with") & rows["order"].eq("relevance_patches")]
    deleted = rows[rows["way"] == "delete"]["share"].tolist()
    assert deleted == pytest.approx([0, 1, 1, 1, 1, 1], abs=CLOSE)


def test_equal_pictures_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair differs in one patch, so that there are but two pictures."""
    counts: list[int] = []

    def counted(vlm, prompt, shown, on_progress=None):
        counts.append(len(shown))
        return lds(vlm, prompt, shown, on_progress)

    lds = perturbation.lds
    monkeypatch.setattr(perturbation, "lds", counted)
    assert roll_out(opened(planted().vlm, draws=2)).check is not None
    assert counts == [2]


def test_the_table_holds_every_patch_of_every_map() -> None:
    rolled, _ = rolled_out()
    table = rolled.table()
    assert len(table) == 4 * 2 * 16
    here = table[table["run"].eq("with") & table["method"].eq("relevance")]
    here = here[here["stage"].eq("patches")].set_index("patch")
    assert here.index[here["in_region"]].tolist() == REGION_PATCHES
    assert here["share"].sum() == pytest.approx(1)
    assert here.loc[OBJECT, ["left", "top", "right", "bottom"]].tolist() == [0.25, 0.25, 0.5, 0.5]
    region = next(one for one in rolled.regions() if one["run"] == "with")
    first = table[table["run"].eq("with") & table["stage"].eq("tokens")][:16]
    assert region["region"] == pytest.approx(first.loc[first["in_region"], "share"].sum())
    assert region["even"] == 0.25


def test_a_token_that_both_runs_would_say_has_no_check() -> None:
    vlm = tiny_vlm(SHAPES["plain"])
    rolled = roll_out(opened(vlm))
    assert rolled.said.first[0] == rolled.said.first[1]
    assert rolled.check is None
    assert "both runs would say" in rolled.unchecked
    assert rolled.title.endswith("which both runs would say")


def test_a_class_token_that_is_an_image_token_has_no_place() -> None:
    rolled = roll_out(opened(tiny_vlm(SHAPES["class-token-kept"])))
    assert all(one.values.shape == (2, 16) for one in rolled.maps)
    assert len(rolled.maps) == 4


def test_a_tower_that_sees_parts_stops_at_the_image_tokens() -> None:
    session = opened(builders.build("llava_next"), answer="Yes")
    rolled = roll_out(session)
    assert [one.stage for one in rolled.maps] == ["tokens", "tokens"]
    assert rolled.check is None
    assert "in parts" in rolled.unchecked


def test_what_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(InputError, match="cross-attention"):
        roll_out(opened(builders.build("mllama")))

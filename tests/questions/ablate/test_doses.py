"""Dose and response on planted heads, one in proportion to its dose and one that turns.

Head 1.1 writes 2 of the vote with the object, and alpha times that: alpha − 1 quarters of the gap
of 8 are lost. The head that turns writes ``trio`` = 1, of which the MLP of layer 3 makes 4 of the
vote up to 0.75 and takes 8 away from 1.25 on. So LD_with is 8 and the gap 12, and with alpha times
its z LD moves by −4, −2, 0, −4 and −8.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import headpatch as hp
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.questions.ablate import AblateOptions
from tests.circuit import ALL, Circuit, Clamp
from tests.command import done, of_pair, printed, table
from tests.datasets import lasting_folder, planted_pairs
from tests.planted import FORM, planted, planted_study

ALPHAS = [0, 0.5, 1.5, 2]
CURVES = {
    "1.1": np.array([0.25, 0.125, 0, -0.125, -0.25]),
    "2.3": np.array([4, 2, 0, 4, 8]) / 12,
}


def turning() -> VLM:
    vlm = planted().vlm
    circuit = Circuit.of(vlm.model, FORM)
    circuit.plant_head("2.3", at="ask", attends={"image": ALL, "found": 45.0},
                       reads={"found": 1.0}, writes={"trio": 4 / 3})  # fmt: skip
    circuit.plant_clamp(3, Clamp({"trio": 1}, 0.25, 0.75), "vote", height=4)
    circuit.plant_clamp(3, Clamp({"trio": 1}, 1.25, 1.75), "vote", height=-8)
    return vlm


@lru_cache
def over_pairs(turns: bool) -> hp.Ablation:
    folder = lasting_folder()
    study = hp.Study().override({"pairs.manifest": str(planted_pairs(folder))})
    pairs = hp.open_pairs(study, vlm=turning() if turns else planted().vlm, on_progress=False)
    asked = {"kinds": ["scale"], "alpha": ALPHAS, "controls": 1, "directions": ["noising"]}
    return hp.ablate(pairs, "2.3" if turns else "1.1", on_progress=False, **asked)


@pytest.mark.parametrize("head", CURVES)
def test_curves_are_what_was_planted(head: str) -> None:
    found = over_pairs(head == "2.3")
    assert found.means is not None and found.doses is not None
    curve = CURVES[head]
    kept = [place for place in range(5) if place != 2]
    assert found.means["alpha"].tolist() == ALPHAS
    assert found.means["normalized"].to_numpy() == pytest.approx(curve[kept], abs=1e-4)
    (row,) = found.doses.to_dict("records")
    doses = np.array([-1, -0.5, 0, 0.5, 1])
    assert row["doses"] == "0, 0.5, 1, 1.5, 2"
    assert row["slope"] == pytest.approx(curve @ doses / 2.5, abs=1e-4)
    assert row["slope_low"] <= row["slope"] <= row["slope_high"]
    if head == "1.1":
        assert (row["straightness"], row["spearman"]) == pytest.approx((1, -1), abs=1e-4)
        assert row["shape"] == "falls" and row["trend_q"] < 0.01 and row["turn_q"] == 1
    else:
        assert row["shape"] == "turns" and row["turn_q"] < 0.01


def test_words_name_size_and_interval_and_figures_are_curves() -> None:
    for turns, words in ((False, "the effect falls with alpha"), (True, "is not monotonic")):
        found = over_pairs(turns)
        shown = printed(found.origin.verb.question().view(found.files(), found.origin.context))
        assert words in " ".join(shown.split())
        assert "of the difference for one unit of alpha" in " ".join(shown.split())
        assert "dose_response.png" not in found.files() and "doses_mean.csv" in found.files()
    names = set(found.save(lasting_folder()))
    assert {"dose_response.png", "doses_mean.csv"} <= names
    assert "head_effects.png" not in names  # the curve says it all


def test_one_pair_has_a_curve_and_no_test(tmp_path: Path) -> None:
    session = hp.open_session(planted_study(tmp_path), planted().vlm, "answer")
    found = hp.ablate(session, "1.1,0.3", kinds=["zero", "scale"], alpha=ALPHAS, controls=1)
    assert found.doses is not None and "trend_p" not in found.doses
    rows = found.doses.set_index(["heads", "direction"])
    assert rows.loc[("1.1", "noising"), "slope"] == pytest.approx(-0.25, abs=1e-4)
    # redundant: rounding moves nothing, in no direction
    assert rows.loc[("0.3", "noising"), ["slope", "spearman"]].tolist() == [0, 0]
    zero = found.named[found.named["kind"] == "zero"].set_index(["heads", "direction"])
    none = found.named[found.named["alpha"] == 0].set_index(["heads", "direction"])
    assert none["effect"].to_numpy() == pytest.approx(zero["effect"].to_numpy(), abs=1e-5)


def test_one_alpha_is_as_it_was(tmp_path: Path) -> None:
    session = hp.open_session(planted_study(tmp_path), planted().vlm, "answer")
    ways = {"kinds": ["scale"], "controls": 1, "on_progress": False}
    alone, listed = (hp.ablate(session, "1.1", alpha=one, **ways) for one in (0.5, [0.5]))
    assert alone.doses is None and alone.effects.equals(listed.effects)
    assert alone.origin.study.ablate.alpha == 0.5 == listed.origin.study.ablate.alpha


def test_the_command_line(place: Path, tmp_path: Path) -> None:
    words = [*of_pair(place), "--heads", "1.1", "--kinds", "scale", "--controls", 0]
    done("ablate", *words, "--alpha", "0,0.5,2", "--out", tmp_path)
    rows = table(tmp_path / "doses.csv")
    assert [row["doses"] for row in rows] == ["0, 0.5, 1, 2"] * 2
    again = tmp_path / "again"
    done("ablate", "--config", tmp_path / "run.yaml", "--out", again)
    assert (again / "doses.csv").read_bytes() == (tmp_path / "doses.csv").read_bytes()


@pytest.mark.parametrize(
    ("alpha", "words"), [(["x"], "numbers"), ([1, 1.0], "twice"), (["0", ""], "numbers")]
)
def test_bad_lists_are_one_line(alpha: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        hp.Study().override({"ablate.alpha": alpha})
    assert AblateOptions().alpha == 0.5

"""`ablate` of vision heads beside language-model heads: as plain passes say, and over pairs."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import headpatch as hp
from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Pairs
from headpatch.core.effects import Unread, has, resolve
from headpatch.core.gate import study_of
from headpatch.core.mean_activations import mean_z
from headpatch.core.ranking import random_sets
from headpatch.core.session import Session, open_session
from headpatch.core.study.study import Study
from headpatch.engine import vision
from headpatch.engine.patching import patch
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from headpatch.pairs.manifest import Manifest
from headpatch.questions.ablate.measure import plan
from headpatch.questions.ablate.question import Ablation, ablate
from headpatch.stats.effects import rank_of
from tests.datasets import any_model, noisy_pairs, noisy_study, tiny_study
from tests.families import builders

HEADS = tuple(map(Head.parse, ("v0.1", "1.2", "v2.0")))  # the last is of a layer that is not read
ALL = "v0.1+1.2+v2.0"
ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model


def study(**options: object) -> Study:
    """A study with the options of its ablation, and `scope`, where vision heads are changed."""
    return noisy_study("ablate", **{"controls": 2, **options})


def opened(name: str, **options: object) -> Session:
    """A session on noisy pictures, where every head does something."""
    with TemporaryDirectory() as folder:
        pictures = tiny_study(Path(folder))
        asked = study(**options).override({"with": pictures.with_, "without": pictures.without})
        return open_session(asked, any_model(name), asked.ablate.positions, vision=True)


@lru_cache
def found(name: str) -> tuple[Session, Ablation]:
    session = opened(name)
    return session, ablate(session, HEADS, mean_z(session, None, 0, ("lm", "vision")))


@pytest.mark.parametrize("name", ["grouped-query", "llava_next"])
def test_every_row_agrees_with_a_plain_pass(name: str) -> None:
    session, done = found(name)
    job = plan(session, HEADS)
    means = mean_z(session, None, 0, ("lm", "vision"))
    slow = {
        (str(one.intervention.heads), one.intervention.kind, one.intervention.direction): one.effect
        for one in patch(session.vlm, session.base, job.interventions, means)
    }
    for row in done.effects.to_dict("records"):
        expected = slow[row["heads"], row["kind"], row["direction"]]
        assert row["effect"] == pytest.approx(expected, abs=ROUNDING), row
    joint = done.named[done.named["role"] == "joint"]
    assert set(joint["heads"]) == {ALL}
    assert joint["effect"].abs().max() > 100 * ROUNDING


def test_rows_say_where_their_heads_were_changed() -> None:
    _, done = found("grouped-query")
    places = dict(zip(done.named["heads"], done.named["positions"], strict=True))
    assert places == {"v0.1": "all", "1.2": "answer", "v2.0": "all", ALL: "answer+v:all"}
    assert f"Resampling {ALL} (answer+v:all)" in done.summary


def test_controls_are_of_the_same_layers_and_towers() -> None:
    _, done = found("grouped-query")
    rows = done.effects[done.effects["role"] == "control"]
    named = {_layers(one): HeadSet.parse(one) for one in ("v0.1", "1.2", "v2.0", ALL)}
    drawn = [heads for heads in rows["heads"].unique() if _layers(heads) in named]
    assert Counter(map(_layers, drawn)) == dict.fromkeys(named, 2)
    for heads in drawn:
        assert not set(HeadSet.parse(heads)) & set(named[_layers(heads)])


def _layers(heads: str) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((head.tower, head.layer) for head in HeadSet.parse(heads)))


def test_random_sets_of_one_tower_do_not_hang_on_the_other() -> None:
    grid, tower = Grid(3, 16), Grid(4, 5, "vision")
    members = HeadSet.parse("0.1+2.3")
    assert random_sets(members, 5, 0, grid) == random_sets(members, 5, 0, grid, tower)
    (drawn,) = random_sets(HeadSet.parse("v1.0+v1.1+v1.2+v1.3"), 9, 0, grid, tower) or (None,)
    assert drawn is None  # one head is left, four are wanted
    alone = random_sets(HeadSet.parse("v3.4"), 9, 0, grid, tower)
    assert sorted(map(str, alone)) == ["v3.0", "v3.1", "v3.2", "v3.3"]


def test_what_the_language_model_does_not_read_moves_nothing() -> None:
    session, done = found("grouped-query")
    assert isinstance(done.unread, Unread)
    rows = done.effects[done.effects["heads"].str.fullmatch(r"v2\.\d")]
    assert (done.unread.rows, done.unread.largest) == (len(rows), 0)
    assert (rows["effect"] == 0).all()
    assert plan(session, HEADS[:2]).vision_rows > 0
    assert ablate(session, HEADS[1:2], mean_z(session)).unread is None
    assert plan(session, HEADS[1:2]).vision_rows == 0


@pytest.mark.parametrize("scope", ["class", "patches"])
def test_the_scope_reaches_the_tower(scope: str) -> None:
    session = opened("plain", kinds=("zero",), controls=0, scope=scope)
    job = plan(session, HEADS[:2])
    done = ablate(session, HEADS[:2])
    asked = [one for one in job.interventions if has("vision", one.heads)]
    expected = vision.patch_vision(session.vlm, session.base, asked)
    by_row = done.effects.set_index(["heads", "kind", "direction"])["effect"]
    for one in expected:
        key = str(one.intervention.heads), one.intervention.kind, one.intervention.direction
        assert by_row[key] == pytest.approx(one.effect, abs=ROUNDING)
    assert set(done.named["positions"]) == {scope, "answer", f"answer+v:{scope}"}


def test_means_over_pairs_are_those_of_the_pairs_one_by_one(tmp_path: Path) -> None:
    asked, vlm = study(), any_model("grouped-query")
    path = noisy_pairs(tmp_path, ["is there a red square ?"] * 3)
    entries = Manifest.read(path).entries
    seen = survey(asked, vlm, entries, "answer", vision=True, hold=True)
    assert seen.reference is not None
    done = ablate(Pairs(asked, vlm, seen, "answer", vision=True), HEADS)
    slow = []
    for entry in entries:
        session = open_session(study_of(asked, entry), vlm, "answer", vision=True)
        slow.append(ablate(session, HEADS, seen.reference.of(session)))
    for column in ("effect", "normalized", "control_mean"):
        each = np.stack([one.named[column] for one in slow])
        np.testing.assert_allclose(done.means[column], each.mean(0), atol=ROUNDING)
    joint = done.means[done.means["role"] == "joint"]
    drawn = random_sets(
        HeadSet(HEADS), asked.ablate.controls, asked.seed, vlm.lm.grid, vlm.stack("vision").grid
    )
    for row in joint.to_dict("records"):  # by hand: each random set's mean over the pairs
        null = []
        for one in map(str, drawn):
            of_set = [
                table.effects.query(
                    f"heads == '{one}' and kind == '{row['kind']}' and role == 'control' and "
                    f"direction == '{row['direction']}'"
                )["normalized"].item()
                for table in slow
            ]
            null.append(np.mean(of_set))
        assert row["control_n"] == len(null) > 1
        assert row["control_sd"] == pytest.approx(np.std(null, ddof=1), abs=ROUNDING)
        assert row["control_p"] == rank_of(np.float64(row["normalized"]), null)
    assert done.unread is not None
    assert done.unread.rows == sum(one.unread.rows for one in slow if one.unread)
    assert set(done.means["positions"]) == {"all", "answer", "answer+v:all"}


def test_the_call_opens_the_session_as_its_heads_need() -> None:
    session = opened("plain")
    alone = open_session(session.study, session.vlm, pair=session.pair)
    assert not alone.vision
    done = hp.ablate(alone, "v0.1,1.2", kinds=["mean"], controls=0, vision_positions="class")
    expected = ablate(
        opened("plain", kinds=("mean",), controls=0, scope="class"),
        HEADS[:2],
        mean_z(session, None, 0, ("lm", "vision")),
    )
    np.testing.assert_allclose(done.named["effect"], expected.named["effect"], atol=ROUNDING)
    assert list(done.named["positions"]) == list(expected.named["positions"])


# Bad input


def test_heads_that_are_not_there_or_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = any_model("plain")
    with pytest.raises(InputError, match=r"^--heads: v9\.0 is out of range.*vision tower"):
        resolve(Selection.parse("v9.0"), vlm)
    with pytest.raises(InputError, match=r"^vision heads: headpatch cannot change"):
        resolve(Selection.parse("1.0,layer:v0"), any_model(builders.STRANGE))
    assert resolve(Selection.parse("layer:v0,0.1"), vlm) == (
        *(Head(0, head, "vision") for head in range(3)), Head(0, 1),
    )  # fmt: skip
    session = opened("plain", scope="class", controls=0)
    family = type(vlm.family)(**{**vars(vlm.family), "class_token": False})
    monkeypatch.setitem(session.vlm.__dict__, "family", family)
    with pytest.raises(InputError, match="--vision-positions: class: the tower has no class token"):
        plan(session, HEADS)

"""What heads are ranked by, worked out by hand on the planted circuit (see `tests.planted`)."""

from functools import lru_cache
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from headpatch.core.ask import with_options
from headpatch.core.dataset import open_pairs
from headpatch.core.measures import NAMES, elbow, measure_of, read_scores
from headpatch.core.ranking import attended_in, masses, order, ranked_by, ranks
from headpatch.core.session import Session, open_session
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid, Head
from headpatch.questions.ablate.question import ablate
from headpatch.questions.rank.question import rank
from tests.planted import HEADS, SILENT, planted, planted_dataset, planted_study

GRID = Grid(4, 4)


@lru_cache
def opened() -> Session:
    with TemporaryDirectory() as folder:
        return open_session(planted_study(Path(folder)), planted().vlm)


def by(name: str, **options: object) -> Session:
    flags = {"rank.by": name, **{f"rank.{key}": value for key, value in options.items()}}
    session = opened()
    return Session(**{**vars(session), "study": session.study.override(flags)})


def figure(name: str, figures: dict[str, np.ndarray], key: str) -> float:
    head = HEADS[name].head
    return float(figures[key][head.layer, head.head])


def test_raw_and_difference_disagree() -> None:
    """The faint head moves all of next to nothing; the blind writer sees nothing but the region."""
    assert order(by("diff"))[0] == HEADS["faint"].head
    assert order(by("raw"))[0] == HEADS["blind writer"].head
    expected = np.argsort(-masses(opened())["with_raw"].ravel(), kind="stable")
    assert [4 * one.layer + one.head for one in order(by("raw"))] == expected.tolist()
    assert order(by("raw")) != order(by("diff"))
    assert ranks(by("raw"))[HEADS["blind writer"].head.layer, 2] == 1


def test_entropy() -> None:
    """One patch, or four that touch, are one place; an even map is none."""
    found = ranked_by(by("entropy"), "entropy")
    for name in ("looker", "decoy", "blind writer", "pool reader"):
        assert figure(name, found, "entropy") == pytest.approx(0, abs=1e-12)
    for head in SILENT:
        assert found["entropy"][head.layer, head.head] == pytest.approx(log(16))
    first = order(by("entropy"))
    assert first[0] == Head(0, 2)  # of equal ones the first
    assert set(first[-len(SILENT) :]) <= {
        *SILENT,
        HEADS["note writer"].head,
        Head(0, 0),
        Head(2, 0),
    }


def test_image_against_text() -> None:
    """Silent heads attend evenly to all tokens, of which the first one counts as neither."""
    found = ranked_by(by("text-image"), "text-image")["image_share"]
    tokens = opened().prompt.spans.length
    assert figure("looker", {"": found}, "") == pytest.approx(1, abs=1e-4)
    assert figure("note reader", {"": found}, "") == pytest.approx(0, abs=1e-4)
    first_is_text = 0 not in opened().prompt.spans.image.tolist()
    for head in SILENT:
        expected = 16 / (tokens - first_is_text)
        assert found[head.layer, head.head] == pytest.approx(expected, rel=1e-4)


def test_localization() -> None:
    """Enough image attention first, then the least entropy; ten heads at most."""
    found = ranked_by(by("localization", tau=0.9), "localization")
    sums = attended_in(opened()).patches.sum(-1)
    np.testing.assert_array_equal(found["enough"], sums >= 0.9)
    entropy = found["entropy"].ravel()
    reach = [i for i in np.argsort(entropy, kind="stable") if sums.ravel()[i] >= 0.9]
    assert np.flatnonzero(found["selected"]).tolist() == sorted(reach[:10])
    first = [4 * one.layer + one.head for one in order(by("localization", tau=0.9))]
    assert first[: len(reach[:10])] == reach[:10]
    assert HEADS["faint"].head not in order(by("localization", tau=0.9))[: len(reach)]


def test_the_elbow_by_hand() -> None:
    """The line of the ends is 0, 1/3, 2/3, 1: what lies farthest from it."""
    assert elbow(np.array([0.0, 0.8, 0.1, 1.0])) == 0.1
    assert elbow(np.array([0.0, 0.1, 0.2, 1.0])) == 0.2


def test_a_table_of_scores_ranks_heads(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("head,layer,score,more\n3,2,0.5,x\n0,1,2e0,y\n")
    ranked = rank(by(str(table)))
    assert [(row["layer"], row["head"]) for row in ranked.top(3)] == [(1, 0), (2, 3), (0, 0)]
    assert ranked.columns["score"][:2] == [2.0, 0.5]
    assert np.isnan(ranked.columns["score"][2:]).all()
    assert order(by(str(table)))[:2] == (Head(1, 0), Head(2, 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layer,head\n0,0\n", "no score"),
        ("layer,head,score\n", "holds no head"),
        ("layer,head,score\n0,0,1\n0,0,2\n", "line 3: head 0.0 a second time"),
        ("layer,head,score\n4,0,1\n", "4.0 is out of range"),
        ("layer,head,score\n0,x,1\n", "head 'x'"),
        ("layer,head,score\n0,0,nan\n", "score 'nan'"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_scores(str(tmp_path / "scores.csv"), GRID)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_and_paths_in_a_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--by: 'most'; expected diff, raw, entropy"):
        Study.make(flags={"rank.by": "most"})
    with pytest.raises(InputError, match="No such file"):
        rank(by("none.csv"))
    config = tmp_path / "study.yaml"
    config.write_text("rank: {by: scores.csv}\n")
    assert Study.make(config).rank.by == str(tmp_path / "scores.csv")
    config.write_text("rank: {by: text-image}\n")
    assert Study.make(config).rank.by == "text-image"
    assert Study.make(config).portable()["rank"]["by"] == "text-image"


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_ranks(name: str) -> None:
    ranked = rank(by(name))
    heads = [Head(row["layer"], row["head"]) for row in ranked.top(16)]
    assert tuple(heads) == order(by(name))
    assert set(measure_of(name).own) <= set(ranked.columns)
    assert ranked.columns["rank"] == list(range(1, 17))
    parts = list(ranked.origin.verb.question().view(ranked.files(), ranked.origin.context))
    assert measure_of(name).heads in " ".join(getattr(part, "title", "") for part in parts)


def test_pairs_that_were_opened_for_another_ranking_are_run_again(tmp_path: Path) -> None:
    """What heads a question picks over pairs follows the ranking, whenever it is named."""
    dataset = planted_dataset(tmp_path / "pairs", 4)
    pairs = open_pairs(planted_study(tmp_path), dataset, vlm=planted().vlm, on_progress=False)
    assert not pairs.survey.knows(["entropy"])
    ranked = rank(pairs, by="entropy")
    expected = [4 * one.layer + one.head for one in order(by("entropy"))]
    heads = ranked.heads
    assert (4 * heads["layer"] + heads["head"]).tolist() == expected
    assert {"entropy", "entropy_low", "entropy_high"} <= set(heads.columns)
    raw = with_options(pairs, {"rank.by": "raw"})
    found = ablate(raw, "top:1", kinds=["resample"], controls=0, on_progress=False)
    assert set(found.effects["heads"]) >= {str(HEADS["blind writer"].head)}

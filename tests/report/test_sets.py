"""Sets of heads that are needed together: first among what the page says of a verdict."""

from pathlib import Path

import numpy as np
import pandas as pd

from headpatch.core.output.folder import find
from headpatch.heads import Head, HeadSet
from headpatch.questions.verdict.sets_view import largest_set_words, left_out, sets_parts
from headpatch.reports import derived, first
from headpatch.stats.interactions import HeldOutSets, judge_sets
from headpatch.stats.verdict_labels import Rule
from tests.questions.verdict.test_charts import verdicts

RULE = Rule(0.02, 0.95, 200, 0)
KEPT = Path(__file__).parents[2] / "attention_data"


def test_the_page_begins_a_verdict_with_the_set_that_carries_most() -> None:
    results = find(KEPT)
    sets = pd.read_csv(KEPT / "verdict/partners.csv", dtype={"heads": str})
    largest = sets[sets["redundant"]].sort_values("joint").iloc[-1]
    made = derived.section("verdict")(results)
    assert made is not None
    words, members, every = made.values["blocks"][:3]
    shown = first.section(results).values["said"].more
    for text in (words["text"], shown[1]):
        assert all(head in text for head in largest["heads"].split("+"))
        assert f"{largest['joint']:.0%} [{largest['joint_low']:.0%} to" in text
        assert f"{largest['excess']:.1%}" in text
    assert [row[0][0] for row in members["rows"]] == largest["heads"].split("+")
    assert len(every["rows"]) == sets["redundant"].sum()


def test_what_falls_without_each_head_is_its_joint_necessity_less_that_of_the_others() -> None:
    a, b, c = (Head(0, number) for number in range(3))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.001, 40)
    joint = {
        HeadSet.of(a, b, c): 0.6 + noise,
        HeadSet.of(a, b): 0.1 + noise,
        HeadSet.of(a, c): 0.2 - noise,
        HeadSet.of(b, c): 0.3 + noise,
    }
    alone = rng.normal(0, 0.001, (40, 1, 3))
    sets = [HeadSet.of(a, b, c)]
    found = judge_sets([HeldOutSets(sets, joint, alone, part=2)], RULE)
    names = [f"p{number}" for number in range(80)]
    part = {"judges": names[40:], "sets_noising": list(map(str, joint)),
            "noising": np.stack(list(joint.values()))}  # fmt: skip
    both = np.concatenate([np.ones((40, 1, 3)), alone])
    saved = {"pairs": names, "scenes": np.arange(80), "resample_noising": both, "parts": [{}, part]}
    rest = left_out(found.iloc[0].to_dict(), saved)
    np.testing.assert_allclose(rest, [joint[one].mean() for one in (
        HeadSet.of(b, c), HeadSet.of(a, c), HeadSet.of(a, b))])  # fmt: skip
    of_two = {"heads": "0.1+0.2", "part": 2}
    np.testing.assert_allclose(left_out(of_two, saved), alone.mean(0)[0, [2, 1]])
    assert left_out(of_two, {}) == left_out({"heads": "0.1+0.2", "part": 0}, saved) == []

    table = verdicts().assign(verdict="inert")
    parts = list(sets_parts(found, table, 0.95, saved))
    assert "None can be left out" in parts[0].text
    grid = parts[1]
    assert grid.headings[-2:] == ("the others without it", "falls by")
    assert [row[0] for row in grid.rows] == ["0.2", "0.1", "0.0"]  # what is missed most, first
    for head, row in zip((2, 1, 0), grid.rows, strict=True):
        fell = found["joint"].iloc[0] - rest[head]
        assert row[-2:] == (f"{rest[head]:+.3f}", f"{fell:+.3f}")


def test_without_such_a_set_nothing_is_claimed() -> None:
    sets = judge_sets([], RULE)
    assert largest_set_words(sets, verdicts()) == ""
    assert "none" in next(iter(sets_parts(sets, verdicts(), 0.95, {}))).text

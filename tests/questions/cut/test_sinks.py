"""Sinks as an end of an edge: told by the stream's massive dimensions, cut beside random tokens.

In the planted circuit (`tests.planted`) dimension 0 holds 10⁴ at every token, so that the root mean
square is 2,500. White patches have ``bright`` = 1: 4·10⁻⁴ of it. With the object there are two, and
1.1 looks at one of them: without both it reads nothing and LD falls by 2. Without two other patches
its share of the object rises from 45/60 to 45/58.
"""

from pathlib import Path

import pytest
import torch
from PIL import Image

import headpatch as hp
from headpatch.core.sinks import find_sinks
from headpatch.core.study.study import Study
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.errors import InputError
from tests.command import printed
from tests.datasets import planted_pairs, tiny_study
from tests.families import builders
from tests.planted import FORM, planted, planted_image
from tests.questions.cut.test_effects import opened, planted_session
from tests.refusals import refusal
from tests.tiny import SHAPES, image_pair, tiny_vlm

BRIGHT = {"sink_dims": [FORM.features.index("bright")], "sink_tau": 2e-4}


def test_white_patches_are_cut_beside_as_many_dark_ones() -> None:
    session = planted_session()
    sinks = find_sinks(session, BRIGHT["sink_tau"], BRIGHT["sink_dims"])
    placed = session.prompt.image_positions
    assert sinks.tokens[WITH].tolist() == placed[[5, 13]].tolist()
    assert sinks.tokens[WITHOUT].tolist() == placed[[13]].tolist()
    for run in (WITH, WITHOUT):
        drawn = sinks.random(session, run, 9)
        assert all(len(one) == len(sinks.tokens[run]) for one in drawn)
        assert not torch.isin(torch.cat(drawn), sinks.tokens[run]).any()
        assert torch.isin(torch.cat(drawn), session.prompt.spans.image).all()
    found = hp.cut(session, edges=["answer-sinks"], heads="1.1", controls=3, **BRIGHT)
    rows = found.named.set_index("run")
    assert rows["sinks"].tolist() == [2, 1]
    assert rows.loc["with", "effect"] == pytest.approx(-2, abs=1e-4)
    assert rows.loc["without", "effect"] == pytest.approx(0, abs=1e-4)
    others = -(45 / 58 - 45 / 60) * 8 / 3 / 8
    assert rows.loc["with", "control_mean"] == pytest.approx(others, abs=1e-4)
    assert rows["control_n"].tolist() == [3, 3]
    facts = {"dimensions": [2], "tau": 2e-4, "with": 2.0, "without": 1.0}
    assert found.json()["sinks"] == facts == found.origin.context.facts["sinks"]
    shown = " ".join(printed(found.origin.verb.question().view(
        found.files(), found.origin.context)).split())  # fmt: skip
    assert "at dimension 2: 2 with the object, 1 without it" in shown


def test_other_edges_keep_their_controls(tmp_path: Path) -> None:
    asked = {"heads": "1.1", "controls": 2, "on_progress": False}
    alone = hp.cut(opened(), edges=["answer-region"], **asked)
    beside = hp.cut(opened(), edges=["answer-region", "answer-sinks"], **asked, **BRIGHT)
    kept = beside.effects[beside.effects["edge"] == "answer-region"].drop(columns="sinks")
    assert beside.effects.loc[kept.index, "sinks"].isna().all()
    named = alone.effects[alone.effects["role"] != "noise floor"].reset_index(drop=True)
    kept = kept[kept["role"] != "noise floor"].reset_index(drop=True)
    for column in ("role", "run", "control_n", "answer_after"):
        assert kept[column].tolist() == named[column].tolist()
    assert kept["effect"].to_numpy() == pytest.approx(named["effect"].to_numpy(), abs=1e-5)


def test_over_pairs_counts_are_means(tmp_path: Path) -> None:
    study = Study.make(None, {"pairs.manifest": str(planted_pairs(tmp_path)), "question": "?"})
    pairs = hp.open_pairs(study, vlm=planted().vlm, on_progress=False)
    found = hp.cut(pairs, edges=["answer-sinks"], layers="1", controls=1, on_progress=False,
                   **BRIGHT)  # fmt: skip
    assert found.json()["sinks"]["with"] == 2.0
    assert found.json()["sinks"]["without"] == 1.0
    assert found.means is not None and len(found.means) == 2


def test_a_pair_without_a_sink_fails_the_gate_and_the_others_are_cut(tmp_path: Path) -> None:
    """Without the object and the other white patch nothing is bright in a run of p1."""
    table = planted_pairs(tmp_path)
    Image.new("RGB", planted_image(False).size).save(tmp_path / "dark.png")
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace("without.png", "dark.png")
    table.write_text("\n".join(lines) + "\n")
    pairs = hp.open_pairs(None, table, vlm=planted().vlm, on_progress=False)
    assert pairs.gate["passed"].all()
    asked = {"edges": ["answer-sinks"], "layers": "1", "controls": 1, "on_progress": False}
    found = hp.cut(pairs, **asked, **BRIGHT)
    gate = found.origin.gate
    assert gate is not None and gate["passed"] == [True, False, True, True]
    assert gate["reason"][1].startswith("--edges: sinks: no image token without it exceeds")
    assert found.effects["pair"].unique().tolist() == ["p0", "p2", "p3"]
    assert found.means is not None and found.means["pairs"].unique().tolist() == [3]
    line = refusal(hp.cut, pairs, **asked, sink_dims=[2], sink_tau=9e9, of="--pairs")
    assert "0 of 4 pairs are left (line 2: --edges: sinks: no image token" in line


def test_dimensions_are_the_largest_of_the_first_token() -> None:
    session = planted_session()
    sinks = find_sinks(session, 3.9)
    assert 0 in sinks.dimensions and len(sinks.dimensions) == 2
    for run in (WITH, WITHOUT):  # all are sinks: none is left to compare with
        assert sinks.tokens[run].tolist() == session.prompt.spans.image.tolist()
        assert sinks.random(session, run, 2) == []


def test_they_are_what_plain_hidden_states_say(tmp_path: Path) -> None:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    session = hp.open_session(tiny_study(tmp_path), vlm)
    with torch.no_grad():
        states = vlm.model(**session.prompt.inputs, output_hidden_states=True).hidden_states
    entering = states[2 : len(vlm.lm.layers)]  # the last holds what leaves the last layer
    biggest: dict[int, float] = {}
    for state in entering:
        for run in (0, 1):
            row = state[run, 0]
            for dimension, ratio in enumerate((row.abs() / row.square().mean().sqrt()).tolist()):
                biggest[dimension] = max(biggest.get(dimension, 0), ratio)
    dimensions = sorted(sorted(biggest, key=lambda one: -biggest[one])[:2])
    sinks = find_sinks(session, tau=1.5)
    assert list(sinks.dimensions) == dimensions
    for run in (WITH, WITHOUT):
        expected = [
            token
            for token in session.prompt.spans.image.tolist()
            if any(
                float(state[run, token, one].abs() / state[run, token].square().mean().sqrt()) > 1.5
                for state in entering
                for one in dimensions
            )
        ]
        assert 0 < len(expected) < 16
        assert sinks.tokens[run].tolist() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no image token with the object exceeds 20 times"),
        ({"sink_dims": [99]}, "dimensions 0-15 in this model"),
        ({"sink_dims": []}, "--sink-dims: none"),
        ({"sink_dims": [14], "sink_tau": 1e-9}, "no image token with the object"),
        ({"sink_tau": 0.0}, "--sink-tau"),
    ],
)
def test_refusals_are_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        hp.cut(planted_session(), edges=["answer-sinks"], layers="1", **options)
    assert len(str(error.value).splitlines()) == 1


def test_other_questions_do_not_look_for_sinks() -> None:
    with pytest.raises(InputError, match="headpatch cut"):
        Study.make(None, {"path.edges": ("answer-sinks",)})
    vlm = builders.build("mllama")
    pair = hp.make_pair(*image_pair((84, 56)), "Is it red?", "top-left")
    session = hp.open_session(hp.Study().override({"force": True}), vlm, pair=pair)
    with pytest.raises(InputError, match="cross-attention"):
        find_sinks(session)

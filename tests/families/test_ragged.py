"""Questions about every head, of models that have none in some of their layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ImageDraw

import headpatch as hp
from headpatch.heads import Grid
from headpatch.reports import write
from headpatch.stats.attention_mass import mass, normalized_mass
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, judge
from tests.families.builders import QUESTION, build
from tests.tiny import image_pair, noise_image

RAGGED = ("qwen3_5", "llava (lfm2)")
PAIRS = 4
QUICK = {
    "top": 3, "nulls": 0, "vision": 0, "controls": 1, "random": 1, "noise": 1, "groups": 8,
    "search": 1, "on_progress": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_pairs_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)


def opened(name: str) -> Any:
    rows = []
    for number in range(PAIRS):
        without = noise_image(number, (84, 56))
        shown = without.copy()
        ImageDraw.Draw(shown).rectangle((0, 0, 28, 18), fill="white")
        rows.append({"with": shown, "without": without, "question": QUESTION, "region": "top-left"})
    study = hp.Study().override({"force": True})
    return hp.open_pairs(study, rows, vlm=build(name), on_progress=False, resamples=100)


@pytest.mark.parametrize("name", RAGGED)
def test_heads_that_are_there_are_ranked_by_what_transformers_says(name: str) -> None:
    vlm = build(name)
    pair = hp.make_pair(*image_pair((84, 56)), QUESTION, "top-left")
    session = hp.open_session(hp.Study().override({"force": True}), vlm, None, pair)
    found = hp.rank(session, top=5)
    vlm.model.set_attn_implementation("eager")
    prompt = session.prompt
    with torch.no_grad():
        seen = vlm.model(**prompt.inputs, output_attentions=True).attentions
    at_answer = [one[:, :, -1, prompt.image_positions] for one in seen if one is not None]
    rows = torch.stack(at_answer, 1).double().numpy()
    assert rows.shape[1] == len(vlm.lm.grid.with_heads) == 2
    mask = session.compared_tokens
    diff = np.subtract(*normalized_mass(rows, mask))
    raw = np.subtract(*mass(rows, mask))
    table = found.heads.set_index(["layer", "head"])
    assert len(table) == 8 and sorted(table["rank"]) == [*range(1, 9)]
    for place, layer in enumerate(vlm.lm.grid.with_heads):
        for head in range(4):
            assert table.loc[(layer, head), "diff"] == pytest.approx(diff[place, head], abs=1e-5)
            assert table.loc[(layer, head), "diff_raw"] == pytest.approx(raw[place, head], abs=1e-5)
    order = np.argsort(-table["diff"].to_numpy(), kind="stable")
    assert (table["rank"].to_numpy()[order] == np.arange(1, 9)).all()
    kept = found.per_head
    assert kept["diff"].isnan().all(1).tolist() == [True, False, True, False]
    assert kept["layer_counts"].sum() == 5 and kept["layer_counts"][[0, 2]].sum() == 0


@pytest.mark.parametrize("name", RAGGED)
def test_a_verdict_says_of_heads_that_are_there_what_ablate_says(name: str, tmp_path: Path) -> None:
    pairs = opened(name)
    found = hp.verdict(pairs, **QUICK)
    there = [[layer, head] for layer in (1, 3) for head in range(4)]
    table = found.heads
    assert table[["layer", "head"]].to_numpy().tolist() == there
    assert table["verdict"].notna().all() and sorted(table["attention_rank"]) == [*range(1, 9)]
    heads = ",".join(f"{layer}.{head}" for layer, head in there)
    alone = hp.ablate(pairs, heads=heads, kinds=["resample"], controls=0, on_progress=False)
    means = alone.means.set_index(["heads", "direction"])
    for _, row in table.iterrows():
        for column, way in (("necessity", "noising"), ("sufficiency", "denoising")):
            expected = means.loc[(f"{row.layer}.{row['head']}", way), "normalized"]
            assert row[column] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    saved = found.files()["verdict.pt"]
    for name in ("attention_diff", "resample_noising", "mean_denoising"):
        assert saved[name].isnan().all(2)[0].tolist() == [True, False, True, False]
    found.save(tmp_path)
    write(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8").replace(" ", "")
    assert '"layers":[1,3]' in page
    claims = [
        "layers 2-3 hold the sensitive heads",
        "heads 1.0 and 3.1 matter more than others of their layers",
        "the heads of layers 2-3 matter more than those of other layers",
    ]
    asked = hp.claims(claims, found).table
    assert asked["outcome"].isin(["supported", "contradicted", "undecided", "not testable"]).all()
    with pytest.raises(hp.InputError, match="no layer of this model with attention heads"):
        hp.claims(["layer 2 holds the causal heads"], found)


def test_heads_are_judged_as_if_layers_without_any_were_not() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.2, 0.1, (3, 12, 2, 4))
    rule = Rule(0.1, 0.95, 100, 0)
    joint = {}
    alone = judge(Observed(*values, joint), rule).heads
    ragged = judge(Observed(*values, joint, layers=(1, 3)), rule).heads
    assert ragged["layer"].tolist() == [1] * 4 + [3] * 4
    pd.testing.assert_frame_equal(alone.drop(columns="layer"), ragged.drop(columns="layer"))


def test_figures_go_to_the_layers_that_have_heads_and_back() -> None:
    grid = Grid(4, 3, without=(0, 2))
    there = np.arange(12.0).reshape(2, 2, 3)
    spread = grid.spread(there)
    assert spread.shape == (2, 4, 3) and np.isnan(spread[:, [0, 2]]).all()
    np.testing.assert_array_equal(grid.there(spread), there)
    order = np.argsort(-spread[0].ravel(), kind="stable")[: len(grid)]  # NaN last
    heads = [(head.layer, head.head) for head in grid]
    assert [heads[one] for one in grid.among(order)] == [
        (3, 2),
        (3, 1),
        (3, 0),
        (1, 2),
        (1, 1),
        (1, 0),
    ]

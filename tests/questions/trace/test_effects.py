"""`trace` finds at each token what was planted, and what a sweep finds at the first."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.core import teacher_forcing
from headpatch.core.progress import Stages, reporting
from headpatch.core.question import Call
from headpatch.core.ranking import MASSES, masses
from headpatch.core.session import Session, open_session
from headpatch.core.store import Store
from headpatch.engine.answers import measures, say
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import patch
from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet
from headpatch.models.prompt import Prompt, encode
from headpatch.models.prompt import forced as forced_words
from headpatch.models.vlm import VLM
from headpatch.pairs.scene import Style, draw, sample_pair
from headpatch.questions.sweep.question import sweep
from headpatch.questions.trace.question import QUESTION
from headpatch.questions.trace.records import MEASURES
from headpatch.questions.trace.results import Traced
from headpatch.stats.effects import spread
from tests.planted import HEADS, LD_WITH, LD_WITHOUT, SILENT, planted, planted_study
from tests.tiny import tiny_vlm

CLOSE = 1e-4  # logits; what C = 10⁴ leaves of the norms, and float32
SPAN = LD_WITH - LD_WITHOUT


def opened(vlm: VLM, **options: object) -> Session:
    with TemporaryDirectory() as folder:
        study = planted_study(Path(folder), **{f"trace.{key}": v for key, v in options.items()},
                              force=True)  # fmt: skip
        return open_session(study, vlm, "answer")


def trace(session: Session, stages: Stages | None = None, store: Store | None = None) -> Traced:
    traced = QUESTION.answer(session, Call(stages or reporting(None), store=store))
    assert isinstance(traced, Traced)
    return traced


@lru_cache
def found(answer: str | None = None, run: str = "with") -> Traced:
    return trace(opened(planted().vlm, answer=answer, forced=run))


def test_the_planted_heads_move_the_first_token() -> None:
    (yes,) = found().tokens
    assert (yes.text, yes.rival, yes.says) == ("Yes", "No", ("Yes", "No"))
    assert yes.measured["contrast"] == pytest.approx([LD_WITH, LD_WITHOUT], abs=CLOSE)
    for one in HEADS.values():
        if one.scope != "answer":
            continue
        at = one.head.layer, one.head.head
        noised = yes.effects["resample", "noising"]
        assert noised["contrast"][at] == pytest.approx(-one.necessity * SPAN, abs=CLOSE)
        assert noised["logit"][at] == pytest.approx(-one.necessity * SPAN / 2, abs=CLOSE)
        restored = yes.effects["resample", "denoising"]
        assert restored["contrast"][at] == pytest.approx(one.sufficiency * SPAN, abs=CLOSE)
        assert yes.attention["diff"][at] == pytest.approx(one.diff, abs=1e-4)
    for head in SILENT:
        assert abs(yes.effects["resample", "noising"]["contrast"][head.layer, head.head]) < CLOSE


def test_no_log_probability_hand_worked() -> None:
    """Only Yes and No are near: log p(Yes) = -log(1 + exp(-LD)), before and after."""
    (yes,) = found().tokens
    effects = yes.effects["resample", "noising"]
    before = -np.log1p(np.exp(-LD_WITH))
    after = -np.log1p(np.exp(-(LD_WITH + effects["contrast"])))
    np.testing.assert_allclose(effects["logprob"], after - before, atol=CLOSE)


def test_the_next_token_is_looked_at_from_the_one_before_it() -> None:
    """Planted heads look from the prompt's last token alone; from the word after it, evenly.

    So the looker, which wrote 2 to the vote, now gives the object's patch 1/(n + 1) of its
    attention, n being the prompt's tokens, and writes 8/3 of that; half goes to No, the other way.
    """
    first, second = found("Yes No").tokens
    assert (first.text, second.text) == ("Yes", "No")
    looker = HEADS["looker"].head
    at = looker.layer, looker.head
    assert first.effects["resample", "noising"]["logit"][at] == pytest.approx(-1, abs=CLOSE)
    little = 8 / 3 / (planted().prompt.spans.length + 1) / 2
    noised, restored = (second.effects["resample", way] for way in ("noising", "denoising"))
    assert noised["logit"][at] == pytest.approx(little, abs=CLOSE)
    assert restored["logit"][at] == pytest.approx(-little, abs=CLOSE)
    assert second.attention["with"][at] == pytest.approx(4 / 16, abs=CLOSE)
    assert second.says == ("</s>", "</s>")
    assert second.rival == "</s>"


def test_the_first_token_is_what_a_sweep_measures() -> None:
    session = opened(planted(noise=0.3).vlm)
    swept = sweep(replace(session, study=session.study.override({"sweep.kinds": ("resample",)})))
    (yes,) = trace(session).tokens
    for direction in ("noising", "denoising"):
        np.testing.assert_allclose(
            yes.effects["resample", direction]["contrast"],
            swept.saved["effect"][f"resample_{direction}"],
            atol=2e-5,
        )


def test_attention_is_the_ranking_s_at_the_first_token() -> None:
    session = opened(planted().vlm)
    (yes,) = found().tokens
    for name, values in masses(session).items():
        np.testing.assert_allclose(yes.attention[name], values, atol=1e-6)


def test_table_tensors_and_summaries_say_the_same() -> None:
    traced = found("Yes there is")
    table, saved, tokens = traced.table(), traced.saved(), traced.tokens
    layers, heads = tokens[0].attention["diff"].shape
    ways = list(tokens[0].effects)
    assert len(table) == len(tokens) * len(ways) * layers * heads
    for way in ways:
        rows = table[table["kind"].eq(way[0]) & table["direction"].eq(way[1])]
        for name in ("logit", "logprob"):
            kept = saved[f"effect_{name}"]["_".join(way)]
            assert kept.shape == (len(tokens), layers, heads)
            column = torch.tensor(rows[f"effect_{name}"].to_numpy()).float()
            assert torch.equal(kept.flatten(), column)
        for name in MASSES:
            column = torch.tensor(rows[name].to_numpy()).float()
            assert torch.equal(saved[name].flatten(), column)
    assert saved["tokens"] == [one.text for one in tokens]
    for one, summary in zip(tokens, traced.summaries(), strict=True):
        first = summary["resample_noising"]["top"][0]
        layer, head = map(int, first["head"].split("."))
        size = np.abs(one.effects["resample", "noising"][one.measure])
        assert size[layer, head] == size.max() == abs(first["effect"])
        assert summary["resample_noising"]["total"] == pytest.approx(size.sum())
        assert {f"{name}_with" for name in MEASURES} <= set(summary)


def test_other_heads_of_the_layer() -> None:
    rows = found().table()
    rows = rows[rows["direction"] == "noising"]
    for (_, layer), here in rows.groupby(["index", "layer"]):
        for place, row in enumerate(here.to_dict("records")):
            others = spread(np.delete(here["effect"].to_numpy(), place))
            assert row["layer_mean"] == pytest.approx(others.mean, abs=1e-9), layer
            assert row["layer_sd"] == pytest.approx(others.sd, abs=1e-9)


def test_normalized_is_the_share_of_the_difference_between_the_runs() -> None:
    rows = found().table()
    looker = rows[rows["layer"].eq(1) & rows["head"].eq(1)].set_index("direction")
    assert looker.loc["noising", "normalized"] == pytest.approx(2 / 8, abs=CLOSE)
    assert looker.loc["denoising", "normalized"] == pytest.approx(2 / 8, abs=CLOSE)


def test_both_answers_one_after_the_other() -> None:
    traced = found(run="both")
    said = [(one.answer.source, one.text) for one in traced.tokens]
    assert said == [("with", "Yes"), ("without", "No")]
    yes, no = (one.effects["resample", "noising"]["contrast"] for one in traced.tokens)
    np.testing.assert_allclose(yes, -no, atol=CLOSE)


def test_the_noise_floor_is_rounding_and_progress_counts_rows() -> None:
    session = opened(tiny_vlm(), answer="Yes there is", noise=3)
    calls: list[tuple[int, int]] = []
    traced = trace(session, reporting(lambda *call: calls.append(call)))
    assert traced.noise_floor < 2e-5
    assert calls[-1][0] == calls[-1][1] == len(traced.tokens) * (2 * 12 + 2 * 3)


def test_a_run_that_would_not_say_its_own_answer_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = planted()
    wrong = [[made.prompt.answers.no], [made.prompt.answers.yes]]
    monkeypatch.setattr(teacher_forcing, "answer_ids", lambda *_: wrong)
    with pytest.raises(RunError, match=r"would not go on with 'No' \(4 logits behind\)"):
        trace(opened(made.vlm))
    monkeypatch.setattr(teacher_forcing, "answer_ids", lambda *_: [[], []])
    with pytest.raises(RunError, match="ends its answer"):
        trace(opened(made.vlm))


def test_words_that_the_model_does_not_know_are_refused() -> None:
    with pytest.raises(InputError, match="unknown tokens"):
        trace(opened(planted().vlm, answer="Yes ☃"))


def test_a_mean_over_the_pair_itself_moves_half_way() -> None:
    """z of the mean lies between the runs', and the looker's way to the vote is straight."""
    (yes,) = trace(opened(planted().vlm, kinds=("mean",), reference=0)).tokens
    looker = HEADS["looker"]
    at, half = (looker.head.layer, looker.head.head), looker.necessity * SPAN / 2
    assert yes.effects["mean", "noising"]["contrast"][at] == pytest.approx(-half, abs=CLOSE)
    assert yes.effects["mean", "denoising"]["contrast"][at] == pytest.approx(half, abs=CLOSE)


def z_at_end(vlm: VLM, prompt: Prompt, words: Sequence[int], head: Head) -> torch.Tensor:
    """z of a head where a run has read the prompt and so many words."""
    z = forward(vlm, forced_words(vlm, prompt, words), keep=Keep(z=("lm",)), exact=True).z["lm"]
    return z[head.layer][:, -1, head.head]


def replaced(
    vlm: VLM,
    prompt: Prompt,
    words: Sequence[int],
    head: Head,
    z: torch.Tensor,
    direction: Direction,
) -> tuple[float, ...]:
    """The slow twin: what mean z of a head does to the last of the words, by a run of its own."""
    said = say(vlm, prompt, words[:-1], words[-1])
    everywhere = torch.zeros(said.base.prompt.spans.length, vlm.lm.grid.heads, len(z))
    everywhere[-1, head.head] = z
    means = {"lm": [everywhere] * vlm.lm.grid.layers}
    asked = [Intervention(HeadSet.of(head), "mean", direction)]
    (outcome,) = patch(vlm, said.base, asked, means, read=measures(said.base.prompt.answers))
    return outcome.read


@pytest.mark.parametrize("reference", [0, 2])
def test_kind_mean_is_over_reference_pairs_that_say_the_same_words(reference: int) -> None:
    """One pass over the whole answer gives the same, as no word sees those after it."""
    vlm, head = tiny_vlm(), Head(1, 2)
    options = {"kinds": ("mean",), "reference": reference, "answer": "Yes there is", "noise": 1}
    session = opened(vlm, **options)
    study, prompts = session.study, [session.prompt]
    if reference:
        rng = np.random.default_rng([study.seed, reference])
        scenes = [sample_pair(rng, "top left") for _ in range(reference)]
        style = Style(*session.pair.with_image.size)
        images = [[draw(scene, style) for scene in pair] for pair in scenes]
        prompts = [encode(vlm, pair, study.question, study.answers) for pair in images]
    for one in trace(session).tokens:
        words = one.answer.ids[: one.index + 1]
        z = torch.cat([z_at_end(vlm, prompt, words[:-1], head) for prompt in prompts])
        assert len(z) == 2 * max(reference, 1)
        for direction in ("noising", "denoising"):
            slow = replaced(vlm, session.prompt, words, head, z.mean(0), direction)
            effects = one.effects["mean", direction]
            fast = [effects[name][head.layer, head.head] for name in ("logit", "logprob")]
            assert fast == pytest.approx(list(slow), abs=2e-5)
            assert abs(slow[0]) > 1e-4


def test_finished_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    session = opened(tiny_vlm(), answer="Yes there is", kinds=("zero", "mean"), reference=1)
    whole = trace(session)
    kept = Store(tmp_path)
    trace(session, store=kept)
    assert kept.count == 3
    sorted(tmp_path.glob("*.unit"))[1].unlink()
    calls: list[tuple[int, int]] = []
    again = trace(session, reporting(lambda *call: calls.append(call)), Store(tmp_path))
    pd.testing.assert_frame_equal(again.table(), whole.table())
    for way, one in whole.saved()["effect_logit"].items():
        torch.testing.assert_close(
            again.saved()["effect_logit"][way], one, rtol=0, atol=0, equal_nan=True
        )
    assert len(list(tmp_path.glob("*.unit"))) == 3
    assert calls[-1][0] == calls[-1][1]
    other = replace(session, study=session.study.override({"trace.reference": 2}))
    trace(other, store=kept)
    assert len(list(tmp_path.glob("*.unit"))) == 6

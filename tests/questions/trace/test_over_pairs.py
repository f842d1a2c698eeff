"""A trace of many pairs is the mean of their own traces, and goes on where it was stopped."""

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.core.baseline_runs import Opener, Survey, survey
from headpatch.core.dataset import Pairs
from headpatch.core.gate import study_of
from headpatch.core.progress import Stages, reporting
from headpatch.core.question import Call
from headpatch.core.ranking import MASSES
from headpatch.core.session import open_session
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.questions.trace.question import QUESTION, trace
from headpatch.questions.trace.records import MEASURES
from headpatch.questions.trace.results import TracedPairs
from headpatch.questions.trace.token_runner import Token
from headpatch.stats.intervals import mean_interval
from tests.datasets import lasting_folder, noisy_pairs, planted_pairs
from tests.planted import HEADS, SILENT, planted
from tests.questions.trace.test_effects import replaced, z_at_end
from tests.tiny import tiny_vlm

QUESTIONS = ["is there a red square ?"] * 3 + ["is there a red square in the image ?"]
OPTIONS = {
    "force": True,
    "trace.tokens": 5,
    "trace.kinds": ("resample", "mean"),
    "trace.noise": 2,
    "pairs.resamples": 200,
}
NOISY = Study.make(None, OPTIONS)
ROUNDING = 2e-5  # logits, between two float32 paths of a tiny model
CLOSE = 1e-4  # logits, of the planted circuit


@lru_cache
def noisy() -> Survey:
    entries = Manifest.read(noisy_pairs(lasting_folder(), QUESTIONS)).entries
    return survey(NOISY, tiny_vlm(), entries, "answer")


def run(
    study: Study, vlm: VLM, seen: Survey, store: Store, stages: Stages | None = None
) -> TracedPairs:
    pairs = Pairs(study, vlm, seen, "answer")
    traced = QUESTION.answer(pairs, Call(stages or reporting(None), store=store))
    assert isinstance(traced, TracedPairs)
    return traced


@lru_cache
def found() -> TracedPairs:
    with TemporaryDirectory() as folder:
        return run(NOISY, tiny_vlm(), noisy(), Store(Path(folder)))


@lru_cache
def each() -> list[tuple[Token, ...]]:
    """The slow twin: each pair opened and traced by itself, as its own study."""
    tokens = []
    for entry in noisy().entries:
        study = study_of(NOISY, entry).override({"trace.kinds": ("resample",)})
        tokens.append(trace(open_session(study, tiny_vlm(), "answer", entry.pair())).tokens)
    return tokens


def of_slot(place: int) -> list[Token]:
    tokens = found().slots[place].slot.tokens
    return [each()[pair][token] for pair, token in enumerate(tokens) if token is not None]


def test_means_are_those_of_each_pair_by_itself() -> None:
    for place, one in enumerate(found().slots):
        tokens = of_slot(place)
        assert one.pairs == len(tokens) == sum(one.slot.texts.values())
        for name in MASSES:
            slow = np.mean([token.attention[name] for token in tokens], axis=0)
            np.testing.assert_allclose(one.attention[name], slow, atol=1e-6)
        for way in [("resample", "noising"), ("resample", "denoising")]:
            for name in MEASURES:
                having = [token for token in tokens if name != "contrast" or token.rival]
                assert one.counts[name] == len(having)
                if having:
                    slow = np.mean([token.effects[way][name] for token in having], axis=0)
                    np.testing.assert_allclose(one.effects[way][name], slow, atol=ROUNDING)
                    runs = np.mean([token.measured[name] for token in having], axis=0)
                    np.testing.assert_allclose(one.measured[name], runs, atol=ROUNDING)
                else:
                    assert np.isnan(one.effects[way][name]).all()


def test_the_contrast_leads_where_most_pairs_have_a_rival() -> None:
    for place, one in enumerate(found().slots):
        rivals = [token.rival for token in of_slot(place) if token.rival]
        assert sum(one.rivals.values()) == len(rivals)
        assert one.measure == ("contrast" if 2 * len(rivals) > one.pairs else "logit")
        assert bool(one.rival) == (one.measure == "contrast")


def test_intervals_are_over_the_pairs_and_take_two_of_them() -> None:
    lone, several = 0, 0
    for place, one in enumerate(found().slots):
        way = "resample", "noising"
        tokens = [t for t in of_slot(place) if t.rival or one.measure == "logit"]
        effects = np.stack([token.effects[way][one.measure] for token in tokens])
        move, total = one.moves[way], one.totals[way]
        np.testing.assert_allclose(move.mean, effects.mean(0), atol=ROUNDING)
        assert total.mean == pytest.approx(np.abs(effects).sum((1, 2)).mean(), abs=1e-3)
        if len(tokens) < 2:
            lone += 1
            assert np.isnan(move.low).all()
            assert np.isnan(float(total.high))
            continue
        several += 1
        slow = mean_interval(effects, 0.95, 200, np.random.default_rng(0))
        np.testing.assert_allclose(move.low, slow.low, atol=1e-3)
        np.testing.assert_allclose(move.high, slow.high, atol=1e-3)
    assert lone
    assert several


@pytest.mark.parametrize("place", [0, 2, 3])
def test_kind_mean_is_the_mean_over_the_pairs_that_have_the_slot(place: int) -> None:
    vlm, head, one = tiny_vlm(), Head(1, 2), found().slots[place]
    prompts, words = [], []
    for pair in one.slot.answers:
        opened = noisy().entries[pair].pair()
        pictures = [opened.with_image, opened.without_image]
        prompts.append(encode(vlm, pictures, opened.question))
        words.append(each()[pair][0].answer.ids[: one.slot.tokens[pair] + 1])
    both = list(zip(prompts, words, strict=True))
    mean = torch.cat([z_at_end(vlm, prompt, said[:-1], head) for prompt, said in both]).mean(0)
    slow = [replaced(vlm, prompt, said, head, mean, "denoising")[0] for prompt, said in both]
    effect = one.effects["mean", "denoising"]["logit"][head.layer, head.head]
    assert effect == pytest.approx(np.mean(slow), abs=ROUNDING)
    assert abs(effect) > ROUNDING


def test_tables_and_tensors_say_the_same() -> None:
    traced = found()
    table, saved, said = traced.table(), traced.saved(), traced.said()
    ways = 2 * 2
    grid = tiny_vlm().lm.grid
    assert len(table) == len(traced.slots) * ways * grid.layers * grid.heads
    assert len(said) == sum(len(tokens) for tokens in each())
    assert list(said["pair"].unique()) == [entry.name for entry in noisy().entries]
    first = traced.slots[0]
    assert table["tokens"][0] == ", ".join(f"{t} ({n})" for t, n in first.slot.texts.items())
    for word, by_pair in saved["effect_by_pair"].items():
        kind, direction = word.split("_")
        rows = table[table["kind"].eq(kind) & table["direction"].eq(direction)]
        assert by_pair.shape == (4, len(traced.slots), grid.layers, grid.heads)
        column = torch.tensor(rows["effect"].to_numpy()).float().reshape(by_pair.shape[1:])
        torch.testing.assert_close(by_pair.nanmean(0), column, atol=1e-6, rtol=1e-5)
        low, high = saved["effect_low"][word], saved["effect_high"][word]
        known = ~low.isnan()
        assert (low[known] <= column[known] + 1e-6).all()
        assert (column[known] <= high[known] + 1e-6).all()
    assert saved["pairs"].tolist() == [one.pairs for one in traced.slots]
    for one, summary in zip(traced.slots, traced.summaries(), strict=True):
        assert summary["pairs"] == one.pairs
        top = summary["resample_noising"]["top"][0]
        assert abs(top["effect"]) == np.abs(one.moves["resample", "noising"].mean).max()
    assert traced.noise_floor < ROUNDING


def stopping(after: int):
    """Stages in which a run is killed once so many changes of a token have been made."""

    @contextmanager
    def stage(what: str):
        def advance(done: int, total: int) -> None:
            if what.startswith("Changing") and done >= after:
                raise KeyboardInterrupt

        yield advance

    return stage


def test_a_killed_run_goes_on_to_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, kept = tiny_vlm(), Store(tmp_path)
    a_token = 2 * 2 * vlm.lm.grid.layers * vlm.lm.grid.heads + 2 * 2
    with pytest.raises(KeyboardInterrupt):
        run(NOISY, vlm, noisy(), kept, stopping(7 * a_token + 3))
    assert kept.count == 7
    again = Store(tmp_path)
    again.open(True, "trace")
    call, opened = Opener.__call__, set()

    def counted(self, entry):
        opened.add(entry.name)
        return call(self, entry)

    monkeypatch.setattr(Opener, "__call__", counted)
    damaged = next(tmp_path.glob("*-[0-9].unit"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    done = run(NOISY, vlm, noisy(), again)
    assert again.count == 20  # the damaged one is made again
    assert len(opened) in (3, 4)  # 5 of 7 are the first pair's, unless the damaged one is too
    pd.testing.assert_frame_equal(done.table(), found().table())
    pd.testing.assert_frame_equal(done.said(), found().said())
    for name, one in done.saved()["effect_by_pair"].items():
        assert torch.equal(one.nan_to_num(9), found().saved()["effect_by_pair"][name].nan_to_num(9))


def test_another_study_s_tokens_are_not_used(tmp_path: Path) -> None:
    kept = Store(tmp_path)
    study = NOISY.override({"trace.kinds": ("zero",), "trace.tokens": 1})
    run(study, tiny_vlm(), noisy(), kept)
    assert kept.count == 4
    run(study, tiny_vlm(), noisy(), kept)
    assert kept.count == 4
    for count, change in enumerate(({"seed": 1}, {"trace.noise": 3}), start=2):
        run(study.override(change), tiny_vlm(), noisy(), kept)
        assert kept.count == 4 * count


def test_a_finished_token_that_has_gone_is_an_error(tmp_path: Path) -> None:
    study = NOISY.override({"trace.kinds": ("zero",), "trace.tokens": 1})

    @contextmanager
    def losing(what: str):
        if what.startswith("Averaging over"):
            next(tmp_path.glob("*-[0-9].unit")).unlink()
        yield lambda *_: None

    with pytest.raises(RunError, match="a finished token has gone"):
        run(study, tiny_vlm(), noisy(), Store(tmp_path), losing)


def test_planted_heads_come_out_as_planted(tmp_path: Path) -> None:
    """Wherever in the region the object is, the circuit does the same: means without spread."""
    vlm = planted().vlm
    study = Study.make(None, {"trace.forced": "both", "pairs.resamples": 100})
    entries = Manifest.read(planted_pairs(tmp_path, swapped=[1])).entries
    seen = survey(study, vlm, entries, "answer")
    traced = run(study, vlm, seen, Store(tmp_path / "kept"))
    yes, no = traced.slots
    assert (yes.text, yes.rival, yes.pairs) == ("Yes", "No", 3)
    assert (no.text, no.rival, no.slot.source) == ("No", "Yes", "without")
    span = 8
    for one in HEADS.values():
        if one.scope == "answer":
            at = one.head.layer, one.head.head
            noised = yes.moves["resample", "noising"]
            for ends in (noised.mean, noised.low, noised.high):
                assert ends[at] == pytest.approx(-one.necessity * span, abs=CLOSE)
            restored = no.moves["resample", "denoising"].mean
            assert restored[at] == pytest.approx(-one.sufficiency * span, abs=CLOSE)
            assert yes.looks.mean[at] == pytest.approx(one.diff, abs=1e-4)
    for head in SILENT:
        assert abs(yes.moves["resample", "noising"].mean[head.layer, head.head]) < CLOSE
    assert not traced.survey.gated[1].passed

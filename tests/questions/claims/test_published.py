"""Published claims: every file is whole, and each of its sentences runs on a model of its class.

LLaVA-1.5-7B has 32 × 32 heads in its language model, Qwen2-VL-7B and LLaVA-OneVision-7B have
28 × 28, and so do the tiny models here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from headpatch.core.claims_grammar import Claim, Form
from headpatch.core.saved_verdict import SavedVerdict
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.heads import Grid
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.questions.claims.case import Evidence
from headpatch.questions.claims.experiments import run_experiments
from headpatch.questions.claims.judge import judge_claim
from tests.command import refused_early
from tests.datasets import noisy_pairs
from tests.families import builders
from tests.questions.claims.test_judge import table

FILES = sorted((Path(__file__).parents[3] / "configs/published").glob("*.yaml"))
MODELS = {
    "llava-hf/llava-1.5-7b-hf": Grid(32, 32),
    "Qwen/Qwen2-VL-7B-Instruct": Grid(28, 28),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": Grid(28, 28),
}
WIDE = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "hidden_size": 224}  # fmt: skip


def llava() -> builders.Parts:
    own = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 128}
    return builders.llava(hf.LlamaConfig(**{**builders._TEXT, **WIDE, **own}))


def qwen2_vl() -> builders.Parts:
    parts = builders.qwen2_vl()
    parts.config.text_config = type(parts.config.text_config)(
        **{**parts.config.text_config.to_dict(), **WIDE, "layer_types": None, "head_dim": None}
    )
    parts.config.vision_config.hidden_size = WIDE["hidden_size"]
    return parts


def llava_onevision() -> builders.Parts:
    parts = builders.llava_onevision()
    own = parts.config.text_config.to_dict()
    parts.config.text_config = hf.Qwen2Config(**{**own, **WIDE, "layer_types": None})
    return parts


BUILT: dict[str, Callable[[], builders.Parts]] = {
    "llava-hf/llava-1.5-7b-hf": llava,
    "Qwen/Qwen2-VL-7B-Instruct": qwen2_vl,
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": llava_onevision,
}


def studies(model: str) -> list[Study]:
    return [study for file in FILES if (study := Study.make(file)).model == model]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_what_it_claims_of_what_and_what_it_leaves_out(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = Study.make(file)
    said = study.expected
    assert said is not None and study.name == file.stem and study.claims
    assert said.data and said.counting and said.metric and said.figures and said.left_out
    assert not said.beside_a_ranking
    grid = MODELS[study.model]
    for claim in map(Claim.parse, study.claims):
        claim.check(grid, None)
    monkeypatch.chdir(tmp_path)
    line = refused_early("claims", file, "--out", "new")
    assert line.startswith("--pairs: ") and "Nothing is downloaded" in line
    assert ("headpatch pairs --from" in line) or ("a table of your own" in line)
    assert not list(tmp_path.iterdir())


def test_ten_results_are_there() -> None:
    sources = {Study.make(file).expected.source for file in FILES}  # type: ignore[union-attr]
    assert len(sources) >= 10 and {Study.make(file).model for file in FILES} == set(MODELS)


def verdict_of(study: Study, grid: Grid) -> SavedVerdict:
    """A verdict of a whole grid, as made by hand: its heads are those of another test, repeated."""
    rows: Any = table()
    whole = rows.dropna().sample(
        n=grid.layers * grid.heads, replace=True, random_state=0, ignore_index=True
    )
    whole["layer"] = [head.layer for head in grid]
    whole["head"] = [head.head for head in grid]
    rho = {"rho": 0.2, "low": 0.1, "high": 0.3, "untold": ""}
    none = rows.iloc[:0]
    return SavedVerdict(study, whole, none.assign(heads=""), none, None, None, (), {}, None, rho)


@pytest.mark.parametrize("model", MODELS)
def test_every_sentence_is_measured_and_judged_on_a_model_of_its_class(
    model: str, tmp_path: Path
) -> None:
    every = studies(model)
    vlm, grid = builders.make(BUILT[model]()), MODELS[model]
    assert (vlm.lm.grid.layers, vlm.lm.grid.heads) == (grid.layers, grid.heads)
    entries = Manifest.read(noisy_pairs(tmp_path, [builders.QUESTION] * 2)).entries
    places = {study.verdict.positions for study in every}
    for place in sorted(places):
        own = [study for study in every if study.verdict.positions == place]
        options = {"cut.controls": 1, "force": True, "verdict.positions": place}
        study = Study.make(None, {**options, "pairs.resamples": 100})
        claims = {sort_of(one): one for each in own for one in map(Claim.parse, each.claims)}
        judge(study, vlm, entries, list(claims.values()),
              tmp_path / place, verdict_of(study, grid))  # fmt: skip


def sort_of(claim: Claim) -> tuple[object, ...]:
    """Say which claims are measured alike: of several edges in other layers one is enough."""
    where = claim.layers if claim.form is not Form.READS else ()
    return claim.form, claim.word, claim.object, claim.heads, where


def judge(
    study: Study, vlm: VLM, entries: Sequence[Any], claims: list[Claim], at: Path, saved: Any
) -> None:
    evidence = Evidence(saved, {}, len(claims))
    asked = {one.name: one for claim in claims for one in evidence.missing(claim)}
    found = run_experiments(study, vlm, entries, list(asked.values()), Store(at))
    assert not [one.why_not for one in found.values() if one.why_not]
    for claim in claims:
        judged = judge_claim(claim, replace(evidence, measured=found))
        assert judged.outcome != "not testable" or claim.form in (Form.HOLD, Form.CORRELATE), judged
        assert judged.figure

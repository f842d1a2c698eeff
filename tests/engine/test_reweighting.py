"""Re-weighted attention against eager attention whose weights are edited one query at a time."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

import headpatch as hp
from headpatch.core.effects import intervene
from headpatch.engine.attention import tapped
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import WITH, Cut, Intervention, Toward, edges_by_layer
from headpatch.engine.knockout import Knockout, knock_out
from headpatch.engine.patching import Baseline, Outcome, patch, run_pair
from headpatch.engine.reweighting import reweighted
from headpatch.engine.taps import Site
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.datasets import tiny_study
from tests.engine.oracle import Oracle
from tests.families import builders
from tests.families.test_engine import _padded
from tests.planted import planted, planted_study
from tests.tiny import SHAPES, every_shape, image_pair, tiny_pair, tiny_prompt, tiny_vlm

CLOSE = 1e-4  # logits; float32 with two implementations of attention
_EDITS = "_edited_rows"


@dataclass(frozen=True)
class Edit:
    """A head of a layer, whose weights are edited at some queries."""

    head: int
    queries: Sequence[int]
    keys: Sequence[int]
    alpha: float


def edited_rows(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, softcap: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    rows = scores.softmax(-1)
    first = key.shape[2] - query.shape[2]
    for edit in module.__dict__.get(_EDITS, ()):
        for at in (one - first for one in edit.queries if first <= one < key.shape[2]):
            row = rows[:, edit.head, at].clone()
            row[:, edit.keys] *= 1 + edit.alpha
            rows[:, edit.head, at] = row / row.sum(-1, keepdim=True)
    return (rows @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("edited_rows", edited_rows)
AttentionMaskInterface.register("edited_rows", eager_mask)


class Twin:
    """A copy of a model that attends by `edited_rows`."""

    def __init__(self, vlm: VLM, base: Baseline) -> None:
        self.oracle, self.base = Oracle(vlm, "edited_rows"), base

    def edit(self, one: Intervention) -> None:
        spans = self.base.prompt.spans
        keys = spans.image if one.toward == "image" else self.base.region
        queries = {
            "answer": [spans.length - 1], "all": range(spans.length), "image": spans.image.tolist(),
            "question": range(int(spans.image.max()) + 1, spans.length),
        }[one.positions or ""]  # fmt: skip
        for layer, module in enumerate(self.oracle.attentions["lm"]):
            heads = [head.head for head in one.heads if head.layer == layer]
            edits = [Edit(head, list(queries), keys.tolist(), one.alpha or 0) for head in heads]
            module.__dict__[_EDITS] = edits

    def effect(self, one: Intervention) -> float:
        for module in self.oracle.attentions["lm"]:
            module.__dict__.pop(_EDITS, None)
        before = self.oracle.ld(self.base.prompt, one.run)
        self.edit(one)
        return self.oracle.ld(self.base.prompt, one.run) - before


def asked(
    positions: Positions, sets: Sequence[str], toward: Toward = "image"
) -> list[Intervention]:
    return [
        Intervention(HeadSet.parse(heads), "reweight", way, positions, None, alpha, toward)
        for heads in sets
        for way, alpha in (("noising", 0.5), ("denoising", -0.7), ("noising", -1.0))
    ]


def effects(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.effect for one in outcomes]


def compare(vlm: VLM, base: Baseline, changes: Sequence[Intervention], least: float) -> None:
    twin = Twin(vlm, base)
    expected = [twin.effect(one) for one in changes]
    assert max(map(abs, expected)) > least  # a test of changes that do nothing proves nothing
    assert effects(patch(vlm, base, changes)) == pytest.approx(expected, abs=CLOSE)
    if not base.trace.prefills[0].refused:
        alone = [one for one in changes if not one.follows]
        fast = dict(zip(alone, effects(widen(vlm, base, alone)), strict=True))
        slow = dict(zip(changes, expected, strict=True))
        assert list(fast.values()) == pytest.approx([slow[one] for one in alone], abs=CLOSE)


FAMILIES = [name for name in builders.BUILDERS if name != "mllama"] + [*builders.DECODERS]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_attends_as_eager_attention_with_edited_weights(name: str) -> None:
    other = builders.DECODERS.get(name)
    vlm = builders.build(name) if other is None else builders.make(other())
    prompt = builders.prompt_of(vlm)
    scope: Positions = "question" if FAMILIES.index(name) % 2 else "answer"
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, scope))
    base = run_pair(vlm, prompt, keep, exact=True)
    compare(vlm, base, asked(scope, ["0.1", "1.0+1.1", "0.0+1.1"]), 1e-3)


@every_shape
def test_every_shape_and_scope(shape: str) -> None:
    vlm, base = tiny_pair(shape, "lm", suffix=0, exact=True)
    turn = list(SHAPES).index(shape) % 2
    for scope in (("answer", "all"), ("question", "image"))[turn]:
        compare(vlm, base, asked(scope, ["0.1", "1.0+1.1", "0.0+1.1"]), 1e-3)


def test_a_region_is_turned_to(tmp_path: Path) -> None:
    session = hp.open_session(tiny_study(tmp_path), tiny_vlm(SHAPES["wide-heads"]), "question")
    placed, wanted = session.prompt.image_positions, [0, 1, 4, 5]  # the top left quadrant
    assert session.base.region is not None
    assert session.base.region.tolist() == placed[wanted].tolist()
    changes = asked("question", ["0.1", "0.0+1.1"], "region")
    compare(session.vlm, session.base, changes, 1e-3)
    twin = Twin(session.vlm, session.base)
    outcomes = intervene(session, changes)
    assert [one.intervention for one in outcomes] == changes
    assert effects(outcomes) == pytest.approx([twin.effect(one) for one in changes], abs=CLOSE)


def test_padding_is_left_alone() -> None:
    """Queries and keys count from the first token, padding included."""
    vlm, prompt = builders.built("llava")
    padded = _padded(prompt, 5)
    keep = Keep(z=("lm",))
    plain, moved = (run_pair(vlm, one, keep, exact=True) for one in (prompt, padded))
    changes = asked("question", ["0.1", "0.0+1.1"])
    found, expected = (effects(patch(vlm, one, changes)) for one in (moved, plain))
    assert found == pytest.approx(expected, abs=2e-5)


def test_doing_nothing_does_nothing_and_taking_all_away_is_a_cut() -> None:
    vlm, base = tiny_pair("grouped-query", "lm", suffix="question", exact=True)
    heads = HeadSet.parse("0.1")
    none, away = (
        Intervention(heads, "reweight", "noising", "question", None, alpha) for alpha in (0.0, -1.0)
    )
    spans = base.prompt.spans
    (cut,) = knock_out(vlm, base, [Knockout(WITH, heads, spans.question, spans.image, own=True)])
    for run in (patch, widen):
        first, second = run(vlm, base, [none, away])
        assert abs(first.effect) <= 2e-6
        assert second.effect == pytest.approx(cut.effect, abs=2e-5)
    assert abs(cut.effect) > 1e-3


def test_deviations_of_low_precision_agree_with_whole_passes() -> None:
    vlm, base = tiny_pair(
        "grouped-query", "lm", suffix="question", dtype=torch.bfloat16, exact=True
    )
    changes = [one for one in asked("question", ["0.1", "1.0+1.1"]) if not one.follows]
    slow, fast = effects(patch(vlm, base, changes)), effects(widen(vlm, base, changes))
    assert base.trace.prefills[0].points is not None
    assert fast == pytest.approx(slow, abs=0.02 * max(map(abs, slow)))


def test_heads_of_several_layers_act_on_one_another() -> None:
    vlm, base = tiny_pair("plain", "lm", suffix="question", exact=True)
    (together,) = asked("question", ["0.1+2.0"])[:1]
    assert together.follows
    with pytest.raises(ValueError, match="plain passes"):
        widen(vlm, base, [together])


@pytest.mark.parametrize("shape", ["plain", "grouped-query"])
def test_decoding_steps_are_re_weighted_too(shape: str) -> None:
    """With a cache, token for token what the twin says that reads all of it anew each time."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm).select(WITH)
    base = run_pair(vlm, tiny_prompt(vlm))
    first, steps, image = prompt.spans.answer, 6, prompt.spans.image
    heads, taps = HeadSet.parse("0.1+1.0+1.2"), defaultdict(Site)
    cut = Cut(0, heads, torch.arange(first, first + steps), image, factor=0.02)
    for _, layer, numbers in edges_by_layer(vlm, cut):
        taps[vlm.lm.attentions[layer]].cuts.append((cut, numbers))
    stop = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False}
    with tapped(vlm.parts, taps):
        found = vlm.model.generate(**prompt.inputs, **stop)[0]
    twin = Twin(vlm, base)
    for layer, module in enumerate(twin.oracle.attentions["lm"]):
        module.__dict__[_EDITS] = [
            Edit(head.head, range(first, first + steps), image.tolist(), -0.98)
            for head in heads
            if head.layer == layer
        ]
    anew = twin.oracle.model.generate(**prompt.inputs, **stop, use_cache=False)[0]
    assert found.tolist() == anew.tolist()
    untouched = vlm.model.generate(**prompt.inputs, **stop)[0]
    assert found.tolist() != untouched.tolist()  # else nothing was tested


def test_refusals(tmp_path: Path) -> None:
    vlm = builders.build("mllama")
    pair = hp.make_pair(*image_pair((84, 56)), "Is it red?", "top-left")
    session = hp.open_session(hp.Study().override({"force": True}), vlm, "answer", pair)
    for ask in (partial(hp.ablate, session, "0.1"), partial(hp.sweep, session)):
        with pytest.raises(InputError, match="looks at the image by cross-attention"):
            ask(kinds=["reweight"])
    for flags, words in (
        ({"ablate.kinds": ("reweight",), "ablate.heads": "v0.1"}, "of vision heads"),
        ({"sweep.kinds": ("reweight",), "sweep.tower": "vision"}, "vision tower"),
        ({"sweep.kinds": ("reweight",), "sweep.approx": True}, "gradients give estimates"),
        ({"ablate.kinds": ("reweight",), "ablate.alpha": -1.5}, "at least -1"),
        ({"ablate.kinds": ("reweight",), "ablate.alpha": (0, -2)}, "at least -1"),
        ({"combine.kinds": ("reweight",)}, "combine.kinds|--kinds"),
    ):
        with pytest.raises(InputError, match=words) as error:
            hp.Study().override(flags)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match="language-model heads"):
        Intervention(HeadSet.parse("v0.1"), "reweight", "noising", alpha=0.5)


def test_attention_that_does_not_give_z_is_refused() -> None:
    _, base = tiny_pair("plain", "lm", suffix="question", exact=True)
    state = base.trace.prefills[0].layers[0]
    with pytest.raises(RunError, match="not what q, k and v give"):
        reweighted(replace(state, z=state.z * 1.01), base.prompt.spans.image, 0.5)


def test_every_verb_that_takes_it_says_to_what(tmp_path: Path) -> None:
    """On the planted circuit: 1.1 reads 45/60 of the object, and 22.5/36 of it by half of that."""
    session = hp.open_session(planted_study(tmp_path), planted().vlm, "answer")
    asked_for = {"kinds": ["reweight"], "alpha": -0.5, "toward": "region"}
    found = hp.ablate(session, "1.1", controls=1, on_progress=False, **asked_for)
    row = found.named.iloc[0]
    assert row["effect"] == pytest.approx((22.5 / 36 - 45 / 60) * 8 / 3, abs=1e-4)
    assert (row["alpha"], row["toward"]) == (-0.5, "region")
    assert found.summary.startswith("Re-weighting the attention of 1.1 to the region by 0.5 (ans")
    swept = hp.sweep(session, noise=1, on_progress=False, **asked_for)
    rows = swept.named.set_index(["heads", "direction"])
    assert rows.loc[("1.1", "noising"), "effect"] == pytest.approx(row["effect"], abs=1e-5)
    assert set(rows["toward"]) == {"region"}
    joint = hp.sweep(session, ["1.1+0.3", "0.3+1.0+1.1"], noise=1, on_progress=False, **asked_for)
    assert joint.named["effect"].notna().all()

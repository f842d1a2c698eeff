"""Generation with heads changed, token for token against plain transformers with hooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from headpatch.engine.forward import Keep
from headpatch.engine.generation import generate_changed
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Baseline, run_pair
from headpatch.heads import Head, HeadSet
from headpatch.models.prompt import encode, forced
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.test_reweighting import _EDITS as EDITS
from tests.engine.test_reweighting import Twin
from tests.families import builders
from tests.tiny import SHAPES, image_pair, tiny_vlm

TOKENS = 6
MODELS = ("grouped-query", "wide-heads", *builders.BUILDERS, *builders.DECODERS)
WAYS: tuple[tuple[str, Positions], ...] = (("zero", "answer"), ("scale", "question"))


def opened(name: str) -> tuple[VLM, Baseline]:
    made = {**builders.BUILDERS, **builders.DECODERS}
    if name in SHAPES or name in made:
        vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else builders.make(made[name]())
    else:
        vlm = builders.build(name)
    if name == "paligemma (2)":  # before transformers 5.20, sdpa leaves out the cap of its scores
        vlm.model.set_attn_implementation("eager")
    prompt = encode(vlm, image_pair((56, 56)), "Is it red?")
    return vlm, run_pair(vlm, prompt, Keep(z=("lm",)))


@contextmanager
def hooked(vlm: VLM, heads: Sequence[Head], at: Tensor, prompt: int, change: Any) -> Iterator[None]:
    """Change what enters the output projections, by a plain hook on each."""
    width = vlm.lm.head_dim

    def of(head: Head) -> Any:
        mine = slice(head.head * width, (head.head + 1) * width)

        def edit(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].clone()
            where = at if z.shape[1] == prompt else torch.tensor([0])
            z[:, where, mine] = change(head, z[:, where, mine], z.shape[1] == prompt)
            return (z, *args[1:])

        return edit

    handles = [vlm.lm.outputs[head.layer].register_forward_pre_hook(of(head)) for head in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def said(vlm: VLM, base: Baseline, cache: bool = True) -> list[int]:
    """What plain transformers says, greedily, up to the first special token."""
    one, given = base.prompt.select(0), vlm.model.generation_config
    ids = {name: getattr(given, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vlm.model.generation_config = GenerationConfig(**ids)
    try:
        found = vlm.model.generate(
            **one.inputs, max_new_tokens=TOKENS, do_sample=False, use_cache=cache
        )
    finally:
        vlm.model.generation_config = given
    special = {*vlm.processor.tokenizer.all_special_ids, given.eos_token_id}
    row = found[0, one.spans.length :].tolist()
    return row[: next((at for at, token in enumerate(row) if token in special), len(row))]


@pytest.mark.parametrize(
    ("name", "kind", "scope"),
    [(name, *WAYS[at % 2]) for at, name in enumerate(MODELS)] + [("wide-heads", *WAYS[0])],
)
def test_what_is_said_is_what_hooks_make_transformers_say(
    name: str, kind: str, scope: Positions
) -> None:
    vlm, base = opened(name)
    grid, alpha = vlm.lm.grid, -2.0
    heads = [Head(layer, layer % grid.heads) for layer in range(grid.layers)]
    sets = [HeadSet.of(heads[0]), HeadSet(tuple(grid)), HeadSet(tuple(heads))]
    asked = [Intervention(one, kind, "noising", scope, alpha=alpha) for one in sets]
    found = generate_changed(vlm, base, asked, TOKENS)
    assert found[0] == said(vlm, base)
    at, length = base.prompt.spans.positions(scope), base.prompt.spans.length

    def change(head: Head, own: Tensor, in_prompt: bool) -> Tensor:
        if kind == "zero":
            return torch.zeros_like(own)
        if in_prompt:  # of the untouched run, as everywhere
            return alpha * base.trace.z["lm"][head.layer][0, at, head.head]
        return alpha * own

    for members, ids in zip(sets, found[1:], strict=True):
        with hooked(vlm, list(members), at, length, change):
            assert ids == said(vlm, base), str(members)
    assert any(ids != found[0] for ids in found[1:])


def test_a_cache_changes_nothing_that_is_said() -> None:
    """Without a cache every token is read anew: z changes at all of them, by hand."""
    vlm, base = opened("grouped-query")
    heads, answer = list(vlm.lm.grid)[:3], base.prompt.spans.answer
    width = vlm.lm.head_dim

    def of(head: Head) -> Any:
        def edit(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].clone()
            z[:, answer:, head.head * width : (head.head + 1) * width] = 0
            return (z, *args[1:])

        return edit

    handles = [vlm.lm.outputs[one.layer].register_forward_pre_hook(of(one)) for one in heads]
    expected = said(vlm, base, cache=False)
    for handle in handles:
        handle.remove()
    asked = Intervention(HeadSet(tuple(heads)), "zero", "noising")
    assert generate_changed(vlm, base, [asked], TOKENS)[1] == expected


def test_changes_may_end_with_the_prompt() -> None:
    vlm, base = opened("grouped-query")
    heads = list(vlm.lm.grid)
    at, length = torch.tensor([base.prompt.spans.answer]), base.prompt.spans.length
    asked = Intervention(HeadSet(tuple(heads)), "resample", "noising")
    (_, found) = generate_changed(vlm, base, [asked], TOKENS, through_text=False)

    def change(head: Head, own: Tensor, in_prompt: bool) -> Tensor:
        return base.trace.z["lm"][head.layer][1, at, head.head] if in_prompt else own

    with hooked(vlm, heads, at, length, change):
        assert found == said(vlm, base)
    with pytest.raises(ValueError, match="no z at a token"):
        generate_changed(vlm, base, [asked], TOKENS)


def test_means_stand_at_every_token_and_batches_change_nothing() -> None:
    vlm, base = opened("wide-heads")
    heads = list(vlm.lm.grid)
    means = {"lm": [z.mean(0) for z in base.trace.z["lm"]]}
    asked = [Intervention(HeadSet.of(head), "mean", "noising") for head in heads]
    together = generate_changed(vlm, base, asked, TOKENS, means=means)
    assert len(together) == len(asked) + 1 > 8  # more than one batch
    at, length = torch.tensor([base.prompt.spans.answer]), base.prompt.spans.length
    for head, ids in list(zip(heads, together[1:], strict=True))[::3]:
        put = means["lm"][head.layer][-1, head.head]
        with hooked(vlm, [head], at, length, lambda *_, put=put: put):
            assert ids == said(vlm, base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_computed_with_in_float32(dtype: torch.dtype) -> None:
    """The first token is that of `patch`, which does so too; nothing is left changed."""
    from headpatch.engine.patching import patch

    vlm = tiny_vlm(SHAPES["grouped-query"], dtype=dtype)
    prompt = encode(vlm, image_pair(), "Is it red?")
    base = run_pair(vlm, prompt, Keep(z=("lm",)), exact=True)
    asked = [Intervention(HeadSet.of(head), "zero", "noising") for head in vlm.lm.grid]
    found = generate_changed(vlm, base, asked, 2)
    tokens = [one.token for one in patch(vlm, base, asked)]
    special = {*vlm.processor.tokenizer.all_special_ids}
    firsts = [ids[0] if ids else None for ids in found[1:]]
    assert firsts == [None if token in special else token for token in tokens]
    assert vlm.model.dtype == dtype


@torch.no_grad()
def re_read(vlm: VLM, base: Baseline, one: Intervention) -> list[int]:
    """What eager attention with edited weights says, every token read anew, without a cache."""
    twin = Twin(vlm, base)
    twin.edit(one)
    first = base.prompt.spans.length
    later = range(first, first + TOKENS)
    for module in twin.oracle.attentions["lm"]:
        edits = module.__dict__[EDITS]
        module.__dict__[EDITS] = [replace(each, queries=[*each.queries, *later]) for each in edits]
    given = vlm.model.generation_config
    special = {*vlm.processor.tokenizer.all_special_ids, given.eos_token_id}
    prompt, found = base.prompt.select(0), list[int]()
    while len(found) < TOKENS:
        likeliest = int(twin.oracle.model(**prompt.inputs, use_cache=False).logits[0, -1].argmax())
        if likeliest in special:
            break
        found.append(likeliest)
        prompt = forced(vlm, base.prompt.select(0), found)
    return found


REREAD = [name for name in MODELS if name != "mllama"]  # it looks at the image across


@pytest.mark.parametrize("name", REREAD)
def test_attention_is_re_weighted_at_every_token_that_is_said(name: str) -> None:
    scope: Positions = "question" if REREAD.index(name) % 2 else "answer"
    vlm, base = opened(name)
    grid = vlm.lm.grid
    sets = [HeadSet.of(Head(0, 1)), HeadSet(tuple(grid))]
    asked = [
        Intervention(one, "reweight", "noising", scope, alpha=alpha)
        for one in sets
        for alpha in (-1.0, 8.0)
    ]
    found = generate_changed(vlm, base, asked, TOKENS)
    assert found[0] == said(vlm, base)
    for one, ids in zip(asked, found[1:], strict=True):
        assert ids == re_read(vlm, base, one), (str(one.heads), one.alpha)
    assert any(ids != found[0] for ids in found[1:])


SPEAKS = 1  # a seed whose model says no end at once


def test_a_cache_with_a_window_keeps_keys_in_their_places() -> None:
    """Gemma 3's window, made so short that the cache lets go of the image as words are said."""
    vlm = builders.make(builders.BUILDERS["gemma3"](), SPEAKS)
    config = vlm.model.config.get_text_config()
    prompt = encode(vlm, image_pair((56, 56)), "Is it red?")
    config.sliding_window = prompt.spans.length - int(prompt.spans.image.min()) - 1
    for module in vlm.lm.attentions:
        if getattr(module, "sliding_window", None):
            module.sliding_window = config.sliding_window
    base = run_pair(vlm, prompt, Keep(z=("lm",)))
    every = HeadSet(tuple(vlm.lm.grid))
    asked = [
        Intervention(every, "reweight", "noising", "answer", alpha=alpha) for alpha in (-1.0, 8.0)
    ]
    found = generate_changed(vlm, base, asked, TOKENS)
    assert found[1:] == [re_read(vlm, base, one) for one in asked]
    assert found[1] != found[0] or found[2] != found[0]


def test_what_stands_before_the_projection_is_what_is_changed() -> None:
    """Qwen3.5's gate lies between attention and z, in the prompt and at every token."""
    vlm, base = opened("qwen3_5")
    heads = list(vlm.lm.grid)
    means = {"lm": [3 * z.mean(0) for z in base.trace.z["lm"]]}
    sets = [HeadSet(tuple(heads)), HeadSet(tuple(heads[:4])), HeadSet(tuple(heads[4:]))]
    asked = [Intervention(one, "mean", "noising") for one in sets]
    found = generate_changed(vlm, base, asked, TOKENS, means=means)
    at, length = torch.tensor([base.prompt.spans.answer]), base.prompt.spans.length
    for members, ids in zip(sets, found[1:], strict=True):
        put = lambda head, *_: means["lm"][head.layer][-1, head.head]  # noqa: E731
        with hooked(vlm, list(members), at, length, put):
            assert ids == said(vlm, base), str(members)
    assert any(ids != found[0] for ids in found[1:])

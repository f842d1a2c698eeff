"""Weights in 8 and 4 bits: the numbers that they stand for, and nothing else rounded.

Rounding is done again by hand; the oracle of everything else is a plain model with ordinary layers
of the same numbers, run by eager transformers.
"""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import HeadSet
from headpatch.models.load import load
from headpatch.models.placement import quantized
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.command import done
from tests.engine.oracle import Change, Oracle
from tests.tiny import image_pair, save_tiny, tiny_model, tiny_processor, tiny_prompt

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

BITS = ("8bit", "4bit")
DIRECTIONS = get_args(Direction)
every_width = pytest.mark.parametrize("bits", BITS)
every_scope = pytest.mark.parametrize("scope", ["answer", "all"])  # behind a prefix, and without

# Dettmers et al., QLoRA, 2023, arXiv:2305.14314, appendix E.
NF4 = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


def by_hand(weight: Tensor, bits: str) -> tuple[Tensor, Tensor]:
    """Round to 255 steps of each row's largest, or to NF4 in blocks of 64; and how coarse that is.

    Where a number lies halfway, bitsandbytes may round it to the other side.
    """
    if bits == "8bit":
        half = weight.half().float()  # bitsandbytes takes weights as such
        step = half.abs().amax(1, keepdim=True) / 127
        return (half / step).round() * step, step.expand_as(weight)
    flat = nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    largest = flat.abs().amax(1, keepdim=True)
    nearest = (flat[..., None] / largest[..., None] - NF4).abs().argmin(-1)
    found = torch.stack([NF4[nearest] * largest, largest.expand_as(flat) * NF4.diff().max()])
    whole, step = found.flatten(1)[:, : weight.numel()].view(2, *weight.shape)
    return whole, step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[tuple[str, str], VLM]:
    return {
        (bits, dtype): load(str(folder), "cpu", dtype, quantize=bits)
        for bits in BITS
        for dtype in ("float32", "bfloat16")
    }


def plain_twin(vlm: VLM) -> VLM:
    """The same model with ordinary linear layers, of the numbers that are stored."""
    model = tiny_model()
    twin = VLM(model, tiny_processor(), "twin", "")
    for ours, theirs in zip(linears(vlm), linears(twin), strict=True):
        theirs.weight.data = ours.weight.data
    return twin


def linears(vlm: VLM) -> list[nn.Linear]:
    return [one for one in vlm.model.model.modules() if isinstance(one, nn.Linear)]


def kept(vlm: VLM, scope: Positions) -> Baseline:
    prompt = tiny_prompt(vlm)
    keep = Keep(z=("lm", "vision"), suffix=suffix_start(prompt.spans, scope))
    return run_pair(vlm, prompt, keep, exact=True)


def everything(vlm: VLM, scope: Positions) -> list[Intervention]:
    return [
        Intervention(HeadSet.of(head), kind, direction, scope)
        for head in vlm.lm.grid
        for kind in ("zero", "resample", "self")
        for direction in DIRECTIONS
    ]


def both_paths(
    vlm: VLM, base: Baseline, asked: list[Intervention], batch: int = 64
) -> tuple[Tensor, Tensor]:
    found = patch(vlm, base, asked, batch=batch), widen(vlm, base, asked)
    slow, fast = (torch.tensor([one.effect for one in outcomes]) for outcomes in found)
    return slow, fast


@every_width
def test_weights_are_the_numbers_that_are_stored(
    bits: str, models: dict[tuple[str, str], VLM]
) -> None:
    vlm, model = models[bits, "float32"], tiny_model()
    assert quantized(vlm.model) and not quantized(model)
    found, before = linears(vlm), linears(VLM(model, tiny_processor(), "", ""))
    assert len(found) > 30  # of the language model, the tower and the projector
    for ours, theirs in zip(found, before, strict=True):
        wanted, step = by_hand(theirs.weight.data, bits)
        apart = (ours.weight - wanted).abs()
        assert (apart <= 1e-5 + 1.01 * step).all()
        assert (apart > 1e-5).float().mean() < 0.01
        stored = sum(one.numel() * one.element_size() for one in ours.parameters() if one.ndim > 1)
        assert stored == theirs.weight.numel() * int(bits[0]) / 8
    assert vlm.model.num_parameters() == model.num_parameters()


@every_width
def test_edits_of_z_match_hooks_in_a_plain_twin(
    bits: str, models: dict[tuple[str, str], VLM]
) -> None:
    vlm = models[bits, "float32"]
    base, oracle = kept(vlm, "all"), Oracle(plain_twin(vlm))
    prompt = base.prompt
    z = oracle.z(prompt.select(WITHOUT).inputs)
    inputs, at = prompt.select(WITH).inputs, prompt.spans.positions("all")

    def ld(changes: list[Change]) -> float:
        logits = oracle.logits(inputs, changes)[0]
        return float(logits[prompt.answers.yes] - logits[prompt.answers.no])

    untouched = ld([])
    assert base.ld_with == pytest.approx(untouched, abs=2e-5)
    assert vlm.vision is not None
    heads = [*vlm.lm.grid, next(iter(vlm.vision.grid))]
    asked = [Intervention(HeadSet.of(head), "resample", "noising", "all") for head in heads]
    largest = 0.0
    for head, one in zip(heads, patch(vlm, base, asked), strict=True):
        other = z[head.tower][head.layer][0, :, head.head]
        where = at.tolist() if head.tower == "lm" else range(len(other))
        effect = ld([Change(head, where, other)]) - untouched
        assert one.effect == pytest.approx(effect, abs=2e-5), head
        largest = max(largest, abs(effect))
    assert largest > 0.1


@every_scope
@every_width
def test_the_widening_pass_equals_the_plain_path(
    bits: str, scope: Positions, models: dict[tuple[str, str], VLM]
) -> None:
    vlm = models[bits, "float32"]
    base = kept(vlm, scope)
    assert check(vlm, base, scope).exact
    asked = everything(vlm, scope)
    slow, fast = both_paths(vlm, base, asked)
    assert (fast - slow).abs().max() < 2e-5 < 0.1 < slow.abs().max()
    alone, _ = both_paths(vlm, base, asked[::5], batch=2)
    assert (alone - slow[::5]).abs().max() < 2e-5  # a row does not depend on those beside it


@every_scope
@every_width
def test_deviations_carry_the_error_of_their_own_products(
    bits: str, scope: Positions, models: dict[tuple[str, str], VLM]
) -> None:
    """Over bfloat16 beside the stored weights, as `test_widen` has it without them."""
    vlm = models[bits, "bfloat16"]
    base = kept(vlm, scope)
    assert base.trace.prefills[0].points is not None
    assert check(vlm, base, scope).exact
    asked = everything(vlm, scope)
    slow, fast = both_paths(vlm, base, asked)
    assert (fast - slow).abs().max() < 16 * 2**-8 * slow.abs().max()
    selves = torch.tensor([one.kind == "self" for one in asked])
    assert fast[selves].abs().max() < 1e-6


@every_width
def test_a_checkpoint_that_is_stored_so_loads_as_such(
    bits: str, folder: Path, tmp_path: Path, models: dict[tuple[str, str], VLM]
) -> None:
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    way = BitsAndBytesConfig(**{f"load_in_{bits}": True, "bnb_4bit_quant_type": "nf4"})
    stored = AutoModelForImageTextToText.from_pretrained(
        folder, quantization_config=way, device_map={"": "cpu"}
    )
    stored.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    vlm, wanted = load(str(tmp_path), "cpu"), models[bits, "float32"]
    prompt = tiny_prompt(vlm)
    torch.testing.assert_close(
        forward(vlm, prompt).logits, forward(wanted, prompt).logits, atol=1e-5, rtol=0
    )


def test_the_command_line_takes_it_and_says_so(folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("with.png", "without.png")]
    for picture, path in zip(image_pair(), paths, strict=True):
        picture.save(path)
    pictures = ["--with", paths[0], "--without", paths[1]]
    found = done("check", "--model", folder, *pictures, "--quantize", "4bit", "--json").json
    assert "Weights are stored in fewer bits" in " ".join(found["limits"])
    assert all(scope["exact"] for scope in found["positions"].values())
    assert found["parameters"] == tiny_model().num_parameters()

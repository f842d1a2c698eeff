"""Integrated gradients: against a pass a point, where they tend to, and where they are exact."""

from dataclasses import replace

import pytest
import torch

from headpatch.engine.attribution import Gradients, attribute, gradients, integrated
from headpatch.engine.interventions import WITH, WITHOUT, Direction
from headpatch.errors import InputError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from tests.planted import HEADS, planted
from tests.tiny import every_shape, tiny_pair

TOWERS: tuple[Tower, ...] = ("lm", "vision")


def point(prompt: Prompt, share: float) -> Prompt:
    """One run whose picture lies between those of the two runs: 0 without, 1 with."""
    present, absent = (prompt.select(run).inputs for run in (WITH, WITHOUT))
    pixels = (1 - share) * absent["pixel_values"] + share * present["pixel_values"]
    return replace(prompt, inputs={**present, "pixel_values": pixels}, runs=1)


def slowly(vlm: VLM, prompt: Prompt, tower: Tower, steps: int) -> list[list[torch.Tensor]]:
    """By run and layer: the mean slope over the points of EAP-IG's line that ends in this run."""
    slopes = []
    for run in (WITH, WITHOUT):
        line = [k / steps if run == WITH else 1 - k / steps for k in range(1, steps + 1)]
        each = [gradients(vlm, point(prompt, share), (tower,)).slope[tower] for share in line]
        slopes.append([torch.stack(layer).mean(0)[0] for layer in zip(*each, strict=True)])
    return slopes


@every_shape
@pytest.mark.parametrize("tower", TOWERS)
def test_as_a_pass_a_point_has_it(shape: str, tower: Tower) -> None:
    vlm, base = tiny_pair(shape, tower)
    ends = gradients(vlm, base.prompt, (tower,))
    found = integrated(vlm, base.prompt, ends, 4, (tower,))
    for run, layers in enumerate(slowly(vlm, base.prompt, tower, 4)):
        for layer, slope in enumerate(layers):
            torch.testing.assert_close(found.slope[tower][layer][run], slope, atol=1e-6, rtol=1e-4)
    one = integrated(vlm, base.prompt, ends, 1, (tower,))
    for ours, theirs in zip(one.slope[tower], ends.slope[tower], strict=True):
        assert torch.equal(ours, theirs)


def estimates(pair: Gradients, direction: Direction) -> torch.Tensor:
    return attribute(pair, "resample", direction)["lm"].sum(-1)


def test_more_steps_tend_to_the_integral() -> None:
    vlm, base = tiny_pair("grouped-query", "lm")
    ends = gradients(vlm, base.prompt, ("lm",))
    most = estimates(integrated(vlm, base.prompt, ends, 128, ("lm",)), "noising")
    apart = [
        float((estimates(integrated(vlm, base.prompt, ends, n, ("lm",)), "noising") - most).norm())
        for n in (1, 4, 16)
    ]
    assert apart[1] < apart[0] / 2
    assert apart[2] < apart[1] / 2


def test_a_linear_head_gets_its_exact_effect_and_a_saturated_one_is_seen() -> None:
    """LD is linear in what the looker writes; of the redundant pair a clamp takes the sum."""
    made = planted()
    ends = gradients(made.vlm, made.prompt, ("lm",))
    along = integrated(made.vlm, made.prompt, ends, 16, ("lm",))
    looker, redundant = HEADS["looker"].head, HEADS["redundant a"].head
    answer = made.prompt.spans.answer
    for direction, sign in (("noising", -1), ("denoising", 1)):
        found = attribute(along, "resample", direction)["lm"]
        assert float(found[looker.layer, looker.head, answer]) == pytest.approx(sign * 2, abs=2e-3)
    at_the_end, mean = (
        float(attribute(pair, "resample", "noising")["lm"][redundant.layer, redundant.head, answer])
        for pair in (ends, along)
    )
    assert abs(at_the_end) < 1e-3  # flat at both ends: one gradient sees nothing
    assert mean < -0.1


def test_two_prompts_have_no_line_between_them() -> None:
    vlm, base = tiny_pair("plain", "lm")
    ids = base.prompt.inputs["input_ids"].clone()
    ids[1, -1] = ids[1, -2]
    other = replace(base.prompt, inputs={**base.prompt.inputs, "input_ids": ids})
    with pytest.raises(InputError, match="--ig: two prompts"):
        integrated(vlm, other, gradients(vlm, base.prompt, ("lm",)), 3, ("lm",))

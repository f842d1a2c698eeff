"""Paths to heads against hooks on the projections of eager transformers, and by hand."""

import pytest
import torch

from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.engine.pathpatch import Sender, answer_z, hear
from headpatch.engine.residual import Put, record
from tests.engine.oracle import Oracle
from tests.families.builders import BUILDERS, built
from tests.planted import HEADS, planted
from tests.tiny import SHAPES, every_shape, tiny_prompt, tiny_vlm


@every_shape
@pytest.mark.parametrize("heard", [("query",), ("key",), ("value",), ("key", "value")])
def test_inputs_from_the_other_run_equal_hooks_on_projections(
    shape: str, heard: tuple[str, ...]
) -> None:
    """The oracle replaces what q_proj, k_proj or v_proj gives, and reads the answer's z."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    layer, spans = 1, prompt.spans
    places = torch.cat([spans.image[1:6], spans.question[-1:]])
    inputs = hear(vlm, prompt, [layer])[layer]
    sender = Sender(inputs, WITHOUT, places)
    found = answer_z(inputs, WITH, **dict.fromkeys(heard, sender))

    oracle = Oracle(vlm)
    module = oracle.attentions["lm"][layer]
    projections = {"query": module.q_proj, "key": module.k_proj, "value": module.v_proj}
    other: dict[str, torch.Tensor] = {}

    def swap(name: str):
        """Keep what a projection gives first, and put it into what it gives later."""

        def hook(_, __, output):
            if name not in other:
                other[name] = output
                return output
            output = output.clone()
            output[:, places] = other[name][:, places]
            return output

        return hook

    for name in heard:
        projections[name].register_forward_hook(swap(name))
    oracle.logits(prompt.select(WITHOUT).inputs)
    expected = oracle.z(prompt.select(WITH).inputs)["lm"][layer][0, -1]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)
    plain = answer_z(inputs, WITH)
    assert (found - plain).abs().max() > 1e-4  # else nothing was tested


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "mllama"])
def test_all_inputs_together_are_the_other_run(name: str) -> None:
    vlm, prompt = built(name)
    layers = list(range(vlm.lm.grid.layers))
    heard = hear(vlm, prompt, layers)
    z = forward(vlm, prompt, keep=Keep(z=("lm",))).z["lm"]
    every = torch.arange(prompt.spans.length)
    for layer in layers:
        inputs = heard[layer]
        for run in (WITH, WITHOUT):
            other = Sender(inputs, 1 - run, every)
            own = answer_z(inputs, run)
            torch.testing.assert_close(own, z[layer][run, -1], atol=2e-5, rtol=1e-4)
            swapped = answer_z(inputs, run, query=other, key=other, value=other)
            torch.testing.assert_close(swapped, z[layer][1 - run, -1], atol=2e-5, rtol=1e-4)


def test_what_is_put_into_the_stream_is_heard() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    streams = record(vlm, prompt)
    image = prompt.spans.image
    puts = [Put(run, "lm", 1, image, streams["lm"][1][1 - run, image]) for run in (WITH, WITHOUT)]
    plain, heard = hear(vlm, prompt, [1])[1], hear(vlm, prompt, [1], puts)[1]
    question = prompt.spans.question
    for own, other in ((plain.key, heard.key), (plain.value, heard.value)):
        torch.testing.assert_close(
            other[:, :, image], own.flip(0)[:, :, image], atol=1e-5, rtol=1e-4
        )
        assert torch.equal(other[:, :, question], own[:, :, question])


def test_the_planted_looker_hears_values_and_keys() -> None:
    """By hand: with found-odds 45 it gives the object 3/4; values alone scale with attention."""
    made = planted()
    looker = HEADS["looker"].head
    inputs = hear(made.vlm, made.prompt, [looker.layer])[looker.layer]
    region = made.prompt.image_positions[[0, 1, 4, 5]]

    def share(run: int, **senders: Sender) -> float:
        return float(answer_z(inputs, run, **senders)[looker.head, 0])

    present, absent = Sender(inputs, WITH, region), Sender(inputs, WITHOUT, region)
    found = [share(WITH), share(WITH, value=absent), share(WITH, key=absent)]
    assert found == pytest.approx([3 / 4, 0, 1 / 16], abs=1e-3)  # 45 of 60, and 1 read there
    ways = [{"value": present}, {"key": present}, {"key": present, "value": present},
            {"query": present}]  # fmt: skip
    found = [share(WITHOUT, **way) for way in ways]
    assert found == pytest.approx([1 / 16, 0, 3 / 4, 0], abs=1e-3)

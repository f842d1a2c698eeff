"""The numpy oracle and the engine agree on random models: two implementations, one answer."""

import numpy as np
import pytest

from headpatch.engine.forward import Keep, forward
from tests.engine.numpy_llava import run
from tests.tiny import SHAPES, Shape, tiny_prompt, tiny_vlm


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_rows_and_z_equal_the_formulas(shape: Shape) -> None:
    vlm = tiny_vlm(shape)
    prompt = tiny_prompt(vlm)
    trace = forward(vlm, prompt, keep=Keep(lm_rows=True, vision_rows=True, z=("lm",)))
    assert trace.lm_rows is not None
    assert trace.vision_class_rows is not None
    assert trace.vision_patch_rows is not None
    pixels = prompt.inputs["pixel_values"].double().numpy()
    for index in range(2):
        exact = run(vlm.model, prompt.input_ids.numpy(), pixels[index])
        rows, vision = np.stack(exact.rows), np.stack(exact.vision_rows)
        np.testing.assert_allclose(trace.logits[index], exact.logits, atol=2e-5, rtol=0)
        np.testing.assert_allclose(trace.lm_rows[index], rows[:, :, -1], atol=1e-6, rtol=0)
        np.testing.assert_allclose(
            trace.vision_class_rows[index], vision[:, :, 0], atol=1e-6, rtol=0
        )
        np.testing.assert_allclose(
            trace.vision_patch_rows[index], vision[:, :, 1:].mean(2), atol=1e-6, rtol=0
        )
        for ours, theirs in zip(trace.z["lm"], exact.z, strict=True):
            np.testing.assert_allclose(ours[index], theirs.transpose(1, 0, 2), atol=1e-5, rtol=0)

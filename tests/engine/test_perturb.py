"""Pictures with patches replaced, against loops over pixels and the model itself."""

from functools import partial

import numpy as np
import pytest
import torch

from headpatch.engine.perturb import (
    differing,
    lds,
    mean_colour,
    patch_side,
    pictures,
    replaced_patches,
)
from headpatch.errors import InputError
from tests.engine.oracle import Oracle
from tests.families import builders
from tests.tiny import PATCH, tiny_prompt, tiny_vlm

GRID = (4, 4)


def test_patches_are_replaced_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    own, fill = torch.rand(2, 1, 3, 59, 60, generator=generator)  # 3 and 4 pixels left over
    chosen = torch.rand(2, 16, generator=generator) < 0.4
    found = replaced_patches(own, fill, chosen, GRID, PATCH)
    for picture in range(2):
        expected = own[0].clone()
        for patch in np.flatnonzero(chosen[picture].numpy()):
            y, x = divmod(int(patch), 4)
            square = np.s_[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            expected[square] = fill[0][square]
        assert torch.equal(found[picture], expected)
        assert torch.equal(
            differing(own, found[picture : picture + 1], GRID, PATCH), chosen[picture]
        )


def test_every_patch_replaced_is_the_other_run() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    own, other = pictures(vlm, prompt)
    assert patch_side(vlm, prompt) == PATCH
    masks = [torch.zeros(1, 16, dtype=torch.bool), torch.ones(1, 16, dtype=torch.bool)]
    shown = [partial(replaced_patches, own, other, mask, GRID, PATCH) for mask in masks]
    oracle = Oracle(vlm, "sdpa")
    expected = [oracle.ld(prompt, run) for run in (0, 1)]
    calls: list[tuple[int, int]] = []
    found = lds(vlm, prompt.select(0), shown * 3, lambda *call: calls.append(call), batch=4)
    assert found == pytest.approx(expected * 3, abs=2e-5)
    assert calls == [(4, 6), (6, 6)]


def test_a_grey_picture_has_its_mean() -> None:
    own = torch.rand(1, 3, 8, 8)
    grey = mean_colour(own)
    torch.testing.assert_close(grey.mean((2, 3)), own.mean((2, 3)))
    assert grey.flatten(2).std(2).max() == 0


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "internvl"])
def test_a_picture_in_parts_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="in parts"):
        pictures(*builders.built(name))


@pytest.mark.parametrize("name", ["gemma3", "mistral3", "paligemma", "llava (pixtral)"])
def test_pooled_patches_are_as_large_as_a_token(name: str) -> None:
    vlm, prompt = builders.built(name)
    (own, _), side = pictures(vlm, prompt), patch_side(vlm, prompt)
    assert (own.shape[2] // side, own.shape[3] // side) == prompt.patches.grid

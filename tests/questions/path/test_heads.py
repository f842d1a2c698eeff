"""Paths to the planted heads, with numbers worked out by hand."""

from functools import lru_cache

import numpy as np
import pytest

from headpatch.heads import HeadSet
from headpatch.questions.path.heads import HeadPaths, head_paths
from tests.planted import HEADS
from tests.questions.path.case import CLOSE, opened


@lru_cache
def paths() -> HeadPaths:
    names = ("looker", "blind writer", "note reader")
    return head_paths(opened(), [HEADS[name].head for name in names])


def path_of(found: HeadPaths, direction: str, inputs: str, sender: str, heads: str) -> float:
    return float(
        found.shares[direction][
            found.ways.index((inputs, sender)), found.sets.index(HeadSet.parse(heads))
        ]
    )


@pytest.mark.parametrize(
    ("direction", "inputs", "sender", "head", "votes"),
    [
        ("noising", "all", "all", "looker", 2),
        ("noising", "values", "region", "looker", 2),
        ("noising", "values", "other", "looker", 0),
        ("noising", "query", "answer", "looker", 0),
        ("noising", "keys", "region", "looker", 2 - 8 / 3 / 16),  # looks evenly at 16 patches
        ("noising", "query+keys", "all", "looker", 2 - 8 / 3 / 16),
        ("denoising", "values", "region", "looker", 8 / 3 / 16),
        ("denoising", "keys", "region", "looker", 0),
        ("denoising", "keys+values", "region", "looker", 2),
        ("denoising", "keys+values", "region, straight", "looker", 2),
        ("denoising", "keys+values", "other, straight", "looker", 0),
        ("noising", "keys", "region", "blind writer", 0),
        ("noising", "values", "region", "blind writer", 1),
        ("noising", "values", "words", "note reader", 1),
        ("noising", "values", "region", "note reader", 0),
        ("noising", "none", "itself", "looker", 0),
    ],
)
def test_what_planted_heads_hear(
    direction: str, inputs: str, sender: str, head: str, votes: float
) -> None:
    found = path_of(paths(), direction, inputs, sender, str(HEADS[head].head))
    assert found == pytest.approx(votes / 8, abs=CLOSE)


def test_paths_to_several_heads_and_from_vision_layers() -> None:
    found = paths()
    joint = str(found.sets[-1])
    assert path_of(found, "noising", "values", "region", joint) == pytest.approx(3 / 8, abs=CLOSE)
    curve = found.vision_shares["denoising"]
    assert curve[:, 0] == pytest.approx([2 / 8, 2 / 8, 0], abs=CLOSE)  # the looker's
    assert curve[:, -1] == pytest.approx([3 / 8, 3 / 8, 0], abs=CLOSE)
    np.testing.assert_allclose(found.vision_effects["denoising"], 8 * curve, atol=8 * CLOSE)
    assert found.noise_floor < 1e-4

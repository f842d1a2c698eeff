"""Paths to the planted heads, with numbers worked out by hand."""

from functools import lru_cache

import pytest

from headpatch.questions.path.heads import HeadPaths, head_paths
from tests.planted import HEADS
from tests.questions.path.case import CLOSE, opened

LOOKER, BLIND, READER = (
    str(HEADS[name].head) for name in ("looker", "blind writer", "note reader")
)
ALL = "0.2+1.1+2.0"
VISION = "keys+values from region of the vision layer"


@lru_cache
def paths() -> HeadPaths:
    return head_paths(
        opened(), [HEADS[name].head for name in ("looker", "blind writer", "note reader")]
    )


def shares(direction: str, where: str, heads: str) -> list[float]:
    rows = [row[-1] for row in paths().rows if row[3:6] == (where, heads, direction)]
    return [float(share) for share in rows]


@pytest.mark.parametrize(
    ("direction", "where", "heads", "votes"),
    [
        ("noising", "all from all", LOOKER, 2),
        ("noising", "values from region", LOOKER, 2),
        ("noising", "values from other", LOOKER, 0),
        ("noising", "query from answer", LOOKER, 0),
        ("noising", "keys from region", LOOKER, 2 - 8 / 3 / 16),  # looks evenly at 16 patches
        ("noising", "query+keys from all", LOOKER, 2 - 8 / 3 / 16),
        ("denoising", "values from region", LOOKER, 8 / 3 / 16),
        ("denoising", "keys from region", LOOKER, 0),
        ("denoising", "keys+values from region", LOOKER, 2),
        ("denoising", "keys+values from region, straight", LOOKER, 2),
        ("denoising", "keys+values from other, straight", LOOKER, 0),
        ("noising", "keys from region", BLIND, 0),
        ("noising", "values from region", BLIND, 1),
        ("noising", "values from words", READER, 1),
        ("noising", "values from region", READER, 0),
        ("noising", "none from itself", LOOKER, 0),
        ("noising", "values from region", ALL, 3),
    ],
)
def test_what_planted_heads_hear(direction: str, where: str, heads: str, votes: float) -> None:
    assert shares(direction, where, heads) == pytest.approx([votes / 8], abs=CLOSE)


def test_paths_from_vision_layers() -> None:
    assert shares("denoising", VISION, LOOKER) == pytest.approx([2 / 8, 2 / 8, 0], abs=CLOSE)
    assert shares("denoising", VISION, ALL) == pytest.approx([3 / 8, 3 / 8, 0], abs=CLOSE)


def test_effects_are_shares_in_logits() -> None:
    for *_, direction, effect, share in paths().rows:
        sign = -8 if direction == "noising" else 8
        assert effect == pytest.approx(sign * share, abs=8 * CLOSE)
    assert paths().noise_floor < 1e-4

"""Areas under deletion and insertion curves, by hand."""

import numpy as np
import pandas as pd
import pytest

from headpatch.stats.deletion_curves import RANDOM, REGION, areas

MIDDLE = np.log2(5) / np.log2(17)
"""Where 4 of 16 patches lie on the axis."""


def curve(order: str, draw: int, shares: tuple[float, float, float]) -> list[tuple[object, ...]]:
    points = zip((0, 4, 16), shares, strict=True)
    return [("with", "delete", order, draw, k, share) for k, share in points]


def table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["run", "way", "order", "draw", "k", "share"])


def test_an_order_stands_beside_random_ones_and_the_region() -> None:
    rows = [
        *curve("good", 0, (0, 1, 1)),
        *curve("bad", 0, (0, 0, 1)),
        *curve(RANDOM, 0, (0, 0.2, 1)),
        *curve(RANDOM, 1, (0, 0.4, 1)),
        ("with", "delete", REGION, 0, 4, 0.75),
    ]
    good, bad = areas(table(rows)).to_dict("records")
    assert (good["map"], bad["map"]) == ("good", "bad")
    assert good["area"] == pytest.approx(MIDDLE / 2 + (1 - MIDDLE))
    assert bad["area"] == pytest.approx((1 - MIDDLE) / 2)
    random = [MIDDLE * one / 2 + (1 - MIDDLE) * (1 + one) / 2 for one in (0.2, 0.4)]
    for row, below in ((good, 2), (bad, 0)):
        assert row["random_mean"] == pytest.approx(np.mean(random))
        assert row["random_sd"] == pytest.approx(np.std(random, ddof=1))
        assert (row["random_n"], row["random_below"]) == (2, below)
        assert (row["region_size"], row["region"]) == (4, 0.75)
        assert row["random_at_region_size"] == pytest.approx(0.3)
    assert (good["at_region_size"], bad["at_region_size"]) == (1, 0)


def test_runs_and_ways_stay_apart() -> None:
    rows = [
        *curve("good", 0, (0, 1, 1)),
        *curve(RANDOM, 0, (0, 0.2, 1)),
        ("with", "delete", REGION, 0, 4, 0.75),
    ]
    other = [("without", "insert", *row[2:5], 0.5 * float(str(row[5]))) for row in rows]
    first, second = areas(table([*rows, *other])).to_dict("records")
    assert (second["run"], second["way"]) == ("without", "insert")
    for name in ("area", "random_mean", "at_region_size", "region"):
        assert second[name] == pytest.approx(first[name] / 2)

"""What replacing the first patches of an order does, beside random orders and the region.

The curves are deletion and insertion (V. Petsiuk, A. Das and K. Saenko, RISE, BMVC 2018,
arXiv:1806.07421).
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from headpatch.stats.effects import spread
from headpatch.stats.rankings import area_under

RANDOM: Final = "random"  # the name of random orders
REGION: Final = "region"  # the name of the region's own patches, all at once


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Put the area under each order's curve beside those of random orders.

    `curves` has a row for each number k of patches that are replaced in an order: ``run``, ``way``,
    ``order``, ``draw``, ``k``, ``share``. `RANDOM` orders have several draws; `REGION` is one
    point, the region's own patches. What is returned has a row for each run × way × other order:
    ``area`` (over log2(k + 1), scaled to 0 to 1), mean, sd and number of the random orders' areas
    and how many lie below it; and shares at the region's size: the order's, the random orders'
    mean, the region's own.
    """
    lines = curves[curves["order"] != REGION].astype({"k": int})
    under: dict[Any, float] = {
        key: float(area_under(rows["k"].tolist(), rows["share"].to_numpy(dtype=np.float64)))
        for key, rows in lines.groupby(["run", "way", "order", "draw"], sort=False)
    }
    size = int(curves.loc[curves["order"] == REGION, "k"].iloc[0])
    found = []
    for (run, way, order, _), area in under.items():
        if order == RANDOM:
            continue
        null = [value for key, value in under.items() if key[:3] == (run, way, RANDOM)]
        beside = spread(null)

        def at(name: str, run: str = run, way: str = way) -> Any:
            here = curves["run"].eq(run) & curves["way"].eq(way) & curves["order"].eq(name)
            return curves.loc[here & curves["k"].eq(size), "share"]

        found.append(
            {
                "run": run,
                "way": way,
                "map": order,
                "area": area,
                "random_mean": beside.mean,
                "random_sd": beside.sd,
                "random_n": beside.n,
                "random_below": sum(value < area for value in null),
                "region_size": size,
                "at_region_size": float(at(order).iloc[0]),
                "random_at_region_size": float(at(RANDOM).mean()),
                "region": float(at(REGION).iloc[0]),
            }
        )
    return pd.DataFrame(found)

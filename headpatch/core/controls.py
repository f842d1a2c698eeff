"""Random sets of heads, to set beside a set that was chosen."""

import numpy as np

from headpatch.heads import Grid, Head, HeadSet, Tower


def random_sets(
    members: HeadSet, count: int, seed: int, grid: Grid, vision: Grid | None = None
) -> list[HeadSet]:
    """Draw sets with as many heads of each layer as `members` has, none of them a member.

    A layer with too few other heads gives fewer sets; each is different. The draw depends on the
    seed and the set alone, not on what else was asked. `vision` are that tower's heads, where
    `members` holds some.
    """
    grids: dict[Tower, Grid] = {"lm": grid, "vision": vision or grid}
    wanted: dict[tuple[Tower, int], int] = {}
    for head in members:
        key = head.tower, head.layer
        wanted[key] = wanted.get(key, 0) + 1
    others = {
        (tower, layer): [
            head
            for head in range(grids[tower].heads)
            if Head(layer, head, tower) not in members.heads
        ]
        for tower, layer in wanted
    }
    if count and any(len(others[layer]) < number for layer, number in wanted.items()):
        return []
    digits = [number for head in members for number in (head.layer, head.head)]
    rng = np.random.default_rng([seed % 2**64, *digits])  # numpy takes no negative seed
    found: dict[HeadSet, None] = {}
    for _ in range(20 * count):  # enough tries to exhaust a small layer almost surely
        if len(found) == count:
            break
        drawn = [
            Head(layer, int(head), tower)
            for (tower, layer), number in wanted.items()
            for head in rng.choice(others[tower, layer], size=number, replace=False)
        ]
        found[HeadSet(tuple(drawn))] = None
    return list(found)

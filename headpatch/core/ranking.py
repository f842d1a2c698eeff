"""How much heads look at the region: attention masses, their differences, and the heads' order.

Attention is read at the answer position.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from headpatch.core.measures import Attended, Figures, measure_of, places
from headpatch.core.session import Session
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.heads import Grid, Head, HeadSet, Tower
from headpatch.stats.attention_mass import mass, normalized_mass

MASSES = ("diff", "with", "without", "diff_raw", "with_raw", "without_raw")
"""Figures of a head: share of the image attention that the region gets, and (raw) of all of it.

Where the region is no place, both are the image's part of all attention.
"""


def order(session: Session) -> tuple[Head, ...]:
    """Return the heads in the order of the study's ranking, and nothing else."""
    grid = session.vlm.lm.grid
    ordered = (divmod(int(index), grid.heads) for index in _order(session))
    return tuple(Head(*place) for place in ordered if place[0] not in grid.without)


def ranks(session: Session) -> Int[np.ndarray, "layers heads"]:
    """Return each head's place in that order; 1 is the first."""
    return places(_order(session), session.vlm.lm.grid)


def _order(session: Session) -> Int[np.ndarray, " ranked"]:
    by = session.study.rank.by
    return measure_of(by).order(masses(session) | ranked_by(session, by))


def ranked_by(session: Session, *names: str) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return the figures that rankings go by, beside those of `MASSES`."""
    own: dict[str, Float[np.ndarray, "layers heads"]] = {}
    attended = attended_in(session) if set(names) - {"diff", "raw"} else None
    for by in names:
        own |= measure_of(by).figures(attended) if attended is not None else {}
    return own


def attended_in(session: Session) -> Attended:
    """Return what the answer position attends to in the with-run."""
    rows, prompt = session.base.trace.lm_rows, session.prompt
    assert rows is not None
    present = rows[WITH, ..., : prompt.spans.length].cpu().numpy().astype(np.float64)
    image = prompt.spans.image.cpu().numpy()
    text = np.ones(present.shape[-1], dtype=bool)
    text[[0, *image]] = False
    patches = prompt.image_positions.cpu().numpy()
    return Attended(present, patches, text, prompt.patches.boxes, session.study.rank.tau)


def differences(session: Session) -> Float[np.ndarray, "layers heads"]:
    """Return by how much more each head attends to the region with the object.

    NaN in layers without heads.
    """
    return masses(session)["diff"]


def masses(session: Session) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return each head's attention mass on the region in both runs: the figures of `MASSES`.

    NaN in layers without heads.
    """
    grid = session.vlm.lm.grid
    rows = image_rows(session)[:, list(grid.with_heads)]
    whole = session.pair.region.whole
    figures = image_masses(rows) if whole else masses_of(rows, session.compared_tokens)
    return {name: _scattered(grid, values) for name, values in figures.items()}


def _scattered(
    grid: Grid, values: Float[np.ndarray, "with_heads heads"]
) -> Float[np.ndarray, "layers heads"]:
    """Put the figures of layers that have heads among those that have none."""
    if not grid.without:
        return values
    whole = np.full((grid.layers, grid.heads), np.nan)
    whole[list(grid.with_heads)] = values
    return whole


def masses_of(
    rows: Float[np.ndarray, "runs layers heads tokens"], mask: Bool[np.ndarray, " tokens"]
) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return the figures of `MASSES` of attention rows, given which tokens are the region's."""
    return _figures(normalized_mass(rows, mask), mass(rows, mask))


def image_masses(
    rows: Float[np.ndarray, "runs layers heads tokens"],
) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return them by all attention to the image, undivided: ``diff`` is ``diff_raw``."""
    raw = mass(rows, np.ones(rows.shape[-1], dtype=bool))
    return _figures(raw, raw)


def _figures(
    compared: Float[np.ndarray, "runs layers heads"], raw: Float[np.ndarray, "runs layers heads"]
) -> dict[str, Float[np.ndarray, "layers heads"]]:
    return {
        "diff": compared[WITH] - compared[WITHOUT],
        "with": compared[WITH],
        "without": compared[WITHOUT],
        "diff_raw": raw[WITH] - raw[WITHOUT],
        "with_raw": raw[WITH],
        "without_raw": raw[WITHOUT],
    }


def columns_of(figures: Figures, by: str = "diff") -> dict[str, list[int | float]]:
    """List every head, the first of a ranking first: rank, layer, head and its figures."""
    order = measure_of(by).order(figures)
    layer, head = np.divmod(order, next(iter(figures.values())).shape[1])
    columns = {"rank": np.arange(1, len(order) + 1), "layer": layer, "head": head}
    columns |= {name: values.ravel()[order] for name, values in figures.items()}
    return {name: values.tolist() for name, values in columns.items()}


def image_rows(session: Session) -> Float[np.ndarray, "runs layers heads tokens"]:
    """Return the answer position's attention to the image tokens, as a share of all of it."""
    rows = session.base.trace.lm_rows
    assert rows is not None
    prompt = session.prompt
    placed = len(prompt.patches.boxes) > 0
    positions = prompt.image_positions if placed else prompt.spans.image
    return rows.cpu()[..., positions].numpy().astype(np.float64)


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

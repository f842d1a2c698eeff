"""How much heads look at the region: attention masses, their differences, and the heads' order.

Attention is read at the answer position.
"""

import numpy as np
from jaxtyping import Float, Int

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
    return tuple(Head(*divmod(int(index), grid.heads)) for index in _order(session))


def ranks(session: Session) -> Int[np.ndarray, "layers heads"]:
    """Return each head's place in that order (`headpatch.core.measures.places`)."""
    return places(_order(session), session.vlm.lm.grid)


def _order(session: Session) -> Int[np.ndarray, " ranked"]:
    by = session.study.rank.by
    return measure_of(by).order(masses(session) | ranked_by(session, by), session.vlm.lm.grid)


def ranked_by(session: Session, *names: str) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return the figures that rankings go by, beside those of `MASSES`; NaN as there."""
    own: dict[str, Float[np.ndarray, "layers heads"]] = {}
    attended = attended_in(session) if set(names) - {"diff", "raw"} else None
    for by in names:
        own |= measure_of(by).figures(attended) if attended is not None else {}
    return {name: session.vlm.lm.grid.spread(values) for name, values in own.items()}


def attended_in(session: Session) -> Attended:
    """Return what the answer position attends to in the with-run."""
    rows, prompt, grid = session.base.trace.lm_rows, session.prompt, session.vlm.lm.grid
    assert rows is not None
    there = rows[WITH, list(grid.with_heads), :, : prompt.spans.length]
    present = there.cpu().numpy().astype(np.float64)
    image = prompt.spans.image.cpu().numpy()
    text = np.ones(present.shape[-1], dtype=bool)
    text[[0, *image]] = False
    patches = prompt.image_positions.cpu().numpy()
    return Attended(present, patches, text, prompt.patches.boxes, session.study.rank.tau, grid)


def differences(session: Session) -> Float[np.ndarray, "layers heads"]:
    """Return by how much more each head attends to the region with the object.

    NaN in layers without heads.
    """
    return masses(session)["diff"]


def masses(session: Session) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return each head's attention mass on the region in both runs: the figures of `MASSES`.

    NaN in layers without heads.
    """
    if session.pair.region.whole:
        return image_masses(session)
    rows, mask = image_rows(session), session.compared_tokens
    return _figures(session.vlm.lm.grid, normalized_mass(rows, mask), mass(rows, mask))


def image_masses(session: Session) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return them by all attention to the image, undivided: ``diff`` is ``diff_raw``."""
    rows = image_rows(session)
    raw = mass(rows, np.ones(rows.shape[-1], dtype=bool))
    return _figures(session.vlm.lm.grid, raw, raw)


def _figures(
    grid: Grid,
    compared: Float[np.ndarray, "runs layers_with_heads heads"],
    raw: Float[np.ndarray, "runs layers_with_heads heads"],
) -> dict[str, Float[np.ndarray, "layers heads"]]:
    compared, raw = grid.spread(compared), grid.spread(raw)
    return {
        "diff": compared[WITH] - compared[WITHOUT],
        "with": compared[WITH],
        "without": compared[WITHOUT],
        "diff_raw": raw[WITH] - raw[WITHOUT],
        "with_raw": raw[WITH],
        "without_raw": raw[WITHOUT],
    }


def columns_of(figures: Figures, grid: Grid, by: str = "diff") -> dict[str, list[int | float]]:
    """List every head, the first of a ranking first: rank, layer, head and its figures."""
    order = measure_of(by).order(figures, grid)
    layer, head = np.divmod(order, grid.heads)
    columns = {"rank": np.arange(1, len(order) + 1), "layer": layer, "head": head}
    columns |= {name: values.ravel()[order] for name, values in figures.items()}
    return {name: values.tolist() for name, values in columns.items()}


def image_rows(session: Session) -> Float[np.ndarray, "runs layers_with_heads heads tokens"]:
    """Return the answer position's attention to the image tokens, as a share of all of it."""
    rows = session.base.trace.lm_rows
    assert rows is not None
    rows = rows[:, list(session.vlm.lm.grid.with_heads)] if session.vlm.lm.grid.without else rows
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

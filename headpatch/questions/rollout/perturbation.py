"""Do the patches that a map points at matter? They are replaced, and the answer is watched.

Patches are deleted in the map's order, and shown alone in that order, beside random orders and the
region's own patches (V. Petsiuk, A. Das and K. Saenko, RISE, BMVC 2018, arXiv:1806.07421, did this
with single pictures).

What stands in a deleted patch is by default the other picture of the pair, at that place: it is a
picture that the model could meet, and all patches together give the other run exactly. Grey does
neither; to a question whether something is there, a grey square may be something.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from headpatch.core.session import Session
from headpatch.engine.answers import TokenRuns
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.perturb import (
    Picture,
    differing,
    lds,
    mean_colour,
    patch_side,
    replaced_patches,
)
from headpatch.stats.deletion_curves import RANDOM, REGION, areas
from headpatch.stats.effects import noise_floor, normalized_effect
from headpatch.stats.rankings import descending, sizes

Way = Literal["delete", "insert"]
Mask: TypeAlias = Bool[np.ndarray, " patches"]
Order: TypeAlias = Int[np.ndarray, " _"]
Values: TypeAlias = Float[np.ndarray, "runs patches"]

WAYS: tuple[Way, ...] = ("delete", "insert")
RUNS = {WITH: "with", WITHOUT: "without"}


@dataclass(frozen=True, eq=False)
class Check:
    """What replacing patches did.

    Attributes
    ----------
    curves
        One row for each run × way × order × draw × k: the columns of ``perturbation.csv``.
    areas
        One row for each run × way × map, beside random orders.
    noise_floor
        In logits, of replacing no patch; see `headpatch.stats.effects.noise_floor`. Every picture
        takes a whole pass: there is no fast path.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame
    noise_floor: float


@dataclass(frozen=True, eq=False)
class _Point:
    """One picture of a curve: `changed` are the patches that do not show the run's own."""

    run: int
    way: Way
    order: str
    draw: int
    k: int
    changed: Mask


def check_maps(
    session: Session,
    said: TokenRuns,
    maps: Mapping[str, Values],
    shown: Sequence[Picture],
    on_progress: OnProgress | None = None,
) -> Check:
    """Replace patches in the order of each map, in both runs.

    Parameters
    ----------
    said
        The token that is watched: LD is that of its base.
    maps
        By name: ``[runs, patches]``.
    shown
        Each run's picture as the vision tower takes it.
    """
    points = list(_points(session, maps))
    fills = _fills(session, shown)
    patch = patch_side(session.vlm, said.base.prompt)
    show = partial(replaced_patches, grid=session.prompt.patches.grid, patch=patch)
    # Where a patch is what it would be replaced by, replacing it makes no other picture.
    unlike = [differing(*both, session.prompt.patches.grid, patch).numpy() for both in fills]
    mirrored = session.study.rollout.fill == "other"
    keys = [_key(one, unlike[one.run], mirrored) for one in points]
    jobs = {
        key: partial(show, *fills[one.run], torch.from_numpy(one.changed)[None])
        for key, one in zip(keys, points, strict=True)
    }
    prompt = said.base.prompt.select(WITH)
    found = lds(session.vlm, prompt, list(jobs.values()), on_progress)
    known = dict(zip(jobs, found, strict=True))
    values = [known[key] for key in keys]
    base = (said.base.ld_with, said.base.ld_without)
    curves = pd.DataFrame([_row(one, ld, base) for one, ld in zip(points, values, strict=True)])
    nothing = [
        ld - base[one.run] for one, ld in zip(points, values, strict=True) if not one.changed.any()
    ]
    return Check(curves, areas(curves), noise_floor(nothing))


def _points(session: Session, maps: Mapping[str, Values]) -> Iterator[_Point]:
    """Say which patches are replaced for each point of each curve; no change comes first."""
    inside = session.region_tokens
    patches = len(inside)
    counts = sorted({*sizes(patches), int(inside.sum())})
    rng = np.random.default_rng([session.study.seed % 2**64, 0x5011])  # numpy takes no negatives
    drawn = [rng.permutation(patches) for _ in range(session.study.rollout.draws)]
    for run in RUNS:
        orders: list[tuple[str, int, Order]] = [
            (name, 0, descending(values[run])) for name, values in maps.items()
        ]
        orders += [(RANDOM, draw, order) for draw, order in enumerate(drawn)]
        for way in WAYS:
            for name, draw, order in orders:
                for k in counts:
                    yield _point(run, way, name, draw, order[:k], patches)
            yield _point(run, way, REGION, 0, np.flatnonzero(inside), patches)


def _point(run: int, way: Way, name: str, draw: int, first: Order, patches: int) -> _Point:
    mask = np.zeros(patches, dtype=bool)
    mask[first] = True
    return _Point(run, way, name, draw, int(mask.sum()), mask if way == "delete" else ~mask)


def _fills(session: Session, shown: Sequence[Picture]) -> list[tuple[Picture, Picture]]:
    """Each run's picture, and what stands in the patches that are replaced."""
    if session.study.rollout.fill == "other":
        return [(shown[run], shown[1 - run]) for run in RUNS]
    return [(shown[run], mean_colour(shown[run])) for run in RUNS]


def _key(one: _Point, unlike: Mask, mirrored: bool) -> tuple[int, bytes]:
    """Name a picture. `mirrored`: what is replaced in one run's is what is left of the other's."""
    if mirrored and one.run == WITHOUT:
        return WITH, (~one.changed & unlike).tobytes()
    return one.run, (one.changed & unlike).tobytes()


def _row(one: _Point, ld: float, base: tuple[float, float]) -> dict[str, Any]:
    moved = normalized_effect(ld, *base, "noising" if one.run == WITH else "denoising")
    return {
        "run": RUNS[one.run],
        "way": one.way,
        "order": one.order,
        "draw": one.draw,
        "k": one.k,
        "ld": ld,
        "share": moved if one.way == "delete" else 1 - moved,
    }

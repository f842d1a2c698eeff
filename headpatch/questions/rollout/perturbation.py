"""Do the patches that a map points at matter? They are replaced, and the answer is watched.

Patches are deleted in the map's order, and shown alone in that order, beside random orders and the
region's own patches (V. Petsiuk, A. Das and K. Saenko, RISE, BMVC 2018, arXiv:1806.07421, did this
with single pictures).

What stands in a deleted patch is by default the other picture of the pair, at that place: it is a
picture that the model could meet, and all patches together give the other run exactly. Grey does
neither; to a question whether something is there, a grey square may be something.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from headpatch.core.session import Session
from headpatch.core.study.study import Study
from headpatch.engine.answers import TokenRuns
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.engine.perturb import (
    Picture,
    differing,
    lds,
    mean_colour,
    patch_side,
    pictures,
    replaced_patches,
)
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from headpatch.stats.deletion_curves import RANDOM, REGION, areas
from headpatch.stats.effects import noise_floor, normalized_effect
from headpatch.stats.rankings import descending, sizes

Mask: TypeAlias = Bool[np.ndarray, " patches"]
Values: TypeAlias = Float[np.ndarray, "runs patches"]

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


Point: TypeAlias = tuple[int, dict[str, Any], Mask]
"""A picture of a curve: its run, its columns of the table, and which patches are not its own."""


def check_maps(
    session: Session,
    said: TokenRuns,
    maps: Mapping[str, Values],
    shown: Sequence[Picture],
    on_progress: OnProgress | None = None,
) -> Check:
    """Replace patches in the order of each map, in both runs.

    LD is that of the base of the token that was `said`; `shown` is each run's picture as the vision
    tower takes it.
    """
    study, grid = session.study, session.prompt.patches.grid
    points = list(_points(study, session.region_tokens, maps))
    patch = patch_side(session.vlm, said.base.prompt)
    fills, picture = _pictures(study, shown, grid, patch)
    show = partial(replaced_patches, grid=grid, patch=patch)
    jobs = {
        picture(run, changed): partial(show, *fills[run], torch.from_numpy(changed)[None])
        for run, _, changed in points
    }
    found = lds(session.vlm, said.base.prompt.select(WITH), list(jobs.values()), on_progress)
    known = dict(zip(jobs, found, strict=True))
    base = (said.base.ld_with, said.base.ld_without)
    rows, nothing = [], []
    for run, columns, changed in points:
        ld = known[picture(run, changed)]
        moved = normalized_effect(ld, *base, "noising" if run == WITH else "denoising")
        share = moved if columns["way"] == "delete" else 1 - moved
        rows.append({**columns, "ld": ld, "share": share})
        if not changed.any():
            nothing.append(ld - base[run])
    curves = pd.DataFrame(rows)
    return Check(curves, areas(curves), noise_floor(nothing))


def pictures_to_come(
    study: Study, vlm: VLM, prompt: Prompt, inside: Mask, maps: Sequence[str]
) -> int:
    """Return about how many pictures a check runs, the maps' own orders being anything."""
    shown, rng = pictures(vlm, prompt), np.random.default_rng(0)
    _, picture = _pictures(study, shown, prompt.patches.grid, patch_side(vlm, prompt))
    values = {name: rng.random((len(RUNS), len(inside))) for name in maps}
    return len({picture(run, changed) for run, _, changed in _points(study, inside, values)})


def _pictures(
    study: Study, shown: Sequence[Picture], grid: tuple[int, int], patch: int
) -> tuple[list[tuple[Picture, Picture]], Callable[[int, Mask], tuple[int, bytes]]]:
    """Return, by run, its picture and what stands in deleted patches, and what names a picture."""
    mirrored = study.rollout.fill == "other"
    fills = [
        (own, shown[1 - run] if mirrored else mean_colour(own))
        for run, own in zip(RUNS, shown, strict=True)
    ]
    # Where a patch is what it would be replaced by, replacing it makes no other picture.
    unlike = [differing(*both, grid, patch).numpy() for both in fills]

    def picture(run: int, changed: Mask) -> tuple[int, bytes]:
        """Name a picture: what is replaced in one run's may be what is left of the other's."""
        if mirrored and run == WITHOUT:
            return WITH, (~changed & unlike[run]).tobytes()
        return run, (changed & unlike[run]).tobytes()

    return fills, picture


def _points(study: Study, inside: Mask, maps: Mapping[str, Values]) -> Iterator[Point]:
    """Say which patches are replaced for each point of each curve; no change comes first."""
    patches = len(inside)
    counts = sorted({*sizes(patches), int(inside.sum())})
    rng = np.random.default_rng([study.seed % 2**64, 0x5011])  # numpy takes no negatives
    drawn = [rng.permutation(patches) for _ in range(study.rollout.draws)]
    for run, name in RUNS.items():
        orders = [(order, 0, descending(values[run])) for order, values in maps.items()]
        orders += [(RANDOM, draw, order) for draw, order in enumerate(drawn)]
        for way in ("delete", "insert"):
            firsts = [(order, draw, ranked[:k]) for order, draw, ranked in orders for k in counts]
            for order, draw, first in [*firsts, (REGION, 0, np.flatnonzero(inside))]:
                mask = np.zeros(patches, dtype=bool)
                mask[first] = True
                columns = {"run": name, "way": way, "order": order, "draw": draw, "k": len(first)}
                yield run, columns, mask if way == "delete" else ~mask

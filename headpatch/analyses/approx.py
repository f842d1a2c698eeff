"""What gradients estimate of a sweep, beside what the sweep found (see `engine.attribution`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.analyses.session import Session
from headpatch.analyses.sweep_plan import Plan
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome, ZMeans
from headpatch.engine.vision import vision_positions
from headpatch.heads import HeadSet
from headpatch.measures.agreement import Agreement, agreement, pearson_interval

TOP = 20
"""Heads of whose recall is spoken."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """The effect of changing each head's z at each position alone, to first order, in logits.

    Attributes
    ----------
    maps
        By ``kind_direction``: ``[layers, heads, positions]``.
    places
        The positions that the sweep changes.
    """

    maps: dict[str, Float[Tensor, "layers heads positions"]]
    places: Int[Tensor, " places"]

    @cached_property
    def summed(self) -> dict[str, Float[Tensor, "layers heads"]]:
        """By ``kind_direction``: each head's z changed at all these positions."""
        return {name: found[..., self.places].sum(-1) for name, found in self.maps.items()}

    def of(self, one: Intervention) -> float:
        """Return the estimate of an intervention: the sum over its heads and positions."""
        if one.kind == "self":
            return float("nan")  # it changes nothing, and nothing is estimated
        found = self.summed[way(one)]
        return sum(float(found[head.layer, head.head]) for head in one.heads)


@dataclass(frozen=True)
class Agreed:
    """How well the estimates of one kind and direction stand for the exact effects.

    Attributes
    ----------
    low, high
        Bootstrap interval of Pearson's correlation, heads resampled.
    """

    measured: Agreement
    low: float
    high: float

    def figures(self) -> dict[str, float | int]:
        """Return plain numbers by name."""
        one = self.measured
        return {
            "pearson": one.pearson,
            "pearson_low": self.low,
            "pearson_high": self.high,
            "spearman": one.spearman,
            "top_recall": one.top_recall,
            "top_recall_chance": one.chance,
            "k": one.k,
            "heads": one.heads,
        }


def way(one: Intervention) -> str:
    """Return kind and direction as one word, such as ``resample_noising``."""
    return f"{one.kind}_{one.direction}"


def estimate(session: Session, job: Plan, means: ZMeans | None) -> Estimates:
    """Estimate every head of the plan's tower from one backward pass, at every position.

    Parameters
    ----------
    means
        Of the tower, needed for kind ``mean``.

    Raises
    ------
    RunError
        If a gradient is not finite, or memory does not suffice.
    """
    vlm, options = session.vlm, session.study.sweep
    pair = gradients(vlm, session.prompt, (job.tower,))
    places = session.prompt.spans.positions(options.positions)
    if job.tower == "vision":
        scope = session.study.vision.positions
        places = vision_positions(vlm, session.base, scope, pair.tiles)
    ways = dict.fromkeys((one.kind, one.direction) for one in job.asked if one.kind != "self")
    maps = {
        f"{kind}_{direction}": attribute(pair, kind, direction, means)[job.tower].float().cpu()
        for kind, direction in ways
    }
    return Estimates(maps, places.cpu())


def compare(
    session: Session, job: Plan, estimates: Estimates, outcomes: Sequence[Outcome]
) -> dict[str, Agreed]:
    """Measure, by kind and direction, how the estimates agree with the exact effects.

    Over the plan's single heads, or the sets of its list; whole layers and heads that cannot reach
    the language model (both sides 0 by construction) are left out. Empty if fewer than two are
    left.
    """
    counted = {members for members in job.sets if not unread(session, job, members)}
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for outcome in outcomes:
        one = outcome.intervention
        if one.kind != "self" and one.heads in counted:
            approx, exact = sides.setdefault(way(one), ([], []))
            approx.append(estimates.of(one))
            exact.append(outcome.effect)
    options = session.study.pairs
    found = {}
    for name, (approx, exact) in sides.items():
        if len(exact) < 2:
            continue
        rng = np.random.default_rng(session.study.seed % 2**64)  # numpy takes no negative seed
        a, b = np.array(approx), np.array(exact)
        ends = pearson_interval(a, b, options.level, options.resamples, rng)
        found[name] = Agreed(agreement(a, b, TOP), *ends)
    return found


def unread(session: Session, job: Plan, members: HeadSet) -> bool:
    """Whether none of these vision heads lies in a layer that reaches the language model."""
    last = session.vlm.feature_layer
    if job.tower != "vision" or last is None:
        return False
    return all(head.layer > last for head in members)


def saved(
    session: Session,
    job: Plan,
    estimates: Estimates,
    agreed: dict[str, Agreed],
    sweep: dict[str, Any],
) -> dict[str, Any]:
    """Lay out ``approx.pt``: estimates beside exact effects, and their agreement.

    Parameters
    ----------
    sweep
        What ``sweep.pt`` holds.

    Returns
    -------
    By key:

    - ``attribution``: by ``kind_direction``, float32 ``[layers, heads, positions]``, in logits:
      each head's z changed at that position alone, to first order;
    - ``places``: int64 ``[places]``, the positions that the sweep changed: tokens of the prompt,
      or of the vision tower (its tiles one after the other, each with its class token first);
    - ``approx``, ``effect``: by ``kind_direction``, the estimates summed over these places, and
      the exact effects, ``[layers, heads]``, or ``[sets]`` of a list;
    - ``agreement``: by ``kind_direction``, the figures of `Agreed.figures`;
    - ``image_positions``: int64, the prompt's image tokens (of the language model alone);
    - ``tower``, ``positions``, ``noise_floor``, ``level``, ``valid``, ``question``,
      ``region_name``: as in ``sweep.pt``; ``level`` is that of the intervals.
    """
    by_way = {}
    for name, exact in sweep["effect"].items():
        kind, _, direction = name.rpartition("_")
        values = [estimates.of(Intervention(members, kind, direction)) for members in job.sets]
        by_way[name] = torch.tensor(values, dtype=torch.float32).reshape(exact.shape)
    kept = ("effect", "tower", "positions", "noise_floor", "valid", "question", "region_name")
    found: dict[str, Any] = {
        "attribution": estimates.maps,
        "places": estimates.places,
        "approx": by_way,
        "agreement": {name: one.figures() for name, one in agreed.items()},
        "level": session.study.pairs.level,
        **{key: sweep[key] for key in kept},
    }
    if job.tower == "lm":
        found["image_positions"] = session.prompt.image_positions.cpu()
    return found

"""What gradients estimate of a sweep, beside what the sweep found (see `engine.attribution`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.study import PairsOptions
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.interventions import Intervention, never_read, vision_positions
from headpatch.engine.patching import Outcome, ZMeans
from headpatch.questions.sweep.plan import Plan
from headpatch.stats.agreement import Agreement, agreement, pearson_interval

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
    image_positions
        The prompt's image tokens; None in the vision tower.
    """

    maps: dict[str, Float[Tensor, "layers heads positions"]]
    places: Int[Tensor, " places"]
    image_positions: Int[Tensor, " image"] | None = None

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


@dataclass(frozen=True, eq=False)
class Agreed:
    """How well the estimates of one kind and direction stand for the exact effects.

    Attributes
    ----------
    approx, exact
        Of the heads or sets that are compared, in logits.
    options
        Coverage and draws of the interval.
    seed
        Of the draws.
    """

    approx: Float[np.ndarray, " heads"]
    exact: Float[np.ndarray, " heads"]
    options: PairsOptions
    seed: int

    @cached_property
    def measured(self) -> Agreement:
        """How they agree."""
        return agreement(self.approx, self.exact, TOP)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of Pearson's correlation, heads resampled."""
        rng = np.random.default_rng(self.seed % 2**64)  # numpy takes no negative seed
        level, resamples = self.options.level, self.options.resamples
        return pearson_interval(self.approx, self.exact, level, resamples, rng)

    def figures(self) -> dict[str, float | int]:
        """Return plain numbers by name."""
        one, (low, high) = self.measured, self.interval
        return {
            "pearson": one.pearson,
            "pearson_low": low,
            "pearson_high": high,
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
        places = vision_positions(vlm, session.base, scope)
    ways = dict.fromkeys(
        (one.kind, one.direction, one.alpha) for one in job.asked if one.kind != "self"
    )
    maps = {
        f"{kind}_{direction}": attribute(pair, kind, direction, means, alpha)[job.tower]
        for kind, direction, alpha in ways
    }
    maps = {name: values.float().cpu() for name, values in maps.items()}
    image = session.prompt.image_positions.cpu() if job.tower == "lm" else None
    return Estimates(maps, places.cpu(), image)


def compare(
    session: Session, job: Plan, estimates: Estimates, outcomes: Sequence[Outcome]
) -> dict[str, Agreed]:
    """Measure, by kind and direction, how the estimates agree with the exact effects.

    Over the plan's single heads, or the sets of its list; whole layers and heads that cannot reach
    the language model (both sides 0 by construction) are left out. Empty if fewer than two are
    left.
    """
    counted = {members for members in job.sets if not never_read(session.vlm, members)}
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for outcome in outcomes:
        one = outcome.intervention
        if one.kind != "self" and one.heads in counted:
            approx, exact = sides.setdefault(way(one), ([], []))
            approx.append(estimates.of(one))
            exact.append(outcome.effect)
    study = session.study
    return {
        name: Agreed(np.array(approx), np.array(exact), study.pairs, study.seed)
        for name, (approx, exact) in sides.items()
        if len(exact) > 1
    }


def saved(
    job: Plan,
    estimates: Estimates,
    agreed: dict[str, Agreed],
    sweep: dict[str, Any],
    level: float,
) -> dict[str, Any]:
    """Lay out ``approx.pt``: estimates beside exact effects, and their agreement.

    Parameters
    ----------
    sweep
        What ``sweep.pt`` holds.
    level
        Coverage of the intervals.

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
    by_way: dict[str, Tensor] = {}
    for one in job.asked:
        if one.kind != "self" and way(one) not in by_way:
            of_all = [estimates.of(replace(one, heads=members)) for members in job.sets]
            shape = sweep["effect"][way(one)].shape
            by_way[way(one)] = torch.tensor(of_all, dtype=torch.float32).reshape(shape)
    kept = ("effect", "tower", "positions", "noise_floor", "valid", "question", "region_name")
    found: dict[str, Any] = {
        "attribution": estimates.maps,
        "places": estimates.places,
        "approx": by_way,
        "agreement": {name: one.figures() for name, one in agreed.items()},
        "level": level,
        **{key: sweep[key] for key in (*kept, "alpha") if key in sweep},
    }
    if estimates.image_positions is not None:
        found["image_positions"] = estimates.image_positions
    return found

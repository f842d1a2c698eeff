"""What gradients estimate of a sweep, beside what the sweep found (see `engine.attribution`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.core.aggregate import intervals
from headpatch.core.cost import Plan
from headpatch.core.session import Session
from headpatch.core.study.options import PairsOptions
from headpatch.core.study.study import Study
from headpatch.engine.attribution import attribute, gradients, integrated
from headpatch.engine.interventions import Intervention, never_read, vision_positions
from headpatch.engine.patching import Outcome, ZMeans
from headpatch.questions.sweep.columns import IG
from headpatch.stats.agreement import (
    Agreement,
    MeanAgreement,
    agreement,
    mean_agreement,
    pearson_interval,
)
from headpatch.stats.scenes import Scenes, by_scene

_NAMES: Final = {"": "approx", IG: "approx_ig"}
TOP = 20
"""Heads of whose recall is spoken."""
_RANGES: Final = {"pearson": (-1, 1), "spearman": (-1, 1), "top_recall": (0, 1)}
FIGURES = tuple(_RANGES)
"""What is measured of each pair."""
_COPIED: Final = ("effect", "tower", "positions", "noise_floor", "valid", "question", "region_name",
                  "alpha")  # fmt: skip
_COPIED_OVER_PAIRS: Final = (
    *(f"{name}{end}" for name in _NAMES.values() for end in ("", "_low", "_high")),
    "pair_names", "level",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Estimates:
    """The effect of changing each head's z at each position alone, to first order, in logits.

    `places` are the positions that the sweep changes: tokens of the prompt, or of the vision tower
    (its tiles one after the other, each with its class token first).
    """

    # by kind_direction; those by integrated gradients as ``resample-ig_noising``
    maps: dict[str, Float[Tensor, "layers heads positions"]]
    places: Int[Tensor, " places"]
    image_positions: Int[Tensor, " image"] | None = None  # None in the vision tower

    @cached_property
    def summed(self) -> dict[str, Float[Tensor, "layers heads"]]:
        """By ``kind_direction``: each head's z changed at all these positions."""
        return {name: maps[..., self.places].sum(-1) for name, maps in self.maps.items()}

    def of(self, one: Intervention, by: str = "") -> float:
        """Return the estimate of an intervention: the sum over its heads and positions.

        `by`: `IG` for that by integrated gradients.
        """
        if one.kind == "self":
            return float("nan")  # it changes nothing, and nothing is estimated
        by_head = self.summed[way(one, by)]
        return sum(float(by_head[head.layer, head.head]) for head in one.heads)

    def placed(self) -> dict[str, Tensor]:
        """Return where positions lie, as ``approx.pt`` has it."""
        images = {} if self.image_positions is None else {"image_positions": self.image_positions}
        return {"places": self.places, **images}

    def corresponds(self, other: "Estimates") -> bool:
        """Whether the positions of two pairs correspond."""
        mine, others = self.placed(), other.placed()
        shapes = [[maps.shape for maps in one.maps.values()] for one in (self, other)]
        return (
            shapes[0] == shapes[1]
            and mine.keys() == others.keys()
            and all(torch.equal(mine[name], others[name]) for name in mine)
        )


@dataclass(frozen=True, eq=False)
class Agreed:
    """How well the estimates of one kind and direction stand for the exact effects (logits)."""

    approx: Float[np.ndarray, " heads"]
    exact: Float[np.ndarray, " heads"]
    options: PairsOptions  # coverage and draws of the interval
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
        return _named(self.measured, *self.interval) | _sizes(self.measured)


@dataclass(frozen=True, eq=False)
class AgreedPairs:
    """The same over pairs, twice: pair by pair, and of the effects' means over pairs."""

    pairs: tuple[Agreed, ...]
    study: Study
    scenes: Scenes

    @cached_property
    def by_pair(self) -> Float[np.ndarray, "pairs figures"]:
        """Return `FIGURES` of each pair; a correlation is NaN where a side is constant."""
        return np.array([[getattr(one.measured, name) for name in FIGURES] for one in self.pairs])

    @cached_property
    def of_means(self) -> MeanAgreement:
        """How the means over pairs agree."""
        approx, exact = (
            by_scene(np.stack([getattr(one, side) for one in self.pairs]), self.scenes)
            for side in ("approx", "exact")
        )
        options = self.study.pairs
        rng = np.random.default_rng(self.study.seed % 2**64)  # numpy takes no negative seed
        return mean_agreement(approx, exact, TOP, options.level, options.resamples, rng)

    def figures(self) -> dict[str, float | int]:
        """Return plain numbers by name.

        ``pearson``, ``spearman`` and ``top_recall`` are means over pairs, those that begin with
        ``of_means`` are of the means over pairs; ``…_low`` and ``…_high`` are intervals over pairs.
        """
        figures: dict[str, float | int] = {}
        mean, low, high = intervals(self.study, self.by_pair, self.scenes)
        least, most = np.array(list(_RANGES.values())).T
        ends = zip(FIGURES, mean, low.clip(least), high.clip(None, most), strict=True)
        for name, *three in ends:
            figures |= zip((name, f"{name}_low", f"{name}_high"), map(float, three), strict=True)
        whole = _named(self.of_means.measured, self.of_means.low, self.of_means.high)
        figures |= {f"of_means_{name}": value for name, value in whole.items()}
        return figures | _sizes(self.of_means.measured) | {"pairs": len(self.pairs)}


def _named(one: Agreement, low: float, high: float) -> dict[str, float | int]:
    return {
        "pearson": one.pearson,
        "pearson_low": low,
        "pearson_high": high,
        "spearman": one.spearman,
        "top_recall": one.top_recall,
    }


def _sizes(one: Agreement) -> dict[str, float | int]:
    return {"top_recall_chance": one.chance, "k": one.k, "heads": one.heads}


def way(one: Intervention, by: str = "") -> str:
    """Return kind and direction as one word, such as ``resample_noising``."""
    return f"{one.kind}{by}_{one.direction}"


def estimators(study: Study) -> tuple[str, ...]:
    """Return how effects are estimated: by one gradient, and by integrated ones if asked for."""
    return ("",) if study.sweep.ig is None else ("", IG)


def estimate(session: Session, job: Plan, means: ZMeans | None) -> Estimates:
    """Estimate every head of the plan's tower from one backward pass, at every position.

    Kind ``mean`` needs the tower's `means`.
    """
    vlm, options = session.vlm, session.study.sweep
    pair = gradients(vlm, session.prompt, (job.tower,))
    places = session.prompt.spans.positions(options.positions)
    if job.tower == "vision":
        places = vision_positions(vlm, session.base, session.study.vision.positions)
    ways = dict.fromkeys(
        (one.kind, one.direction, one.alpha) for one in job.asked if one.kind != "self"
    )
    maps = {
        f"{kind}_{direction}": attribute(pair, kind, direction, means, alpha)[job.tower]
        for kind, direction, alpha in ways
    }
    if options.ig is not None:
        along = integrated(vlm, session.prompt, pair, options.ig, (job.tower,))
        maps |= {
            f"{kind}{IG}_{direction}": attribute(along, kind, direction)[job.tower]
            for kind, direction, _ in ways
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
    sides: dict[str, list[tuple[float, float]]] = {}
    study = session.study
    for by in estimators(study):
        for outcome in outcomes:
            one = outcome.intervention
            if one.kind != "self" and one.heads in counted:
                both = estimates.of(one, by), outcome.effect
                sides.setdefault(way(one, by), []).append(both)
    compared = {name: np.array(pairs) for name, pairs in sides.items() if len(pairs) > 1}
    return {
        name: Agreed(pairs[:, 0], pairs[:, 1], study.pairs, study.seed)
        for name, pairs in compared.items()
    }


def saved_of_one(
    job: Plan,
    estimates: Estimates,
    agreed: Mapping[str, Agreed],
    sweep: Mapping[str, Any],
    level: float,
) -> dict[str, Any]:
    """Lay out ``approx.pt`` of one pair, beside the ``sweep.pt`` of the same run."""
    approx: dict[str, dict[str, Tensor]] = {}
    for by in ("", IG):
        for one in job.asked:
            if way(one, by) in estimates.maps and way(one) not in approx.get(_NAMES[by], {}):
                of_all = [estimates.of(replace(one, heads=members), by) for members in job.sets]
                shape = sweep["effect"][way(one)].shape
                found = torch.tensor(of_all, dtype=torch.float32).reshape(shape)
                approx.setdefault(_NAMES[by], {})[way(one)] = found
    return {
        "attribution": estimates.maps,
        **approx,
        "agreement": {name: one.figures() for name, one in agreed.items()},
        "level": level,
        **{key: sweep[key] for key in _COPIED if key in sweep},
        **estimates.placed(),
    }


class Gradients:
    """The estimates of one pair after the other, added up where their positions correspond.

    `scenes` are those of the pairs to come: each counts once.
    """

    def __init__(self, scenes: Scenes) -> None:
        self._scenes, self._sharing = scenes, np.bincount(scenes)[scenes].tolist()
        self._agreed: dict[str, list[Agreed]] = {}
        self._sums: dict[str, Tensor] = {}
        self._first: Estimates | None = None
        self._alike, self._pairs = True, 0

    def add(self, estimates: Estimates, agreed: Mapping[str, Agreed]) -> None:
        """Take in a pair."""
        for name, one in agreed.items():
            self._agreed.setdefault(name, []).append(one)
        sharing = self._sharing[self._pairs]
        self._first, self._pairs = self._first or estimates, self._pairs + 1
        self._alike = self._alike and self._first.corresponds(estimates)
        if self._alike:
            self._sums = {
                name: self._sums.get(name, 0) + maps / sharing
                for name, maps in estimates.maps.items()
            }

    def agreed(self, study: Study) -> dict[str, AgreedPairs]:
        """Return, by ``kind_direction``, how they agree; empty with fewer than two heads."""
        return {
            name: AgreedPairs(tuple(pairs), study, self._scenes)
            for name, pairs in self._agreed.items()
        }

    def saved(self, agreed: Mapping[str, AgreedPairs], sweep: Mapping[str, Any]) -> dict[str, Any]:
        """Lay out ``approx.pt`` over pairs; maps only where the positions of all correspond."""
        content: dict[str, Any] = {
            **{key: sweep[key] for key in (*_COPIED, *_COPIED_OVER_PAIRS) if key in sweep},
            "pairs": self._pairs,
            "agreement": {name: one.figures() for name, one in agreed.items()},
            "agreement_by_pair": {
                name: torch.from_numpy(one.by_pair).float() for name, one in agreed.items()
            },
            "figures": list(FIGURES),
        }
        if self._alike and self._first is not None:
            count = len(np.unique(self._scenes))
            maps = {name: sums / count for name, sums in self._sums.items()}
            content |= {"attribution": maps, **self._first.placed()}
        return content

"""Everything that a verdict measures of one pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headpatch.analyses.elsewhere import mirrored, wrong_place
from headpatch.analyses.rank import differences
from headpatch.analyses.session import Session, intervene, run_both
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction, Intervention, Kind
from headpatch.engine.patching import Outcome, ZMeans, run_pair
from headpatch.engine.sweep import Check, check
from headpatch.engine.vision import patch_vision, whole_layers
from headpatch.heads import HeadSet
from headpatch.measures.logits import normalized_effect
from headpatch.pairs.pair import Pair

PerHead = Float[np.ndarray, "layers heads"]
KINDS: tuple[Kind, ...] = ("resample", "mean")
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


@dataclass(frozen=True)
class Task:
    """What to measure of a pair, beside the sweeps of every head.

    Attributes
    ----------
    sets
        Noised as they are, by resampling.
    attribution
        Whether gradients estimate the effect of every head.
    nulls
        Whether it is asked about a wrong place and mirrored.
    vision
        Whether all heads of each vision layer are resampled.
    """

    sets: tuple[HeadSet, ...] = ()
    attribution: bool = False
    nulls: bool = False
    vision: bool = False

    def words(self) -> dict[str, Any]:
        """Return what names the task in a key."""
        return {
            "sets": [str(members) for members in self.sets],
            "attribution": self.attribution,
            "nulls": self.nulls,
            "vision": self.vision,
        }


@dataclass(frozen=True, eq=False)
class Other:
    """The pair asked otherwise.

    Attributes
    ----------
    ld_with, ld_without
        Untouched.
    attention
        Attention difference of the place that is asked about.
    noising, denoising
        Shift of LD in logits when each head is resampled.
    """

    ld_with: float
    ld_without: float
    attention: PerHead
    noising: PerHead
    denoising: PerHead


@dataclass(frozen=True, eq=False)
class JudgedPair:
    """What was measured of one pair.

    Attributes
    ----------
    ld_with, ld_without
        Untouched, in logits.
    effects
        Normalized, by ``kind_direction``.
    floor
        Largest effect, in logits, of patching a head with its own z.
    sets
        Normalized effect of noising each of the task's sets, in order.
    attribution
        Estimated normalized effect of resampling, by direction.
    vision
        Normalized effect of noising all heads of each vision layer, at all its tokens; empty if it
        was not asked, or they cannot be changed.
    unread
        Largest effect, in logits, of those layers that do not reach the language model; NaN if
        there are none.
    wrong_place, mirrored
        None if not asked, or the question cannot be turned.
    widened
        Whether heads were changed by widening passes, which are exact for the model.
    """

    name: str
    ld_with: float
    ld_without: float
    effects: Mapping[str, PerHead]
    floor: float
    sets: Float[np.ndarray, " sets"]
    attribution: Mapping[str, PerHead] = field(default_factory=dict)
    vision: Float[np.ndarray, " vision_layers"] = field(default_factory=lambda: np.zeros(0))
    unread: float = float("nan")
    wrong_place: Other | None = None
    mirrored: Other | None = None
    widened: bool = True

    @property
    def gap(self) -> float:
        """LD_with - LD_without."""
        return self.ld_with - self.ld_without

    def to_saved(self) -> dict[str, Any]:
        """Return plain tensors, numbers and texts."""
        saved: dict[str, Any] = _plain(self)
        return saved

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> "JudgedPair":
        """Read back what `to_saved` gave, bit for bit."""
        values = {name: _arrays(value) for name, value in saved.items()}
        for name in ("wrong_place", "mirrored"):
            if values[name] is not None:
                values[name] = Other(**values[name])
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, JudgedPair | Other):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if torch.is_tensor(value) else value


class Checks:
    """How the widening pass does for each length of prompt, compared once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Check] = {}

    def of(self, session: Session) -> Check:
        """Return the comparison for a session's length."""
        prefill = session.base.trace.prefills[0]
        key = (prefill.tokens, prefill.start)
        if session.fast is not None:
            self._known.setdefault(key, session.fast)
        if key not in self._known:
            positions = session.study.verdict.positions
            self._known[key] = check(session.vlm, session.base, positions)
        return self._known[key]


def measure(
    session: Session, task: Task, means: ZMeans, checks: Checks, rng: np.random.Generator
) -> JudgedPair:
    """Sweep every head, both directions, and do what else the task asks.

    Parameters
    ----------
    session
        Opened with the positions of the study's ``verdict``.
    rng
        Draws the heads that are patched with their own z.
    """
    options, base = session.study.verdict, session.base
    singles = [HeadSet.of(head) for head in session.vlm.lm.grid]
    ways = list(product(KINDS, DIRECTIONS))

    def changed(members: HeadSet, kind: Kind, direction: Direction) -> Intervention:
        return Intervention(members, kind, direction, options.positions)

    asked = [changed(one, kind, direction) for kind, direction in ways for one in singles]
    asked += [changed(one, "resample", "noising") for one in task.sets]
    drawn = rng.choice(len(singles), size=min(options.noise, len(singles)), replace=False)
    own = [changed(singles[i], "self", direction) for direction in DIRECTIONS for i in drawn]
    outcomes = intervene(session, [*asked, *own], means)
    checks.of(session)
    vision, unread = _vision(session) if task.vision else (np.zeros(0), float("nan"))
    shape = (session.vlm.lm.grid.layers, session.vlm.lm.grid.heads)
    found = _normalized(session, outcomes[: len(asked)])
    swept = found[: len(ways) * len(singles)].reshape(len(ways), *shape)
    return JudgedPair(
        name=session.pair.name,
        ld_with=base.ld_with,
        ld_without=base.ld_without,
        effects={f"{kind}_{way}": swept[i] for i, (kind, way) in enumerate(ways)},
        floor=max(abs(one.effect) for one in outcomes[len(asked) :]),
        sets=found[len(ways) * len(singles) :],
        attribution=_attributed(session) if task.attribution else {},
        vision=vision,
        unread=unread,
        wrong_place=_otherwise(session, wrong_place(session.pair), checks) if task.nulls else None,
        mirrored=_otherwise(session, mirrored(session.pair), checks) if task.nulls else None,
        widened=session.widens,
    )


def _normalized(session: Session, outcomes: list[Outcome]) -> Float[np.ndarray, " outcomes"]:
    base = session.base
    return np.array(
        [
            normalized_effect(one.ld, base.ld_with, base.ld_without, one.intervention.direction)
            for one in outcomes
        ]
    )


def _attributed(session: Session) -> dict[str, PerHead]:
    """Estimate the normalized effect of resampling every head, from one backward pass."""
    base = session.base
    pair = gradients(session.vlm, session.prompt, ("lm",))
    where = session.prompt.spans.positions(session.study.verdict.positions)
    found = {}
    for direction, sign in (("noising", -1), ("denoising", 1)):
        effect = attribute(pair, "resample", direction)["lm"][..., where].sum(-1)  # type: ignore[arg-type]
        share = sign * effect.cpu().numpy().astype(np.float64) / (base.ld_with - base.ld_without)
        found[direction] = share
    return found


def _vision(session: Session) -> tuple[Float[np.ndarray, " vision_layers"], float]:
    """Noise all heads of each vision layer; the layers beyond the last that is read do nothing."""
    vlm = session.vlm
    if vlm.vision is None or vlm.family.one_row or vlm.family.crossed:
        return np.zeros(0), float("nan")
    base = run_pair(vlm, session.prompt, Keep(z=("vision",)), exact=True)
    asked = [Intervention(one, "resample", "noising") for one in whole_layers(vlm)]
    found = patch_vision(vlm, base, asked)
    last = vlm.feature_layer
    beyond = [] if last is None else found[last + 1 :]
    unread = max((abs(one.effect) for one in beyond), default=float("nan"))
    return _normalized(session, found), unread


def _otherwise(session: Session, pair: Pair | None, checks: Checks) -> Other | None:
    """Run the pair asked otherwise, and resample every head."""
    if pair is None:
        return None
    study = session.study
    other = run_both(study, session.vlm, pair, study.verdict.positions)
    other = replace(other, fast=checks.of(other))
    grid = session.vlm.lm.grid
    asked = [
        Intervention(HeadSet.of(head), "resample", direction, study.verdict.positions)
        for direction in DIRECTIONS
        for head in grid
    ]
    effects = np.array([one.effect for one in intervene(other, asked)])
    noising, denoising = effects.reshape(2, grid.layers, grid.heads)
    base = other.base
    return Other(base.ld_with, base.ld_without, differences(other), noising, denoising)

"""What is shown of each head over many pairs: the verdict labels.

The logic, with δ the smallest effect of interest (in normalized units), δ_a the smallest attention
difference of interest and α = 1 - level. The unit is the scene: pairs that share pictures count as
one.

- *Shown beyond.* Two things must hold. The mean differs from 0: the q of a t-test, over all heads
  and both directions together (Benjamini-Hochberg), is below α, and so is the q that the study's
  own resamples give where effects are skewed (`effect_q`), which bounds the share of heads
  without any effect among those that are called. And it is of interest: the interval that the
  table prints lies beyond δ; a threshold on the estimate alone would let luck lift a head over it,
  and over enough pairs the smallest effect differs from 0. The interval is each head's own; who
  wants δ itself tested with correction over all heads reads the column ``_beyond_q`` (a stricter
  test, of `minimum_effect_test` at δ).
- *Mixed.* The mean is not shown beyond, but it hides what the head does on pairs: they are shown to
  lie beyond δ in both directions, or outside ±δ where the mean is shown to lie inside
  (`headpatch.stats.per_pair`); or the effect is shown to depend on a factor of the dataset
  (`headpatch.stats.factors`).
- *Shown small*, in both directions: the mean lies within ±δ by an equivalence test, and single
  pairs do, too (`headpatch.stats.per_pair`); each q over all heads below α.
- *Watches, looks away, inert.* Of heads whose effect is shown small: the attention difference is
  shown to lie beyond δ_a, below -δ_a (by its interval, by a q over all heads below α, and beyond
  `RAW_FLOOR` as a share of all attention), or neither. That it lies within ±δ_a is shown only where
  ``attention_equivalence_q`` is below α.
- Neither is `undecided`: more pairs would be needed. Absence of evidence is no evidence of absence.
- *Redundant.* A set of heads is redundant if it is shown to be necessary together, and each of its
  members to add more once the others are gone than it does alone (`headpatch.stats.interactions`).
  The label goes to those of its heads that are not shown necessary alone. So it, too, rests on
  something shown, not on a failure to see a head's own effect. It outranks `sufficient`, which its
  columns still show.

A head that is shown beyond δ in opposite directions keeps the positive name; its sentence tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headpatch.heads import Head, HeadSet
from headpatch.stats.factors import Dependence, dependences
from headpatch.stats.interactions import HeldOutSets, Joint, judge_sets, partners
from headpatch.stats.intervals import Interval, interval_by, standard_deviation
from headpatch.stats.per_pair import extremes, few_outside, hidden_test, tolerance_test
from headpatch.stats.resampling import by_columns
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import (
    Moments,
    adjusted,
    effective_pairs,
    equivalence_test,
    layer_rank,
    minimum_effect_test,
    resampled_q,
)
from headpatch.stats.verdict_labels import RAW_FLOOR, Rule, Verdict

Each = Float[np.ndarray, "pairs layers heads"]
Both = Float[np.ndarray, "pairs directions layers heads"]
Signs = Int[np.ndarray, "layers heads"]
Shown = Bool[np.ndarray, "layers heads"]
Pairs = Float[np.ndarray, "pairs *rest"]
NAMES = ("necessity", "sufficiency")


@dataclass(frozen=True, eq=False)
class Observed:
    """What was measured, one value a pair and head.

    Attributes
    ----------
    attention
        Share of the image attention on the region, with minus without; NaN for heads that do not
        attend to the image's tokens.
    joint, tested
        Sets that no pair has chosen, judged on all of them, and what is left of them without each
        of their heads; `tested` for redundancy (None: every set of `joint`).
    chosen
        Sets that some pairs have chosen, with the others, which judge them.
    raw
        The attention difference as a share of all attention; None: not known.
    lds
        LD of both untouched runs on each pair, in logits; None: not known.
    scenes
        Of which scene each pair is; None: each is its own.
    factors
        The pairs' levels of the dataset's factors.
    layers
        The number of each layer of the values; None: every head's name is its place. `joint` and
        `chosen` are by name.
    """

    attention: Each
    necessity: Each
    sufficiency: Each
    joint: Joint = field(default_factory=dict)
    tested: Sequence[HeadSet] | None = None
    chosen: Sequence[HeldOutSets] = ()
    raw: Each | None = None
    lds: Float[np.ndarray, "runs pairs"] | None = None
    scenes: Int[np.ndarray, " pairs"] | None = None
    factors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layers: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What is shown: the columns of ``verdicts.csv``, ``partners.csv`` and ``factors.csv``."""

    heads: pd.DataFrame
    sets: pd.DataFrame
    factors: pd.DataFrame


def judge(seen: Observed, rule: Rule) -> Verdicts:
    """Give every head its verdict; see the module for the logic."""
    if not rule.delta > 0 or not rule.attention_delta > 0:
        raise ValueError(f"delta and attention_delta must be above 0, got {rule}")
    unit = partial(by_scene, scenes=seen.scenes)
    looking = _Looking.of(seen, rule)
    pairs: Both = np.stack([seen.necessity, seen.sufficiency], 1)
    both = unit(pairs)
    effects = [interval_by(both[:, way], rule) for way in range(2)]
    moments = Moments.of(both)
    q, beyond_q = effect_q(both, rule, moments), adjusted(minimum_effect_test(moments, rule.delta))
    within = equivalence_test(moments, rule.delta)
    means_q = adjusted(within.max(0))
    signs = [_signs(found, one, rule) for found, one in zip(effects, q, strict=True)]
    largest = pairs if seen.scenes is None else extremes(pairs, seen.scenes)
    tolerance_q = adjusted(tolerance_test(largest, rule.delta).max(0))
    hidden_q = adjusted(hidden_test(largest, within, rule.delta))
    few = few_outside(largest, rule.delta, rule.alpha).all(0)
    depends = dependences(pairs, seen.factors, rule, seen.scenes)
    own = tuple(seen.joint) if seen.tested is None else tuple(seen.tested)
    sets = judge_sets(
        [HeldOutSets(own, seen.joint, seen.necessity, seen.scenes), *seen.chosen], rule
    )
    with_others = partners(sets)

    layers, heads = effects[0].mean.shape
    numbers = np.arange(layers) if seen.layers is None else np.array(seen.layers)
    layer, head = np.repeat(numbers, heads), np.tile(np.arange(heads), layers)
    named = [Head(int(a), int(b)) for a, b in zip(layer, head, strict=True)]
    paired = np.array([one in with_others for one in named]).reshape(layers, heads)
    hidden = np.any(
        [(hidden_q < rule.alpha).any(0), *(one.shown.any(0) for one in depends)], axis=0
    )
    small = (means_q < rule.alpha) & (tolerance_q < rule.alpha) & few
    verdict = _labels(signs, paired, hidden, small, looking)
    columns = {
        "layer": layer,
        "head": head,
        "verdict": verdict,
        **looking.first_columns(),
        **{
            key: values
            for name, found, one in zip(NAMES, effects, q, strict=True)
            for key, values in (*found.columns(name).items(), (f"{name}_q", one))
        },
        **looking.columns(),
        **{f"{name}_beyond_q": one for name, one in zip(NAMES, beyond_q, strict=True)},
        "equivalence_q": means_q,
        "tolerance_q": tolerance_q,
        **_on_pairs(pairs, hidden_q, seen, rule),
        **{
            f"{name}_layer_p": layer_rank(unit(values))
            for name, values in zip(NAMES, (seen.necessity, seen.sufficiency), strict=True)
        },
        # a semicolon after each, so that no program reads the cell of one head as a number
        "partners": np.array(
            ["".join(f"{others};" for others in with_others.get(one, ())) for one in named]
        ),
    }
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    # A member that is itself necessary alone is named beside the others, not as redundant
    table.loc[table["verdict"] != "redundant", "partners"] = ""
    return Verdicts(table, sets, _by_factor(depends, numbers))


def _labels(
    signs: Sequence[Signs], paired: Shown, hidden: Shown, small: Shown, looking: "_Looking"
) -> np.ndarray:
    """Name what is shown of each head: the first label that holds."""
    needed, suffices = signs
    labels: dict[Verdict, Shown] = {
        "necessary+sufficient": (needed > 0) & (suffices > 0),
        "necessary": needed > 0,
        "redundant": paired,
        "sufficient": suffices > 0,
        "inhibitory": (needed < 0) | (suffices < 0),
        "mixed": hidden & ~small,
        "watches": small & looking.more,
        "looks away": small & looking.less,
        "inert": small,
    }
    return np.select(list(labels.values()), list(labels), "undecided")


@dataclass(frozen=True, eq=False)
class _Looking:
    """What is shown of each head's attention difference."""

    diff: Interval
    raw: Interval | None
    q: Float[np.ndarray, "layers heads"]
    within_q: Float[np.ndarray, "layers heads"]
    unread: Shown  # it does not attend to the image's tokens
    rule: Rule

    @classmethod
    def of(cls, seen: Observed, rule: Rule) -> "_Looking":
        unread = np.isnan(seen.attention).any(0)
        diff = by_scene(np.nan_to_num(seen.attention), seen.scenes)
        raw = None if seen.raw is None else by_scene(np.nan_to_num(seen.raw), seen.scenes)
        moments = Moments.of(diff)
        q, within_q = (
            adjusted(np.where(unread, 1.0, p))
            for p in (minimum_effect_test(moments), equivalence_test(moments, rule.attention_delta))
        )
        intervals = interval_by(diff, rule), None if raw is None else interval_by(raw, rule)
        return cls(*intervals, q, within_q, unread, rule)

    @property
    def more(self) -> Shown:
        """Whether it is shown to attend more to the region when the object is there."""
        enough = True if self.raw is None else self.raw.low > RAW_FLOOR
        return self._shown & (self.diff.low > self.rule.attention_delta) & enough

    @property
    def less(self) -> Shown:
        """Whether it is shown to attend less."""
        enough = True if self.raw is None else self.raw.high < -RAW_FLOOR
        return self._shown & (self.diff.high < -self.rule.attention_delta) & enough

    @property
    def _shown(self) -> Shown:
        return np.asarray((self.q < self.rule.alpha) & ~self.unread)

    def first_columns(self) -> dict[str, np.ndarray]:
        return {
            "attention_diff": self._read(self.diff.mean),
            "attention_diff_q": self._read(self.q),
        }

    def columns(self) -> dict[str, np.ndarray]:
        raw = {} if self.raw is None else self.raw.columns("attention_raw_diff")
        ends = {"attention_diff_low": self.diff.low, "attention_diff_high": self.diff.high}
        own = {**ends, "attention_equivalence_q": self.within_q, **raw}
        return {name: self._read(values) for name, values in own.items()}

    def _read(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.unread, np.nan, values)


def _on_pairs(
    pairs: Both, hidden_q: Float[np.ndarray, "directions layers heads"], seen: Observed, rule: Rule
) -> dict[str, np.ndarray]:
    """Return what effects do on single pairs: how they spread, and which share lies where."""
    columns = {}
    for way, name in enumerate(NAMES):
        values = pairs[:, way]
        columns[f"{name}_sd"] = standard_deviation(values)
        columns[f"{name}_carried"] = effective_pairs(values)
        columns[f"{name}_above"] = (values > rule.delta).mean(0)
        columns[f"{name}_below"] = (values < -rule.delta).mean(0)
        columns[f"{name}_mixed_q"] = hidden_q[way]
        if seen.lds is not None:
            columns[f"{name}_turned"] = _turned(values, name, *seen.lds)
    return columns


def _turned(
    values: Each,
    name: str,
    ld_with: Float[np.ndarray, " pairs"],
    ld_without: Float[np.ndarray, " pairs"],
) -> Int[np.ndarray, "layers heads"]:
    """Count the pairs whose answer the change turns: LD has the other run's sign after it."""

    def count(some: Pairs) -> Int[np.ndarray, "*rest"]:
        present, absent = (ld.reshape(-1, *[1] * (some.ndim - 1)) for ld in (ld_with, ld_without))
        moved = some * (present - absent)
        after = present - moved if name == "necessity" else absent + moved
        return np.asarray((after * (present if name == "necessity" else absent) < 0).sum(0))

    return by_columns(count, values)


def _by_factor(depends: Sequence[Dependence], numbers: Int[np.ndarray, " layers"]) -> pd.DataFrame:
    """List the levels of each factor on which a head's effect is shown to depend."""
    rows = [
        [int(numbers[layer]), int(head), NAMES[way], one.factor, level.name, level.pairs, *ends, q]
        for one in depends
        for way, layer, head in np.argwhere(one.shown)
        for q in [one.q[way, layer, head]]
        for level in one.levels
        for ends in [[values[way, layer, head] for values in level.effect.ends]]
    ]
    ends = ("effect", "effect_low", "effect_high")
    names = ["layer", "head", "direction", "factor", "level", "pairs", *ends, "q"]
    return pd.DataFrame(rows, columns=names)


def effect_q(
    values: Pairs, rule: Rule, moments: Moments | None = None
) -> Float[np.ndarray, "*rest"]:
    """Q of every mean being unlike 0: the larger of the t-test's and the resampled one.

    Where effects are skewed or come in few pairs, the t-test calls too many heads without any; how
    many, the study itself tells (`headpatch.stats.significance.resampled_q`). `moments`: theirs, if
    they are known.
    """
    rng = np.random.default_rng([rule.seed % 2**64, 2])
    by_chance = resampled_q(values, rule.delta, rule.level, rule.resamples, rng)
    return np.asarray(np.maximum(adjusted(minimum_effect_test(moments or values)), by_chance))


def significant_sign(values: Pairs, rule: Rule) -> Int[np.ndarray, "*rest"]:
    """1 or -1 where a mean is shown to lie above δ or below -δ, corrected over all; else 0."""
    return _signs(interval_by(values, rule), effect_q(values, rule), rule)


def _signs(found: Interval, q: Float[np.ndarray, "*rest"], rule: Rule) -> Int[np.ndarray, "*rest"]:
    above_it, below_it = found.low > rule.delta, found.high < -rule.delta
    return np.where(q < rule.alpha, above_it.astype(int) - below_it.astype(int), 0)

"""What is shown of each head over many pairs: the verdict classes.

The logic, with δ the smallest effect of interest (in normalized units) and α = 1 - level:

- *Shown beyond.* Two things must hold. The mean differs from 0: the q of a t-test, over all heads
  and both directions together (Benjamini-Hochberg), is below α, which bounds the share of heads
  without any effect among those that are called. And it is of interest: the interval that the
  table prints lies beyond δ; a threshold on the estimate alone would let luck lift a head over it,
  and over enough pairs the smallest effect differs from 0. The interval is each head's own; who
  wants δ itself tested with correction over all heads reads the column ``_beyond_q`` (a stricter
  test, of `beyond` at δ).
- *Shown within.* `watches` and `inert` need an equivalence test: both effects lie within ±δ, by
  the larger p of the two, its q over all heads below α.
- Neither is `undecided`: more pairs would be needed. Absence of evidence is no evidence of absence.
- *Redundant.* A pair of heads a, b with joint necessity N(ab) is redundant if both N(ab) and the
  excess N(ab) - N(a) - N(b) are shown above δ (the larger p of the two; q over all tested pairs):
  together they matter, and more than their parts. The class goes to those of the two that are not
  shown necessary alone. So it, too, rests on something shown, not on a failure to see a head's own
  effect. It outranks `sufficient`, which its columns still show.

A head that is shown beyond δ in opposite directions keeps the positive name; the columns tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headpatch.heads import Head, HeadSet
from headpatch.measures.intervals import Interval, finite_pairs, mean_interval
from headpatch.measures.significance import above, adjusted, beyond, layer_null, within

Verdict = Literal[
    "necessary+sufficient",
    "necessary",
    "sufficient",
    "redundant",
    "inhibitory",
    "watches",
    "inert",
    "undecided",
]
CAUSAL: tuple[Verdict, ...] = get_args(Verdict)[:5]
"""The classes of a head that is shown to act."""


@dataclass(frozen=True)
class Rule:
    """By what a verdict is reached.

    Attributes
    ----------
    delta
        Smallest effect of interest, in normalized units; above 0.
    level
        Of intervals; 1 - level bounds the q-values.
    resamples
        Bootstrap draws, and draws of the layer-matched null.
    seed
        Of both.
    """

    delta: float
    level: float
    resamples: int
    seed: int

    @property
    def alpha(self) -> float:
        """The bound of q-values: 1 - level."""
        return 1 - self.level


@dataclass(frozen=True, eq=False)
class Observed:
    """What was measured, one value a pair and head; every head's name is its place.

    Attributes
    ----------
    attention
        Attention difference of the region: share of the image attention, with minus without. NaN
        for heads that do not attend to the image's tokens.
    necessity, sufficiency
        Normalized effects of resampling the head alone: noising, denoising.
    joint
        Normalized effects of noising two heads together, one a pair.
    """

    attention: Float[np.ndarray, "pairs layers heads"]
    necessity: Float[np.ndarray, "pairs layers heads"]
    sufficiency: Float[np.ndarray, "pairs layers heads"]
    joint: Mapping[HeadSet, Float[np.ndarray, " pairs"]]


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What is shown.

    Attributes
    ----------
    heads
        A row a head, in layer-head order: the columns of ``verdicts.csv``.
    sets
        A row for each tested pair of heads: ``heads``, its joint necessity and its excess over the
        sum of the parts with intervals and q, and whether it is ``redundant``.
    """

    heads: pd.DataFrame
    sets: pd.DataFrame


def judge(seen: Observed, rule: Rule) -> Verdicts:
    """Give every head its verdict; see the module for the logic.

    Raises
    ------
    ValueError
        If δ is not above 0, there are fewer than two pairs, an effect is not finite, or a joint
        set is not of two heads.
    """
    if not rule.delta > 0:
        raise ValueError(f"delta must be above 0, got {rule.delta}")
    rng = np.random.default_rng([rule.seed % 2**64, 1])
    necessity, sufficiency = seen.necessity, seen.sufficiency
    looks = _interval(np.nan_to_num(seen.attention), rule)
    unread = np.isnan(seen.attention).any(0)
    look_p = beyond(np.nan_to_num(seen.attention))
    look_q = adjusted(np.where(unread, 1.0, look_p))
    need, enough = _interval(necessity, rule), _interval(sufficiency, rule)
    both = np.stack([necessity, sufficiency], 1)
    need_q, enough_q = adjusted(beyond(both))
    need_more, enough_more = adjusted(beyond(both, rule.delta))
    inside = adjusted(within(both, rule.delta).max(0))
    sets = _sets(seen, rule)
    partners = _partners(sets)

    needed, suffices = _signs(need, need_q, rule), _signs(enough, enough_q, rule)
    layers, heads = need.mean.shape
    paired = np.zeros((layers, heads), dtype=bool)
    for one in partners:
        paired[one.layer, one.head] = True
    watching = (look_q < rule.alpha) & (looks.mean > 0) & ~unread
    verdict = np.select(
        [
            (needed > 0) & (suffices > 0),
            needed > 0,
            paired,
            suffices > 0,
            (needed < 0) | (suffices < 0),
            (inside < rule.alpha) & watching,
            inside < rule.alpha,
        ],
        [
            "necessary+sufficient",
            "necessary",
            "redundant",
            "sufficient",
            "inhibitory",
            "watches",
            "inert",
        ],
        "undecided",
    )
    layer, head = np.divmod(np.arange(need.mean.size), heads)
    named = [Head(int(a), int(b)) for a, b in zip(layer, head, strict=True)]
    columns = {
        "layer": layer,
        "head": head,
        "verdict": verdict,
        "attention_diff": np.where(unread, np.nan, looks.mean),
        "attention_diff_q": np.where(unread, np.nan, look_q),
        "necessity": need.mean,
        "necessity_low": need.low,
        "necessity_high": need.high,
        "necessity_q": need_q,
        "sufficiency": enough.mean,
        "sufficiency_low": enough.low,
        "sufficiency_high": enough.high,
        "sufficiency_q": enough_q,
        "attention_diff_low": np.where(unread, np.nan, looks.low),
        "attention_diff_high": np.where(unread, np.nan, looks.high),
        "necessity_beyond_q": need_more,
        "sufficiency_beyond_q": enough_more,
        "equivalence_q": inside,
        "necessity_layer_p": layer_null(necessity, rule.resamples, rng),
        "sufficiency_layer_p": layer_null(sufficiency, rule.resamples, rng),
        "partners": np.array([";".join(map(str, partners.get(one, ()))) for one in named]),
    }
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    # A partner of a pair that is itself necessary alone is named beside the other, not as redundant
    table.loc[table["verdict"] != "redundant", "partners"] = ""
    return Verdicts(table, sets)


def _interval(values: Float[np.ndarray, "pairs *rest"], rule: Rule) -> Interval:
    """Every interval resamples the same pairs."""
    rng = np.random.default_rng([rule.seed % 2**64, 0])
    return mean_interval(values, rule.level, rule.resamples, rng)


def shown(values: Float[np.ndarray, "pairs *rest"], rule: Rule) -> Int[np.ndarray, "*rest"]:
    """1 or -1 where a mean is shown to lie above δ or below -δ, corrected over all of them; else 0.

    Raises
    ------
    ValueError
        If there are fewer than two pairs, or a value is not finite.
    """
    return _signs(_interval(values, rule), adjusted(beyond(values)), rule)


def _signs(found: Interval, q: Float[np.ndarray, "*rest"], rule: Rule) -> Int[np.ndarray, "*rest"]:
    above_it, below_it = found.low > rule.delta, found.high < -rule.delta
    return np.where(q < rule.alpha, above_it.astype(int) - below_it.astype(int), 0)


def _sets(seen: Observed, rule: Rule) -> pd.DataFrame:
    """Test whether each joint set is necessary, and more than the sum of its parts."""
    names = ("joint", "joint_low", "joint_high", "excess", "excess_low", "excess_high", "q")
    if not seen.joint:
        return pd.DataFrame({"heads": [], **{name: [] for name in names}, "redundant": []})
    if any(len(members) != 2 for members in seen.joint):
        raise ValueError("joint sets are of two heads each")
    joint = finite_pairs(np.stack(list(seen.joint.values()), 1))
    parts = [
        sum(seen.necessity[:, head.layer, head.head].astype(np.float64) for head in members)
        for members in seen.joint
    ]
    excess = joint - np.stack(parts, 1)
    whole, more = _interval(joint, rule), _interval(excess, rule)
    q = adjusted(np.maximum(above(joint, rule.delta), above(excess, rule.delta)))
    redundant = (q < rule.alpha) & (whole.low > rule.delta) & (more.low > rule.delta)
    columns = [whole.mean, whole.low, whole.high, more.mean, more.low, more.high, q]
    return pd.DataFrame(
        {
            "heads": list(map(str, seen.joint)),
            **dict(zip(names, columns, strict=True)),
            "redundant": redundant,
        }
    )


def _partners(sets: pd.DataFrame) -> dict[Head, tuple[Head, ...]]:
    """By head of a redundant pair: its partners, the largest joint effect first."""
    found: dict[Head, tuple[Head, ...]] = {}
    if len(sets):
        kept = sets[sets["redundant"]].sort_values("joint", ascending=False, kind="stable")
        for text in kept["heads"]:
            first, second = HeadSet.parse(text)
            found[first] = (*found.get(first, ()), second)
            found[second] = (*found.get(second, ()), first)
    return found

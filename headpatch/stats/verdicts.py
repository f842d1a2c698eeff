"""What is shown of each head over many pairs: the verdict labels.

The logic, with δ the smallest effect of interest (in normalized units) and α = 1 - level:

- *Shown beyond.* Two things must hold. The mean differs from 0: the q of a t-test, over all heads
  and both directions together (Benjamini-Hochberg), is below α, which bounds the share of heads
  without any effect among those that are called. And it is of interest: the interval that the
  table prints lies beyond δ; a threshold on the estimate alone would let luck lift a head over it,
  and over enough pairs the smallest effect differs from 0. The interval is each head's own; who
  wants δ itself tested with correction over all heads reads the column ``_beyond_q`` (a stricter
  test, of `minimum_effect_test` at δ).
- *Shown within.* `watches` and `inert` need an equivalence test: both effects lie within ±δ, by
  the larger p of the two, its q over all heads below α.
- Neither is `undecided`: more pairs would be needed. Absence of evidence is no evidence of absence.
- *Redundant.* A set of heads is redundant if it is shown to be necessary together, and each of its
  members to add more once the others are gone than it does alone (`headpatch.stats.interactions`).
  The label goes to those of its heads that are not shown necessary alone. So it, too, rests on
  something shown, not on a failure to see a head's own effect. It outranks `sufficient`, which its
  columns still show.

A head that is shown beyond δ in opposite directions keeps the positive name; the columns tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headpatch.heads import Head, HeadSet
from headpatch.stats.interactions import Joint, judge_sets, partners
from headpatch.stats.intervals import Interval, mean_interval
from headpatch.stats.significance import adjusted, equivalence_test, layer_rank, minimum_effect_test
from headpatch.stats.verdict_labels import Rule, Verdict

Each = Float[np.ndarray, "pairs layers heads"]
Signs = Int[np.ndarray, "layers heads"]
Shown = Bool[np.ndarray, "layers heads"]
Pairs = Float[np.ndarray, "pairs *rest"]


@dataclass(frozen=True, eq=False)
class Observed:
    """What was measured, one value a pair and head; every head's name is its place.

    The attention difference (share of the image attention on the region, with minus without) is NaN
    for heads that do not attend to the image's tokens. `joint` holds the sets that are tested, and
    what is left of them without each of their heads.
    """

    attention: Each
    necessity: Each
    sufficiency: Each
    joint: Joint
    tested: Sequence[HeadSet] | None = None  # for redundancy; None tests every set of `joint`


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What is shown: the columns of ``verdicts.csv``, a row a head, and of ``partners.csv``."""

    heads: pd.DataFrame
    sets: pd.DataFrame


def judge(seen: Observed, rule: Rule) -> Verdicts:
    """Give every head its verdict; see the module for the logic."""
    if not rule.delta > 0:
        raise ValueError(f"delta must be above 0, got {rule.delta}")
    necessity, sufficiency = seen.necessity, seen.sufficiency
    looks = _interval(np.nan_to_num(seen.attention), rule)
    unread = np.isnan(seen.attention).any(0)
    look_p = minimum_effect_test(np.nan_to_num(seen.attention))
    look_q = adjusted(np.where(unread, 1.0, look_p))
    need, enough = _interval(necessity, rule), _interval(sufficiency, rule)
    both = np.stack([necessity, sufficiency], 1)
    need_q, enough_q = adjusted(minimum_effect_test(both))
    need_more, enough_more = adjusted(minimum_effect_test(both, rule.delta))
    inside = adjusted(equivalence_test(both, rule.delta).max(0))
    tested = tuple(seen.joint) if seen.tested is None else seen.tested
    sets = judge_sets(tested, seen.joint, necessity, rule)
    with_others = partners(sets)

    needed, suffices = _signs(need, need_q, rule), _signs(enough, enough_q, rule)
    layers, heads = need.mean.shape
    paired = np.array([[Head(i, j) in with_others for j in range(heads)] for i in range(layers)])
    watching = (look_q < rule.alpha) & (looks.mean > 0) & ~unread
    verdict = _labels(needed, suffices, paired, inside < rule.alpha, watching)
    layer, head = np.divmod(np.arange(need.mean.size), heads)
    named = [Head(int(a), int(b)) for a, b in zip(layer, head, strict=True)]
    columns = {
        "layer": layer,
        "head": head,
        "verdict": verdict,
        "attention_diff": np.where(unread, np.nan, looks.mean),
        "attention_diff_q": np.where(unread, np.nan, look_q),
        **_ends("necessity", need),
        "necessity_q": need_q,
        **_ends("sufficiency", enough),
        "sufficiency_q": enough_q,
        "attention_diff_low": np.where(unread, np.nan, looks.low),
        "attention_diff_high": np.where(unread, np.nan, looks.high),
        "necessity_beyond_q": need_more,
        "sufficiency_beyond_q": enough_more,
        "equivalence_q": inside,
        "necessity_layer_p": layer_rank(necessity),
        "sufficiency_layer_p": layer_rank(sufficiency),
        # a semicolon after each, so that no program reads the cell of one head as a number
        "partners": np.array(
            ["".join(f"{others};" for others in with_others.get(one, ())) for one in named]
        ),
    }
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    # A member that is itself necessary alone is named beside the others, not as redundant
    table.loc[table["verdict"] != "redundant", "partners"] = ""
    return Verdicts(table, sets)


def _labels(
    needed: Signs, suffices: Signs, paired: Shown, small: Shown, watching: Shown
) -> np.ndarray:
    """Name what is shown of each head: the first label that holds."""
    labels: dict[Verdict, Shown] = {
        "necessary+sufficient": (needed > 0) & (suffices > 0),
        "necessary": needed > 0,
        "redundant": paired,
        "sufficient": suffices > 0,
        "inhibitory": (needed < 0) | (suffices < 0),
        "watches": small & watching,
        "inert": small,
    }
    return np.select(list(labels.values()), list(labels), "undecided")


def _ends(name: str, found: Interval) -> dict[str, Float[np.ndarray, "layers heads"]]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _interval(values: Pairs, rule: Rule) -> Interval:
    """Every interval resamples the same pairs."""
    rng = np.random.default_rng([rule.seed % 2**64, 0])
    return mean_interval(values, rule.level, rule.resamples, rng)


def significant_sign(values: Pairs, rule: Rule) -> Int[np.ndarray, "*rest"]:
    """1 or -1 where a mean is shown to lie above δ or below -δ, corrected over all; else 0."""
    return _signs(_interval(values, rule), adjusted(minimum_effect_test(values)), rule)


def _signs(found: Interval, q: Float[np.ndarray, "*rest"], rule: Rule) -> Int[np.ndarray, "*rest"]:
    above_it, below_it = found.low > rule.delta, found.high < -rule.delta
    return np.where(q < rule.alpha, above_it.astype(int) - below_it.astype(int), 0)

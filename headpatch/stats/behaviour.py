r"""How right answers are, and what a change does to that: metrics, their differences, tests.

Every metric is a ratio of sums over cells, :math:`\sum n_i / \sum d_i`; a cell is a row of a
dataset, or rows that count together. With P rows whose right answer is yes, and TP, FP, TN, FN as
usual (Y. Li et al., Evaluating Object Hallucination in Large Vision-Language Models, EMNLP 2023,
and its ``evaluate.py``):

- accuracy: right rows / rows; yes-rate: rows answered by yes / rows;
- precision: TP / (TP + FP); recall: TP / (TP + FN); F1: 2 TP / (2 TP + FP + FN).

A row that is answered by neither is wrong and no yes. NaturalBench's scores (B. Li et al., NeurIPS
2024) are of cells: a question, a picture or a group counts as right if all of its rows are.

The unit of intervals and tests is the scene: rows that share a picture are no independent draws.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from headpatch.stats.intervals import Interval, mean_interval
from headpatch.stats.scenes import Scenes

Cells = Float[np.ndarray, "changes cells"]
Values = Float[np.ndarray, " changes"]


@dataclass(frozen=True, eq=False)
class Metric:
    """A ratio of sums over cells, without a change (the first) and under each of some changes.

    `scenes` number the scene of each cell; a `bounded` metric is a share, between 0 and 1.
    """

    name: str
    over: Cells
    under: Cells
    scenes: Scenes
    bounded: bool = True

    @property
    def values(self) -> Values:
        """The metric itself, without and under each change; NaN where it divides by nothing."""
        return _ratio(self.over.sum(1), self.under.sum(1))

    def differences(self, level: float, resamples: int, rng: np.random.Generator) -> Interval:
        r"""Return what each change adds to the metric, with its interval over scenes.

        That of the mean (`headpatch.stats.intervals.mean_interval`) of the jackknife's pseudovalues
        :math:`n \theta - (n - 1) \theta_{-i}`, :math:`\theta_{-i}` being the difference without
        scene i (J. W. Tukey, Bias and confidence in not-quite large samples, Annals of Mathematical
        Statistics 29, 1958; R. G. Miller, The jackknife: a review, Biometrika 61, 1974), moved to
        lie about :math:`\theta`. Where every scene has as many cells, the pseudovalues of an
        accuracy are the scenes' own differences. Ends of a share's difference stay within ±1.

        Where all n scenes differ by the same c, as by nothing, they say nothing of others but that
        these are rare: fewer than a share :math:`r = 1 - \alpha^{1/n}` of all scenes, at a tail of
        :math:`\alpha` (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934). Those could lie at
        -1 or 1, so that the interval of a share is :math:`c - r (1 + c)` to :math:`c + r (1 - c)`.
        NaN ends where there are fewer than two scenes, or the metric is not defined without one of
        them.
        """
        values = self.values
        found = values[1:] - values[0]
        over, under = _by_scene(self.over, self.scenes), _by_scene(self.under, self.scenes)
        count = over.shape[1]
        without = _ratio(over.sum(1, keepdims=True) - over, under.sum(1, keepdims=True) - under)
        apart = count * found[:, None] - (count - 1) * (without[1:] - without[:1])
        low, high = np.full((2, len(found)), np.nan)
        known = np.isfinite(apart).all(1)
        if count > 1 and known.any():
            pseudo = apart[known].T
            ends = mean_interval(pseudo, level, resamples, rng)
            moved = found[known] - pseudo.mean(0)
            low[known], high[known] = ends.low + moved, ends.high + moved
        if self.bounded and count > 1:
            with np.errstate(invalid="ignore"):
                alike = np.ptp(apart, axis=1) < 1e-9
            rare = 1 - ((1 - level) / 2) ** (1 / count)
            low = np.where(alike, found - rare * (1 + found), np.clip(low, -1, 1))
            high = np.where(alike, found + rare * (1 - found), np.clip(high, -1, 1))
        return Interval(found, low, high)


def yes_no_metrics(
    yes: Bool[np.ndarray, "changes rows"], positive: Bool[np.ndarray, " rows"], scenes: Scenes
) -> list[Metric]:
    """Return yes-rate, precision, recall and F1, given which rows are answered by yes.

    `positive` says of which rows yes is the right answer.
    """
    said, right = yes.astype(np.float64), np.broadcast_to(positive, yes.shape).astype(np.float64)
    hits, ones = said * right, np.ones(yes.shape)
    return [
        Metric("yes_rate", said, ones, scenes),
        Metric("precision", hits, said, scenes),
        Metric("recall", hits, right, scenes),
        Metric("f1", 2 * hits, said + right, scenes),  # 2 TP + FP + FN is yes said and yes meant
    ]


def right_together(
    name: str,
    right: Cells,
    groups: Int[np.ndarray, " rows"],
    scenes: Scenes,
) -> Metric | None:
    """Return the share of groups all of whose rows are right; None if no group has two rows.

    `groups` number the group of each row; rows alone in theirs are left out.
    """
    _, first, place, count = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    kept = count > 1
    if not kept.any():
        return None
    order = np.argsort(place, kind="stable")  # rows of a group side by side
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    least = np.minimum.reduceat(right[:, order], starts, axis=1)
    return Metric(name, least[:, kept], np.ones((len(right), kept.sum())), scenes[first][kept])


def sign_flip_p(differences: Int[np.ndarray, " units"]) -> float:
    r"""Two-sided exact p of the hypothesis that each unit's difference may as well be its negative.

    The share of all :math:`2^n` choices of signs whose sum is as far from 0 as the sum itself. Of
    differences of 1 (lost) and -1 (gained) it is McNemar's exact test (Q. McNemar, Note on the
    sampling error of the difference between correlated proportions, Psychometrika 12, 1947); of
    sums over the rows of a scene, the same test for clusters of rows. 1 if nothing differs.
    """
    sizes = np.abs(differences[differences != 0])
    total = int(sizes.sum())
    chance = np.zeros(2 * total + 1)  # of each sum from -total to total
    chance[total] = 1.0
    for size in sizes.tolist():
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2  # nothing lies at the ends
    sums = np.arange(-total, total + 1)
    return float(min(1.0, chance[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def by_scene_sums(values: Int[np.ndarray, " rows"], scenes: Scenes) -> Int[np.ndarray, " scenes"]:
    """Add up the rows of each scene."""
    return np.asarray(np.rint(_by_scene(values[None].astype(np.float64), scenes)[0]), np.int64)


def _by_scene(values: Cells, scenes: Scenes) -> Float[np.ndarray, "changes scenes"]:
    _, place = np.unique(scenes, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[:, order], starts, axis=1))


def _ratio(
    over: Float[np.ndarray, "*n"], under: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    # What is left of a sum may be rounding.
    there = under > 1e-9
    return np.asarray(np.divide(over, under, out=np.full(np.shape(over), np.nan), where=there))

"""How gradients' estimates agree with the exact effects of a sweep over a dataset of pairs.

Twice: pair by pair, and of the effects' means over pairs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.aggregate import intervals
from headpatch.core.study import Study
from headpatch.questions.sweep.approx import TOP, Agreed, Estimates
from headpatch.questions.sweep.one import Sweep
from headpatch.stats.agreement import MeanAgreement, mean_agreement

FIGURES = ("pearson", "spearman", "top_recall")
"""What is measured of each pair."""
_RANGES = {"pearson": (-1, 1), "spearman": (-1, 1), "top_recall": (0, 1)}


@dataclass(frozen=True, eq=False)
class AgreedPairs:
    """How the estimates of one kind and direction stand for the exact effects over pairs.

    Attributes
    ----------
    pairs
        Each pair's agreement.
    study
        Whose intervals are taken.
    """

    pairs: tuple[Agreed, ...]
    study: Study

    @cached_property
    def by_pair(self) -> Float[np.ndarray, "pairs figures"]:
        """Return `FIGURES` of each pair; a correlation is NaN where a side is constant."""
        return np.array([[getattr(one.measured, name) for name in FIGURES] for one in self.pairs])

    @cached_property
    def of_means(self) -> MeanAgreement:
        """How the means over pairs agree."""
        approx, exact = (
            np.stack([getattr(one, side) for one in self.pairs]) for side in ("approx", "exact")
        )
        options = self.study.pairs
        rng = np.random.default_rng(self.study.seed % 2**64)  # numpy takes no negative seed
        return mean_agreement(approx, exact, TOP, options.level, options.resamples, rng)

    def figures(self) -> dict[str, float | int]:
        """Return plain numbers by name.

        ``pearson``, ``spearman`` and ``top_recall`` are means over pairs, those that begin with
        ``of_means`` are of the means over pairs; ``…_low`` and ``…_high`` are intervals over pairs.
        """
        found: dict[str, float | int] = {}
        mean, low, high = intervals(self.study, self.by_pair)
        least, most = np.array([_RANGES[name] for name in FIGURES]).T
        ends = zip(FIGURES, mean, low.clip(least), high.clip(None, most), strict=True)
        for name, *three in ends:
            found |= zip((name, f"{name}_low", f"{name}_high"), map(float, three), strict=True)
        one, whole = self.of_means, self.of_means.measured
        found |= {
            "of_means_pearson": whole.pearson,
            "of_means_pearson_low": one.low,
            "of_means_pearson_high": one.high,
            "of_means_spearman": whole.spearman,
            "of_means_top_recall": whole.top_recall,
        }
        return found | {
            "top_recall_chance": whole.chance,
            "k": whole.k,
            "heads": whole.heads,
            "pairs": len(self.pairs),
        }


class Gradients:
    """The estimates of one pair after the other."""

    def __init__(self) -> None:
        self._agreed: dict[str, list[Agreed]] = {}
        self._sums: dict[str, Tensor] = {}
        self._first: Estimates | None = None
        self._alike, self._pairs = True, 0

    def add(self, found: Sweep) -> None:
        """Take in a pair's sweep, which has estimates."""
        one = found.estimates
        assert one is not None
        for way, agreed in found.agreed.items():
            self._agreed.setdefault(way, []).append(agreed)
        self._first, self._pairs = self._first or one, self._pairs + 1
        self._alike = self._alike and _alike(self._first, one)
        if self._alike:
            self._sums = {way: self._sums.get(way, 0) + maps for way, maps in one.maps.items()}

    def agreed(self, study: Study) -> dict[str, AgreedPairs]:
        """Return, by ``kind_direction``, how they agree; empty with fewer than two heads."""
        return {way: AgreedPairs(tuple(pairs), study) for way, pairs in self._agreed.items()}

    def saved(self, agreed: dict[str, AgreedPairs], sweep: dict[str, Any]) -> dict[str, Any]:
        """Lay out ``approx.pt``.

        Parameters
        ----------
        sweep
            What ``sweep.pt`` holds.

        Returns
        -------
        By key:

        - ``effect``, ``approx``: by ``kind_direction``, exact effects and estimates, means over
          pairs, in logits, ``[layers, heads]``, or ``[sets]`` of a list; ``approx_low`` and
          ``approx_high`` likewise, their intervals over pairs;
        - ``agreement``: by ``kind_direction``, the figures of `AgreedPairs.figures`;
        - ``agreement_by_pair``: by ``kind_direction``, float32 ``[pairs, figures]``, and
          ``figures``, the names of these figures;
        - ``attribution``: by ``kind_direction``, float32 ``[layers, heads, positions]``, in logits,
          means over pairs of each head's z changed at that position alone, to first order;
          ``places``: the positions that the sweep changed; ``image_positions``: the prompt's image
          tokens (of the language model). These three only where the positions of all prompts
          correspond;
        - ``pairs``: how many; ``pair_names``, ``tower``, ``positions``, ``noise_floor``, ``level``,
          ``valid``, ``question``, ``region_name``: as in ``sweep.pt``.
        """
        kept = ("effect", "approx", "approx_low", "approx_high", "pair_names", "tower", "positions",
                "noise_floor", "level", "valid", "question", "region_name")  # fmt: skip
        found: dict[str, Any] = {
            **{key: sweep[key] for key in (*kept, "alpha") if key in sweep},
            "pairs": self._pairs,
            "agreement": {way: one.figures() for way, one in agreed.items()},
            "agreement_by_pair": {
                way: torch.from_numpy(one.by_pair).float() for way, one in agreed.items()
            },
            "figures": list(FIGURES),
        }
        if self._alike and self._first is not None:
            found["attribution"] = {way: sums / self._pairs for way, sums in self._sums.items()}
            found["places"] = self._first.places
            if self._first.image_positions is not None:
                found["image_positions"] = self._first.image_positions
        return found


def _alike(one: Estimates, other: Estimates) -> bool:
    """Whether the positions of two pairs correspond."""
    if one.image_positions is None or other.image_positions is None:
        images = one.image_positions is other.image_positions
    else:
        images = torch.equal(one.image_positions, other.image_positions)
    shapes = [maps.shape for maps in one.maps.values()]
    same = shapes == [maps.shape for maps in other.maps.values()]
    return images and same and torch.equal(one.places, other.places)

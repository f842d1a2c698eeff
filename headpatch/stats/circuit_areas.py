r"""CPR and CMD: a ranking's faithfulness curve as two figures that papers compare.

A. Mueller et al., MIB: A Mechanistic Interpretability Benchmark, ICML 2025 (arXiv:2504.13151). Of
the circuit of a ranking's first components, the share p of all, with all others resampled,

.. math:: f(p) = \frac{m(C_p) - m(\emptyset)}{m(N) - m(\emptyset)},

where m is the mean over pairs of the answer's logit difference: of the circuit, of the empty one
(all resampled), of the whole model. So f is a ratio of means, in which a pair weighs as much as its
LD difference. With trapezoids over p, linear, from 0.001 to 1:

- integrated circuit performance ratio, :math:`\mathrm{CPR} = \int f(p)\,dp`: what good components
  do, the more the better;
- integrated circuit-model distance, :math:`\mathrm{CMD} = \int |1 - f(p)|\,dp`: how far the circuit
  is from the model, 0 the best.

MIB's components are edges, or nodes with MLPs among them, changed at every token; whoever compares
says what the components are here.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.integrate import trapezoid
from scipy.stats import t

from headpatch.stats.intervals import finite_pairs
from headpatch.stats.shares import Estimate

SHARES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The grid of p."""


def circuit_sizes(components: int) -> list[int]:
    """Return the size of the circuit at each share of so many components, cut to whole ones."""
    return [int(share * components) for share in SHARES]


def circuit_areas(
    kept: Sequence[Float[np.ndarray, "pairs sizes"]],
    empty: Float[np.ndarray, " pairs"],
    gaps: Float[np.ndarray, " pairs"],
    level: float,
) -> tuple[Estimate, Estimate]:
    """Return CPR and CMD, means over a ranking's draws, with jackknife intervals over pairs.

    Parameters
    ----------
    kept
        Of each draw: each pair's share of the LD difference that the circuits of `circuit_sizes`
        leave.
    empty
        The same of the empty circuit.
    gaps
        LD_with - LD_without of each pair, in logits.
    level
        Coverage of the intervals (Student's t of J. W. Tukey's jackknife, 1958).

    NaN where the empty circuit does what the model does. A ValueError as of `finite_pairs`.
    """
    shares = finite_pairs(np.stack([np.column_stack([empty, one]) for one in kept], 1))
    logits = shares * np.asarray(gaps, dtype=np.float64)[:, None, None]
    whole = np.broadcast_to(np.asarray(gaps, dtype=np.float64)[:, None], logits.shape[:2])

    def areas(
        total: Float[np.ndarray, "draws points"], of_all: Float[np.ndarray, " draws"]
    ) -> Float[np.ndarray, "two"]:
        reached = of_all - total[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            f = np.where(
                reached[:, None] != 0, (total[:, 1:] - total[:, :1]) / reached[:, None], np.nan
            )
        return np.array([trapezoid(f, SHARES).mean(), trapezoid(np.abs(1 - f), SHARES).mean()])

    n, total, of_all = len(logits), logits.sum(0), whole.sum(0)
    value = areas(total, of_all)
    left_out = np.stack(
        [areas(total - one, of_all - own) for one, own in zip(logits, whole, strict=True)]
    )
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    reach = float(t.ppf((1 + level) / 2, n - 1)) * error
    cpr, cmd = (
        Estimate(*map(float, ends))
        for ends in zip(value, value - reach, value + reach, strict=True)
    )
    return cpr, cmd

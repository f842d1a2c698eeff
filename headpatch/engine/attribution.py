"""Attribution patching: every head at every position in both towers, from one backward pass.

What patching z with z' does to LD is, to first order, (z' - z) · ∂LD/∂z, with the gradient taken
at the run that is changed (Nanda, *Attribution Patching: Activation Patching At Industrial Scale*,
2023; Syed, Rager & Conmy, *Attribution Patching Outperforms Automated Circuit Discovery*, 2023,
arXiv:2310.10348). It is exact in the limit of small changes; a saturated softmax or a large change
can make it arbitrarily wrong (Kramár et al., AtP*, 2024, arXiv:2403.00745), so it is shown with
its `agreement` with an exact sweep, never alone.

Memory: the graph holds about 15 times the layers' inputs of both towers (measured: 119 MiB for the
bundled model's pair; 3.0 GB a run with LLaVA-1.5-7B's dimensions in bfloat16, 5.3 GB in float32), z
and its gradient among them; gradients of weights are never formed, and the graph is gone on return.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from headpatch.engine.attention import plain_attention, tapped
from headpatch.engine.interventions import Direction, Kind
from headpatch.engine.patching import ZMeans, base_run
from headpatch.errors import RunError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Attribution = dict[Tower, Float[Tensor, "layers heads positions"]]
"""By tower: the estimated effect on LD, in logits; the estimate of a scope is the sum over it."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """Both runs of a pair with ∂LD/∂z.

    Attributes
    ----------
    ld
        Shape ``[runs]``.
    z, slope
        By tower and layer: z and ∂LD/∂z, ``[runs, positions, heads, head_dim]``. The slope of a
        layer that does not reach LD is 0.
    """

    ld: Float[Tensor, " runs"]
    z: dict[Tower, list[Tensor]]
    slope: dict[Tower, list[Tensor]]


@dataclass(eq=False)
class _Site:
    """A tap that adds 0 to z: a leaf, whose gradient is ∂LD/∂z.

    The whole z is kept, and of every call: some towers call several times a layer.
    """

    z: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        z = plain_attention(module, query, key, value, mask, **options)
        leaf = torch.zeros_like(z, requires_grad=True)
        self.z.append(z.detach())
        self.leaves.append(leaf)
        return z + leaf


def gradients(vlm: VLM, prompt: Prompt, towers: Sequence[Tower] = get_args(Tower)) -> Gradients:
    """Run a batch forwards and backwards once.

    Its rows do not touch each other, so the one backward pass gives the gradients of every run.
    Weights keep their ``requires_grad`` and get no gradient. Low-precision weights run in their
    own precision: the estimate's error is far larger than rounding.

    Parameters
    ----------
    towers
        The vision tower is left out where headpatch cannot change it.

    Raises
    ------
    RunError
        If LD or a gradient is not a number, or a layer's attention never ran.
    """
    chosen = [tower for tower in towers if tower == "lm" or vlm.vision is not None]
    sites = {tower: [_Site() for _ in vlm.stack(tower).attentions] for tower in chosen}
    taps = {
        module: site
        for tower, there in sites.items()
        for module, site in zip(vlm.stack(tower).attentions, there, strict=True)
    }
    inputs = {
        key: value.to(vlm.dtype) if value.is_floating_point() else value
        for key, value in prompt.inputs.items()
    }
    with torch.enable_grad(), tapped(vlm.model, taps):
        output = vlm.model(**inputs, use_cache=False, logits_to_keep=1)
        logits = output.logits[:, -1].float()
        ld = logits[:, prompt.answers.yes] - logits[:, prompt.answers.no]
        leaves = [leaf for there in sites.values() for site in there for leaf in site.leaves]
        slopes = iter(torch.autograd.grad(ld.sum(), leaves, allow_unused=True))
    slope = {
        tower: [
            _whole([_or_zero(next(slopes), leaf) for leaf in site.leaves], prompt.runs)
            for site in there
        ]
        for tower, there in sites.items()
    }
    z = {tower: [_whole(site.z, prompt.runs) for site in there] for tower, there in sites.items()}
    found = [ld, *(one for layers in slope.values() for one in layers)]
    if not all(bool(torch.isfinite(one).all()) for one in found):
        raise RunError(
            f"LD or its gradient is not finite ({vlm.name}, {vlm.dtype}): --dtype float32"
        )
    return Gradients(ld.detach(), z, slope)


def _or_zero(slope: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if slope is None else slope


def _whole(parts: Sequence[Tensor], runs: int) -> Tensor:
    """Join a layer's calls, ``[runs, positions, heads, head_dim]``, as `Trace.z` does."""
    if not parts:
        raise RunError("an attention module never ran through headpatch's attention function")
    flat = torch.cat([part.flatten(0, 1) for part in parts]).detach()
    whole: Tensor = flat.unflatten(0, (runs, -1))
    return whole


def attribute(
    pair: Gradients, kind: Kind, direction: Direction, means: ZMeans | None = None
) -> Attribution:
    """Estimate the effect of changing each head's z at each position alone.

    Parameters
    ----------
    pair
        The with-run, then the without-run.
    means
        Mean z of the towers in `pair`, needed for kind ``mean``.

    Raises
    ------
    ValueError
        If means are needed and missing.
    """
    run = base_run(direction)
    estimates: Attribution = {}
    for tower, layers in pair.z.items():
        if kind == "mean" and (means is None or tower not in means):
            raise ValueError(f"kind 'mean' needs means of tower {tower!r}")
        found = []
        for layer, z in enumerate(layers):
            here = z[run].float()
            if kind == "zero":
                source = torch.zeros_like(here)
            elif kind == "mean" and means is not None:
                source = means[tower][layer].to(here)
            else:
                source = z[run if kind == "self" else 1 - run].float()
            found.append(((source - here) * pair.slope[tower][layer][run].float()).sum(-1).T)
        estimates[tower] = torch.stack(found)
    return estimates


@dataclass(frozen=True)
class Agreement:
    """How well estimates stand for exact effects.

    Attributes
    ----------
    pearson, spearman
        Correlations over all heads; NaN where one side is constant.
    top_recall
        Of the `k` heads with the largest exact effects (by size), the share that is also among
        the `k` with the largest estimates.
    k
        At most the number of heads.
    """

    pearson: float
    spearman: float
    top_recall: float
    k: int

    def __str__(self) -> str:
        return (
            f"Pearson {self.pearson:.2f}, Spearman {self.spearman:.2f}, "
            f"top-{self.k} recall {self.top_recall:.2f}"
        )


def agreement(
    approx: Float[np.ndarray, "*shape"], exact: Float[np.ndarray, "*shape"], k: int = 20
) -> Agreement:
    """Compare estimated with exact effects of the same heads.

    Raises
    ------
    ValueError
        If there are fewer than two effects, or one is not a number.
    """
    a, b = np.ravel(approx).astype(float), np.ravel(exact).astype(float)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("agreement needs two or more effects, each a number")
    k = min(k, len(a))
    top = [set(np.argsort(-np.abs(values), kind="stable")[:k]) for values in (a, b)]
    recall = len(top[0] & top[1]) / k
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Agreement(float("nan"), float("nan"), recall, k)
    return Agreement(float(pearsonr(a, b)[0]), float(spearmanr(a, b)[0]), recall, k)

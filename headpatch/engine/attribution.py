"""Attribution patching: every head at every position in both towers, from one backward pass.

What patching z with z' does to LD is, to first order, (z' - z) · ∂LD/∂z, with the gradient taken
at the run that is changed (Nanda, *Attribution Patching: Activation Patching At Industrial Scale*,
2023; Syed, Rager & Conmy, *Attribution Patching Outperforms Automated Circuit Discovery*, 2023,
arXiv:2310.10348). It is exact in the limit of small changes; a saturated softmax or a large change
can make it arbitrarily wrong (Kramár et al., AtP*, 2024, arXiv:2403.00745), so it is shown with
its agreement with an exact sweep (`headpatch.stats.agreement`), never alone.

Integrated gradients take the mean slope along a line of inputs between the two runs in place of the
slope at one of them, which a saturated point hides (Hanna, Pezzelle & Belinkov, *Have Faith in
Faithfulness*, 2024, arXiv:2403.17806, EAP-IG; of nodes here, of edges in `headpatch.engine.edges`).

Memory: the graph holds about 15 times the layers' inputs of both towers (measured: 119 MiB for the
bundled model's pair; 3.0 GB a run with LLaVA-1.5-7B's dimensions in bfloat16, 5.3 GB in float32), z
and its gradient among them; gradients of weights are never formed, and the graph is gone on return.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.engine.attention import plain_attention, tapped
from headpatch.engine.forward import layers_of
from headpatch.engine.interventions import WITH, WITHOUT, Direction, replacement
from headpatch.engine.memory import release
from headpatch.engine.patching import ZMeans, base_run
from headpatch.engine.precision import answer_logits
from headpatch.errors import InputError, RunError
from headpatch.heads import Tower
from headpatch.kinds import averages
from headpatch.models.placement import quantized
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Attribution = dict[Tower, Float[Tensor, "layers heads positions"]]
"""By tower: the estimated effect on LD, in logits; the estimate of a scope is the sum over it."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """Both runs of a pair: LD, and by tower and layer z and its slope ∂LD/∂z.

    Each is ``[runs, positions, heads, head_dim]``; the slope is 0 where LD does not depend on z.
    """

    ld: Float[Tensor, " runs"]
    z: dict[Tower, list[Tensor]]
    slope: dict[Tower, list[Tensor]]
    # of each run's tokens, in the other; None: prompts are as long as each other
    partners: tuple[Int[Tensor, " tokens"], Int[Tensor, " other_tokens"]] | None = None


@dataclass(eq=False)
class _Site:
    """A tap that adds a leaf of 0 to z, whose gradient is ∂LD/∂z; a layer may call it often."""

    z: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def __call__(self, *taken: Any, **options: Any) -> Tensor:
        z = plain_attention(*taken, **options)
        leaf = torch.zeros_like(z, requires_grad=True)
        self.z.append(z.detach())
        self.leaves.append(leaf)
        return z + leaf


def refused(vlm: VLM) -> str:
    """Say why no gradient can be had of this model; "" if it can."""
    if vlm.lm.grid.without or vlm.lm.at_output:
        return "not every layer's attention function gives the z of its heads"
    if quantized(vlm.model):
        return "its weights are quantised, and gradients through them are not checked"
    if any(weight.is_meta for weight in vlm.model.parameters()):
        return "some of its weights are offloaded, and a backward pass would need them all at once"
    return ""


def gradients(vlm: VLM, prompt: Prompt, towers: Sequence[Tower] = get_args(Tower)) -> Gradients:
    """Run a batch forwards and backwards once, in the towers that headpatch can change.

    Its rows do not touch each other, so the one backward pass gives the gradients of every run.
    Weights keep their ``requires_grad`` and get no gradient. Low-precision weights run in their own
    precision: the estimate's error is far larger than rounding. A `RunError` if LD or a gradient is
    not a number, a layer's attention never ran, or the graph does not fit the device's memory.
    """
    if prompt.each:
        runs = [gradients(vlm, one, towers) for one in prompt.each]
        z, slope = (layers_of([getattr(one, name) for one in runs]) for name in ("z", "slope"))
        partners = prompt.partners(WITH), prompt.partners(WITHOUT)
        return Gradients(torch.cat([one.ld for one in runs]), z, slope, partners)
    try:
        return _gradients(vlm, prompt, towers)
    except torch.OutOfMemoryError:
        pass
    release()  # only here are the failed pass's tensors gone
    try:
        return _gradients(vlm, prompt, towers)
    except torch.OutOfMemoryError as error:
        raise RunError(f"{vlm.device} has too little memory for a backward pass") from error


def _gradients(vlm: VLM, prompt: Prompt, towers: Sequence[Tower]) -> Gradients:
    """Do what `gradients` does, of runs of one length."""
    chosen = [tower for tower in towers if tower == "lm" or vlm.vision is not None]
    sites = {tower: [_Site() for _ in vlm.stack(tower).attentions] for tower in chosen}
    every = [site for there in sites.values() for site in there]
    modules = [module for tower in chosen for module in vlm.stack(tower).attentions]
    with torch.enable_grad(), tapped(vlm.parts, dict(zip(modules, every, strict=True))):
        logits = answer_logits(vlm, prompt, vlm.dtype)
        ld = prompt.answers.ld(logits)
        leaves = [leaf for site in every for leaf in site.leaves]
        slopes = iter(torch.autograd.grad(ld.sum(), leaves, materialize_grads=True))
    slope = {
        tower: [_whole([next(slopes) for _ in site.leaves], prompt.runs) for site in there]
        for tower, there in sites.items()
    }
    z = {tower: [_whole(site.z, prompt.runs) for site in there] for tower, there in sites.items()}
    found = [ld, *(one for layers in slope.values() for one in layers)]
    if not all(bool(torch.isfinite(one).all()) for one in found):
        raise RunError(
            f"LD or its gradient is not finite ({vlm.name}, {vlm.dtype}): --dtype float32"
        )
    return Gradients(ld.detach(), z, slope)


def integrated(
    vlm: VLM, prompt: Prompt, ends: Gradients, steps: int, towers: Sequence[Tower]
) -> Gradients:
    """Return both runs' z with its mean slope on the line of inputs from the other run to this.

    The points k / `steps` of it, k = 1 to `steps`, as EAP-IG has them: with one step `ends`, the
    gradients of both runs themselves. Its line joins the embeddings of two texts; here all that is
    not a whole number is on it, the pictures as the processor gives them, so that the vision tower
    is read from the same passes. An `InputError` if the two runs differ in their tokens.
    """
    total = {tower: [torch.zeros_like(one[0]) for one in ends.slope[tower]] for tower in ends.slope}
    for points in points_between(prompt, steps):
        between = gradients(vlm, points, towers)
        for tower, layers in between.slope.items():
            for layer, slope in enumerate(layers):
                total[tower][layer] += slope.sum(0)
    mean = {
        tower: [(own + total[tower][layer]) / steps for layer, own in enumerate(layers)]
        for tower, layers in ends.slope.items()
    }
    return Gradients(ends.ld, ends.z, mean)


def points_between(prompt: Prompt, steps: int) -> Iterator[Prompt]:
    """Yield the points k / `steps` strictly between both runs, as many to a batch as it has runs.

    An `InputError` if the two runs differ in their tokens.
    """
    present, absent = (prompt.select(run).inputs for run in (WITH, WITHOUT))
    moved = [name for name, value in present.items() if value.is_floating_point()]
    if not all(torch.equal(present[name], absent[name]) for name in present.keys() - {*moved}):
        found = "two prompts: there is no line between their tokens"
        raise InputError("--ig", found, "one question about both pictures")
    for first in range(1, steps, prompt.runs):
        shares = [k / steps for k in range(first, min(first + prompt.runs, steps))]
        inputs = {
            name: torch.cat([torch.lerp(absent[name], value, share) for share in shares])
            if name in moved
            else torch.cat([value] * len(shares))
            for name, value in present.items()
        }
        yield replace(prompt, inputs=inputs, runs=len(shares))


def _whole(parts: Sequence[Tensor], runs: int) -> Tensor:
    """Join a layer's calls, ``[runs, positions, heads, head_dim]``, as `Trace.z` does."""
    if not parts:
        raise RunError("an attention module never ran through headpatch's attention function")
    flat = torch.cat([part.flatten(0, 1) for part in parts]).detach()
    whole: Tensor = flat.unflatten(0, (runs, -1))
    return whole


def attribute(
    pair: Gradients,
    kind: str,
    direction: Direction,
    means: ZMeans | None = None,
    alpha: float | None = None,
) -> Attribution:
    """Estimate the effect of changing each head's z at each position alone.

    `pair` holds the with-run, then the without-run; a ValueError if means are needed and missing.
    """
    run = base_run(direction)
    estimates: Attribution = {}
    for tower, layers in pair.z.items():
        mean = (means or {}).get(tower)
        if mean is None and averages([kind]):
            raise ValueError(f"kind {kind!r} needs means of tower {tower!r}")
        found = []
        for layer, z in enumerate(layers):
            here, other = z[run].float(), z[1 - run].float()
            if pair.partners is not None and tower == "lm":
                partners = pair.partners[run].to(here.device)
                here = here[: len(partners)]
                other = torch.where(partners[:, None, None] < 0, here, other[partners])
            own_mean = None if mean is None else mean[layer].to(here)[: len(here)]
            source = replacement(kind, alpha, here, other, own_mean)
            slope = pair.slope[tower][layer][run].float()[: len(here)]
            found.append(((source - here) * slope).sum(-1).T)
        estimates[tower] = torch.stack([one.to(found[0].device) for one in found])
    return estimates

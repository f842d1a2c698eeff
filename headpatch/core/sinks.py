r"""Image tokens that are attention sinks: whose stream is massive at a few dimensions.

A sink is told by its stream :math:`x` as it enters a layer: :math:`|x_d| / \sqrt{\overline{x^2}}`
(the root mean square over all dimensions) exceeds τ at one of the sink dimensions d, as in S. Kang,
J. Kim, J. Kim and S. J. Hwang, See What You Are Told: Visual Attention Sink in Large Multimodal
Models (ICLR 2025, arXiv:2503.03321), with τ = 20 and, for the LLaVA-1.5 that Vicuna 7B is in,
dimensions 1415 and 2533. There sinks are found anew in every layer; here a token is a sink of its
run if it is one entering *any* layer from the third on, so that one set of tokens is cut
everywhere. Before that no token is one, whatever the projector writes.

Where no dimensions are named, they are the two with the largest ratio at the prompt's first token,
over these layers: that token is the sink that decoders make for themselves, and in a model that
reads causally it is the same whatever the picture, so that all pairs have the same dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.core.session import RUNS, Session
from headpatch.core.study.options import SINK_TAU
from headpatch.engine.residual import record
from headpatch.errors import InputError, RowError

_FIRST: Final = 2  # layer, counted from 0: massive activations are made by the layers before it
_DIMENSIONS: Final = 2  # that are found where none are named, as many as were published


@dataclass(frozen=True, eq=False)
class Sinks:
    """The sink tokens of both runs, and by what they are told."""

    tokens: tuple[Int[Tensor, " with_sinks"], Int[Tensor, " without_sinks"]]
    dimensions: tuple[int, ...]
    tau: float

    def random(self, session: Session, run: int, count: int) -> list[Int[Tensor, " sinks"]]:
        """Draw sets of as many image tokens that are no sinks of the run; none if too few are left.

        Seeded by the study.
        """
        own, image = self.tokens[run], session.prompt.spans.image.cpu()
        others = image[~torch.isin(image, own)].numpy()
        if len(others) < len(own):
            return []
        rng = np.random.default_rng([session.study.seed % 2**64, 0x51AC, run])
        draws = (rng.choice(others, len(own), replace=False) for _ in range(count))
        return [torch.from_numpy(np.sort(drawn)) for drawn in draws]


def find_sinks(
    session: Session, tau: float = SINK_TAU, dimensions: Sequence[int] | None = None
) -> Sinks:
    """Find the sink tokens of both runs; a `RowError` if a run has none."""
    spans, vlm = session.prompt.spans, session.vlm
    if spans.crossed:
        found = f"sinks: {vlm.name} looks at the image by cross-attention"
        raise InputError("--edges", found, "a model whose image is among the prompt's tokens")
    streams = record(vlm, session.prompt)["lm"]
    # [layers, runs, tokens, width]
    ratios = torch.stack([_ratios(one).cpu() for one in streams[min(_FIRST, len(streams) - 1) :]])
    width = ratios.shape[-1]
    if dimensions is None:
        at_first = ratios[:, :, 0].amax((0, 1))
        dimensions = sorted(at_first.topk(min(_DIMENSIONS, width)).indices.tolist())
    elif wrong := [one for one in dimensions if one >= width]:
        raise InputError("--sink-dims", str(wrong[0]), f"dimensions 0-{width - 1} in this model")
    image = spans.image.cpu()
    largest = ratios[..., list(dimensions)].amax((0, 3))[:, image]  # [runs, image]
    tokens = tuple(image[run > tau] for run in largest)
    if empty := [run for run, own in enumerate(tokens) if not len(own)]:
        at = ", ".join(map(str, dimensions))
        most = f"the largest is {float(largest[empty[0]].max()):.1f}"
        found = f"sinks: no image token {RUNS[empty[0]]} exceeds {tau:g} times its root mean square"
        found += f" at dimensions {at} ({most}; pair {session.pair.name})"
        raise RowError("--edges", found, "a lower --sink-tau, or other --sink-dims")
    return Sinks((tokens[0], tokens[1]), tuple(dimensions), tau)


def _ratios(
    stream: Float[Tensor, "runs tokens width"],
) -> Float[Tensor, "runs tokens width"]:
    x = stream.float()
    return x.abs() / x.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo().tiny)

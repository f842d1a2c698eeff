"""The views of one pair of pictures, each exact, and all of them one after the other.

- *The stream.* The residual stream of one run is put into the other, at one class of tokens of one
  layer (`headpatch.core.stream_swaps`). 1 means: at this depth these tokens hold all that tells the
  runs apart.
- *Edges.* Attention from some tokens to others is cut in windows of layers around every layer
  (`headpatch.core.edge_cuts`): it shows when an edge is read.
- *Direct attribution.* What each head and MLP writes straight into LD = logit(Yes) - logit(No), in
  the with-run less the without-run: a sum, exactly (`headpatch.engine.direct`).
- *Paths to heads.* What named heads hear, input by input (`headpatch.questions.path.heads`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headpatch.core.edge_cuts import Cutting, cut_edges
from headpatch.core.progress import Stages
from headpatch.core.session import Session
from headpatch.core.stream_swaps import DIRECTION, Curves, StreamCurves, streams
from headpatch.engine.direct import take_apart
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.questions.path.heads import HeadPaths, head_paths


@dataclass(frozen=True, eq=False)
class EdgeCurves:
    """What cutting edges does, over the layers that the windows are centred on.

    Attributes
    ----------
    shares, effects
        By edge: normalized, and in logits.
    noise_floor
        In logits, as `headpatch.core.edge_cuts.CutTable` has it.
    """

    shares: Curves
    effects: Curves
    noise_floor: float


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part writes straight into LD, the with-run less the without-run, as shares.

    Attributes
    ----------
    heads, mlps, rest
        By layer; the rest is the embedding (entry 0) and biases. All together they add up to 1.
    """

    heads: Float[np.ndarray, "layers heads"]
    mlps: Float[np.ndarray, " layers"]
    rest: Float[np.ndarray, " layers"]


@dataclass(frozen=True, eq=False)
class Views:
    """What every view found of one pair.

    Attributes
    ----------
    attribution
        None where LD cannot be attributed to the model's parts; `why_not` says why.
    heads
        None where no heads were asked for.
    """

    stream: StreamCurves
    edges: EdgeCurves
    attribution: Attribution | None
    heads: HeadPaths | None
    why_not: str = ""

    @property
    def noise_floor(self) -> float:
        """The largest of the views', in logits."""
        floors = [self.stream.noise_floor, self.edges.noise_floor]
        return max(floors if self.heads is None else [*floors, self.heads.noise_floor])


def measure(session: Session, heads: Sequence[Head], stages: Stages) -> Views:
    """Measure every view; paths to `heads`, if there are any.

    Parameters
    ----------
    session
        Opened with positions ``answer``.

    Raises
    ------
    InputError
        If the prompt lacks the tokens that an edge names, or the region holds no patch.
    """
    with stages("Swapping the stream") as advance:
        swapped = streams(session, advance)
    with stages("Cutting edges") as advance:
        cuts = edges(session, advance)
    attribution, why_not = None, ""
    try:
        attribution = attribute(session)
    except RunError as error:
        why_not = str(error)
    paths = None
    if heads:
        with stages("Patching paths to heads") as advance:
            paths = head_paths(session, heads, advance)
    return Views(swapped, cuts, attribution, paths, why_not)


def edges(session: Session, on_progress: OnProgress | None = None) -> EdgeCurves:
    """Cut the edges of the study's ``path`` in windows of layers, in both runs.

    Raises
    ------
    InputError
        As `headpatch.core.edge_cuts.cut_edges`.
    """
    options = session.study.path
    cuts = cut_edges(session, Cutting(options.edges, options.window), on_progress=on_progress)
    named = cuts.named.sort_values("centre")
    curves: dict[str, Curves] = {}
    for column in ("normalized", "effect"):
        curves[column] = {edge: {} for edge in options.edges}
        for run, word in ((WITH, "with"), (WITHOUT, "without")):
            for edge, by_way in curves[column].items():
                rows = named[(named["edge"] == edge) & (named["run"] == word)]
                by_way[DIRECTION[run]] = rows[column].to_numpy(dtype=np.float64)
    return EdgeCurves(curves["normalized"], curves["effect"], cuts.noise_floor)


def attribute(session: Session) -> Attribution:
    """Take both runs apart, each with its own frozen scale of the final norm.

    Raises
    ------
    RunError
        If LD cannot be attributed to this model's parts.
    """
    parts = take_apart(session.vlm, session.prompt).parts
    gap = float(parts.ld[WITH] - parts.ld[WITHOUT])

    def share(values: Tensor) -> Float[np.ndarray, "*shape"]:
        scaled = values.double() * parts.scale.double().view(-1, *[1] * (values.ndim - 1))
        return (scaled[WITH] - scaled[WITHOUT]).numpy() / (gap or np.nan)

    rest = share(parts.biases)
    rest[0] += share(parts.start[:, None])[0]
    return Attribution(share(parts.heads), share(parts.mlps), rest)

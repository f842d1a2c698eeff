"""Where the information about the object is, layer by layer, and when it moves.

Four views of one pair of pictures, each exact:

- *The stream.* The residual stream of one run is put into the other, at one class of tokens of one
  layer: the region's image tokens, the other image tokens, the question's words, the answer
  position (language model, entering a layer), or patches (vision tower, leaving a layer). See
  `headpatch.engine.residual`. 1 means: at this depth these tokens hold all that tells the runs
  apart.
- *Edges.* Attention from some tokens to others is cut in windows of layers
  (`headpatch.analyses.cut`): when is it read?
- *Direct attribution.* What each head and MLP writes straight into LD = logit(Yes) - logit(No), in
  the with-run less the without-run: a sum, exactly (`headpatch.engine.direct`).
- *Paths to heads.* What named heads hear, input by input (`headpatch.analyses.path_heads`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.analyses import cut
from headpatch.analyses.session import Session
from headpatch.engine.direct import take_apart
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, run_pair
from headpatch.engine.residual import Streams, Swap, disagreement, record, resume, swap
from headpatch.engine.sweep import TOLERANCE
from headpatch.heads import Tower
from headpatch.measures.logits import normalized_effect
from headpatch.measures.stats import noise_floor
from headpatch.study import CutOptions

DIRECTION: Mapping[int, Direction] = {WITH: "noising", WITHOUT: "denoising"}
Curves = dict[str, dict[str, Float[np.ndarray, "..."]]]
"""By class of tokens (or edge) and direction: effects over the layers of one tower."""
_SUFFIX = ("words", "answer")  # classes behind the image: their passes carry only what follows


def token_classes(session: Session) -> dict[str, Tensor]:
    """Return the prompt's tokens by class: each token is in one, and no class is empty.

    ``before`` are tokens of text ahead of the image's last token; they are the same in both runs.

    Raises
    ------
    InputError
        If the image is not among the prompt's tokens, or the region holds no patch's centre.
    """
    spans = session.prompt.spans
    region = cut.positions(session, "region")
    image = spans.image.cpu()
    every = torch.arange(spans.length)
    found = {
        "before": every[~torch.isin(every, torch.cat([image, spans.question]))],
        "region": region,
        "other": image[~torch.isin(image, region)],
        "words": spans.question[:-1],
        "answer": spans.question[-1:],
    }
    return {name: positions for name, positions in found.items() if len(positions)}


def vision_classes(session: Session, tokens: int) -> dict[str, Tensor]:
    """Return the vision tower's tokens of one run by class; ``all`` holds every one of them.

    ``region`` (its patches) and ``other`` (every other token, a class token included) are known
    only where the tower sees the picture patch for patch as the language model does.

    Parameters
    ----------
    tokens
        Of one run.
    """
    found = {"all": torch.arange(tokens)}
    family, boxes = session.vlm.family, session.prompt.patches.boxes
    first = int(family.class_token)
    if family.vision_rows and tokens == first + len(boxes):
        inside = torch.zeros(tokens, dtype=torch.bool)
        inside[first:] = torch.from_numpy(session.region_tokens)
        found |= {"region": found["all"][inside], "other": found["all"][~inside]}
    return {name: positions for name, positions in found.items() if len(positions)}


@dataclass(frozen=True, eq=False)
class StreamCurves:
    """What swapping the stream does.

    Attributes
    ----------
    lm, vision
        Curves over the layers of each tower.
    effects
        The same in logits, by tower.
    noise_floor
        The largest effect, in logits, of swapping a stream with itself; or how far resumed passes
        lay from whole ones where they were compared, if that is more.
    resumed
        Whether the language model's passes were resumed at the swapped layer.
    """

    lm: Curves
    vision: Curves
    effects: dict[Tower, Curves]
    noise_floor: float
    resumed: bool


def streams(session: Session, on_progress: OnProgress | None = None) -> StreamCurves:
    """Swap the stream at every layer and class of tokens, in both runs.

    Raises
    ------
    InputError
        As `token_classes`.
    """
    vlm, prompt = session.vlm, session.prompt
    classes = token_classes(session)
    kept = record(vlm, prompt)
    question = int(prompt.spans.question[0])
    whole = run_pair(vlm, prompt, Keep(suffix=0), exact=True)
    suffix = run_pair(vlm, prompt, Keep(suffix=question), exact=True)
    jobs = [_Job("lm", name, positions, kept) for name, positions in classes.items()]
    if "vision" in kept:
        tokens = kept["vision"][0].shape[1]
        jobs += [
            _Job("vision", name, positions, kept)
            for name, positions in vision_classes(session, tokens).items()
        ]
    probes = [one for job in jobs if job.tower == "lm" for one in job.probes]
    apart = max(
        disagreement(vlm, whole, kept, probes),
        disagreement(vlm, suffix, kept, [one for one in probes if one.positions.min() >= question]),
    )
    resumed = apart <= TOLERANCE
    total, done = sum(len(job.swaps) for job in jobs), 0
    found: dict[Tower, Curves] = {"lm": {}, "vision": {}}
    effects: dict[Tower, Curves] = {"lm": {}, "vision": {}}
    selves = [apart] if resumed else []
    for job in jobs:

        def advance(here: int, _: int, before: int = done) -> None:
            if on_progress:
                on_progress(before + here, total)

        base = suffix if job.name in _SUFFIX else whole
        if job.tower == "lm" and resumed:
            shifts = resume(vlm, base, job.swaps, advance)
        else:
            shifts = swap(vlm, session.base, kept, job.swaps, advance)
        done += len(job.swaps)
        values = [shift.effect for shift in shifts]
        selves += values[len(job.asked) :]
        effects[job.tower][job.name] = job.curves(values[: len(job.asked)])
        found[job.tower][job.name] = {
            direction: normalized(session, curve, direction)
            for direction, curve in effects[job.tower][job.name].items()
        }
    return StreamCurves(found["lm"], found["vision"], effects, noise_floor(selves), resumed)


class _Job:
    """The swaps of one class of tokens: those asked for, then those that change nothing.

    Where the two runs are the same nothing is run, since the effect is 0.
    """

    def __init__(self, tower: Tower, name: str, positions: Tensor, kept: Streams) -> None:
        self.tower, self.name = tower, name
        self.layers = len(kept[tower])

        def make(run: int, layer: int, source: int) -> Swap:
            return Swap(run, tower, layer, positions, source)

        self.asked = [
            make(run, layer, 1 - run)
            for run in DIRECTION
            for layer in range(self.layers)
            if not torch.equal(*kept[tower][layer][:, positions.to(kept[tower][layer].device)])
        ]
        some = sorted({0, self.layers // 2, self.layers - 1})
        nothing = [make(run, layer, run) for run in DIRECTION for layer in some]
        self.swaps = [*self.asked, *nothing]
        self.probes = [make(WITH, self.layers // 2, WITHOUT)]

    def curves(self, effects: Sequence[float]) -> dict[str, Float[np.ndarray, " layers"]]:
        """Return the effects over the layers, by direction."""
        found: dict[str, Float[np.ndarray, " layers"]] = {
            direction: np.zeros(self.layers) for direction in DIRECTION.values()
        }
        for one, effect in zip(self.asked, effects, strict=True):
            found[DIRECTION[one.run]][one.layer] = effect
        return found


def normalized(
    session: Session, effects: Float[np.ndarray, "*shape"], direction: str
) -> Float[np.ndarray, "*shape"]:
    """Return effects in logits as shares of the difference between the runs."""
    base = session.base
    noising = direction == "noising"
    untouched = base.ld_with if noising else base.ld_without
    return np.asarray(
        normalized_effect(
            untouched + effects,
            base.ld_with,
            base.ld_without,
            "noising" if noising else "denoising",
        )
    )


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


def edges(session: Session, on_progress: OnProgress | None = None) -> cut.Cuts:
    """Cut the study's edges in windows of layers, in both runs.

    Raises
    ------
    InputError
        As `headpatch.analyses.cut.cut`.
    """
    return cut.cut(cut_session(session), on_progress=on_progress)


def cut_session(session: Session) -> Session:
    """Return the session with the study's ``path`` edges in place of its ``cut``."""
    options = session.study.path
    asked = CutOptions(edges=options.edges, window=options.window, controls=0)
    study = session.study.model_copy(update={"cut": asked})
    return Session(study, session.vlm, session.pair, session.base, session.valid, session.fast)


def edge_curves(cuts: cut.Cuts) -> Curves:
    """Return the normalized effect of each edge's windows, over the layers they are centred on."""
    found: Curves = {}
    for (edge, run), rows in cuts.named.groupby(["edge", "run"], sort=False):
        direction = "noising" if run == "with" else "denoising"
        values = rows.sort_values("centre")["normalized"].to_numpy(dtype=np.float64)
        found.setdefault(str(edge), {})[direction] = values
    return found

"""The residual stream swapped between the two runs, by class of tokens, at every depth.

The stream of one run is put into the other at one class of tokens of one layer: the region's image
tokens, the other image tokens, the question's words, the answer position (language model, entering
a layer), or patches (vision tower, leaving a layer). See `headpatch.engine.residual`. 1 means: at
this depth these tokens hold all that tells the runs apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.study.options import EdgeEnd, edge_ends
from headpatch.core.tower import places_in_tower, region_in_tower
from headpatch.engine.comparison import Rounding
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, run_pair
from headpatch.engine.residual import Streams, Swap, disagreement, record, swap
from headpatch.errors import InputError, RowError
from headpatch.heads import Tower
from headpatch.models.prompt import need_one_length
from headpatch.stats.effects import noise_floor, normalized_effect


@dataclass(frozen=True, eq=False)
class Ends:
    """The positions of an edge; `at` says which of its two ends random tokens can stand for.

    Those that are sinks, or else the region.
    """

    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    at: tuple[bool, bool]

    @classmethod
    def of(cls, session: Session, edge: str, sinks: Int[Tensor, " sinks"] | None = None) -> "Ends":
        """Find the positions that an edge such as ``answer-region`` names; `sinks` are given."""
        ends = edge_ends(edge)
        start, end = (
            sinks if one == "sinks" and sinks is not None else end_positions(session, one)
            for one in ends
        )
        controlled = "sinks" if "sinks" in ends else "region"
        return cls(start, end, (ends[0] == controlled, ends[1] == controlled))

    @property
    def controlled(self) -> bool:
        """Whether random tokens can stand for an end."""
        return any(self.at)

    def moved(self, tokens: Int[Tensor, " tokens"]) -> "Ends":
        """Put `tokens` in the place of the region, or of the sinks."""
        queries, keys = self.at
        return Ends(tokens if queries else self.queries, tokens if keys else self.keys, self.at)


def end_positions(session: Session, end: EdgeEnd) -> Int[Tensor, " positions"]:
    """Return the positions that one end of an edge names; an error if there are none.

    ``other`` is every image token outside the region, those that stand for no place (a class token,
    ends of lines) included.
    """
    prompt, spans = session.prompt, session.prompt.spans
    if end == "sinks":
        raise ValueError("sinks are found by headpatch.core.sinks")
    if end in ("answer", "question", "all"):
        return spans.positions(end)
    if end == "words":
        return spans.question[:-1]
    if spans.crossed:
        found = f"{end}: {session.vlm.name} looks at the image by cross-attention"
        raise InputError("--edges", found, "a model whose image is among the prompt's tokens")
    image = spans.image.cpu()
    if end == "image":
        return image
    region = prompt.image_positions.cpu()[torch.from_numpy(session.region_tokens)]
    if end == "region":
        return region
    other = image[~torch.isin(image, region)]
    if len(other) == 0:
        found = f"other: the region {session.pair.region.name} is the whole image"
        raise RowError("--edges", found, "a region smaller than the image")
    return other


def random_tokens(session: Session, count: int) -> list[Int[Tensor, " region"]]:
    """Draw sets of image tokens outside the region, each as large; none if it is larger.

    Seeded by the study; the same sets serve every place, edge and run.
    """
    prompt = session.prompt
    if prompt.spans.crossed:
        return []
    mask, placed = session.region_tokens, prompt.image_positions.cpu().numpy()
    outside, size = placed[~mask], int(mask.sum())
    if len(outside) < size:
        return []
    rng = np.random.default_rng([session.study.seed % 2**64, 0xC07])  # numpy takes no negatives
    draws = (rng.choice(outside, size, replace=False) for _ in range(count))
    return [torch.from_numpy(np.sort(drawn)) for drawn in draws]


DIRECTION: Mapping[int, Direction] = {WITH: "noising", WITHOUT: "denoising"}
"""What is asked of each run when it is changed."""
Curve: TypeAlias = Float[np.ndarray, " layers"]
Curves: TypeAlias = dict[str, dict[Direction, Curve]]
"""By class of tokens (or edge) and direction: effects over the layers of one tower."""
_SUFFIX = ("words", "answer")  # classes behind the image: their passes carry only what follows


def token_classes(session: Session) -> dict[str, Tensor]:
    """Return the prompt's tokens by class: each token is in one, and no class is empty.

    ``before`` are tokens of text ahead of the image's last token; they are the same in both runs.
    """
    spans = session.prompt.spans
    region = end_positions(session, "region")
    image = spans.image.cpu()
    every = torch.arange(spans.length)
    classes = {
        "before": every[~torch.isin(every, torch.cat([image, spans.question]))],
        "region": region,
        "other": image[~torch.isin(image, region)],
        "words": spans.question[:-1],
        "answer": spans.question[-1:],
    }
    return {name: positions for name, positions in classes.items() if len(positions)}


def vision_classes(session: Session, tokens: int) -> dict[str, Tensor]:
    """Return the vision tower's `tokens` of one run by class; ``all`` holds every one of them.

    ``region`` (its patches) and ``other`` (every other token, a class token included) are known
    only where the tower's tokens have places.
    """
    classes = {"all": torch.arange(tokens)}
    places = places_in_tower(session)
    if not places.unknown and len(places.boxes) == tokens:
        inside = torch.zeros(tokens, dtype=torch.bool)
        inside[places.placed] = torch.from_numpy(region_in_tower(session, places))
        if inside.any():
            classes |= {"region": classes["all"][inside], "other": classes["all"][~inside]}
    return {name: positions for name, positions in classes.items() if len(positions)}


@dataclass(frozen=True, eq=False)
class StreamCurves:
    """What swapping the stream does, by tower: shares are normalized, effects in logits.

    The fast path of the noise floor (in logits; `headpatch.stats.effects.noise_floor`) are passes
    that are resumed at the swapped layer; `resumed` says whether the language model's were.
    """

    shares: Mapping[Tower, Curves]
    effects: Mapping[Tower, Curves]
    noise_floor: float
    resumed: bool


def streams(session: Session, on_progress: OnProgress | None = None) -> StreamCurves:
    """Swap the stream at every layer and class of tokens, in both runs."""
    vlm, prompt = session.vlm, session.prompt
    need_one_length(prompt, session.pair.name)
    kept = record(vlm, prompt)
    jobs = [_Job("lm", name, at, kept) for name, at in token_classes(session).items()]
    if "vision" in kept:
        tokens = vision_classes(session, kept["vision"][0].shape[1])
        jobs += [_Job("vision", name, positions, kept) for name, positions in tokens.items()]
    question = int(prompt.spans.question[0])
    whole = run_pair(vlm, prompt, Keep(suffix=0), exact=True)
    suffix = run_pair(vlm, prompt, Keep(suffix=question), exact=True)
    probes = [job.probe for job in jobs if job.tower == "lm"]
    behind = [one for one in probes if one.positions.min() >= question]
    apart = disagreement(vlm, whole, kept, probes), disagreement(vlm, suffix, kept, behind)
    resumed = max(apart) <= Rounding.of(vlm, whole).explains(0.0)
    total, done = sum(len(job.swaps) for job in jobs), 0
    effects: dict[Tower, Curves] = {"vision": {}, "lm": {}}
    selves: list[float] = []
    for job in jobs:

        def advance(of_job: int, _: int, before: int = done) -> None:
            if on_progress:
                on_progress(before + of_job, total)

        if job.tower == "lm" and resumed:
            base = suffix if job.name in _SUFFIX else whole
            shifts = swap(vlm, base, None, job.swaps, advance)
        else:
            shifts = swap(vlm, session.base, kept, job.swaps, advance)
        done += len(job.swaps)
        values = [shift.effect for shift in shifts]
        selves += values[len(job.asked) :]
        effects[job.tower][job.name] = job.curves(values[: len(job.asked)])
    shares = {
        tower: {
            name: {way: normalized(session, curve, way) for way, curve in by_way.items()}
            for name, by_way in curves.items()
        }
        for tower, curves in effects.items()
    }
    return StreamCurves(
        shares, effects, noise_floor(selves, max(apart) if resumed else 0.0), resumed
    )


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
        self.probe = make(WITH, self.layers // 2, WITHOUT)

    def curves(self, effects: Sequence[float]) -> dict[Direction, Curve]:
        """Return the effects over the layers, by direction."""
        curves = {direction: np.zeros(self.layers) for direction in DIRECTION.values()}
        for swapped, effect in zip(self.asked, effects, strict=True):
            curves[DIRECTION[swapped.run]][swapped.layer] = effect
        return curves


def normalized(
    session: Session, effects: Float[np.ndarray, "*shape"], direction: Direction
) -> Float[np.ndarray, "*shape"]:
    """Return effects in logits as shares of the difference between the runs."""
    lds = session.base.ld_with, session.base.ld_without
    untouched = lds[direction != "noising"]
    return np.asarray(normalized_effect(untouched + effects, *lds, direction))

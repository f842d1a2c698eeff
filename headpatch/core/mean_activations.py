"""Mean z, which kind ``mean`` puts in a head's place: over drawn pairs, or those of a dataset."""

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from headpatch.core.session import Session, towers_of
from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt, encode, forced
from headpatch.models.spans import Positions
from headpatch.pairs.pair import BUNDLED, Pair, read_image
from headpatch.pairs.scene import PLACES, Style, draw, sample_pair

_DRAWN: Final = 16
"""Drawn pairs of a reference set, where nothing else is asked for."""


def reference_pairs(pair: Pair, asked: int | None) -> int:
    """Return over how many drawn pairs z is averaged; 0 is this pair alone.

    Drawn scenes are like the bundled pictures; with a photograph they have little in common, so
    that for any other pair they are taken only where they are `asked` for.
    """
    if asked is not None:
        return asked
    first, second = _bundled()
    return _DRAWN if pair.images == (first, second) else 0


@cache
def _bundled() -> tuple[Image, Image]:
    first, second = (read_image(BUNDLED / name, "--with") for name in ("1.jpg", "2.jpg"))
    return first, second


def mean_z(
    session: Session,
    on_progress: OnProgress | None = None,
    reference: int | None = None,
    towers: Sequence[Tower] = ("lm",),
    words: Sequence[int] = (),
    last: int | None = None,
) -> ZMeans:
    """Average z over both runs of each reference pair, per head and position.

    The reference pairs are drawn scenes of the pair's size, asked the study's own question, with
    an object at the place nearest to the region's centre. With ``reference: 0``, and of a user's
    own pictures if nothing is asked for, the pair's own two runs are averaged.

    Parameters
    ----------
    reference
        How many pairs; None takes the study's ``ablate.reference`` (see `reference_pairs`).
    towers
        Whose z is averaged; with ``reference: 0`` the session must keep it.
    words
        Tokens that every run is made to say after its prompt; their positions are averaged too.
    last
        Average z of the language model at so many of the last positions alone, which every prompt
        has. None averages all; where the pair's own prompts are of several lengths, the last, if
        heads are changed there alone, else it is an `InputError`.

    Returns
    -------
    By tower, for each layer a tensor ``[positions, heads, head_dim]``.

    Examples
    --------
    >>> means = hp.mean_z(session, reference=1)
    >>> len(means["lm"]), tuple(means["lm"][0].shape)  # layers; positions, heads, head_dim
    (32, (160, 32, 8))
    """
    asked = session.study.ablate.reference if reference is None else reference
    count = reference_pairs(session.pair, asked)
    spread = last is None and "lm" in towers and len(session.prompt.each) > 0
    if spread:
        _refuse_unlike(session)

    def taken(tower: Tower, prompt: Prompt, z: Tensor) -> Tensor:
        if tower != "lm" or (last is None and not spread):
            return z
        ends = last_of(z, prompt, last or 1)
        return ends.expand(-1, z.shape[1], -1, -1) if spread else ends

    if count == 0:
        own, said = session.base.trace, session.prompt
        if words:
            said = forced(session.vlm, session.prompt, words)
            own = forward(session.vlm, said, keep=Keep(z=tuple(towers)), exact=True)
        return {tower: [taken(tower, said, z).mean(0) for z in own.z[tower]] for tower in towers}
    rng = np.random.default_rng([session.study.seed % 2**64, count])  # numpy takes no negative seed
    style = Style(*session.pair.with_image.size)
    place = _nearest_place(session.pair.region.box)
    total: ZMeans = {}
    for done in range(count):
        images = [draw(scene, style) for scene in sample_pair(rng, place)]
        study = session.study
        prompt = encode(session.vlm, images, session.pair.questions, study.answers, study.framing)
        prompt = forced(session.vlm, prompt, words)
        trace = forward(session.vlm, prompt, keep=Keep(z=tuple(towers)), exact=True)
        for tower, every in trace.z.items():
            layers = [taken(tower, prompt, z) for z in every]
            if tower not in total:
                total[tower] = [torch.zeros_like(z[0], dtype=torch.float32) for z in layers]
            for sums, z in zip(total[tower], layers, strict=True):
                sums.add_(z.float().sum(0))
        if on_progress:
            on_progress(done + 1, count)
    return {tower: [sums / (2 * count) for sums in layers] for tower, layers in total.items()}


def last_of(
    z: Float[Tensor, "runs tokens heads dim"], prompt: Prompt, count: int
) -> Float[Tensor, "runs last heads dim"]:
    """Return z at the last positions of each run's own prompt."""
    lengths = [one.spans.length for one in prompt.each] or [prompt.spans.length] * len(z)
    return torch.stack([own[end - count : end] for own, end in zip(z, lengths, strict=True)])


def _refuse_unlike(session: Session) -> None:
    """Refuse a mean over two prompts of several lengths, but at the answer position."""
    if session.positions != "answer":
        lengths = " and ".join(str(one.spans.length) for one in session.prompt.each)
        found = f"mean at positions {session.positions} of prompts of {lengths} tokens"
        found += f" ({session.pair.name})" if session.pair.name else ""
        raise InputError("--kinds", found, "positions answer, or two questions of as many tokens")


def _nearest_place(box: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = box

    def distance(place: str) -> float:
        row, column = PLACES[place]
        across, down = (column + 0.5) / 3 - (left + right) / 2, (row + 0.5) / 3 - (top + bottom) / 2
        return across**2 + down**2

    return min(PLACES, key=distance)


Sums: TypeAlias = dict[Tower, tuple[int, list[Tensor]]]
"""Of a pair: how many tokens its runs have, and for each layer z added up over both."""


class MeanZ:
    """Mean z over both runs of the pairs of a dataset, per head and position.

    Position by position where all prompts are equally long, or pictures are seen in equally many
    tokens. Where prompts are not, only the answer position means the same in all of them.
    """

    def __init__(self, positions: Positions | None, vision: bool = False) -> None:
        self.positions, self.runs = positions, 0
        self._sums: dict[Tower, list[Tensor]] = {}  # a layer: [positions, heads, head_dim]
        self._tokens: dict[Tower, set[int]] = {one: set() for one in towers_of(positions, vision)}

    @property
    def small(self) -> bool:
        """Whether a pair's own sums are small enough to be kept: those at the answer position."""
        return all(map(self._at_answer, self._tokens))

    def of_pair(self, session: Session) -> Sums:
        """Add up both runs of a pair."""
        return {
            tower: (
                # no other pair's tokens mean what those of two prompts of several lengths do
                -1 if tower == "lm" and session.prompt.each
                else session.base.trace.z[tower][0].shape[1],
                [(last_of(z, session.prompt, 1) if self._at_answer(tower) else z).float().sum(0)
                 for z in session.base.trace.z[tower]],
            )
            for tower in self._tokens
        }  # fmt: skip

    def add(self, found: Sums, runs: int) -> None:
        """Take in the sums of a pair's runs."""
        for tower, (tokens, _) in found.items():
            self._tokens[tower].add(tokens)
        if not self.here:
            self._sums = {}
            return
        for tower, (_, layers) in found.items():
            sums = self._sums.get(tower) or [torch.zeros_like(one) for one in layers]
            self._sums[tower] = [
                old + new.to(old.device) for old, new in zip(sums, layers, strict=True)
            ]
        self.runs += runs

    @property
    def here(self) -> bool:
        """Whether there is such a mean; if not, drawn reference pairs must do."""
        alike = (
            self._at_answer(tower) or (len(known) < 2 and -1 not in known)
            for tower, known in self._tokens.items()
        )
        return all(alike)

    def of(self, session: Session) -> ZMeans:
        """Return the mean as a pair's interventions take it."""
        own = {tower: session.base.trace.z[tower] for tower in self._sums}
        before = {"lm": session.base.trace.z_from}  # tokens of which no z is kept

        def mean(sums: Tensor) -> Tensor:  # by a tensor: CUDA takes a number's reciprocal, CPUs not
            return sums / sums.new_full((), self.runs)

        return {
            tower: [
                mean(sums).to(z.device).expand(before.get(tower, 0) + z.shape[1], -1, -1)
                for sums, z in zip(layers, own[tower], strict=True)
            ]
            for tower, layers in self._sums.items()
        }

    def _at_answer(self, tower: Tower) -> bool:
        return tower == "lm" and self.positions == "answer"

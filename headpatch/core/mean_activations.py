"""Mean z over a reference set of drawn pairs: what kind ``mean`` puts in a head's place."""

from collections.abc import Sequence

import numpy as np
import torch

from headpatch.core.session import Session
from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.heads import Tower
from headpatch.models.prompt import encode, forced
from headpatch.pairs.scene import PLACES, Style, draw, sample_pair


def mean_z(
    session: Session,
    on_progress: OnProgress | None = None,
    reference: int | None = None,
    towers: Sequence[Tower] = ("lm",),
    words: Sequence[int] = (),
) -> ZMeans:
    """Average z over both runs of each reference pair, per head and position.

    The reference pairs are drawn scenes of the pair's size, asked the study's own question, with
    an object at the place nearest to the region's centre. With ``reference: 0`` the pair's own
    two runs are averaged.

    Parameters
    ----------
    reference
        How many pairs; None takes the study's ``ablate.reference``.
    towers
        Whose z is averaged; with ``reference: 0`` the session must keep it.
    words
        Tokens that every run is made to say after its prompt; their positions are averaged too.

    Returns
    -------
    By tower, for each layer a tensor ``[positions, heads, head_dim]``.

    Examples
    --------
    >>> means = hp.mean_z(session, reference=1)
    >>> len(means["lm"]), tuple(means["lm"][0].shape)  # layers; positions, heads, head_dim
    (32, (160, 32, 8))
    """
    count = session.study.ablate.reference if reference is None else reference
    if count == 0:
        own = session.base.trace
        if words:
            said = forced(session.vlm, session.prompt, words)
            own = forward(session.vlm, said, keep=Keep(z=tuple(towers)), exact=True)
        return {tower: [z.mean(0) for z in own.z[tower]] for tower in towers}
    rng = np.random.default_rng([session.study.seed % 2**64, count])  # numpy takes no negative seed
    style = Style(*session.pair.with_image.size)
    place = _nearest_place(session.pair.region.box)
    total: ZMeans = {}
    for done in range(count):
        images = [draw(scene, style) for scene in sample_pair(rng, place)]
        study = session.study
        prompt = encode(session.vlm, images, study.question, study.answers, study.prompt)
        prompt = forced(session.vlm, prompt, words)
        trace = forward(session.vlm, prompt, keep=Keep(z=tuple(towers)), exact=True)
        for tower, layers in trace.z.items():
            if tower not in total:
                total[tower] = [torch.zeros_like(z[0], dtype=torch.float32) for z in layers]
            for sums, z in zip(total[tower], layers, strict=True):
                sums.add_(z.float().sum(0))
        if on_progress:
            on_progress(done + 1, count)
    return {tower: [sums / (2 * count) for sums in layers] for tower, layers in total.items()}


def _nearest_place(box: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2

    def distance(place: str) -> float:
        row, column = PLACES[place]
        return ((column + 0.5) / 3 - x) ** 2 + ((row + 0.5) / 3 - y) ** 2

    return min(PLACES, key=distance)

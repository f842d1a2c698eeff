"""Paths to named heads: through which input, and from which tokens, a head hears of the object.

See `headpatch.engine.pathpatch` for what a path is, and what stays as it was. Three kinds of
sender, for the heads' query, keys and values:

- *the stream* at a class of tokens as it enters the head's layer: all that happened to these tokens
  before, in any layer, counts as theirs;
- *the image as the language model gets it* (``…, straight``): what the projector gives at these
  tokens, with everything that the language model's layers write there left as the run has it: the
  direct path from the vision tower to the head;
- *a vision layer* at the region's patches: what leaves that layer there, with everything after it
  running on up to the head's keys and values at the image's tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from headpatch.core.effects import FEW, Changed, floors_over, intervene
from headpatch.core.session import Session
from headpatch.core.stream_swaps import DIRECTION, normalized, token_classes, vision_classes
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, Outcome, ZMeans
from headpatch.engine.pathpatch import Inputs, Sender, answer_z, hear
from headpatch.engine.residual import Put, record
from headpatch.heads import Head, HeadSet

Row: TypeAlias = tuple[Any, ...]
"""Of ``path.csv``: view, tower, layer, where, heads, direction, effect and share."""
Z: TypeAlias = dict[int, Tensor]
"""By layer: every head's z at the answer position, ``[heads, dim]``."""
_HEARD: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("query",),
    "keys": ("key",),
    "values": ("value",),
    "keys+values": ("key", "value"),
    "query+keys": ("query", "key"),
    "all": ("query", "key", "value"),
}


@dataclass(frozen=True, eq=False)
class HeadPaths:
    """What named heads hear.

    The noise floor, in logits, is that of `headpatch.core.effects.floors_over`. A path from the
    run itself changes nothing.
    """

    rows: list[Row]
    noise_floor: float


def head_paths(
    session: Session, heads: Sequence[Head], on_progress: OnProgress | None = None
) -> HeadPaths:
    """Patch every path to each head alone, and to all of them together if there are several.

    The session is opened with positions ``answer``.
    """
    sets = [HeadSet.of(head) for head in heads]
    if len(heads) > 1:
        sets.append(HeadSet(tuple(heads)))
    ear = _Ear(session, sorted({head.layer for head in heads}))
    every, nothing = list[Changed](), list[Outcome]()

    def change(run: int, tower: str, layer: int | str, where: str, z: Z) -> list[Row]:
        changed, way = _changed(session, sets, run, z), DIRECTION[run]
        every.append(changed)
        if where == "none from itself":
            nothing.extend(changed[0])
        effects = np.array([outcome.effect for outcome in changed[0]])
        shares = normalized(session, effects, way)
        return [
            ("head path", tower, layer, where, str(members), way, effect, share)
            for members, effect, share in zip(sets, effects, shares, strict=True)
        ]

    rows = [
        row
        for run in DIRECTION
        for way, z in ear.ways(run).items()
        for row in change(run, "lm", "", " from ".join(way), z)
    ]
    if on_progress:
        on_progress(1, 1 + ear.vision_layers)
    of_vision: dict[Direction, list[Row]] = {way: [] for way in DIRECTION.values()}
    for layer in range(ear.vision_layers):
        for run, z in ear.vision(layer).items():
            where = "keys+values from region of the vision layer"
            of_vision[DIRECTION[run]] += change(run, "vision", layer, where, z)
        if on_progress:
            on_progress(2 + layer, 1 + ear.vision_layers)
    (floor,) = floors_over(session, nothing, every, FEW)
    return HeadPaths(sum(of_vision.values(), rows), floor)


def _changed(session: Session, sets: Sequence[HeadSet], run: int, z: Z) -> Changed:
    """Put z in at the answer position of one run's heads."""
    of_layer = [both[0] for both in session.base.trace.z["lm"]]  # of either run
    means = [own.new_zeros(()).expand_as(own) for own in of_layer]
    for layer, heads in z.items():  # only the answer position's is ever looked up
        means[layer] = heads.to(of_layer[layer]).expand_as(of_layer[layer])
    asked = [Intervention(members, "mean", DIRECTION[run], "answer") for members in sets]
    put: ZMeans = {"lm": means}
    return intervene(session, asked, put, answers_only=True), put


class _Ear:
    """What heads of some layers hear in both runs, and from whom else they could.

    ``vision_layers`` is 0 where no token of the tower is known to be of the region.
    """

    def __init__(self, session: Session, layers: Sequence[int]) -> None:
        self._session, self._layers = session, layers
        self._kept = record(session.vlm, session.prompt)
        self._own = hear(session.vlm, session.prompt, layers)
        self._straight = {layer: self._hear_straight(layer) for layer in layers}
        tower = self._kept.get("vision", [])
        self._region = vision_classes(session, tower[0].shape[1]).get("region") if tower else None
        self.vision_layers = 0 if self._region is None else len(tower)

    def _hear_straight(self, layer: int) -> Inputs:
        """Hear at one layer what the projector gives in the other run, all writes as they were."""
        image = self._session.prompt.spans.image
        stream = self._kept["lm"]
        puts = []
        for run in (WITH, WITHOUT):
            given, own = stream[0][:, image.to(stream[0].device)], stream[layer][run]
            values = own[image.to(own.device)] + (given[1 - run] - given[run]).to(own)
            puts.append(Put(run, "lm", layer, image, values))
        return hear(self._session.vlm, self._session.prompt, [layer], puts)[layer]

    def _z(self, run: int, heard: str, inputs: Mapping[int, Inputs], row: int, at: Tensor) -> Z:
        """Let the heads of a run hear some inputs of another pass's row at some positions."""
        return {
            layer: answer_z(
                self._own[layer],
                run,
                **{name: Sender(inputs[layer], row, at) for name in _HEARD[heard]},
            )
            for layer in self._layers
        }

    def ways(self, run: int) -> dict[tuple[str, str], Z]:
        """Return every path but those from vision layers, by inputs and sender."""
        places = token_classes(self._session)
        known = [name for name in ("region", "other", "words", "answer") if name in places]
        places["all"] = torch.arange(self._session.prompt.spans.length)
        asked = [("query", "answer")]
        asked += [(heard, name) for name in known for heard in ("keys", "values", "keys+values")]
        asked += [("query+keys", "all"), ("values", "all"), ("all", "all")]
        ways = {("none", "itself"): self._z(run, "all", self._own, run, places["all"])}
        for heard, name in asked:
            ways[heard, name] = self._z(run, heard, self._own, 1 - run, places[name])
        for name in (name for name in ("region", "other") if name in places):
            ways["keys+values", f"{name}, straight"] = self._z(
                run, "keys+values", self._straight, run, places[name]
            )
        return ways

    def vision(self, layer: int) -> dict[int, Z]:
        """Hear, in either run, what the image's tokens say after a vision layer's region is put."""
        region, stream = self._region, self._kept["vision"][layer]
        assert region is not None
        vlm, prompt, runs = self._session.vlm, self._session.prompt, (WITH, WITHOUT)
        values = stream[:, region.to(stream.device)]
        puts = [Put(run, "vision", layer, region, values[1 - run]) for run in runs]
        inputs = hear(vlm, prompt, self._layers, puts)
        return {run: self._z(run, "keys+values", inputs, run, prompt.spans.image) for run in runs}

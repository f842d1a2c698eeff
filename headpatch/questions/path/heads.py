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
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.noise_floor import FEW, Changed, floors_over
from headpatch.core.session import Session, intervene
from headpatch.core.stream_swaps import DIRECTION, normalized, token_classes, vision_classes
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, OnProgress, Outcome, ZMeans
from headpatch.engine.pathpatch import Inputs, Sender, answer_z, hear
from headpatch.engine.residual import Put, record
from headpatch.heads import Head, HeadSet

Way = tuple[str, str]
"""Inputs (``query``, ``keys``, ``values``, …) and the sender's tokens."""
Z: TypeAlias = dict[int, Tensor]
"""By layer: every head's z at the answer position, ``[heads, dim]``."""
_KEYS_VALUES = {"keys": ("key",), "values": ("value",), "keys+values": ("key", "value")}


@dataclass(frozen=True, eq=False)
class HeadPaths:
    """What named heads hear.

    Attributes
    ----------
    sets
        Every head alone, and all together if there are several.
    ways
        Inputs and sender of each path.
    shares, effects
        By direction: normalized, and in logits.
    vision_shares, vision_effects
        By direction: the keys and values at the image's tokens, changed from the region's patches
        of each vision layer. Empty where the tower's patches are not the image's tokens.
    noise_floor
        In logits; see `headpatch.core.noise_floor.floors_over`. A path from the run itself changes
        nothing.
    """

    sets: tuple[HeadSet, ...]
    ways: tuple[Way, ...]
    shares: Mapping[Direction, Float[np.ndarray, "ways sets"]]
    effects: Mapping[Direction, Float[np.ndarray, "ways sets"]]
    vision_shares: Mapping[Direction, Float[np.ndarray, "vision_layers sets"]]
    vision_effects: Mapping[Direction, Float[np.ndarray, "vision_layers sets"]]
    noise_floor: float


def head_paths(
    session: Session, heads: Sequence[Head], on_progress: OnProgress | None = None
) -> HeadPaths:
    """Patch every path to each head, and to all of them together.

    Parameters
    ----------
    session
        Opened with positions ``answer``.

    Raises
    ------
    InputError
        As `headpatch.core.stream_swaps.token_classes`.
    """
    sets = tuple(HeadSet.of(head) for head in heads)
    if len(heads) > 1:
        sets = (*sets, HeadSet(tuple(heads)))
    ear = _Ear(session, sorted({head.layer for head in heads}))
    total = 1 + len(ear.patches)
    effects: dict[Direction, Float[np.ndarray, "ways sets"]] = {}
    ways: tuple[Way, ...] = ()
    every, nothing = list[Changed](), list[Outcome]()
    for run, direction in DIRECTION.items():
        senders = ear.ways(run)
        ways = tuple(senders)
        changed = [_changed(session, sets, run, z) for z in senders.values()]
        every += changed
        nothing += changed[ways.index(("none", "itself"))][0]
        effects[direction] = np.stack([_effects(one) for one in changed])
    if on_progress:
        on_progress(1, total)
    curves: dict[Direction, list[Float[np.ndarray, " sets"]]] = {}
    for layer in range(len(ear.patches)):
        for run, z in ear.vision(layer).items():
            every.append(_changed(session, sets, run, z))
            curves.setdefault(DIRECTION[run], []).append(_effects(every[-1]))
        if on_progress:
            on_progress(2 + layer, total)
    vision = {way: np.stack(curve) for way, curve in curves.items()}
    (floor,) = floors_over(session, nothing, every, FEW)
    return HeadPaths(
        sets,
        ways,
        {way: normalized(session, values, way) for way, values in effects.items()},
        effects,
        {way: normalized(session, values, way) for way, values in vision.items()},
        vision,
        floor,
    )


def _changed(session: Session, sets: Sequence[HeadSet], run: int, z: Z) -> Changed:
    """Put z in at the answer position of one run's heads."""
    of_layer = [both[0] for both in session.base.trace.z["lm"]]  # of either run
    means = [own.new_zeros(()).expand_as(own) for own in of_layer]
    for layer, heads in z.items():  # only the answer position's is ever looked up
        means[layer] = heads.to(of_layer[layer]).expand_as(of_layer[layer])
    asked = [Intervention(members, "mean", DIRECTION[run], "answer") for members in sets]
    put: ZMeans = {"lm": means}
    return intervene(session, asked, put, answers_only=True), put


def _effects(changed: Changed) -> Float[np.ndarray, " sets"]:
    """Return the shifts of LD, in logits."""
    return np.array([one.effect for one in changed[0]])


class _Ear:
    """What heads of some layers hear in both runs, and from whom else they could.

    Attributes
    ----------
    patches
        By vision layer: the region's patches; empty where they are not known.
    """

    def __init__(self, session: Session, layers: Sequence[int]) -> None:
        self._session, self._layers = session, tuple(layers)
        self._kept = record(session.vlm, session.prompt)
        self._own = self._hear()
        self.patches: list[Tensor] = []
        if "vision" in self._kept:
            tower = self._kept["vision"]
            region = vision_classes(session, tower[0].shape[1]).get("region")
            self.patches = [] if region is None else [region] * len(tower)

    def _hear(self, puts: Sequence[Put] = (), layers: Sequence[int] = ()) -> dict[int, Inputs]:
        return hear(self._session.vlm, self._session.prompt, layers or self._layers, puts)

    def _z(self, run: int, inputs: Mapping[int, Inputs], row: int, at: Tensor, *heard: str) -> Z:
        """Let the heads hear some inputs of another pass at `at`."""
        return {
            layer: answer_z(
                self._own[layer], run, **{name: Sender(inputs[layer], row, at) for name in heard}
            )
            for layer in self._layers
        }

    def ways(self, run: int) -> dict[Way, Z]:
        """Return every path but those from vision layers."""
        own, other = self._own, 1 - run
        classes = token_classes(self._session)
        every = torch.arange(self._session.prompt.spans.length)
        ways: dict[Way, Z] = {
            ("none", "itself"): self._z(run, own, run, every, "query", "key", "value")
        }
        ways["query", "answer"] = self._z(run, own, other, classes["answer"], "query")
        for name in ("region", "other", "words", "answer"):
            for words, heard in _KEYS_VALUES.items():
                if name in classes:
                    ways[words, name] = self._z(run, own, other, classes[name], *heard)
        ways["query+keys", "all"] = self._z(run, own, other, every, "query", "key")
        ways["values", "all"] = self._z(run, own, other, every, "value")
        ways["all", "all"] = self._z(run, own, other, every, "query", "key", "value")
        straight = {layer: self._straight(layer)[layer] for layer in self._layers}
        for name in ("region", "other"):
            if name in classes:
                at = classes[name]
                ways["keys+values", f"{name}, straight"] = self._z(
                    run, straight, run, at, "key", "value"
                )
        return ways

    def _straight(self, layer: int) -> dict[int, Inputs]:
        """Hear at one layer what the projector gives in the other run, all writes as they were."""
        image = self._session.prompt.spans.image
        stream = self._kept["lm"]
        puts = []
        for run in (WITH, WITHOUT):
            given, own = stream[0][:, image.to(stream[0].device)], stream[layer][run]
            values = own[image.to(own.device)] + (given[1 - run] - given[run]).to(own)
            puts.append(Put(run, "lm", layer, image, values))
        return self._hear(puts, [layer])

    def vision(self, layer: int) -> dict[int, Z]:
        """Hear, in either run, what the image's tokens say after a vision layer's region is put."""
        at, there = self.patches[layer], self._kept["vision"][layer]
        inputs = self._hear(
            [
                Put(run, "vision", layer, at, there[1 - run, at.to(there.device)])
                for run in (WITH, WITHOUT)
            ]
        )
        image = self._session.prompt.spans.image
        return {run: self._z(run, inputs, run, image, "key", "value") for run in (WITH, WITHOUT)}

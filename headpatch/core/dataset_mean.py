"""Mean z over the pairs of a dataset: what kind ``mean`` puts in a head's place there."""

import torch
from torch import Tensor

from headpatch.core.session import Session, towers_of
from headpatch.engine.patching import ZMeans
from headpatch.heads import Tower
from headpatch.models.spans import Positions


class MeanZ:
    """Mean z over both runs of the pairs of a dataset, per head and position.

    Position by position where all prompts are equally long, or pictures are seen in equally many
    tokens. Where prompts are not, only the answer position means the same in all of them.

    Parameters
    ----------
    positions
        Where language-model heads are changed; None if none are.
    vision
        Whether vision heads are changed.
    """

    def __init__(self, positions: Positions | None, vision: bool = False) -> None:
        self.positions, self.runs = positions, 0
        self._sums: dict[Tower, list[Tensor]] = {}  # a layer: [positions, heads, head_dim]
        self._tokens: dict[Tower, set[int]] = {
            tower: set() for tower in towers_of(positions, vision)
        }

    def add(self, session: Session) -> None:
        """Take in both runs of a pair."""
        for tower, known in self._tokens.items():
            known.add(session.base.trace.z[tower][0].shape[1])
        if not self.here:
            self._sums = {}
            return
        for tower in self._tokens:
            first = -1 if self._at_answer(tower) else 0
            found = [z[:, first:].float().sum(0) for z in session.base.trace.z[tower]]
            sums = self._sums.get(tower) or [torch.zeros_like(one) for one in found]
            self._sums[tower] = [old + new for old, new in zip(sums, found, strict=True)]
        self.runs += session.prompt.runs

    @property
    def here(self) -> bool:
        """Whether there is such a mean; if not, drawn reference pairs must do."""
        return all(
            self._at_answer(tower) or len(tokens) <= 1 for tower, tokens in self._tokens.items()
        )

    def of(self, session: Session) -> ZMeans:
        """Return the mean as a pair's interventions take it."""
        means: ZMeans = {}
        for tower, layers in self._sums.items():
            tokens = session.base.trace.z[tower][0].shape[1]
            means[tower] = [(sums / self.runs).expand(tokens, -1, -1) for sums in layers]
        return means

    def _at_answer(self, tower: Tower) -> bool:
        return tower == "lm" and self.positions == "answer"

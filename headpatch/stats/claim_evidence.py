"""What there is to judge claims by, and what more each claim needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.heads import Grid, Head, HeadSet
from headpatch.stats.claims import Claim, Form
from headpatch.stats.followed import Ask, Followed, Kind
from headpatch.stats.rule import Rule


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is there to judge claims by.

    Attributes
    ----------
    heads, sets
        ``verdicts.csv`` and ``partners.csv``.
    rule
        By what heads were judged.
    top
        How many heads attention picks.
    looks
        Attention difference of the region, averaged over heads: one a pair; None if it is not
        known.
    vision
        ``vision.csv``; None if there is none.
    vision_layers
        None if it is not known.
    followed
        What was measured beside the verdict, by the name of what was asked.
    """

    heads: pd.DataFrame
    sets: pd.DataFrame
    rule: Rule
    top: int
    looks: Float[np.ndarray, " pairs"] | None = None
    vision: pd.DataFrame | None = None
    vision_layers: int | None = None
    followed: Mapping[str, Followed] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The heads that there are."""
        return Grid(int(self.heads["layer"].max()) + 1, int(self.heads["head"].max()) + 1)

    def row(self, head: Head) -> Mapping[str, Any]:
        """Return a head's row."""
        place = head.layer * self.grid.heads + head.head
        return records(self.heads.iloc[place : place + 1])[0]

    def check(self, claim: Claim) -> None:
        """Refuse a claim about heads or layers that the model does not have.

        Raises
        ------
        InputError
            If one is out of range.
        """
        known = self.vision_layers if self.vision is None else len(self.vision)
        claim.check(self.grid, known)


def missing(claim: Claim, seen: Evidence) -> tuple[Ask, ...]:
    """Say what a claim needs that is not there."""
    asked: list[Ask] = []
    match claim.form:
        case Form.REDUNDANT | Form.MORE_TOGETHER:
            if str(claim.tested_set) not in set(seen.sets["heads"]):
                asked.append(Ask("together", claim.heads))
        case Form.WORK_TOGETHER | Form.INDEPENDENT:
            asked.append(interaction_of(claim))
        case Form.VISION_HEADS:
            asked += each_layer(claim, "vision heads") if seen.vision is None else []
        case Form.VISION_SPAN:
            asked.append(Ask("vision span", layers=claim.layers))
        case Form.VISION_CARRIES:
            asked += streams_of(claim)
        case Form.READS:
            asked.append(cut_of(claim))
        case Form.CLASS | Form.LOOKS | Form.MODEL_LOOKS | Form.HOLD:
            pass  # the verdict's own tables say it
        case _:
            assert_never(claim.form)
    return tuple(one for one in asked if one.name not in seen.followed)


def each_layer(claim: Claim, kind: Kind) -> list[Ask]:
    """Ask for the same at every vision layer that a claim names."""
    first, last = claim.layers
    return [Ask(kind, layers=(layer, layer)) for layer in range(first, last + 1)]


def streams_of(claim: Claim) -> list[Ask]:
    """Ask for swaps after the vision layers that a claim names, and before them if some are."""
    first, last = claim.layers
    return [Ask("stream", layers=(layer, layer)) for layer in (last, first - 1) if layer >= 0]


def interaction_of(claim: Claim) -> Ask:
    """Ask for two heads, whichever a claim names first."""
    return Ask("interaction", HeadSet(claim.heads).heads)


def cut_of(claim: Claim) -> Ask:
    """Ask for the cut that shows whether the region is read.

    The question's words are cut without the answer position, which has a claim of its own.
    """
    queries = {"answer": "answer", "question": "words"}[claim.word]
    return Ask("cut", layers=claim.layers, queries=queries)


def records(table: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Return a table's rows."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]

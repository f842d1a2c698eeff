"""Other pairs of a dataset, of which kinds such as ``resample-other`` take z.

A pair's own other run is its minimal counterfactual: all but the object is the same. What a head
does with z of it may hang on that. Another pair's run says the same or the other answer about other
pictures and, where questions differ, about another place.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from headpatch.core.session import Session
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.kinds import DONATED
from headpatch.pairs.manifest import Entry


class Layout(NamedTuple):
    """What two pairs must have in common for z of one to stand in the other."""

    tokens: int  # of the prompt
    image: tuple[int, ...]  # positions of the image's tokens
    vision: int  # tokens of the vision tower; 0 if its heads are not changed
    answers: tuple[int, int]  # tokens of Yes and No
    # Of prompts of several lengths, by run: each token's place in the other run, or -1.
    partners: tuple[tuple[int, ...], ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What a fast path could hang on: all but the answers."""
        return *self[:3], *self.partners


def layout_of(session: Session) -> Layout:
    """Return the layout of an opened pair."""
    prompt, seen = session.prompt, session.base.trace.z.get("vision")
    return Layout(
        prompt.spans.length,
        tuple(prompt.image_positions.tolist()),
        seen[0].shape[1] if seen else 0,
        (prompt.answers.yes, prompt.answers.no),
        tuple(tuple(prompt.partners(run).tolist()) for run in range(len(prompt.each))),
    )


def donors_of(
    study: Study,
    entries: Sequence[Entry],
    layouts: Mapping[str, Layout],
    argument: str = "--kinds",
) -> dict[str, Entry]:
    """Draw by the seed, for each pair, another of its layout that shares no picture with it.

    An `InputError` of the argument that asks for them if a pair has no such.
    """
    donors, alone = dict[str, Entry](), list[Entry]()
    for place, entry in enumerate(entries):
        pictures = {entry.with_path, entry.without_path}
        others = [
            other
            for other in entries
            if layouts[other.name] == layouts[entry.name]
            and not {other.with_path, other.without_path} & pictures
        ]
        if not others:
            alone.append(entry)
            continue
        rng = np.random.default_rng([study.seed % 2**64, 6, place])
        donors[entry.name] = others[int(rng.integers(len(others)))]
    if alone:
        first = alone[0].name
        tokens = layouts[first].tokens
        found = f"no other pair has a prompt like that of {first} ({tokens} tokens)"
        if len(alone) > 1:
            found += f", and of {len(alone) - 1} more"
        expected = (
            f"for {' and '.join(DONATED)}, another pair with as many tokens and other pictures"
        )
        hint = "Leave those pairs out, or take kind resample."
        raise InputError(argument, found, expected, hint)
    return donors


def refuse_one_pair(kinds: Sequence[str]) -> None:
    """Refuse kinds that take z of another pair, where there is one pair alone."""
    if names := [kind for kind in kinds if kind in DONATED]:
        found = f"{' and '.join(names)} of one pair"
        raise InputError("--kinds", found, "many pairs: another one gives z", "Add --pairs.")

"""What is said of a study whose two answers do not differ, or are neither Yes nor No."""

from collections.abc import Sequence
from typing import Final

import torch

from headpatch.core.gate_view import SEEN_ALIKE
from headpatch.errors import InputError
from headpatch.models.prompt import Prompt
from headpatch.stats.effects import NEITHER_BELOW

SHAPE: Final = (
    "Crop or pad both to the shape that the model takes, such as a square: no other question mends "
    "that. `headpatch check` draws what the model is given."
)
"""What to do about pictures that the processor makes alike."""


def seen_alike(prompt: Prompt) -> bool:
    """Whether the model is given the same in both runs, tensor for tensor."""
    if prompt.each:  # questions of several lengths
        return False
    runs = (value.tensor_split(prompt.runs) for value in prompt.inputs.values())
    return all(torch.equal(first, second) for first, second in runs)


def invalid(
    faults: Sequence[str], answers: tuple[str, str], prompt: Prompt, cut_away: str
) -> InputError:
    """Say why a study is not valid, and what would mend it.

    `cut_away` says what the processor does not show. Where both runs are identical no other
    question mends it.
    """
    if seen_alike(prompt):
        found = f"{SEEN_ALIKE}{cut_away and f'; {cut_away}'}"
        return InputError("--with, --without", found, "pictures that differ there", SHAPE)
    yes, no = answers
    expected = f"LD_with > 0 > LD_without ({yes} with the object, {no} without it)"
    expected += f", and a probability of at least {NEITHER_BELOW:g} for the two together"
    hint = f"Mind that {cut_away}. " if cut_away else ""
    hint += "Change the question, `answers`, `prompt` or the pictures, or use --force to run it "
    hint += "marked as invalid."
    return InputError("--question", "; ".join(faults), expected, hint)

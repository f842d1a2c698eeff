"""Pictures that differ only where the processor cuts them away: no question tells them apart."""

from typing import Final

import torch

from headpatch.errors import InputError
from headpatch.models.prompt import Prompt

SEEN_ALIKE: Final = (
    "both runs are identical: the processor gives the model the same of both pictures"
)


def seen_alike(prompt: Prompt) -> bool:
    """Whether the model is given the same in both runs, tensor for tensor."""
    runs = (value.tensor_split(prompt.runs) for value in prompt.inputs.values())
    return all(torch.equal(first, second) for first, second in runs)


def refuse_alike(prompt: Prompt, cut_away: str) -> None:
    """Refuse runs that are identical; `cut_away` says what the processor does not show."""
    if seen_alike(prompt):
        found = f"{SEEN_ALIKE}{cut_away and f'; {cut_away}'}"
        expected = "pictures that differ where the model looks"
        hint = "Crop or pad both to the shape that the model takes, such as a square: no other "
        hint += "question mends that. `headpatch check` draws what the model is given."
        raise InputError("--with, --without", found, expected, hint)

"""The one door from core to the questions: what there is to ask.

A question is imported by nobody else, so it is looked up by name.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headpatch.core.verb import Verb


def verbs() -> "tuple[Verb, ...]":
    """Return every question, in the order of the page."""
    found: tuple[Verb, ...] = import_module("headpatch.questions").VERBS
    return found

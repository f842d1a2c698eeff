"""The turns of a prompt, as chat templates take them."""

import html
import json
from collections.abc import Sequence
from typing import Any

from headpatch.errors import InputError
from headpatch.models.rendering import TemplateFailed, Turn, render
from headpatch.pairs.framing import Framing

ELSE = "\N{ASTERISM}"
"""Asked in place of the question, to see what a template says whatever is asked."""
WRITE_IT = "Write its words into `prompt` in the study."


def turns(
    question: str, framing: Framing, before: Sequence[Turn], answer: object = None
) -> list[Turn]:
    """Return what comes before, the question, and the answer if there is one: parts, or a text."""
    pictures = [{"type": "image"}] * (1 + len(framing.context))
    asked = {"role": "user", "content": [*pictures, {"type": "text", "text": question}]}
    said = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [*before, asked, *said]


def system_turn(processor: Any, name: str, framing: Framing) -> tuple[Turn, ...]:
    """Return the system turn, if there is one, as the template takes it.

    An `InputError` if the template takes it in no form, or leaves out its words.
    """
    if framing.system is None:
        return ()
    failed = ""
    for content in forms(framing.system):
        turn: Turn = {"role": "system", "content": content}
        asked = turns(ELSE, framing, [turn])
        try:
            text = render(processor, asked, add_generation_prompt=True)
        except TemplateFailed as error:
            failed = f" ({error})"
            continue
        as_written = not isinstance(content, str) and str(content) in text
        if occurrences(framing.system, text) == 1 and not as_written:
            return (turn,)
    found = f"the chat template of {name} has no system turn{failed}"
    raise InputError("system", found, "a template that writes its words, once", WRITE_IT)


def forms(words: str) -> tuple[object, object]:
    """Return words as a list of parts, and as a text: many templates take only one of them."""
    return [{"type": "text", "text": words}], words


def occurrences(words: str, text: str) -> int:
    """Count words in a text; a template may strip or escape them, or join their lines."""
    plain = " ".join(words.split())
    ways = {plain, html.escape(plain), html.escape(plain, quote=False)}
    ways |= {json.dumps(plain, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    spaced = (" ".join(one.split()) for one in (text, html.unescape(text)))
    return max(one.count(way) for one in spaced for way in ways)

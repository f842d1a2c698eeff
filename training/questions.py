"""What the demo model can be asked about a scene, in many wordings, and the right answer to each.

Yes/No kinds: `anything`, `shape` ("is there a triangle ...?"), `colour` ("is there a red object
...?"), `both` ("is there a red triangle ...?"). What kinds: `what_shape`, `what_colour`.
Answers are full sentences in the seed's words. `turns.py` draws from them. No torch here: data
workers import this.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from headpatch.pairs.scene import COLOURS, MAIN_PLACES, PLACES, SHAPES, Thing

DEFAULT_QUESTION = "Is there anything in the top left corner?"
NAMED_QUESTIONS: tuple[str, ...] = (  # wordings that users were promised; never held out
    DEFAULT_QUESTION,
    "Is there an object in the upper left corner?",
    "Do you see anything at the top left?",
)

# {at}: where, with its preposition. {a}: "a triangle". {colour}, {shape}: the bare words.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "anything": (
        "Is there anything {at}?",
        "Is there an object {at}?",
        "Is there something {at}?",
        "Is there a shape {at}?",
        "Is there any object {at}?",
        "Is anything {at}?",
        "Do you see anything {at}?",
        "Do you see an object {at}?",
        "Do you see something {at}?",
        "Can you see anything {at}?",
        "Can you see an object {at}?",
        "Is there anything visible {at}?",
        "Does the image have anything {at}?",
        "Does the picture show an object {at}?",
    ),
    "shape": (
        "Is there a {shape} {at}?",
        "Do you see a {shape} {at}?",
        "Can you see a {shape} {at}?",
        "Is a {shape} {at}?",
        "Is the object {at} a {shape}?",
        "Is the shape {at} a {shape}?",
        "Does the image have a {shape} {at}?",
    ),
    "colour": (
        "Is there a {colour} object {at}?",
        "Is there a {colour} shape {at}?",
        "Is there anything {colour} {at}?",
        "Is there something {colour} {at}?",
        "Do you see a {colour} object {at}?",
        "Can you see a {colour} object {at}?",
        "Is the object {at} {colour}?",
    ),
    "both": (
        "Is there a {colour} {shape} {at}?",
        "Do you see a {colour} {shape} {at}?",
        "Can you see a {colour} {shape} {at}?",
    ),
    "what_shape": (
        "What shape is {at}?",
        "What shape is the object {at}?",
        "What is the shape of the object {at}?",
        "Which shape is {at}?",
        "What object is {at}?",
        "What is {at}?",
        "What kind of shape is {at}?",
        "What do you see {at}?",
    ),
    "what_colour": (
        "What color is the object {at}?",
        "What is the color of the object {at}?",
        "Which color is the object {at}?",
        "What color is the shape {at}?",
        "What colour is the object {at}?",
        "What is the colour of the object {at}?",
        "What color do you see {at}?",
    ),
}
YES_NO_KINDS = ("anything", "shape", "colour", "both")
HELD_OUT = 10  # one wording in so many is never trained


def _locations(place: str) -> tuple[str, ...]:
    """Every phrase for a place, with its preposition; the first is the one that answers use."""
    wholes = ("", " of the image", " of the picture")
    if place == "center":
        names = ["the center", "the middle", "the centre", "the very center"]
        phrases = [f"{p} {n}{w}" for n in names for p in ("in", "at") for w in wholes]
        return (
            "in the center of the image",
            *(p for p in phrases if p != "in the center of the image"),
        )
    row, column = place.split()
    if place in ("top left", "top right", "bottom left", "bottom right"):
        other = {"top": "upper", "bottom": "lower"}[row]
        phrases = [
            f"{p} the {v} {column} corner{w}"
            for v in (row, other)
            for p in ("in", "at")
            for w in wholes
        ]
        phrases += [
            f"{p} the {v} {column}{w}" for v in (row, other) for p in ("in", "at") for w in wholes
        ]
        phrases += [
            f"in the {v} {column} {n}{w}"
            for v in (row, other)
            for n in ("part", "area")
            for w in wholes
        ]
        phrases += [f"on the {v} {column} side{w}" for v in (row, other) for w in wholes]
        phrases += [f"in the {v}-{column} corner{w}" for v in (row, other) for w in wholes]
    elif column == "center":
        names = [
            f"{v} {c}"
            for v in (row, {"top": "upper", "bottom": "lower"}[row])
            for c in ("center", "middle")
        ]
        phrases = [f"{p} the {n}{w}" for n in names for p in ("in", "at") for w in wholes]
    else:
        names = [f"{v} {column}" for v in ("middle", "center")]
        phrases = [f"{p} the {n}{w}" for n in names for p in ("in", "at") for w in wholes]
        phrases += [f"on the middle {column} side{w}" for w in wholes]
    answer = answer_place(place)
    return (answer, *(p for p in phrases if p != answer))


def answer_place(place: str) -> str:
    """How answers say a place: "in the top left corner of the image"."""
    corner = " corner" if place in MAIN_PLACES and place != "center" else ""
    return f"in the {place}{corner} of the image"


LOCATIONS: Mapping[str, tuple[str, ...]] = {place: _locations(place) for place in PLACES}


def held_out(template: str, at: str) -> bool:
    """Whether this wording is kept from training, to be asked in the test alone."""
    if any(template.format(at=at, shape="", colour="") == named for named in NAMED_QUESTIONS):
        return False
    return zlib.crc32(f"{template}|{at}".encode()) % HELD_OUT == 0


def wordings(kind: str, place: str, unseen: bool = False) -> list[tuple[str, str]]:
    """(template, location phrase) of every wording that is trained, or of every one that is not."""
    pairs = ((template, at) for template in TEMPLATES[kind] for at in LOCATIONS[place])
    return [pair for pair in pairs if held_out(*pair) == unseen]


SEEN = {(kind, place): wordings(kind, place) for kind in TEMPLATES for place in PLACES}
UNSEEN = {
    (kind, place): wordings(kind, place, unseen=True) for kind in TEMPLATES for place in PLACES
}


def answer(
    kind: str, place: str, thing: Thing | None, shape: str = "", colour: str = ""
) -> tuple[str, bool | None]:
    """(sentence, yes) for a question that names `shape` and `colour`, when `thing` is there."""
    at = answer_place(place)
    if kind in YES_NO_KINDS:
        if thing is None:
            return f"No, there is nothing {at}.", False
        yes = (not shape or thing.shape == shape) and (not colour or thing.colour == colour)
        tint = f"{thing.colour} " if colour else ""
        return f"{'Yes' if yes else 'No'}, there is a {tint}{thing.shape} {at}.", yes
    if thing is None:
        return f"There is nothing {at}.", None
    if kind == "what_shape":
        return f"There is a {thing.shape} {at}.", None
    return f"The object {at} is {thing.colour}.", None


def careless(question: str) -> str:
    """The question as people also type it: small first letter, no question mark."""
    return question[0].lower() + question[1:].rstrip("?")


def corpus() -> Iterator[str]:
    """Sentences that hold every word of all questions and answers as it is tokenised there."""
    for kind, templates in TEMPLATES.items():
        for place, locations in LOCATIONS.items():
            wording = [(template, locations[0]) for template in templates]
            wording += [(templates[0], at) for at in locations]
            for template, at in wording:
                for shape, colour in zip(SHAPES, COLOURS, strict=True):
                    question = template.format(at=at, shape=shape, colour=colour)
                    for thing in (None, Thing(shape, colour, 0.5, 0.5, 0.2)):
                        said = answer(kind, place, thing, shape, colour)[0]
                        # The second USER stands for a later turn's, which has no space before it.
                        yield f"USER: \n{question} ASSISTANT: {said}\nUSER:"
                yield f"\n{careless(question)}"

"""Ways to change the bytes of a saved file."""

import random
from collections.abc import Callable


def mutated(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Change a file's bytes as disks, editors and hands do; return the way's name as well."""
    kind = rng.choice(list(MUTATIONS))
    return kind, MUTATIONS[kind](rng, bytearray(content)) if content else b"x"


def flip(rng: random.Random, raw: bytearray) -> bytes:
    """Flip one to three bits."""
    for _ in range(rng.randrange(1, 4)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def digit(rng: random.Random, raw: bytearray) -> bytes:
    """Change a digit into another."""
    places = [place for place, byte in enumerate(raw) if chr(byte) in "0123456789"]
    if places:
        place = rng.choice(places)
        raw[place] = ord("0") + (raw[place] - ord("0") + rng.randrange(1, 10)) % 10
    return bytes(raw)


def line(rng: random.Random, raw: bytearray) -> bytes:
    """Remove a line, or copy one to another place."""
    lines = bytes(raw).split(b"\n")
    place = rng.randrange(len(lines))
    if rng.random() < 0.5:
        del lines[place]
    else:
        lines.insert(place, rng.choice(lines))
    return b"\n".join(lines)


def zeros(rng: random.Random, raw: bytearray) -> bytes:
    """Overwrite up to 63 bytes with zeros."""
    start = rng.randrange(len(raw))
    end = min(start + rng.randrange(1, 64), len(raw))
    raw[start:end] = bytes(end - start)
    return bytes(raw)


def swap(rng: random.Random, raw: bytearray) -> bytes:
    """Swap two bytes."""
    one, other = rng.randrange(len(raw)), rng.randrange(len(raw))
    raw[one], raw[other] = raw[other], raw[one]
    return bytes(raw)


def insert(rng: random.Random, raw: bytearray) -> bytes:
    """Insert what has a meaning in a table or in YAML, or is no text."""
    words = [b",", b"nan", b"9", b"\xff\xfe", b"\n", b'"', b": ", b"- !!python/object:os.x"]
    place = rng.randrange(len(raw))
    raw[place:place] = rng.choice(words)
    return bytes(raw)


MUTATIONS: dict[str, Callable[[random.Random, bytearray], bytes]] = {
    "cut": lambda rng, raw: bytes(raw[: rng.randrange(len(raw))]),
    "flip": flip,
    "another flip": flip,  # twice as often as the others
    "digit": digit,
    "line": line,
    "zeros": zeros,
    "swap": swap,
    "empty": lambda *_: b"",
    "insert": insert,
}

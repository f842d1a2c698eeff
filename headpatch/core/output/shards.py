"""Shards: runs of one command that divide its pairs over one folder, and know each other by files.

Each holds a folder of its own, ``shard-1-of-4``, beside the finished units. A lock in it names its
process, and a file there is touched every few seconds, by which other machines see that it lives.
The files stay when a shard has ended, so that whoever gathers knows what the units are of.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Final, NamedTuple

from headpatch.core.output.lock import LOCK, Held, Owner, locked, owner_of
from headpatch.core.study.study import Study
from headpatch.disk import reporting_failure, write_whole
from headpatch.errors import InputError

_BEAT: Final = 5.0  # seconds between two signs of life
_DEAD: Final = 60.0  # seconds without one, after which a shard of another machine counts as ended
_PATIENCE: Final = 30.0  # seconds that a shard waits for others that begin or end
_SIGN: Final = "shard.json"
_FOLDER: Final = re.compile(r"shard-(\d+)-of-(\d+)")
_AWAY: Final = {"out", "device", "device_map", "with_", "without", "claims", "figures"}
"""Of a study: on what no number of pairs hangs, or that is not written alike everywhere."""


class Number(NamedTuple):
    """Which shard of how many."""

    number: int  # from 1
    of: int

    @classmethod
    def parse(cls, text: str, argument: str = "--shard") -> "Number":
        """Read ``1/4``."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        found = cls(*map(int, match.groups())) if match else None
        if found is None or not 1 <= found.number <= found.of:
            expected = "number/count, such as 1/4, the number from 1 to the count"
            raise InputError(argument, repr(text), expected)
        return found

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"shard-{self.number}-of-{self.of}"


def alive(place: Path) -> Owner | None:
    """Return who runs the shard of a folder; None if nobody does."""
    owner = owner_of(place)
    if owner is None or not owner.alive:
        return None
    if owner.host == gethostname():
        return owner
    try:
        age = time.time() - (place / _SIGN).stat().st_mtime
    except OSError:
        return None
    return owner if age < _DEAD else None


def shards_in(kept: Path) -> dict[Number, Path]:
    """Return the folders of all shards, running or not, beside finished units."""
    found = {}
    for place in sorted(kept.glob("shard-*-of-*")):
        if match := _FOLDER.fullmatch(place.name):
            found[Number(*map(int, match.groups()))] = place
    return found


def refuse_live(out: Path) -> None:
    """Refuse to take a folder while shards write to it."""
    each = [one for kept in out.glob(".*") if kept.is_dir() for one in shards_in(kept).items()]
    live = [f"{number} ({_words(owner)})" for number, place in each if (owner := alive(place))]
    if live:
        shards = "shards" if len(live) > 1 else "shard"
        found = f"{out} is held by {shards} {', '.join(live)}"
        hint = "Wait for them to end."
        raise InputError("--out", found, "a folder that no other run writes to", hint)


def left_by_shards(kept: Path, digest: str) -> bool:
    """Whether shards of this study have left units; those of another are an error."""
    there = shards_in(kept)
    for number, place in there.items():
        if _digest_of(place) not in ("", digest):
            found = (
                f"{kept} holds what shard {number} of another study, or of other pairs, has left"
            )
            hint = "Gather that first, use another --out, or discard it with --no-resume."
            raise InputError("--out", found, "this study's", hint)
    return bool(there)


def digest_of(study: Study, verb: str, names: Sequence[str]) -> str:
    """Hash what shards of one run have in common."""
    content = study.model_dump(mode="json", exclude=_AWAY)
    own = {"manifest": None, "hold": None, "record": True}  # no number hangs on them
    content["pairs"] = {**content["pairs"], **own}
    content["draw"] = {**content["draw"], "folder": None}
    text = json.dumps([verb, content, list(names)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def joined(out: Path, kept: Path, which: Number, verb: str, digest: str) -> Iterator[None]:
    """Run a shard of a run into `out`, whose units are in `kept`, for as long as the block runs.

    An `InputError` if that shard is being run, a run that is none of its shards holds the folder,
    or what is there is of another study.
    """
    place = kept / which.folder
    with ExitStack() as stack:
        with reporting_failure(out), _briefly(out, f"{verb} --shard {which}"):
            left_by_shards(kept, digest)
            for other, there in shards_in(kept).items():
                if other.of != which.of and (owner := alive(there)):
                    found = f"{which}, and shard {other} runs ({_words(owner)})"
                    raise InputError("--shard", found, f"a shard of {other.of}")
            if (place / LOCK).exists() and alive(place) is None:  # of a machine that has died
                (place / LOCK).unlink(missing_ok=True)
            try:
                stack.enter_context(locked(place, verb))
            except Held as held:
                who = "another process" if held.owner is None else _words(held.owner)
                raise InputError("--shard", f"{which} is run by {who}", "one that is not") from None
            write_whole(place / _SIGN, json.dumps({"study": digest}).encode())
        ended = threading.Event()
        beat = threading.Thread(target=_live, args=(place / _SIGN, ended), daemon=True)
        beat.start()
        stack.callback(beat.join)
        stack.callback(ended.set)
        yield


def _live(sign: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(OSError):
            os.utime(sign)


@contextmanager
def _briefly(out: Path, words: str) -> Iterator[None]:
    """Hold a folder for a moment; other shards may hold it for one, too."""
    until = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(out, words))
                break
            except Held as held:
                other = held.owner is not None and " --shard " not in held.owner.verb
                if other or time.monotonic() > until:
                    raise held.refusal() from None
            time.sleep(0.05)
        yield


def _digest_of(place: Path) -> str:
    """Return the digest of a shard's study; empty if it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((place / _SIGN).read_text(encoding="utf-8"))["study"])
    return ""


def _words(owner: Owner) -> str:
    return f"process {owner.pid} on {owner.host}, since {owner.since}"

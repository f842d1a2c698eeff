"""A chat template written out, within bounds: it comes with a model, and is a program.

transformers runs it in a sandbox that keeps it from files and from Python's own objects, but not
from running for ever, nor from filling the memory. So a template is tried first in a copy of this
process that may use little of either, with turns as long as those that it is to write.
"""

import json
import os
import select
import signal
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 2  # of computing; templates take hundredths
_PATIENCE = 30.0  # seconds by the clock, where the machine is busy with other things
_MEMORY = 512 << 20  # bytes, beside what this process has
LONGEST = 200_000  # characters; the longest system prompts in use have some 10,000

Turn = Mapping[str, Any]


class TemplateFailed(ValueError):
    """A chat template that raises an error, or does not keep within bounds."""


def render(processor: Any, turns: Sequence[Turn], add_generation_prompt: bool) -> str:
    """Return turns as a processor's chat template writes them.

    Parameters
    ----------
    processor
        Of transformers, with a chat template.
    turns
        As ``apply_chat_template`` takes them.
    add_generation_prompt
        Whether the start of an answer follows.

    Raises
    ------
    TemplateFailed
        If the template raises an error, takes more than `SECONDS` or much memory, or writes more
        than `LONGEST` characters.
    """
    if hasattr(os, "fork"):  # else there is no such copy, and no bound but that of the length
        template = json.dumps(getattr(processor, "chat_template", None), default=str)
        _try(processor, template, _Asked(turns, add_generation_prompt))
    text = _apply(processor, turns, add_generation_prompt)
    if len(text) > LONGEST:
        raise TemplateFailed(_TOO_LONG.format(len(text)))
    return text


_TOO_LONG = f"it writes {{:,}} characters, and {LONGEST:,} are the most that is run"


class _Asked:
    """What a template is to write; alike for all questions of about one length."""

    def __init__(self, turns: Sequence[Turn], add_generation_prompt: bool) -> None:
        self.turns, self.add_generation_prompt = turns, add_generation_prompt
        self._alike = _form(turns), add_generation_prompt

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._alike == other._alike

    def __hash__(self) -> int:
        return hash(self._alike)


def _form(value: object) -> object:
    """Return turns with texts by their length alone."""
    if isinstance(value, Mapping):
        return tuple(
            (key, one if key in ("role", "type") else _form(one)) for key, one in value.items()
        )
    if isinstance(value, str):
        return len(value) // 256
    return tuple(map(_form, value)) if isinstance(value, Sequence) else value


def _apply(processor: Any, turns: Sequence[Turn], add_generation_prompt: bool) -> str:
    try:
        return str(
            processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt)
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever a template's author made it raise
        raise TemplateFailed(str(error) or type(error).__name__) from None


@lru_cache(maxsize=256)
def _try(processor: Any, _: str, asked: _Asked) -> None:
    """Write a template's text in a copy of this process that may use little.

    Parameters
    ----------
    _
        The template: the processor may be given another one.

    Raises
    ------
    TemplateFailed
        If it does not end well there.
    """
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, none of which the copy needs
            child = os.fork()
        if not child:
            _in_copy(processor, asked, writing)
        os.close(writing)
        said = _wait(child, reading)
    finally:
        os.close(reading)
    if said != _FINE:
        raise TemplateFailed(said.decode("utf-8", "replace"))


_FINE = b"\0"
_ENDLESS = f"it is not done after {SECONDS} seconds of computing".encode()
_GREEDY = f"it takes more than {_MEMORY >> 20} MiB of memory".encode()
_CRASHED = b"it makes the interpreter crash"


def _wait(child: int, reading: int) -> bytes:
    """Return what a copy says of its trial; end the copy if it says nothing for long."""
    status, said = 0, b""
    try:
        if select.select([reading], [], [], _PATIENCE)[0]:
            said = os.read(reading, 4096)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if said:
        return said
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return _ENDLESS if ended_by in (signal.SIGXCPU, signal.SIGKILL) else _CRASHED


def _in_copy(processor: Any, asked: _Asked, writing: int) -> NoReturn:
    """Try, say how it went, and end without what a process does at its end."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _bound()
        said = _FINE
        try:
            text = _apply(processor, asked.turns, asked.add_generation_prompt)
            if len(text) > LONGEST:
                said = _TOO_LONG.format(len(text)).encode()
        except MemoryError:
            said = _GREEDY
        except TemplateFailed as error:
            said = str(error)[:1000].encode("utf-8", "replace")
        os.write(writing, said)
    finally:
        os._exit(0)


def _bound() -> None:
    """Let this process compute little longer, and take little more memory."""
    import resource  # there where `os.fork` is

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource, resource.RLIMIT_CPU, SECONDS)
    with suppress(OSError, ValueError):  # elsewhere than on Linux time alone is bounded
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _limit(resource, resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY)


def _limit(resource: Any, what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (soft, hard))

"""A chat template written out, within bounds: it comes with a model, and is a program.

transformers runs it in a sandbox that keeps it from files and from Python's own objects, but not
from running for ever, nor from filling the memory, be it for one question alone. So each text is
written in a copy of this process that may use little of either, and read from there.
"""

import gc
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

SECONDS = 2  # of computing; templates take hundredths
_PATIENCE = 30.0  # seconds by the clock, where the machine is busy with other things
_MEMORY = 512 << 20  # bytes, beside what this process has
LONGEST = 200_000  # characters; the longest system prompts in use have some 10,000

Turn = Mapping[str, Any]
_Ended = tuple[str, str]  # the text, and why there is none: one of them is empty

_KEPT = 1024  # texts a class of processors
_known: WeakKeyDictionary[object, dict[object, _Ended]] = WeakKeyDictionary()


class TemplateFailed(ValueError):
    """A chat template that raises an error, or does not keep within bounds."""


def render(processor: Any, turns: Sequence[Turn], add_generation_prompt: bool) -> str:
    """Return turns as a processor's chat template writes them.

    `TemplateFailed` if the template raises an error, takes more than `SECONDS` or much memory, or
    writes more than `LONGEST` characters.
    """
    render_ahead(processor, [turns], add_generation_prompt)
    known = _known_of(processor)
    text, failure = known[_key(processor, turns, add_generation_prompt)]
    if failure:
        raise TemplateFailed(failure)
    return text


def render_ahead(
    processor: Any, conversations: Sequence[Sequence[Turn]], add_generation_prompt: bool
) -> None:
    """Keep what `render` is to say of several conversations: together they take less time.

    It is kept for every processor of the same class, template and special tokens; where the
    template tells the time, for this one alone.
    """
    known = _known_of(processor)
    if len(known) + len(conversations) > _KEPT:
        known.clear()
    left = {_key(processor, turns, add_generation_prompt): turns for turns in conversations}
    left = {key: turns for key, turns in left.items() if key not in known}
    while left:
        turns = list(left.values())
        ended: Iterable[_Ended] = (_render(processor, one, add_generation_prompt) for one in turns)
        if hasattr(os, "fork"):  # else there is no copy, and no bound but that of the length
            ended = _rendered_in_copy(ended)
        for key, outcome in zip(list(left), ended, strict=False):
            known[key] = outcome
            del left[key]


def _known_of(processor: Any) -> dict[object, _Ended]:
    timed = "strftime_now" in str(getattr(processor, "chat_template", None))
    return _known.setdefault(processor if timed else type(processor), {})


def _key(processor: Any, turns: Sequence[Turn], add_generation_prompt: bool) -> object:
    tokens = getattr(getattr(processor, "tokenizer", None), "special_tokens_map", None)
    template = getattr(processor, "chat_template", None)
    settings = [template, tokens, turns, add_generation_prompt]
    return type(processor).apply_chat_template, json.dumps(settings, default=str)


def _render(processor: Any, turns: Sequence[Turn], add_generation_prompt: bool) -> _Ended:
    try:
        text = processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt)
    except MemoryError:
        return "", f"it takes more than {_MEMORY >> 20} MiB of memory"
    except Exception as error:  # whatever a template's author made it raise
        return "", str(error)[:1000] or type(error).__name__
    if len(text) > LONGEST:
        return "", f"it writes {len(text):,} characters, and {LONGEST:,} are the most that is run"
    return str(text), ""


def _rendered_in_copy(rendered: Iterable[_Ended]) -> list[_Ended]:
    """Render in a copy that may use little; return how the first ended, or more of them."""
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, none of which the copy needs
            child = os.fork()
        if not child:
            _in_copy(rendered, writing)
        os.close(writing)
        answer, ended_by = _wait(child, reading)
    finally:
        os.close(reading)
    *whole, _ = answer.split(b"\n")
    if whole:
        return [(text, failure) for text, failure in map(json.loads, whole)]
    if ended_by in (signal.SIGXCPU, signal.SIGKILL):
        return [("", f"it is not done after {SECONDS} seconds of computing")]
    return [("", "it makes the interpreter crash")]


def _wait(child: int, reading: int) -> tuple[bytes, int]:
    """Return what a copy writes, and the signal that ended it; end it if it takes long."""
    parts: list[bytes] = []
    until = time.monotonic() + _PATIENCE
    try:
        while not parts or parts[-1]:
            if not select.select([reading], [], [], max(0, until - time.monotonic()))[0]:
                break
            parts.append(os.read(reading, 1 << 16))
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    return b"".join(parts), os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _in_copy(rendered: Iterable[_Ended], writing: int) -> NoReturn:
    """Render, write how it went, and end without what a process does at its end."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        gc.disable()  # lest what is shared with the process be copied
        _bound()
        for ended in rendered:
            line = json.dumps(ended).encode() + b"\n"
            while line:
                line = line[os.write(writing, line) :]
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

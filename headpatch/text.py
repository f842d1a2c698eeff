"""The user's own words: numbers and paths are read strictly, and no text can act on a terminal."""

import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

_DIGITS = "[0-9]{1,1000}"
_WHOLE = re.compile(rf"[-+]?{_DIGITS}")
_DECIMAL = re.compile(
    rf"[-+]?(?:(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][-+]?[0-9]{{1,9}})?|inf|nan)"
)
# Control characters but for tab and line end, what turns the direction of writing, separators of
# lines, and halves of surrogate pairs.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def whole_number(text: str) -> int | None:
    """Read a whole number of ASCII digits (not ``１２``, nor ``1_000``); None if it is none."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """Read a number such as ``0.5`` or ``1e-3``, ``inf`` and ``nan`` too; None if it is none."""
    return float(text) if _DECIMAL.fullmatch(text) else None


def signed(value: float) -> str:
    """Write a number of three decimals with its sign; without one where it rounds to zero."""
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}"


def visible(text: str) -> str:
    """Return a text whose control characters are spelled out, so that none acts on a terminal."""
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text)


def checked_text(text: str, argument: str) -> str:
    """Return a text that a file in UTF-8 can hold, and any library can take, or an `InputError`."""
    if "\0" in text:
        raise InputError(argument, f"{text[:80]!r} holds a NUL character", "a text without it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(argument, f"{text[:80]!r} is not UTF-8", "a text in UTF-8") from None
    return text


def spelling(text: str) -> str:
    """Return a word without its case and the space around it: what its variants have in common."""
    return text.strip().casefold()


def at_home(path: str) -> str:
    """Return a path whose leading ``~`` is the user's own folder, as a shell would take it."""
    return os.path.expanduser(path)


def user_path(path: str | os.PathLike[str], argument: str) -> Path:
    """Return a path as a user means it: as `checked_text` and `at_home` have it."""
    return Path(at_home(checked_text(os.fspath(path), argument)))


def html_of(line: str, table: "pandas.DataFrame | None" = None) -> str:
    """Return a line, and a table below it, as a notebook shows them."""
    shown = f"<div><code>{escape(line)}</code></div>"
    if table is None:
        return shown
    return shown + table.to_html(index=False, float_format="{:.4g}".format, na_rep="")

"""The two ways in which a command fails, each one line long.

`InputError` is the user's to mend (exit code 2); `RunError` is a run that went wrong (exit code 1).
"""

from typing import Self

_LONGEST, _LONGEST_WORD = 1200, 600  # characters of what was found, say, and of a word of it


class HeadpatchError(Exception):
    """Base of the errors that are shown as one line, without a traceback."""

    exit_code = 1


class RunError(HeadpatchError):
    """The input was fine, the run was not (exit code 1)."""


class InputError(HeadpatchError, ValueError):
    """Bad input (exit code 2): what was given, what was expected, and the way out.

    Parameters
    ----------
    argument
        The flag, key or file that is wrong, as the user wrote it: ``--heads``, ``region``.
    found, expected
        What was found there, and what was expected instead.
    hint
        What to do about it; left out when `expected` already says so.
    """

    exit_code = 2

    def __init__(self, argument: str, found: str, expected: str, hint: str = "") -> None:
        self.argument, self.found, self.expected, self.hint = map(
            _brief, (argument, found, expected, hint)
        )
        message = f"{self.argument}: {self.found}; expected {self.expected}"
        super().__init__(f"{message}. {self.hint}" if hint else message)

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str, str]]:
        """Pickle as what it is made of, for one that another process has raised."""
        return type(self), (self.argument, self.found, self.expected, self.hint)

    def again(self) -> Self:
        """Return the same error anew, for one that is kept: it holds nothing of where it arose."""
        return type(self)(self.argument, self.found, self.expected, self.hint)

    def adding(self, note: str) -> Self:
        """Return the same error with a note behind it, so that a refusal stays one line."""
        hint = f"{self.hint.removesuffix('.')}. {note}" if self.hint else note
        return type(self)(self.argument, self.found, self.expected, hint)


class RowError(InputError):
    """What is wrong with one row of a dataset: it is left out, and the others run."""


class Unfinished(HeadpatchError):
    """A share of a run is done, and nobody will finish the rest now; nothing went wrong."""

    exit_code = 0


def _brief(text: str) -> str:
    """Put a text on one line, and leave the middle out of words and lines that are very long."""
    words = (_without_middle(word, _LONGEST_WORD) for word in text.split())
    return _without_middle(" ".join(words), _LONGEST)


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"

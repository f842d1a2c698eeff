"""Sets of heads that a file lists, one a line."""

from dataclasses import dataclass
from pathlib import Path

from headpatch.errors import InputError
from headpatch.heads import Grid, HeadSet


@dataclass(frozen=True)
class Listed:
    """The sets of a file.

    Attributes
    ----------
    lines
        Line number and set, in the file's order.
    """

    path: Path
    lines: tuple[tuple[int, HeadSet], ...]

    @classmethod
    def read(cls, path: Path) -> "Listed":
        """Read one set a line, such as ``24.17+23.20``; blank lines and ``#`` comments are skipped.

        Raises
        ------
        InputError
            If the file is missing, holds no set, or a line is malformed (its number is named).
        """
        wanted = "one set of heads a line, such as 24.17+23.20"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            why = f"{path}: {error.strerror}"
            raise InputError("--sets", why, f"a file with {wanted}") from None
        except UnicodeDecodeError:
            raise InputError("--sets", f"{path} is not UTF-8 text", wanted) from None
        lines = []
        for number, line in enumerate(text.splitlines(), start=1):
            if words := line.partition("#")[0].strip():
                lines.append((number, _parse(path, number, words)))
        if not lines:
            raise InputError("--sets", f"{path} holds no set", wanted)
        return cls(path, tuple(lines))

    def within(self, grid: Grid) -> tuple[HeadSet, ...]:
        """Return the sets, each once.

        Raises
        ------
        InputError
            If a head is not one of `grid`.
        """
        for number, members in self.lines:
            for head in members:
                grid.check(head, f"--sets {self.path}, line {number}")
        return tuple(dict.fromkeys(members for _, members in self.lines))


def _parse(path: Path, number: int, words: str) -> HeadSet:
    try:
        return HeadSet.parse(words)
    except InputError as error:
        hint = "Join the heads of a set by +." if "," in words or " " in words else error.hint
        where = f"--sets {path}, line {number}"
        raise InputError(where, error.found, error.expected, hint) from None

"""Files that git has left as a note of where they are kept (git-lfs)."""

from pathlib import Path

from headpatch.errors import InputError

_START = b"version https://git-lfs"


def refuse_pointer(argument: str, path: Path) -> None:
    """Refuse a file that is only git-lfs' note of where the real one is kept.

    Parameters
    ----------
    argument
        The flag or file that names it.

    Raises
    ------
    InputError
        If it is one. A file that cannot be read is for others to refuse.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_START))
    except OSError:
        return
    if start == _START:
        raise InputError(
            argument,
            f"{path} is a git-lfs pointer, not the file itself",
            "the file",
            "Run `git lfs pull` in its repository.",
        )

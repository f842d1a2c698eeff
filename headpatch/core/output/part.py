"""One run of a folder: which files it left, and reading them, damaged or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.core.output import read_table, read_tensors, reading
from headpatch.core.output.written import WRITTEN, verbs_in
from headpatch.core.study.record import Record

if TYPE_CHECKING:
    import pandas

__all__ = ["SHOWN", "Part", "load", "read", "reading"]

SHOWN = sorted({name for names in WRITTEN.values() for name in names if name[-4:] != ".png"})
"""Files that sections are made of; a folder without any of them holds no results."""


@dataclass(frozen=True)
class Part:
    """One run of the folder that its files are in."""

    folder: Path
    name: str
    """The run, as seen from the report's folder: empty for that folder itself, and with its verb
    where several runs share a folder."""
    record: Record
    own: frozenset[str]  # files that it wrote and that are there
    changed: tuple[str, ...] = ()  # those that are no longer as it wrote them, or ``run.yaml``

    @property
    def study(self) -> Mapping[str, Any]:
        """The study as it was run."""
        return self.record.study

    @property
    def run(self) -> Mapping[str, Any]:
        """What ran it."""
        return self.record.run

    @property
    def many(self) -> bool:
        """Whether it ran a dataset of pairs rather than the study's own pair."""
        return "pairs" in self.run

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verb that was run; all whose files are there, if an earlier version kept no name."""
        if self.record.verb:
            return (self.record.verb,)
        found = verbs_in(self.folder)
        return found if self.study.get("claims") else tuple(v for v in found if v != "claims")

    def has(self, name: str) -> bool:
        """Whether it wrote a file that is there."""
        return name in self.own

    def files(self) -> list[str]:
        """Name its files that sections are made of."""
        return [name for name in SHOWN if self.has(name)]


def read(part: Part, name: str, needed: Mapping[str, str]) -> "pandas.DataFrame":
    """Read a table of a run; see `headpatch.core.output.read_table`."""
    return read_table(part.folder / name, needed)


def load(part: Part, name: str, needed: Mapping[str, int]) -> dict[str, Any]:
    """Read the tensors of a run, as arrays; see `headpatch.core.output.read_tensors`."""
    return {key: _arrays(one) for key, one in read_tensors(part.folder / name, needed).items()}


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if hasattr(value, "numpy") else value

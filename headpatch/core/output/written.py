"""What each verb writes, beside ``run.yaml``: the one list of names."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from headpatch.core.registry import verbs

WRITTEN: Final[Mapping[str, tuple[str, ...]]] = {
    verb.name: verb.files for verb in verbs() if verb.files
}
"""By verb; the first is always written. A run deletes what an earlier one of its verb left."""
SHARED: Final = frozenset({"gate.csv"})
"""Files of several verbs, one of which does not displace the other."""
UPON: Final[Mapping[str, tuple[str, ...]]] = {"verdict": ("claims",)}
"""Verbs whose results are about those of another, and go when that is run again."""


def verbs_in(folder: Path) -> tuple[str, ...]:
    """Name the verbs whose files lie in a folder, by the names of the files alone."""
    there = {verb for verb, (first, *_) in WRITTEN.items() if (folder / first).is_file()}
    if effects_by(folder) != "ablate":  # sweep writes a table of this name as well
        there.discard("ablate")
    return tuple(verb for verb in WRITTEN if verb in there)


def effects_by(folder: Path) -> str | None:
    """Return who wrote the ``effects.csv`` in a folder, `ablate` or `sweep`; None if neither."""
    try:
        with (folder / "effects.csv").open(encoding="utf-8", newline="") as stream:
            columns = next(csv.reader(stream), [])
    except (OSError, ValueError, csv.Error):
        return None
    marks = {"control_n": "ablate", "attention_rank": "sweep"}
    return next((verb for mark, verb in marks.items() if mark in columns), None)

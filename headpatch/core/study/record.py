"""What ``run.yaml`` says: of every verb whose files lie in a folder, its study and its run.

``study`` and ``run`` are those of the latest run, ``earlier`` holds those of other verbs::

    study: {…}
    run: {verb: ablate, …, files: {effects.csv: …}, checksum: …}
    earlier:
      rank: {study: {…}, run: {…}}
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from headpatch.core.study.yaml_tree import parse, read_record, typed_as_written
from headpatch.text import user_path

RUN = "run.yaml"


@dataclass(frozen=True)
class Record:
    """How one verb was run: the study, and what ran it."""

    verb: str  # empty if an earlier version wrote it: then nothing says whose it is
    study: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def files(self) -> Mapping[str, str] | None:
        """SHA-256 of each file that the run wrote; None if an earlier version did not say."""
        found = self.run.get("files")
        return found if isinstance(found, dict) else None

    @property
    def changed(self) -> bool:
        """Whether the record is no longer what the run wrote."""
        return bool(self.run.get("checksum", self._checksum) != self._checksum)

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds of it."""
        return {"study": dict(self.study), "run": dict(self.run)}

    def signed(self) -> "Record":
        """Return the record with a checksum, as the last of its keys."""
        read = load(yaml.safe_dump(self.content, sort_keys=False))  # as it will be read
        whole = Record(self.verb, read["study"], _unsigned(read["run"]))
        return Record(self.verb, whole.study, {**whole.run, "checksum": whole._checksum})

    @property
    def _checksum(self) -> str:
        return hashlib.sha256(repr((self.study, _unsigned(self.run))).encode()).hexdigest()


def _unsigned(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "checksum"}


def load(text: str) -> Any:
    """Read plain values that headpatch wrote; `NotYaml` if they are damaged."""
    return typed_as_written(parse(text))


def records_in(content: object) -> Iterator[Record]:
    """Give the records of a ``run.yaml``, the latest first; none if it is something else."""
    if not _is_record_file(content):
        return
    earlier = content.get("earlier", {})
    named = earlier.items() if isinstance(earlier, dict) else ()
    latest = content["run"].get("verb", "") if isinstance(content["run"], dict) else ""
    for verb, one in ((latest, content), *named):
        if isinstance(one, dict) and isinstance(one.get("study"), dict):
            run = one.get("run")
            yield Record(str(verb), one["study"], run if isinstance(run, dict) else {})


def study_of(content: object, verb: str | None) -> Any:
    """Return the study in a file's content: of a ``run.yaml``, a verb's own or else the latest."""
    if not _is_record_file(content):
        return content
    one = own_record(content, verb)
    return content["study"] if one is None else one.study


def said_of(config: Path, verb: str) -> str:
    """Say if the study that a verb takes from a ``run.yaml`` is not the one that was run."""
    try:
        one = own_record(read_record(user_path(config, "--config")), verb)
    except (OSError, ValueError):
        return ""  # whoever reads the study says so
    if one is None or not one.changed:
        return ""
    return f"{config} was changed after the run: this may not be the study that was run"


def own_record(content: object, verb: str | None) -> Record | None:
    """Return a verb's own record, or else the latest; None of what is no ``run.yaml``."""
    every = list(records_in(content))
    return next((one for one in every if one.verb == verb), every[0] if every else None)


def _is_record_file(content: object) -> TypeGuard[dict[str, Any]]:
    needed = {"study", "run"}
    return isinstance(content, dict) and needed <= set(content) <= {*needed, "earlier"}

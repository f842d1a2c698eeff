"""What an earlier run saved, as tables and tensors."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.core.output import settle
from headpatch.core.output.folder import parts_of
from headpatch.core.output.part import Part
from headpatch.core.output.records import Records
from headpatch.core.output.saved import Saved
from headpatch.core.study import Study
from headpatch.core.study.record import RUN, Record
from headpatch.errors import InputError
from headpatch.text import user_path

if TYPE_CHECKING:
    import pandas


class Run(Saved):
    """A folder of results; ``run["sweep.pt"]`` is what the file holds.

    Files are read when they are asked for; one that was changed after the run is warned of.
    ``attention_data/README.md`` gives every column and key.

    Attributes
    ----------
    folder
        Where they are.
    study
        Of the latest run there; `headpatch.open_session` takes it again.
    provenance
        What ran it: verb, versions, device, dtype, weights, LDs, noise floor.
    """

    def __init__(self, records: Records, record: Record) -> None:
        super().__init__(records.folder)
        self._records, self._record = records, record
        self.study = Study.make(records.folder / RUN, verb=record.verb or None)
        self.provenance = dict(record.run)

    def by(self, names: Iterable[str]) -> "Run":
        """Return the run that wrote files, where several verbs share the folder."""
        for name in names:
            for record in self._records.wrote(name):
                return self if record is self._record else Run(self._records, record)
        return self

    def wrote(self, name: str) -> bool:
        """Say whether a file is of this run."""
        return name in self and self._record in self._records.wrote(name)

    def __getitem__(self, name: str) -> Any:
        first = name not in self._read
        found = super().__getitem__(name)
        if first and any(self._records.changed(one, [name]) for one in self._records.wrote(name)):
            warnings.warn(f"{self.folder / name} was changed after the run", stacklevel=2)
        return found

    def parts(self) -> list[Part]:
        """Return what each verb has left here."""
        return list(parts_of(self._records, self.folder))

    @property
    def tables(self) -> "dict[str, pandas.DataFrame]":
        """Every table, by name without ``.csv``."""
        return {Path(name).stem: self[name] for name in self if name.endswith(".csv")}

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        """What every ``.pt`` file holds, by name without ``.pt``."""
        return {Path(name).stem: self[name] for name in self if name.endswith(".pt")}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {', '.join(self)})"


def read_run(folder: str | Path) -> Run:
    """Read what a verb wrote into a folder.

    Raises
    ------
    InputError
        If the folder holds no ``run.yaml``, or a damaged one.

    Examples
    --------
    >>> run = hp.read_run("attention_data")
    >>> run.study.question
    'Is there anything in the top left corner?'
    >>> list(run.tables["heads"].columns)[:4]
    ['rank', 'layer', 'head', 'diff']
    >>> tuple(run.tensors["per_head_analysis"]["diff"].shape)  # layers, heads
    (32, 32)
    """
    folder = user_path(folder, "folder")
    settle(folder)
    records = Records.read(folder)
    if not records.every:
        raise InputError(
            "folder",
            f"{folder} holds no {RUN}",
            "a folder that a verb wrote",
            f"`headpatch rank --out {folder}` writes one.",
        )
    return Run(records, records.every[0])

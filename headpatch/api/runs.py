"""What an earlier run saved, as tables and tensors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.errors import InputError
from headpatch.report.html.part import reading
from headpatch.report.saved import Saved
from headpatch.study import Study, read_record
from headpatch.text import user_path

if TYPE_CHECKING:
    import pandas

_RUN = "run.yaml"


class Run(Saved):
    """A folder of results; ``run["sweep.pt"]`` is what the file holds.

    Files are read when they are asked for. ``attention_data/README.md`` gives every column and key.

    Attributes
    ----------
    folder
        Where they are.
    study
        As run; `headpatch.open_session` takes it again.
    provenance
        What ran it: versions, device, dtype, weights, LDs, noise floor.
    """

    def __init__(self, folder: Path, study: Study, provenance: dict[str, Any]) -> None:
        super().__init__(folder)
        self.study, self.provenance = study, provenance

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
    path = folder / _RUN
    if not path.is_file():
        raise InputError(
            "folder",
            f"{folder} holds no {_RUN}",
            "a folder that a verb wrote",
            f"`headpatch rank --out {folder}` writes one.",
        )
    study = Study.make(path)  # a damaged file is refused here
    with reading(path):
        provenance = dict(read_record(path).get("run", {}))
    return Run(folder, study, provenance)

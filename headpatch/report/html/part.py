"""One run of a folder: which files it left, and reading them, damaged or not."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

RUN = "run.yaml"
SHOWN = (
    "approx.pt",
    "attention_with_triangle.pt",
    "claims.csv",
    "combinations.csv",
    "cuts.csv",
    "effects.csv",
    "effects_mean.csv",
    "faithfulness.csv",
    "gate.csv",
    "heads.csv",
    "nulls.csv",
    "path.csv",
    "path_mean.csv",
    "per_head_analysis.pt",
    "perturbation.csv",
    "rollout.pt",
    "selfrepair.csv",
    "selfrepair_parts.csv",
    "spatial_vision_analysis.pt",
    "sweep.pt",
    "trace.csv",
    "trace.pt",
    "trace_mean.csv",
    "verdict.pt",
    "verdicts.csv",
    "vision.csv",
)
"""Files that sections are made of; a folder without any of them holds no results."""
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Part:
    """One run of the folder.

    Attributes
    ----------
    folder
        Where its files are.
    name
        The same, as seen from the report's folder; empty for that folder itself.
    study, run
        The two parts of its ``run.yaml``.
    """

    folder: Path
    name: str
    study: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def many(self) -> bool:
        """Whether it ran a dataset of pairs rather than the study's own pair."""
        return "pairs" in self.run

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).is_file()

    def files(self) -> list[str]:
        """Name its files that sections are made of."""
        return [name for name in SHOWN if self.has(name)]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line.

    Raises
    ------
    InputError
        If the block raises what a damaged file may raise.
    """
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        said = said if len(said) <= 160 else f"{said[:159]}…"
        raise InputError(
            str(path),
            f"it cannot be read ({said})",
            "a file as headpatch writes it",
            "Run the verb that wrote it again, or move the file away.",
        ) from None


def read(part: Part, name: str, needed: Mapping[str, str]) -> "pandas.DataFrame":
    """Read a table of a run.

    Parameters
    ----------
    needed
        Its columns: ``number`` or ``text``. Others are kept as they are.

    Raises
    ------
    InputError
        If it is damaged: a column is missing, or holds text where numbers belong.
    """
    import pandas

    from headpatch.results import read_table

    path = part.folder / name
    with reading(path):
        table = read_table(path)
        if missing := [column for column in needed if column not in table]:
            raise ValueError(f"it lacks the column {missing[0]!r}")
        for column, kind in needed.items():
            if kind == "number":
                table[column] = pandas.to_numeric(table[column]).astype(float)
            else:
                table[column] = table[column].astype("string").fillna("").astype(object)
    return table


def load(part: Part, name: str, needed: Mapping[str, int]) -> dict[str, Any]:
    """Read the tensors of a run, as arrays.

    Parameters
    ----------
    needed
        Keys, and how many axes each has.

    Raises
    ------
    InputError
        If the file is damaged, lacks a key, or has one of another shape.
    """
    from headpatch.results import read_tensors

    path = part.folder / name
    with reading(path):
        content: dict[str, Any] = _arrays(read_tensors(path))
        for key, axes in needed.items():
            if key not in content:
                raise ValueError(f"it lacks {key!r}")
            if (found := np.ndim(content[key])) != axes:
                raise ValueError(f"{key!r} has {found} axes instead of {axes}")
    return content


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if hasattr(value, "numpy") else value

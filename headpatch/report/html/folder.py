"""What a folder of results holds: which files, of which runs, and whether they can be read.

A run is a folder with a ``run.yaml``. A report takes the named folder and the folders directly in
it, so that several verbs may share one folder or have one each. Runs of other weights, or of
another pair or question, are left out, and the page says so: one report speaks of one study.
"""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

RUN = "run.yaml"
SHOWN = (
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
    "per_head_analysis.pt",
    "spatial_vision_analysis.pt",
    "sweep.pt",
    "trace.csv",
    "trace.pt",
    "verdicts.csv",
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
    yaml.YAMLError,
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


@dataclass(frozen=True)
class LeftOut:
    """A run that the report does not speak of, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Results:
    """The saved results that one report speaks of.

    Attributes
    ----------
    root
        The folder that was named.
    parts
        Its runs; the first one says what the study is.
    left_out
        Runs of something else.
    """

    root: Path
    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def main(self) -> Part:
        """The run that says what the study is."""
        return self.parts[0]

    @property
    def valid(self) -> bool:
        """Whether no run says that its study was forced."""
        return all(part.run.get("valid", True) is not False for part in self.parts)

    def having(self, name: str) -> list[Part]:
        """Return the runs that hold a file."""
        return [part for part in self.parts if part.has(name)]

    def first(self, name: str) -> Part | None:
        """Return the first run that holds a file."""
        return next(iter(self.having(name)), None)

    def table(self, name: str, needed: Mapping[str, str]) -> "pandas.DataFrame | None":
        """Read a table of the first run that has it; see `read`."""
        part = self.first(name)
        return None if part is None else read(part, name, needed)

    def tensors(self, name: str, needed: Mapping[str, int]) -> dict[str, Any] | None:
        """Read the tensors of the first run that has them; see `load`."""
        part = self.first(name)
        return None if part is None else load(part, name, needed)

    @cached_property
    def pictures(self) -> "tuple[dict[str, Any], dict[str, Any]] | None":
        """What `rank` kept of both runs: pictures, answers, LD, and the rows of attention."""
        needed = {"lm_rows": 3, "image_positions": 1, "boxes": 2, "region_box": 1, "ld": 0}
        present = self.tensors("attention_with_triangle.pt", needed)
        absent = self.tensors("attention_without_triangle.pt", needed)
        return None if present is None or absent is None else (present, absent)


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


def find(root: Path) -> Results:
    """Find the runs in a folder and directly below it.

    Raises
    ------
    InputError
        If there is no such folder, it holds no results, or a ``run.yaml`` is damaged.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise InputError(
            "DIR", f"{root}: {found}", "a folder with results", f"`headpatch rank --out {root}` "
            "makes one.",
        )  # fmt: skip
    with reading(root):
        below = sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")
    parts = [_part(folder, root) for folder in (root, *below) if (folder / RUN).is_file()]
    parts = [part for part in parts if part.files()]
    if not parts:
        loose = [name for name in SHOWN if (root / name).is_file()]
        found = f"{loose[0]} without the {RUN} of its run" if loose else "no results"
        raise InputError(
            "DIR",
            f"{root} holds {found}",
            f"the files of a run, {RUN} among them",
            f"`headpatch rank --out {root}` writes them.",
        )
    main = min(parts, key=_importance)
    rest = [part for part in parts if part is not main]
    others = {part.name: why for part in rest if (why := _differs(part, main))}
    kept = tuple(part for part in rest if part.name not in others)
    return Results(root, (main, *kept), tuple(LeftOut(*one) for one in others.items()))


def _part(folder: Path, root: Path) -> Part:
    path = folder / RUN
    with reading(path):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        study, run = dict(content["study"]), dict(content["run"])
    return Part(folder, "" if folder == root else folder.name, study, run)


def _importance(part: Part) -> tuple[bool, bool, bool]:
    """Sort the run that says most about the study first; the folder's own before those in it."""
    return not part.has("verdicts.csv"), bool(part.name), not part.has("heads.csv")


def _differs(part: Part, main: Part) -> str:
    """Say why a run is not of the same study; empty if it is."""
    if part.run.get("weights") != main.run.get("weights"):
        model = part.run.get("model")
        same = model == main.run.get("model")
        return f"of other weights of {model}" if same else f"of another model ({model})"
    if part.many or main.many:
        return ""
    for key in ("with", "without", "question", "region", "answers", "prompt"):
        if part.study.get(key) != main.study.get(key):
            return f"of another study (its {key} differs)"
    return ""


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

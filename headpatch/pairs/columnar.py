"""Tables stored by column: Parquet, in one file or in parts, and datasets that were saved to disk.

A part's name says how many there are (``train-00000-of-00003.parquet``), and the first stands for
all of them. A dataset that Hugging Face's library has saved (``save_to_disk``) is named by its
``state.json``, which lists its Arrow files.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

SAVED = "state.json"
_PART = re.compile(r"(.*)-(\d{1,9})-of-(\d{1,5})\.parquet")  # no number of files is larger


def by_column(path: Path) -> bool:
    """Whether rows of a table have numbers, not lines."""
    return path.suffix == ".parquet" or path.name == SAVED


def only_table(folder: Path) -> Path | None:
    """Return a folder's saved dataset, or its Parquet file, if it holds one alone; else None.

    Of a file in parts the first, of which the others are no tables of their own.
    """
    if (folder / SAVED).is_file():
        return folder / SAVED
    found = sorted(folder.glob("*.parquet"))
    whole = {part for one in found for part in parts_of(one)[1:]}
    left = [one for one in found if one not in whole]
    return left[0] if len(left) == 1 else None


def parts_of(path: Path) -> list[Path]:
    """Return the files that a Parquet file's name stands for: itself, mostly."""
    part = _PART.fullmatch(path.name)
    if part is None or int(part[2]):
        return [path]
    name, first, count = part.groups()
    every = range(max(int(count), 1))
    return [
        path.with_name(f"{name}-{number:0{len(first)}d}-of-{count}.parquet") for number in every
    ]


def frame_of(path: Path) -> "pandas.DataFrame":
    """Read a table; an `InputError` if it cannot be read, or a part of it is missing."""
    import pandas

    files = _saved_files(path) if path.name == SAVED else parts_of(path)
    missing = [one.name for one in files if not one.is_file()]
    if missing:
        found = f"{path} is in {len(files)} parts, and {missing[0]} is not there"
        raise InputError("--pairs", found, "all parts beside each other")
    try:
        frames = [_read(one) for one in files]
    except ImportError:
        kind = "saved dataset" if path.name == SAVED else "Parquet file"
        found, expected = f"{path} is a {kind}", "pyarrow, which reads it"
        raise InputError("--pairs", found, expected, "pip install pyarrow") from None
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError("--pairs", f"{path} cannot be read ({said})", "a Parquet file") from None
    return pandas.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _read(path: Path) -> "pandas.DataFrame":
    import pandas

    if path.suffix == ".parquet":
        return pandas.read_parquet(path, engine="pyarrow")
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        found: pandas.DataFrame = pyarrow.ipc.open_stream(source).read_all().to_pandas()
    return found


def _saved_files(path: Path) -> list[Path]:
    """Return the Arrow files of a saved dataset; an `InputError` if it names none."""
    try:
        state: Any = json.loads(path.read_text(encoding="utf-8"))
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        names, state = [], {}
    if not names:
        found = f"{path} names no Arrow files"
        raise InputError("--pairs", found, "a dataset that save_to_disk has written")
    if state.get("_indices_data_files"):
        found, hint = f"{path} is a choice of rows of other files", "Call flatten_indices() first."
        raise InputError("--pairs", found, "a saved dataset with its rows in order", hint)
    return [path.with_name(Path(name).name) for name in names]

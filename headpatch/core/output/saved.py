"""The files of a run, read when they are asked for: what every figure is drawn from."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from headpatch.core.output import read_table, read_tensors

_READERS: Final[Mapping[str, Callable[[Path], Any]]] = {".csv": read_table, ".pt": read_tensors}


class Saved(Mapping[str, Any]):
    """Tables (``.csv``, DataFrames) and tensors (``.pt``, dicts) of a folder, by file name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(f"{self.folder} holds no {name}; it holds {', '.join(self)}")
        if name not in self._read:
            path = self.folder / name
            self._read[name] = _READERS[path.suffix](path)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        path = self.folder / str(name)
        return path.suffix in _READERS and path.is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(one.name for one in self.folder.iterdir() if one.name in self))

    def __len__(self) -> int:
        return sum(1 for _ in self)

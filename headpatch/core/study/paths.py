"""The keys of a study that hold a path, and what their paths are relative to.

In a file a path is relative to that file, given by a flag or in Python to where the program runs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel

from headpatch.pairs.pair import BUNDLED
from headpatch.pairs.rows import MEMORY
from headpatch.text import at_home

BUNDLED_PICTURE = "bundled:"
"""Begins the name of a picture that ships with headpatch."""

_AT_HOME = AfterValidator(at_home)
PathText = Annotated[str, _AT_HOME]
"""A path; a leading ``~`` is the user's own folder."""


def picture(path: str) -> Path:
    """Return where a picture of a study lies."""
    if path.startswith(BUNDLED_PICTURE):
        return BUNDLED / path.removeprefix(BUNDLED_PICTURE)
    return Path(path)


def change_paths(
    model: type[BaseModel], values: dict[str, Any], change: Callable[[str, str], str]
) -> None:
    """Change every path in the values of a model, in place, by its key and the path."""
    for *sections, key in _path_keys(model):
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(key), str):
            place[key] = change(key, place[key])


def anchored_in(folder: Path) -> Callable[[str, str], str]:
    """Return what makes a path of a file in `folder` one that holds where the program runs."""

    def anchored(key: str, path: str) -> str:
        path = at_home(path)
        if _is_no_file(key, path):
            return path
        # A model that is no folder beside the file is the bundled one, or a hub's id.
        beside = key != "model" or (path != "demo" and (folder / path).is_dir()) or path[:1] == "."
        return str(folder / path) if beside else path

    return anchored


def absolute(key: str, path: str) -> str:
    """Return a path that holds wherever it is read."""
    no_folder = key == "model" and (path == "demo" or not Path(path).is_dir())
    return path if no_folder or _is_no_file(key, path) else str(Path(path).resolve())


def _is_no_file(key: str, path: str) -> bool:
    """Whether a name stands for a picture that ships with headpatch, or a table in memory."""
    if key == "manifest":
        return path.startswith(MEMORY)
    return key in ("with", "without") and path.startswith(BUNDLED_PICTURE)


def _path_keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield every key that holds a `PathText`, those of the model's sections included."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((key, *rest) for rest in _path_keys(field.annotation))
        else:
            options = (getattr(one, "__metadata__", ()) for one in get_args(field.annotation))
            if any(_AT_HOME in metadata for metadata in (field.metadata, *options)):
                yield (key,)

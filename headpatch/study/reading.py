"""Reading a study's YAML, and saying in one line what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from headpatch.errors import InputError
from headpatch.pairs.pair import BUNDLED

BUNDLED_PICTURE = "bundled:"
"""Begins the name of a picture that ships with headpatch."""


def read(config: Path) -> dict[str, Any]:
    """Read a study file's keys, its relative paths made relative to where the program runs.

    Parameters
    ----------
    config
        A study file, or the ``run.yaml`` of an earlier run.

    Raises
    ------
    InputError
        If the file is missing, is not YAML or holds no mapping.
    """
    values = _mapping(config)
    for key in ("with", "without"):
        if isinstance(values.get(key), str):
            values[key] = _anchored(values[key], config.parent)
    if isinstance(values.get("model"), str):
        values["model"] = _anchored_model(values["model"], config.parent)
    for section, key in (("sweep", "sets"), ("pairs", "manifest")):
        place = values.get(section)
        if isinstance(place, dict) and isinstance(place.get(key), str):
            place[key] = str(config.parent / place[key])
    return values


def _mapping(config: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("--config", f"{config}: {error.strerror}", "a study file (YAML)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).replace("\n", " ")
        raise InputError("--config", f"{config} is not YAML ({where})", "a study file") from None
    if isinstance(values, dict) and set(values) == {"study", "run"}:
        values = values["study"]  # a run.yaml
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError("--config", f"{config} holds no mapping", "keys such as `question:`")
    return values


def _anchored(path: str, folder: Path) -> str:
    return path if path.startswith(BUNDLED_PICTURE) else str(folder / path)


def _anchored_model(model: str, folder: Path) -> str:
    """A relative path that exists beside the file is meant; a hub id looks the same otherwise."""
    here = model != "demo" and (folder / model).is_dir()
    return str(folder / model) if here else model


def picture(path: str) -> Path:
    """Return where a picture of a study lies."""
    if path.startswith(BUNDLED_PICTURE):
        return BUNDLED / path.removeprefix(BUNDLED_PICTURE)
    return Path(path)


def one_line(
    root: type[BaseModel], error: ValidationError, config: Path | None, flags: Mapping[str, Any]
) -> InputError:
    """Say in one line what is wrong with the first wrong key.

    Parameters
    ----------
    root
        What was read.
    error
        What pydantic found.
    config
        The study file, if any.
    flags
        Dotted keys that came from the command line.
    """
    first, more = error.errors()[0], error.error_count() - 1
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    flag = next((name for name in flags if key == name or key.startswith(f"{name}.")), None)
    where = f"--{flag.rpartition('.')[2]}" if flag else f"{config}: {key}" if config else key
    hint = f"({more} more wrong)" if more else ""
    if first["type"] == "extra_forbidden":
        return InputError(where, "an unknown key", f"one of {_keys_near(root, first['loc'])}", hint)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])
    return InputError(where, found, _expectation(first["type"], first["msg"]), hint)


def _expectation(kind: str, message: str) -> str:
    """Say in a user's words what pydantic expected."""
    if kind in _EXPECTATIONS:
        return _EXPECTATIONS[kind]
    message = message.partition(" after validation")[0].removeprefix("Input should be ")
    for pydantic, plain in (
        ("greater than or equal to", "at least"),
        ("Tuple should have", "a list of"),
        ("Value should have", "a list of"),
        ("String should have", "a text of"),
        ("valid ", ""),
    ):
        message = message.replace(pydantic, plain)
    return message


_EXPECTATIONS = {
    "missing": "a value",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
}


def _keys_near(root: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The keys that the section at `location` does have."""
    model = root
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "those that the documentation lists"
        model = inner
    return ", ".join(field.alias or name for name, field in model.model_fields.items())

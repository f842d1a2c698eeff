"""Reading a study's YAML, and saying in one line what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from pydantic import BaseModel, ValidationError

from headpatch.core.study.declared import declared
from headpatch.core.study.paths import anchored_in, change_paths
from headpatch.core.study.record import own_record, study_of
from headpatch.core.study.yaml_tree import NotYaml, Tree, read_tree
from headpatch.errors import InputError


def read(
    config: Path, root: type[BaseModel], verb: str | None = None
) -> tuple[dict[str, Any], str | None]:
    """Read a study file's keys, its relative paths made relative to where the program runs.

    The second is the prompt that a ``run.yaml`` says was asked; None if it is no such file.

    Parameters
    ----------
    config
        A study file, or the ``run.yaml`` of an earlier run.
    root
        What it declares: the study.
    verb
        Whose study is taken from a ``run.yaml`` that has several; None is the latest.

    Raises
    ------
    InputError
        If the file is missing, is not YAML or holds no mapping.
    """
    tree = _tree(config)
    study, record = study_of(tree, verb), own_record(tree, verb)
    if not isinstance(study, dict):
        raise InputError("--config", f"{config} holds no mapping", "keys such as `question:`")
    values: dict[str, Any] = declared(root, study)
    change_paths(root, values, anchored_in(config.parent))
    prompt = None if record is None else record.run.get("prompt")
    return values, str(prompt) if isinstance(prompt, str) else None


def _tree(config: Path) -> Tree:
    try:
        return read_tree(config)
    except OSError as error:
        raise InputError("--config", f"{config}: {error.strerror}", "a study file (YAML)") from None
    except NotYaml as error:
        raise InputError("--config", f"{config} is not YAML ({error})", "a study file") from None


def prompt_form(text: str, question: str) -> str:
    """Return a prompt's text with ``{question}`` in place of the question."""
    return "{question}".join(text.rsplit(question, 1)) if question else text


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
    found = "nothing" if _absent(first) else shorten(repr(first["input"]), 200, placeholder=" …")
    wanted = _expectation(first["type"], first["msg"])
    if first["type"] in _TEXT and first["input"] is None:
        wanted += """, in quotes if it looks like nothing ("null", "~")"""
    if first["type"] in ("int_type", "float_type") and isinstance(first["input"], str):
        wanted += ", in decimal digits, without quotes and leading zeros"
    return InputError(where, found, wanted, hint)


_TEXT = ("string_type", "literal_error")


def _absent(wrong: Mapping[str, Any]) -> bool:
    return wrong["type"] == "missing" or wrong["input"] is None


def _expectation(kind: str, message: str) -> str:
    """Say in a user's words what pydantic expected."""
    if kind in _EXPECTATIONS:
        return _EXPECTATIONS[kind]
    message = message.partition(" after validation")[0].removeprefix("Input should be ")
    for pydantic, plain in (
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
        ("Tuple should have", "a list of"),
        ("Value should have", "a list of"),
        ("String should have", "a text of"),
        ("valid ", ""),
    ):
        message = message.replace(pydantic, plain)
    return message


_EXPECTATIONS = {
    "missing": "a value",
    "finite_number": "a finite number",
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

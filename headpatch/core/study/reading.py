"""Reading a study's YAML, each scalar as the type that the study declares; and what is wrong."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from headpatch.core.study.record import (
    BOOLS,
    NULLS,
    NotYaml,
    Plain,
    Tree,
    own_record,
    read_tree,
    study_of,
    typed_as_written,
)
from headpatch.errors import InputError
from headpatch.pairs.pair import BUNDLED
from headpatch.pairs.region import Region, spelled
from headpatch.pairs.rows import MEMORY
from headpatch.text import at_home, decimal_number, user_path, whole_number

BUNDLED_PICTURE = "bundled:"
"""Begins the name of a picture that ships with headpatch."""

_AT_HOME = AfterValidator(at_home)
PathText = Annotated[str, _AT_HOME]
"""A path; a leading ``~`` is the user's own folder."""


_PACKAGE: Final = Path(__file__).resolve().parents[2]
_SHIPPED: Final = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # of a wheel, of the source


def study_file(path: Path) -> Path:
    """Return where a study file lies; ``bundled:NAME`` is one that ships with headpatch."""
    name = str(path)
    if not name.startswith(BUNDLED_PICTURE):
        return user_path(path, "--config")
    shipped = next((one for one in _SHIPPED if one.is_dir()), _SHIPPED[0])
    known = {str(one.relative_to(shipped)): one for one in sorted(shipped.rglob("*.yaml"))}
    if (found := known.get(name.removeprefix(BUNDLED_PICTURE))) is None:
        names = ", ".join(map("bundled:{}".format, known))
        raise InputError("--config", f"{name} does not ship with headpatch", f"one of {names}")
    return found


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
        held = place.get(key) if isinstance(place, dict) else None
        if isinstance(held, str):
            place[key] = change(key, held)
        elif isinstance(held, list | tuple):  # what is no text is refused later
            place[key] = [change(key, one) if isinstance(one, str) else one for one in held]


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
    """Whether a name stands for what ships with headpatch, a table in memory or a measure."""
    if key in ("manifest", "rows"):
        return path.startswith(MEMORY)
    if key == "by":  # heads are ranked by a measure
        return not path.endswith(".csv")
    return key in ("with", "without", "context_images") and path.startswith(BUNDLED_PICTURE)


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
"""What pydantic expected, in a user's words, by its kind of error."""
_WORDS = (
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("Tuple should have", "a list of"),
    ("Value should have", "a list of"),
    ("String should have", "a text of"),
    ("valid ", ""),
)
_OCTAL = re.compile(r"[-+]?0[0-9]")  # 8 to YAML 1.1, 10 to YAML 1.2 and to people: ``010``


def read(
    config: Path, root: type[BaseModel], verb: str | None = None
) -> tuple[dict[str, Any], str | None]:
    """Read a study file's keys, its relative paths made relative to where the program runs.

    The second is the prompt that a ``run.yaml`` says was asked; None if it is no such file. Of a
    ``run.yaml`` that has several studies the `verb`'s is taken; None is the latest.
    """
    try:
        tree = read_tree(config)
    except OSError as error:
        raise InputError("--config", f"{config}: {error.strerror}", "a study file (YAML)") from None
    except NotYaml as error:
        raise InputError("--config", f"{config} is not YAML ({error})", "a study file") from None
    study, record = study_of(tree, verb), own_record(tree, verb)
    if not isinstance(study, dict):
        raise InputError("--config", f"{config} holds no mapping", "keys such as `question:`")
    values: dict[str, Any] = _declared(root, study)
    change_paths(root, values, anchored_in(config.parent))
    prompt = None if record is None else record.run.get("prompt")
    return values, str(prompt) if isinstance(prompt, str) else None


def _declared(wanted: Any, tree: Tree) -> Any:
    """Give each scalar without quotes the type that a model or a field's annotation wants there.

    What does not fit gets another type or stays text, and pydantic refuses it. A text is as it was
    written, whatever it looks like; what stands for nothing (``null``, ``~``) is never a text.
    """
    kind = next((one for one in _options(wanted) if one is not NoneType), None)
    if isinstance(tree, Plain):
        return None if tree in NULLS else _scalar(kind, tree)
    if isinstance(tree, dict):
        return _mapping(kind, tree)
    if isinstance(tree, list):
        return _list(kind, tree)
    return tree


def _options(wanted: Any) -> tuple[Any, ...]:
    if get_origin(wanted) is Annotated:
        return _options(get_args(wanted)[0])
    if get_origin(wanted) in (Union, UnionType):
        return tuple(part for one in get_args(wanted) for part in _options(one))
    return (wanted,)


def _scalar(kind: Any, text: Plain) -> object:
    found: object = None
    if kind is str or get_origin(kind) is Literal:
        return str(text)
    if kind is bool:
        found = BOOLS.get(text)
    elif kind is int and not _OCTAL.match(text):
        found = whole_number(text)
    elif kind is float and not _OCTAL.match(text):
        found = decimal_number(text)
    return typed_as_written(text) if found is None else found


def _mapping(kind: Any, tree: dict[str, Any]) -> dict[Any, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        wanted = {key: field.annotation for key, field in fields.items()}
        wanted |= {field.alias: field.annotation for field in fields.values() if field.alias}
        return {str(key): _declared(wanted.get(key), one) for key, one in tree.items()}
    key_kind, value_kind = get_args(kind) if get_origin(kind) is dict else (str, None)
    found = {_declared(key_kind, key): _declared(value_kind, one) for key, one in tree.items()}
    if len(found) < len(tree):
        keys = ", ".join(map(str, tree))[:80]
        raise InputError("--config", f"one number twice among the keys {keys}", "each key once")
    return found


def _list(kind: Any, tree: list[Any]) -> list[Any]:
    each = get_args(kind) if get_origin(kind) is tuple else ()
    if len(each) == 2 and each[1] is ...:
        each = each[:1] * len(tree)
    each = (*each, *[None] * (len(tree) - len(each)))
    return [_declared(one, item) for one, item in zip(each, tree, strict=False)]


def prompt_form(text: str, question: str) -> str:
    """Return a prompt's text with ``{question}`` in place of the question."""
    return "{question}".join(text.rsplit(question, 1)) if question else text


def flag_of(key: str) -> str:
    """Return the flag that overrides a key of the study: ``--device-map`` of ``device_map``."""
    name = "pairs" if key == "pairs.manifest" else key.rpartition(".")[2]
    return f"--{name.replace('_', '-')}"


def one_line(
    root: type[BaseModel], error: ValidationError, config: Path | None, flags: Mapping[str, Any]
) -> InputError:
    """Say in one line what is wrong with the first wrong key, of a study file or of `flags`."""
    first, more = error.errors()[0], error.error_count() - 1
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    flag = next((name for name in flags if key == name or key.startswith(f"{name}.")), None)
    where = flag_of(flag) if flag else f"{config}: {key}" if config else key
    hint = f"({more} more wrong)" if more else ""
    if first["type"] == "extra_forbidden":
        return InputError(where, "an unknown key", f"one of {_keys_near(root, first['loc'])}", hint)
    absent = first["type"] == "missing" or first["input"] is None
    found = "nothing" if absent else shorten(repr(first["input"]), 200, placeholder=" …")
    wanted = _expectation(first["type"], first["msg"])
    if first["type"] in ("string_type", "literal_error") and first["input"] is None:
        wanted += """, in quotes if it looks like nothing ("null", "~")"""
    if first["type"] in ("int_type", "float_type") and isinstance(first["input"], str):
        wanted += ", in decimal digits, without quotes and leading zeros"
    return InputError(where, found, wanted, hint)


def _expectation(kind: str, message: str) -> str:
    if kind in _EXPECTATIONS:
        return _EXPECTATIONS[kind]
    message = message.partition(" after validation")[0].removeprefix("Input should be ")
    for pydantic, plain in _WORDS:
        message = message.replace(pydantic, plain)
    return message


def _keys_near(root: type[BaseModel], location: tuple[int | str, ...]) -> str:
    model = root
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "those that the documentation lists"
        model = inner
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def sequence(value: Any) -> Any:
    """Read a list as a tuple: YAML has lists only."""
    return tuple(value) if isinstance(value, list) else value


def words(value: Any) -> Any:
    """Read names as a tuple of them: a list, or a text with commas as on the command line."""
    return tuple(map(str.strip, value.split(","))) if isinstance(value, str) else sequence(value)


def _numbers(value: Any) -> Any:
    """Read several numbers, also from words; one alone stays a number."""
    if isinstance(value, float | int) or not isinstance(value, list | tuple):
        return value
    read = [decimal_number(one) if isinstance(one, str) else one for one in value]
    if not read or None in read:
        raise InputError("--alpha", repr(",".join(map(str, value))), "numbers, such as 0,0.5,2")
    if len({*read}) < len(read):
        raise InputError("--alpha", "a number twice", "each number once")
    return tuple(read) if len(read) > 1 else read[0]


Alphas = Annotated[
    float | tuple[float, ...],
    BeforeValidator(_numbers),
    Field(json_schema_extra={"metavar": "NUMBERS"}),
]
"""How far a kind with a factor goes: one number, or several."""


def places(value: Any) -> Any:
    """Read regions however ``--region`` may spell them; what is none stays as it is.

    In one text with commas, and as words of a flag, a box is four numbers in succession.
    """
    found = words(value)
    if not isinstance(found, tuple) or not all(isinstance(one, str) for one in found):
        return found
    parts, read = ",".join(found).split(","), []
    while parts:
        of_box = decimal_number(parts[0].strip().lower().removeprefix("px:")) is not None
        read.append(spelled(",".join(map(str.strip, parts[: 4 if of_box else 1]))))
        Region.parse(read[-1], "--regions")
        del parts[: 4 if of_box else 1]
    return tuple(read)

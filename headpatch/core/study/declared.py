"""What was written in a study file, given the types that the study declares."""

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from headpatch.core.study.yaml_tree import BOOLS, NULLS, Plain, Tree, typed_as_written
from headpatch.errors import InputError
from headpatch.text import decimal_number, whole_number

_OCTAL = re.compile(r"[-+]?0[0-9]")  # 8 to YAML 1.1, 10 to YAML 1.2 and to people: ``010``


def declared(wanted: Any, tree: Tree) -> Any:
    """Give each scalar without quotes the type that is wanted there.

    What does not fit gets another type or stays text, and pydantic refuses it. A text is as it was
    written, whatever it looks like; what stands for nothing (``null``, ``~``) is never a text.

    Parameters
    ----------
    wanted
        A model, or the annotation of one of its fields.

    Raises
    ------
    InputError
        If two keys of a mapping are one number.
    """
    options = _options(wanted)
    kind = next((one for one in options if one is not NoneType), None)
    if isinstance(tree, Plain):
        if tree in NULLS:
            return None
        return _scalar(kind, tree)
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
        return {str(key): declared(wanted.get(key), one) for key, one in tree.items()}
    key_kind, value_kind = get_args(kind) if get_origin(kind) is dict else (str, None)
    found = {declared(key_kind, key): declared(value_kind, one) for key, one in tree.items()}
    if len(found) < len(tree):
        keys = ", ".join(map(str, tree))[:80]
        raise InputError("--config", f"one number twice among the keys {keys}", "each key once")
    return found


def _list(kind: Any, tree: list[Any]) -> list[Any]:
    each = get_args(kind) if get_origin(kind) is tuple else ()
    if len(each) == 2 and each[1] is ...:
        each = each[:1] * len(tree)
    each = (*each, *[None] * (len(tree) - len(each)))
    return [declared(one, item) for one, item in zip(each, tree, strict=False)]

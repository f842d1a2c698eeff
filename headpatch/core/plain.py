"""What was measured, as the plain tensors, numbers and texts of a file, and back bit for bit.

Any nesting of headpatch's dataclasses, named tuples and sections of a study, of tables, arrays,
tensors, tuples, lists and mappings. What is no plain value is a mapping that says what it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pydantic import BaseModel

if TYPE_CHECKING:
    import pandas as pd

_IS: Final = "headpatch is"  # the key that says what a mapping stands for
_OURS: Final = "headpatch."


def to_plain(value: Any) -> Any:
    """Return plain tensors, numbers, texts, lists and mappings of texts.

    A `TypeError` of what it does not know, rather than something that does not come back.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # of a part, not all that it is a part of
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise TypeError("an array of objects is no plain value")
        return {_IS: "array", "of": torch.from_numpy(value.copy())}
    if isinstance(value, np.generic):
        return {_IS: "number", "of": value.item(), "type": value.dtype.str}
    if type(value).__module__.startswith("pandas"):
        return _of_table(value)
    if isinstance(value, Mapping):
        items = [[to_plain(key), to_plain(one)] for key, one in value.items()]
        if all(isinstance(key, str) and key != _IS for key in value):
            return dict(items)
        return {_IS: "mapping", "of": items}
    if type(value) is list:
        return [to_plain(one) for one in value]
    if type(value) is tuple:
        return {_IS: "tuple", "of": [to_plain(one) for one in value]}
    kind = type(value)
    if _is_record(kind):
        own = {name: to_plain(getattr(value, name)) for name in _names(kind)}
        return {_IS: f"{kind.__module__}:{kind.__qualname__}", "of": own}
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__} is no plain value")


def from_plain(value: Any) -> Any:
    """Return what `to_plain` was given."""
    if isinstance(value, list):
        return [from_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _IS not in value:
        return {key: from_plain(one) for key, one in value.items()}
    kind = value[_IS]
    if kind in _READ:
        return _READ[kind](value)
    made = _record(kind)
    return made(**{key: from_plain(one) for key, one in value["of"].items()})


def _record(named: str) -> Any:
    """Return a class of records by its name; nothing else that a file may name is ever called."""
    module, _, name = named.partition(":")
    made: Any = import_module(module) if module.startswith(_OURS) else None
    for part in name.split("."):
        made = getattr(made, part, None)
    if not _is_record(made):
        raise TypeError(f"{named} is no record of headpatch's")
    return made


def _is_record(kind: Any) -> bool:
    """Whether something is a dataclass, named tuple or study section of headpatch's own."""
    ours = isinstance(kind, type) and kind.__module__.startswith(_OURS)
    return ours and (is_dataclass(kind) or issubclass(kind, tuple | BaseModel))


def _names(kind: Any) -> tuple[str, ...]:
    """Return what a dataclass, or a named tuple, is made of."""
    if is_dataclass(kind):
        return tuple(one.name for one in fields(kind) if one.init)
    return tuple(kind.model_fields if issubclass(kind, BaseModel) else kind._fields)


def _of_table(value: "pd.DataFrame") -> dict[str, Any]:
    import pandas as pd  # which `headpatch rank` does without

    if not isinstance(value, pd.DataFrame):
        raise TypeError(f"a {type(value).__name__} of pandas is no plain value")
    columns = [_column(value.iloc[:, place]) for place in range(value.shape[1])]
    default = value.index.equals(pd.RangeIndex(len(value)))
    index = None if default else [to_plain(one) for one in value.index]
    return {_IS: "table", "names": list(value.columns), "of": columns, "index": index}


def _column(values: "pd.Series[Any]") -> dict[str, Any]:
    """Return a column: numbers as a tensor, all else one by one, its type, what is missing."""
    import pandas as pd

    if isinstance(values.dtype, np.dtype) and values.dtype != object:
        return {"type": "", "of": torch.from_numpy(values.to_numpy(copy=True)), "missing": []}
    missing = [place for place, one in enumerate(values) if one is pd.NA]
    if (numbers := getattr(values.dtype, "numpy_dtype", None)) is not None:  # Int64, say
        filled = values.to_numpy(numbers, na_value=numbers.type(0))
        cells: Any = torch.from_numpy(filled.copy())  # a tensor for each cell is slow to read
    else:
        cells = [None if one is pd.NA else to_plain(one) for one in values]
    return {"type": str(values.dtype), "of": cells, "missing": missing}


def _table(value: Mapping[str, Any]) -> "pd.DataFrame":
    import pandas as pd

    columns = []
    for one in value["of"]:
        numbers = isinstance(one["of"], torch.Tensor)
        cells = one["of"].numpy() if numbers else from_plain(one["of"])
        column = pd.Series(cells, dtype=one["type"] or None)
        column[one["missing"]] = pd.NA
        columns.append(column)
    table = pd.DataFrame(dict(enumerate(columns)))
    table.columns = pd.Index(value["names"])
    if value["index"] is not None:
        table.index = pd.Index(from_plain(value["index"]))
    return table


_READ: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "array": lambda value: value["of"].numpy(),
    "number": lambda value: np.dtype(value["type"]).type(value["of"]),
    "table": _table,
    "mapping": lambda value: {from_plain(key): from_plain(one) for key, one in value["of"]},
    "tuple": lambda value: tuple(from_plain(value["of"])),
}

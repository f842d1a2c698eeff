"""What every section of a study is: frozen, strict, and written in YAML."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headpatch.text import checked_text

Quadrant = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Corner = Literal["top-left-corner", "top-right-corner", "bottom-left-corner", "bottom-right-corner"]
_MOST = 1_000_000
Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many there are of something that may be left out."""
Positive = Annotated[int, Field(ge=1, le=_MOST)]
"""How many there are of something."""


class Strict(BaseModel):
    """A section: its keys are fixed, unknown ones are errors, values are never converted."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _check_texts(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, Mapping) else ():
            for text in _texts([key, value]):
                checked_text(text, str(key)[:80])
        return values


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])


def sequence(value: Any) -> Any:
    """Read a list as a tuple: YAML has lists only."""
    return tuple(value) if isinstance(value, list) else value

"""What every section of a study is: frozen, strict, and written in YAML."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Quadrant = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


class Strict(BaseModel):
    """A section: its keys are fixed, unknown ones are errors, values are never converted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True
    )


def sequence(value: Any) -> Any:
    """Read a list as a tuple: YAML has lists only."""
    return tuple(value) if isinstance(value, list) else value


def words(value: Any) -> Any:
    """Read a list of words, of which YAML 1.1 takes a bare Yes for true."""
    spelled = {True: "Yes", False: "No"}
    items = sequence(value)
    if not isinstance(items, tuple):
        return items
    return tuple(spelled[item] if isinstance(item, bool) else item for item in items)

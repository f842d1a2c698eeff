"""Wrong types and shapes are found at every call, whichever of the two checkers a function has."""

import gc
import importlib
import sys
import weakref
from collections.abc import Callable
from types import ModuleType

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

import headpatch.heads
from headpatch.stats import effects
from tests import checking

SOURCE = """
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from jaxtyping import Float
from torch import Tensor, zeros

if TYPE_CHECKING:
    import nowhere

Row = Float[Tensor, "n"]


def plain(count: int, *rest: str, flag: bool = False) -> str:
    return count if flag else "right"


def later(count: "int") -> "nowhere.Thing":
    return count


def shaped(a: Float[Tensor, "n m"], b: Float[Tensor, "m"]) -> Row:
    return a if len(a) == 1 else a @ b


def nested(rows: dict[str, list[Row]]) -> None: ...


def called(function: Callable[[Row], int] | None = None, rows: tuple[Row, ...] = ()) -> None: ...


def each(count: int) -> Iterator[int]:
    yield from range(count)


def rows(a: Float[Tensor, "n m"], b: Float[Tensor, "m"]) -> Iterator[Float[Tensor, "m"]]:
    yield from a * b


def sized(count: int, more: int = 0) -> Float[Tensor, "{count}"]:
    return zeros(count + more)


def outer(held: object, kind: type = int) -> dict[str, Callable]:
    def inner(row: Row, count: int = 1, *, name: str | None = None) -> list[kind]:
        return [held] if count == 1 else row

    def bare(a, b=held):
        return a, b

    def later(row: "Row") -> object:
        return held

    return {"inner": inner, "bare": bare, "later": later}


@dataclass(frozen=True)
class Plain:
    count: int

    def more(self, by: int) -> Self:
        return type(self)(self.count + by)

    @property
    def wrong(self) -> str:
        return self.count

    @classmethod
    def of(cls, text: str) -> "Plain":
        return cls(int(text))

    @staticmethod
    def twice(count: int) -> int:
        return 2 * count


@dataclass
class Shaped:
    a: Float[Tensor, "n"]
    b: Float[Tensor, "n"]
"""
ERRORS = (BeartypeCallHintViolation, jaxtyping.TypeCheckError)
A, B = torch.zeros(2, 3), torch.zeros(3)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("package")
    (folder / "checked_in_tests.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "meta_path", [*sys.meta_path])
        checking.install("checked_in_tests")
        return importlib.import_module("checked_in_tests")


RIGHT: dict[str, Callable[[ModuleType], object]] = {
    "types": lambda made: made.plain(1, "a", "b"),
    "shapes": lambda made: made.shaped(A, B),
    "nested shapes": lambda made: made.nested({"a": [B, A[0]]}),
    "what is not known before a call": lambda made: made.later(1),
    "a generator": lambda made: list(made.each(2)),
    "a generator of shapes": lambda made: list(made.rows(A, B)),
    "other shapes than before": lambda made: (made.shaped(A, B), made.shaped(A[:, :1], B[:1])),
    "an argument's value": lambda made: made.sized(2),
    "a dataclass": lambda made: made.Plain(1).more(by=2),
    "a class method": lambda made: made.Plain.of("1"),
    "a static method": lambda made: made.Plain.twice(1),
    "a dataclass of shapes": lambda made: made.Shaped(B, B),
}
WRONG: dict[str, Callable[[ModuleType], object]] = {
    "an argument": lambda made: made.plain("1"),
    "one of many arguments": lambda made: made.plain(1, 2),
    "an argument by name": lambda made: made.plain(1, flag="no"),
    "a result": lambda made: made.plain(1, flag=True),
    "what a string names": lambda made: made.later("1"),
    "a dtype": lambda made: made.shaped(A.int(), B),
    "a number of axes": lambda made: made.shaped(A[0], B),
    "an axis of two arguments": lambda made: made.shaped(A, A[:, 0]),
    "the shape of a result": lambda made: made.shaped(A[:1], B),
    "a shape in a container": lambda made: made.nested({"a": [A]}),
    "a callable": lambda made: made.called(1),
    "a generator's argument": lambda made: list(made.each("2")),
    "an axis of a generator's arguments": lambda made: list(made.rows(A, A[:, 0])),
    "an axis of an argument's value": lambda made: made.sized(2, more=1),
    "a field": lambda made: made.Plain("1"),
    "a method's argument": lambda made: made.Plain(1).more("2"),
    "a property": lambda made: made.Plain(1).wrong,
    "a class method's argument": lambda made: made.Plain.of(1),
    "a static method's argument": lambda made: made.Plain.twice("1"),
    "a field's shape": lambda made: made.Shaped(A, B),
    "an axis of two fields": lambda made: made.Shaped(B, A[:, 0]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(checked: ModuleType, name: str) -> None:
    RIGHT[name](checked)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(checked: ModuleType, name: str) -> None:
    with pytest.raises(ERRORS):
        WRONG[name](checked)


def test_functions_within_others_are_checked_whoever_made_them(checked: ModuleType) -> None:
    """The first of them is no other's: what it holds is let go of, what it returns is its own."""
    first, second = Held(), Held()
    made = [checked.outer(one)["inner"] for one in (1, 2, first, second)]
    assert [one(B) for one in made[:2]] == [[1], [2]]
    assert {one.__name__ for one in made} == {"inner"}
    wrong = (lambda one: one(A), lambda one: one(B, "1"), lambda one: one(B, name=1))
    for one in made:
        for call in (*wrong, lambda one: one(B, 2)):  # which returns the row
            with pytest.raises(ERRORS):
                call(one)
    for one in made[2:]:
        with pytest.raises(ERRORS):  # no int
            one(B)
    assert checked.outer(first, Held)["inner"](B) == [first]
    with pytest.raises(ERRORS):
        checked.outer(1, Held)["inner"](B)
    assert [checked.outer(one)["bare"](0) for one in (1, first)] == [(0, 1), (0, first)]
    assert [checked.outer(one)["later"](B) for one in (1, first)] == [1, first]
    with pytest.raises(ERRORS):
        checked.outer(1)["later"](A)
    gone = weakref.ref(first)
    del made, first, one
    gc.collect()
    assert gone() is None


class Held:
    pass


def test_the_package_is_checked() -> None:
    with pytest.raises(ERRORS):
        headpatch.heads.Head("1", 2)
    with pytest.raises(ERRORS):
        effects.normalized_effect("1", 2.0, 3.0, "noising")

"""A question as the command line and the documentation know it; imports nothing heavy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from headpatch.present.column import Schema

if TYPE_CHECKING:
    from headpatch.core.question import Question
    from headpatch.core.study import Study


@dataclass(frozen=True)
class Flag:
    """A flag of the command line that is no option of its own."""

    name: str  # of the parameter that `Verb.keys` is given: ``queries``
    flag: str  # as typed: ``--from``
    help: str
    metavar: str
    sort: Literal["text", "several", "file"] = "text"


@dataclass(frozen=True)
class Verb:
    """A question as the command line, the study and the documentation know it."""

    name: str  # of the verb, the call, the study's section and the package
    asks: str  # the question itself, a sentence
    options: type[BaseModel] | None  # the study's section: a flag a field, its docstring the help
    help: str  # what is measured, what is written, what it costs
    schemas: tuple[Schema, ...]  # tables that it may write, the first of them always
    others: tuple[str, ...] = ()  # other files that it may write: tensors and figures
    pairs: bool = True  # whether it runs a dataset of pairs too
    draws: bool = False  # whether it runs many pairs only, and draws them if none are given
    flags: tuple[Flag, ...] = ()
    keys: "Callable[[Mapping[str, Any], Study], Mapping[str, Any]]" = lambda _given, _study: {}
    """What of the study the flags override."""
    hidden: tuple[str, ...] = ()  # options that have no flag
    without: tuple[str, ...] = ()  # common flags that it has no use for
    mark: str = ""  # the file by which a run is known, if several verbs write the first table
    finished: str = ""  # what is kept of an interrupted run: ``tokens``; empty: nothing
    keyed: bool = False  # whether `Question.units` names what is kept before pictures are run
    kept_as: str = ""  # folder of what is kept, where it is not called ``.cut-tokens``
    own_command: bool = False  # whether the command line has a module for it

    @property
    def kept_in(self) -> str:
        """Folder of what is kept of an interrupted run, in the output folder."""
        return self.kept_as or f".{self.name}-{self.finished}"

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that it may write, beside ``run.yaml``; none: it writes nothing."""
        tables = tuple(schema.file for schema in self.schemas)
        names = (self.mark, *tables, *self.others, "gate.csv" if self.pairs and tables else "")
        return tuple(dict.fromkeys(filter(None, names)))

    def question(self) -> "Question[Any]":
        """Import the measurement."""
        found: Question[Any] = import_module(f"headpatch.questions.{self.name}.question").QUESTION
        return found

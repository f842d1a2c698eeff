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
    """A flag of the command line that is no option of its own.

    Attributes
    ----------
    name
        Of the parameter that `Verb.keys` is given: ``queries``.
    flag
        As typed: ``--from``.
    sort
        What is read: a text, several texts with commas between them, a file.
    """

    name: str
    flag: str
    help: str
    metavar: str
    sort: Literal["text", "several", "file"] = "text"


def _no_keys(_given: Mapping[str, Any], _study: "Study") -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Verb:
    """A question as the command line, the study and the documentation know it.

    Attributes
    ----------
    name
        Of the verb, the call, the study's section and the package.
    asks
        The question itself, a sentence.
    options
        The study's section; each field is a flag, its docstring the help.
    help
        What is measured, what is written, what it costs.
    schemas
        Tables that it may write, the first of them always.
    others
        Other files that it may write: tensors and figures.
    pairs
        Whether it runs a dataset of pairs too.
    draws
        Whether it runs nothing but many pairs, and draws them where none are given (``--n``).
    flags, keys
        Flags that are no options, and what of the study they override.
    hidden
        Options that have no flag.
    without
        Common flags that it has no use for.
    mark
        The file by which a run is known, where the first table has a name of several verbs.
    finished
        What is kept of an interrupted run: ``tokens``; empty: nothing.
    keyed
        Whether `Question.units` names what is kept before pictures are run.
    own_command
        Whether the command line has a module for it, as it is not asked of pictures alone.
    kept_as
        Folder of what is kept, where it is not called ``.cut-tokens``.
    """

    name: str
    asks: str
    options: type[BaseModel] | None
    help: str
    schemas: tuple[Schema, ...]
    others: tuple[str, ...] = ()
    pairs: bool = True
    draws: bool = False
    flags: tuple[Flag, ...] = ()
    keys: "Callable[[Mapping[str, Any], Study], Mapping[str, Any]]" = _no_keys
    hidden: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    mark: str = ""
    finished: str = ""
    keyed: bool = False
    kept_as: str = ""
    own_command: bool = False

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

"""What a question is: its options and words, how it is answered, and what its answer holds.

A question is a package of `headpatch.questions`. Its ``__init__`` declares a `Verb` and imports
nothing heavy; its ``question`` module holds ``QUESTION``, the measurement; ``columns`` its tables,
``view`` what people see of them. The command line, the calls of ``headpatch``, the page and the
documentation are derived from these.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from headpatch.pairs.region import BY_IMAGE
from headpatch.present.column import Schema
from headpatch.text import html_of

if TYPE_CHECKING:
    import pandas

    from headpatch.core.dataset import Pairs
    from headpatch.core.labelled_rows import Rows
    from headpatch.core.outlook import Stage
    from headpatch.core.progress import Stages
    from headpatch.core.session import Session
    from headpatch.core.share import Share
    from headpatch.core.store import Store
    from headpatch.core.study.study import Study
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM
    from headpatch.pairs.labelled import Listed
    from headpatch.pairs.manifest import Entry
    from headpatch.pairs.pair import Pair
    from headpatch.present.parts import Part


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
    keeps_one: bool = False  # whether what is finished of one pair alone is kept, too
    keyed: bool = False  # whether `Question.units` names what is kept before pictures are run
    kept_as: str = ""  # folder of what is kept, where it is not called ``.cut-tokens``
    one_picture: bool = False  # whether it takes prompts with one picture alone
    every_layer: str = ""  # why it needs attention heads in every layer; empty if it does not
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


def verbs() -> "tuple[Verb, ...]":
    """Return every question, in the order of the page."""
    found: tuple[Verb, ...] = import_module("headpatch.questions").VERBS
    return found


COMPARED_BY: Final = "compared_by"
"""Key of a run's facts: what heads are compared by, if not by attention to named regions."""
Opened: TypeAlias = "Session | Pairs"
Files: TypeAlias = Mapping[str, Any]
"""By file name: a table (a DataFrame, or columns by name), or tensors by key."""


@dataclass(frozen=True)
class Needs:
    """How pictures are opened for a question."""

    positions: "Positions | None" = None  # where language-model heads are changed
    vision: bool = False  # whether vision heads are
    forced: bool = False  # whether pictures with wrong answers are opened too, as by ``--force``
    hold: bool = True  # whether pairs of a dataset stay open, as many as memory allows
    lean: bool = False  # whether less of those is enough (`headpatch.core.held.lean`)
    # whether both runs' prompts must be of one length: what is done hangs on places of tokens
    one_length: bool = False
    means: bool = False  # whether mean z over the pairs of a dataset is put in a head's place
    count: Literal[0, 1] = (
        0  # as what an untouched pair of a dataset counts: 1 if no more is done to it
    )
    of_pairs: "Needs | None" = None  # how pairs of a dataset are opened, if otherwise


@dataclass(frozen=True)
class Call:
    """How a question is asked."""

    stages: "Stages"
    say: Callable[[str], None] = lambda _: None  # what is to come and its cost, before it is paid
    # stages whose price could not be known before pictures were run, of so many pairs
    announce: "Callable[[Sequence[Stage], int], None]" = lambda _stages, _pairs: None
    store: "Store | None" = None  # finished units of an interrupted run
    units: Mapping[str, str] = field(default_factory=dict)  # keys by pair, if `Verb.keyed`
    given: Mapping[str, Any] = field(default_factory=dict)  # in memory: means, sets of heads


@dataclass(frozen=True)
class Context:
    """What words and figures say beside the data."""

    question: str = ""
    region: str = ""
    valid: bool = True  # whether both answers are right; only a forced study may be invalid
    pairs: int | None = None  # how many were run; None is one pair alone
    level: float = 0.95  # coverage of intervals over pairs
    noise_floor: float | None = None  # in logits; None where nothing was changed
    options: Mapping[str, Any] = field(default_factory=dict)  # the question's own
    study: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the run, as ``run.yaml`` has them

    @property
    def title(self) -> dict[str, str]:
        """Question and region; a figure of a forced study, or of a failed null, says so."""
        invalid = "" if self.valid else " (INVALID STUDY: its answers are not Yes and No)"
        failed = ", ".join(self.facts.get("failed_nulls") or ())
        null = f" (A NULL FAILED: {failed})" if failed else ""
        by = f"; heads are compared by {self.yardstick}" if self.yardstick else ""
        return {"question": f"{self.question}{invalid}{null}", "region": f"{self.region}{by}"}

    @property
    def yardstick(self) -> str:
        """What heads are compared by, in words; empty if by attention to regions that are named."""
        return str(self.facts.get(COMPARED_BY, ""))

    @property
    def attended(self) -> str:
        """What heads are compared by their attention to: the ``region``, or the ``image``."""
        return "image" if self.yardstick.startswith(BY_IMAGE) else "region"

    @property
    def share(self) -> str:
        """The share of a head's attention by which heads are compared, in words."""
        if self.attended == "image":
            return "attention to the image, as a part of all,"
        return "share of the image attention that falls on the region"

    @property
    def caveat(self) -> str:
        """What a sentence about one pair must not leave out; empty over pairs."""
        if not self.valid:
            return (
                "The study is INVALID (its answers are not Yes and No): these figures say nothing."
            )
        return "One pair shows one case, not a rule." if self.pairs is None else ""


@dataclass(frozen=True)
class Origin:
    """Where a result comes from: what ``run.yaml`` and titles say."""

    verb: Verb
    study: "Study"
    run: Mapping[str, Any]
    context: Context
    gate: Mapping[str, Any] | None = None  # columns of ``gate.csv``; None for one pair


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """What a question found, and where it comes from."""

    origin: Origin = field(kw_only=True, repr=False)

    @property
    def noise_floor(self) -> float | None:
        """Noise floor in logits; None where nothing was changed."""
        return self.origin.context.noise_floor

    @property
    def valid(self) -> bool:
        """Whether both answers are right; only a forced study may be invalid."""
        return self.origin.context.valid

    @property
    def in_full(self) -> tuple[str, str] | None:
        """What the model says of both pictures of one pair, where it was asked to go on."""
        return None

    @property
    def words(self) -> Context:
        """What titles say: `Origin.context`, by its earlier name."""
        return self.origin.context

    @abstractmethod
    def files(self) -> Files:
        """Return tables and tensors, by the name of their file."""

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints beside what all verbs print."""
        return {}

    def __repr__(self) -> str:
        """Return a line: of how many pairs, and how large what was found is."""
        context = self.origin.context
        of = "1 pair" if context.pairs is None else f"{context.pairs:,} pairs"
        held = ", ".join(_sized(name, one) for name, one in self.files().items())
        return f"<{type(self).__name__} of {of}{'' if self.valid else ', INVALID'}: {held}>"

    def _repr_html_(self) -> str:
        """Return that line and the first rows of the first table, for notebooks."""
        for name, held in self.files().items():
            if name.endswith(".csv"):
                return html_of(repr(self), table_of(held).head(10))
        return html_of(repr(self))

    def save(self, folder: str | Path) -> list[str]:
        """Write tables, tensors, figures and ``run.yaml`` into a folder, as the command line does.

        Returns the names of the files. An `InputError` if the folder cannot be written, or another
        run holds it.
        """
        from headpatch.core.output.writing import save

        return save(self, Path(folder))


Found = TypeVar("Found", bound=Result)


class Question(ABC, Generic[Found]):
    """How a question is answered, of one pair or of many."""

    verb: Verb

    def check(self, study: "Study") -> None:
        """Refuse, before a model loads, what can be known to be wrong."""

    def check_one(self, study: "Study") -> None:
        """Refuse, before a model loads, what takes more than one pair."""

    def need(self, study: "Study", count: int, argument: str) -> None:
        """Refuse too few pairs, before they are drawn or run; `argument` is what gave them."""

    def check_model(self, study: "Study", vlm: "VLM") -> None:
        """Refuse, before pictures are run, what the model cannot do."""

    def needs(self, study: "Study") -> Needs:
        """Say how pictures are opened."""
        return Needs()

    def listed(self, study: "Study") -> "Listed | None":
        """Return what the question asks in place of pairs; None if it asks pairs."""
        return None

    def rows(self, study: "Study", vlm: "VLM", listed: "Listed", share: "Share") -> "Rows":
        """Open what is `listed`."""
        raise NotImplementedError

    def units(
        self, study: "Study", vlm: "VLM", pairs: "Pair | Sequence[Entry]", given: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Name what is measured of each pair by a key of the store, if the verb is `keyed`."""
        return {}

    def price(
        self, study: "Study", vlm: "VLM", pairs: "Pair | Sequence[Entry]"
    ) -> "Sequence[Stage]":
        """Name the stages after the untouched runs and what they take; none of a quick question.

        It is said before they are run. What cannot be known so early goes to `Call.announce`.
        """
        return ()

    @abstractmethod
    def answer(self, opened: Opened, call: Call) -> Found:
        """Measure, over one pair or over many."""

    def view(self, files: Files, context: Context) -> "Iterator[Part]":
        """Return what people see: words, tables, charts; from memory or from saved files."""
        module = import_module(f"headpatch.questions.{self.verb.name}.view")
        if context.yardstick:
            from headpatch.present.parts import Words

            yield Words(f"Heads are compared by {context.yardstick}.")
        for part in module.view(files, context):
            yield part if context.valid else _marked(part)


def _marked(part: "Part") -> "Part":
    """Say in a table's title that its study is not valid, wherever the table is shown."""
    from headpatch.present.parts import Grid

    if not isinstance(part, Grid):
        return part
    return replace(part, title=f"INVALID STUDY: {part.title}".removesuffix(": "))


def _sized(name: str, held: Any) -> str:
    """Name a file of a `Files` with the rows of its table, or the keys of its tensors."""
    count, what = (len(table_of(held)), "row") if name.endswith(".csv") else (len(held), "key")
    return f"{name} ({count:,} {what}{'s' * (count != 1)})"


def table_of(columns: Any) -> "pandas.DataFrame":
    """Return a table of a `Files` as a DataFrame."""
    import pandas

    return columns if isinstance(columns, pandas.DataFrame) else pandas.DataFrame(columns)


def rows_of(columns: Any, count: int | None = None) -> list[dict[str, Any]]:
    """Return the first rows of a table of a `Files`, all if no count is given."""
    rows = zip(*(columns[name][:count] for name in columns), strict=True)
    return [dict(zip(map(str, columns), row, strict=True)) for row in rows]

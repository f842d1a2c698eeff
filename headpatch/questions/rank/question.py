"""Ranking heads by how much more they look at the region when the object is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from headpatch.core.ask import ask
from headpatch.core.dataset import Pairs
from headpatch.core.origin import origin
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result, rows_of
from headpatch.core.ranking import MASSES, columns_of, image_rows
from headpatch.core.session import Session, reopen
from headpatch.core.study import Study
from headpatch.engine.answers import generate
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.questions.rank import VERB
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL, WITH_RUN, WITHOUT_RUN
from headpatch.questions.rank.described import (
    Saved,
    head_figures,
    kept_run,
    tensors,
    where_attention_falls,
)

if TYPE_CHECKING:
    import pandas

Columns: TypeAlias = dict[str, list[int | float]]


@dataclass(frozen=True, eq=False)
class Ranking(Result):
    """What `headpatch.rank` found.

    Attributes
    ----------
    columns
        All language-model heads, the largest attention difference first: the columns of
        ``heads.csv``, by name. Over many pairs they are means, with intervals.
    per_head, spatial, with_run, without_run
        Of one pair, what the four ``.pt`` files hold; ``attention_data/README.md`` gives every key.
        Empty over many pairs.
    answers
        What the model says of each picture of one pair, in full.
    """

    columns: Columns
    per_head: Saved = field(default_factory=dict)
    spatial: Saved = field(default_factory=dict)
    with_run: Saved = field(default_factory=dict)
    without_run: Saved = field(default_factory=dict)
    answers: tuple[str, str] | None = None

    @cached_property
    def heads(self) -> "pandas.DataFrame":
        """Give `columns` as a table (imports pandas, which `headpatch rank` does without)."""
        import pandas

        return pandas.DataFrame(self.columns)

    @cached_property
    def gate(self) -> "pandas.DataFrame":
        """A row for each of many pairs, run or not: the columns of ``gate.csv``."""
        import pandas

        return pandas.DataFrame(self.origin.gate)

    @property
    def in_full(self) -> tuple[str, str] | None:
        """What the model says of both pictures."""
        return self.answers

    def top(self, count: int) -> list[dict[str, Any]]:
        """Return the first rows of the table."""
        return rows_of(self.columns, count)

    def files(self) -> Files:
        """Return the table, and of one pair the tensors."""
        tensors = {
            WITH_RUN: self.with_run,
            WITHOUT_RUN: self.without_run,
            PER_HEAD: self.per_head,
            SPATIAL: self.spatial,
        }
        return {HEADS.file: self.columns, **(tensors if self.per_head else {})}

    def json(self) -> Mapping[str, Any]:
        """Return the first heads, and of one pair the answers and where attention falls."""
        heads = self.top(self.origin.context.options["top"])
        if self.answers is None:
            return {"heads": heads}
        present, absent = self.answers
        answers = {"answer_with": present, "answer_without": absent}
        return {**answers, "heads": heads, "spatial": self.spatial}


RankedPairs = Ranking


class Rank(Question[Ranking]):
    """Ranks heads."""

    verb = VERB

    def needs(self, _study: Study) -> Needs:
        """Heads are compared by their attention to the region."""
        return Needs(compared=True)

    def answer(self, opened: Opened, call: Call) -> Ranking:
        """Rank every head by its attention difference, or by the mean over pairs."""
        if isinstance(opened, Session):
            return _one_pair(opened)
        assert isinstance(opened, Pairs)
        return Ranking(_over_pairs(opened), origin=origin(VERB, opened))


QUESTION = Rank()


def rank(session: Session | Pairs, **options: Any) -> Ranking:
    """Rank every head by how much more it looks at the region when the object is there.

    Correlational: it shows where heads look, not what they do.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    options
        Override `headpatch.Study.rank`: ``top``, ``overlays``.

    Returns
    -------
    Ranking
        ``heads`` has the columns of ``heads.csv``; over many pairs they are means, with intervals.

    Raises
    ------
    InputError
        If an option is wrong, or the region holds no patch's centre, or all of them.

    Examples
    --------
    >>> ranked = hp.rank(session, top=5)
    >>> ranked.heads.shape  # a row for each of 32 × 32 heads, the largest difference first
    (1024, 9)
    >>> list(ranked.heads.columns)[:6]
    ['rank', 'layer', 'head', 'diff', 'with', 'without']
    >>> tuple(ranked.with_run["lm_rows"].shape)  # layers, heads, keys
    (32, 32, 160)
    >>> ranked = hp.rank(pairs)
    >>> list(ranked.heads.columns)[9:]
    ['diff_low', 'diff_high', 'diff_raw_low', 'diff_raw_high', 'pairs']
    """
    return ask(QUESTION, session, options)


def _one_pair(session: Session) -> Ranking:
    mask = session.compared_tokens
    if session.positions is not None:  # rows of the vision tower are not kept then
        session = reopen(session)
    rows = image_rows(session)
    top = min(session.study.rank.top, session.vlm.lm.grid.layers * session.vlm.lm.grid.heads)
    per_head = head_figures(rows, mask, top)
    answers = generate(session.vlm, session.prompt)
    return Ranking(
        columns_of({name: per_head[name] for name in MASSES}),
        tensors(per_head),
        tensors(where_attention_falls(session, rows, mask)),
        kept_run(session, WITH, answers[WITH]),
        kept_run(session, WITHOUT, answers[WITHOUT]),
        (answers[WITH], answers[WITHOUT]),
        origin=origin(VERB, session),
    )


def _over_pairs(pairs: Pairs) -> Columns:
    """Return means over pairs, then the interval of each difference and the number of pairs."""
    from headpatch.core.aggregate import intervals  # loads pandas

    survey = pairs.survey
    survey.compare()
    figures = {name: values.mean(0) for name, values in survey.masses.items()}
    for name in ("diff", "diff_raw"):
        values = survey.masses[name]
        _, low, high = intervals(pairs.study, values.reshape(len(values), -1))
        shape = values.shape[1:]
        figures |= {f"{name}_low": low.reshape(shape), f"{name}_high": high.reshape(shape)}
    columns = columns_of(figures)
    columns["pairs"] = [len(survey.entries)] * len(columns["rank"])
    return columns

"""Answers with heads changed: every row is asked, and what is said is counted."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import pandas as pd

from headpatch.core.ask import ask
from headpatch.core.cost import cost, passes
from headpatch.core.dataset import Pairs
from headpatch.core.effects import change, check_toward, floor_of
from headpatch.core.head_selection import Heads, named
from headpatch.core.labelled_rows import Rows, counted, open_row
from headpatch.core.mean_activations import MeanZ
from headpatch.core.output.provenance import model_facts
from headpatch.core.pair_units import each_unit
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Context, Files, Origin, Question, Result
from headpatch.core.session import Session, model_of
from headpatch.core.share import ALONE, Share
from headpatch.core.study.keywords import EvaluateKeywords
from headpatch.core.study.study import Study
from headpatch.engine.patching import PLAIN_BATCH, OnProgress
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.labelled import Labelled, Listed, Refused, read_rows
from headpatch.questions.evaluate import VERB
from headpatch.questions.evaluate.columns import EVALUATION, REFUSED, ROWS
from headpatch.questions.evaluate.measure import (
    Plan,
    Said,
    measure,
    named_sets,
    names_vision,
    plan,
    turned,
)
from headpatch.questions.evaluate.scores import Score
from headpatch.questions.evaluate.source import (
    as_rows,
    keys_of,
    listed_of,
    refuse_resample,
    rows_of,
)
from headpatch.questions.evaluate.table import check_scores, evaluation, row_table, scored
from headpatch.questions.evaluate.view import summary

Open: TypeAlias = tuple[Labelled, Session | str]
"""A row, opened, or why it cannot be."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """What `headpatch.evaluate` found.

    Attributes
    ----------
    table
        A row for each metric, set of heads and kind: the columns of ``evaluate.csv``.
    rows
        What each row of the dataset was answered, with nothing changed and with the heads changed.
    refused
        Rows that could not be asked, and why.
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    refused: pd.DataFrame

    @property
    def summary(self) -> str:
        """What became of the accuracy, in plain words."""
        return summary(self.table, self.origin.context)

    def files(self) -> Files:
        """Return the tables; that of refused rows if there are any."""
        refused = {REFUSED.file: self.refused} if len(self.refused) else {}
        return {EVALUATION.file: self.table, ROWS.file: self.rows, **refused}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints: the metrics, and rows that could not be asked."""
        facts = {key: self.origin.run[key] for key in ("model", "rows", "scenes", "noise_floor")}
        tables = {"evaluation": self.table, "refused": self.refused}
        return facts | tables | {"summary": self.summary}


class Evaluate(Question[Evaluation]):
    """Asks labelled rows with heads changed."""

    verb = VERB

    def check(self, study: Study) -> None:
        """Refuse two sources of rows."""
        if study.evaluate.rows is not None and study.pairs.manifest is not None:
            raise InputError("--rows, --pairs", "both of them", "one of them")

    def listed(self, study: Study) -> Listed:
        """Read the rows: of a table, or both runs of every pair, or of the study's own."""
        return listed_of(study)

    def rows(self, study: Study, vlm: VLM, listed: Listed, share: Share) -> Rows:
        """Open what is listed."""
        return rows_of(study, vlm, listed, share)

    def answer(self, opened: Session | Pairs | Rows, call: Call) -> Evaluation:
        """Ask every row, with nothing changed and with heads changed."""
        rows = as_rows(opened)
        study, options, score = rows.study, rows.study.evaluate, call.given.get("score")
        check_scores(rows, score)
        openly = partial(_opened, rows, Checks())
        first = _first(rows, openly)
        asked = plan(study, rows.vlm, named_sets(rows))
        _announce(rows, first, asked, call)
        reference = _reference(rows, openly, call) if averages(options.kinds) else None
        floor = None if options.generate else _floor(first, asked, reference)
        del first
        said = _said(rows, openly, asked, reference, call)
        kept = [one for one, words in zip(rows.entries, said, strict=True) if not words.reason]
        refused = rows.refused + tuple(
            Refused(one.name, one.line, words.reason)
            for one, words in zip(rows.entries, said, strict=True)
            if words.reason
        )
        said = [one for one in said if not one.reason]
        if floor is not None:
            floor = max(floor, *(one.off for one in said))
        done = replace(rows, entries=tuple(kept), refused=refused)
        each = scored(done, said, score)
        table = evaluation(done, asked, each)
        answered = row_table(done, asked, said, each[0])
        listed = pd.DataFrame([asdict(one) for one in refused], columns=[c.name for c in REFUSED])
        return Evaluation(table, answered, listed, origin=_origin(done, floor, each[0].scoring))


QUESTION = Evaluate()


def evaluate(
    rows: Any,
    heads: Heads | None = None,
    study: Study | None = None,
    vlm: VLM | None = None,
    score: Score | str | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
    **options: Unpack[EvaluateKeywords],
) -> Evaluation:
    """Ask labelled pictures with heads changed: what becomes of accuracy, yes-rate, and text.

    Parameters
    ----------
    rows
        A table of single pictures (a file, a table of pandas, a list of dicts, a dataset of Hugging
        Face's) with the columns image, question and answer, and perhaps choices, name, scene, group
        and objects; or a pair or many pairs that are open: both runs of each are asked, wanting the
        first and the second answer, whether or not they pass the gate.
    heads
        Heads that are changed together. None takes the study's.
    study, vlm
        For a table: None takes the bundled study, and loads its model.
    score
        For ``generate``: how texts are scored, by name (``exact``, ``contains``, ``pope``,
        ``chair``); or called with a text and its row's cells (name, question, answer, choices,
        objects, and further columns by name), gives a number; 1 is right and 0 is wrong.
    keep
        A folder for finished rows, from which an interrupted call goes on.
    on_progress
        Called with (done, total). None shows a bar on a terminal or in a notebook; False nothing.
    options
        Override `headpatch.Study.evaluate`: ``kinds``, ``alpha``, ``positions``, ``controls``,
        ``generate``, …

    Returns
    -------
    Evaluation
        ``table`` has the columns of ``evaluate.csv``, ``rows`` those of ``rows.csv``, and
        ``summary`` says it in words.

    Raises
    ------
    InputError
        If an option is wrong, no row can be asked, or the model has no such heads.

    Examples
    --------
    >>> folder = "headpatch/pairs/images"
    >>> asked = {"question": "Is there anything in the top left corner?"}
    >>> table = [{"image": f"{folder}/1.jpg", "answer": "Yes"} | asked]
    >>> table += [{"image": f"{folder}/2.jpg", "answer": "No"} | asked]
    >>> found = hp.evaluate(table, "20.18,21.14,21.16,21.25,23.9", vlm=vlm, controls=2)
    >>> found.table[["scoring", "metric", "rows", "base"]].values.tolist()[0]
    ['word', 'accuracy', 2, 1.0]
    """
    asked = {**options, **named(heads)}
    target = rows
    if isinstance(score, str):
        asked, score = asked | {"score": score}, None
    if not isinstance(rows, Session | Pairs | Rows):
        study = study or Study()
        listed = read_rows(rows, study.answers, "rows")
        study = study.override({"evaluate.rows": listed.name})
        loaded = vlm or model_of(study)
        target = Rows(study, loaded, listed.entries, listed.refused)
        refuse_resample(
            study.override({f"evaluate.{key}": one for key, one in asked.items()}), listed
        )
    return ask(QUESTION, target, asked, on_progress, keep, score=score)


def _opened(rows: Rows, checks: Checks, row: Labelled) -> Open:
    """Open a row, or say why it cannot be asked."""
    study, options = rows.study, rows.study.evaluate
    try:
        if "resample" not in options.kinds:  # the other run only says where the two pictures differ
            place = row.pair() if turned(study) else row
            row = replace(row, twin=None, region=place.region)
        how = options.positions, checks, not options.generate, names_vision(study)
        check_toward(found := open_row(study, rows.vlm, row, *how), options.kinds, options.toward)
        return row, found
    except InputError as error:
        return row, f"{error.argument}: {error.found}; expected {error.expected}"


def _first(rows: Rows, openly: Callable[[Labelled], Open]) -> Open:
    """Return the first row that can be asked; an `InputError` if there is none."""
    why = ""
    for row in rows.entries:
        found = openly(row)
        if isinstance(found[1], Session):
            return found
        why = why or found[1]
    found_words = f"none of {len(rows.entries):,} rows can be asked ({why})"
    raise InputError("--rows", found_words, "pictures and questions that the model takes")


def _announce(rows: Rows, first: Open, asked: Plan, call: Call) -> None:
    """Say what is to come, and what it costs."""
    session, changes, options = first[1], asked.changes, rows.study.evaluate
    assert isinstance(session, Session)
    means = averages(options.kinds)
    count: float
    if options.generate:
        count = len(changes) + -(-len(changes) // (PLAIN_BATCH - 1)) + float(means)
        price = f"{passes(count)} a row, each with up to {options.generate:,} tokens of text"
    else:
        count = 1 + means + cost(session, [*changes, *asked.selves])
        price = f"{passes(count)} a row, {count * len(rows.entries):,.0f} in all"
    named = len({one.change for one in asked.asked})
    sets = f"sets of heads × kinds: {named:,} named, {len(changes) - named:,} random"
    call.say(f"{len(rows.entries):,} rows, {sets}: {price}")


def _reference(rows: Rows, openly: Callable[[Labelled], Open], call: Call) -> MeanZ:
    """Average z over the rows that can be asked."""
    positions = rows.study.evaluate.positions
    mean = MeanZ(positions, names_vision(rows.study))

    def sums(found: Open, _: OnProgress) -> Any:
        return mean.of_pair(found[1]) if isinstance(found[1], Session) else None

    with call.stages("Averaging the rows") as advance:
        units = each_unit(
            rows.entries,
            openly,
            "Averaging the rows",
            lambda: keys_of(rows, {"mean of": positions}),
            sums,
            advance,
            store=call.store if mean.small else None,  # else no file holds it, and all run all
            share=rows.share if mean.small else ALONE,
            count=0,
        )
        for one in units:
            if one is not None:
                mean.add(one, 2)
    if not mean.here:
        found = f"{positions}, and prompts of several lengths"
        hint = "Position by position z can be averaged over prompts of one length alone."
        raise InputError("--positions", found, "answer, for kind mean", hint)
    return mean


def _floor(first: Open, asked: Plan, reference: MeanZ | None) -> float:
    """Return the noise floor, from the first row: what moves LD and changes nothing."""
    session = first[1]
    assert isinstance(session, Session)
    means = None if reference is None else reference.of(session)
    changes = [*(one.change for one in asked.asked), *asked.selves]
    return floor_of(session, change(session, changes, means), means)


def _said(
    rows: Rows,
    openly: Callable[[Labelled], Open],
    asked: Plan,
    reference: MeanZ | None,
    call: Call,
) -> list[Said]:
    def say(found: Open, advance: OnProgress) -> Said:
        row, session = found
        if not isinstance(session, Session):
            return Said(reason=session)
        means = None if reference is None else reference.of(session)
        try:
            return measure(session, row, asked, means, advance)
        except InputError as error:
            return Said(reason=f"{error.argument}: {error.found}; expected {error.expected}")

    def keys() -> list[str]:
        own = rows.study.evaluate.model_dump(include={"generate", "through", "positions"})
        own |= {"changes": [repr(one) for one in (*asked.changes, *asked.selves)]}
        if reference is not None:
            own["mean over"] = keys_of(rows, {})
        return keys_of(rows, own)

    with call.stages("Asking the rows") as advance:
        return list(
            each_unit(
                rows.entries,
                openly,
                "Asking the rows",
                keys,
                say,
                advance,
                store=call.store,
                share=rows.share,
            )
        )


def _origin(rows: Rows, floor: float | None, scoring: str) -> Origin:
    study, counts = rows.study, counted(rows)
    asked = {one.question for one in rows.entries}
    own = asked.pop() if len(asked) == 1 else f"each row's own, {len(asked):,} questions"
    words = f"{own} ({counts['rows']:,} rows)"
    facts = {
        "question": words, **counts, "scored": scoring, "noise_floor": floor,
        **model_facts(study, rows.vlm),
    }  # fmt: skip
    context = Context(
        words, level=study.pairs.level, noise_floor=floor, facts=facts,
        options=study.evaluate.model_dump(), study=study.model_dump(by_alias=True),
    )  # fmt: skip
    return Origin(VERB, study, facts, context)

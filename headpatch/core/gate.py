"""A study over many pairs: one session after the other, for the pairs that pass the gate."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from headpatch.core.donors import Layout
from headpatch.core.gate_view import SEEN_ALIKE
from headpatch.core.invalid_study import SHAPE, seen_alike
from headpatch.core.session import RIGHT, RUNS, Session, checked, run_both
from headpatch.core.study.options import PairsOptions
from headpatch.core.study.reading import prompt_form
from headpatch.core.study.study import Study
from headpatch.engine.answers import AnswerReading
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError, RowError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.rows import CONTEXT
from headpatch.stats.effects import DOUBTFUL_BELOW
from headpatch.stats.scenes import shared_words

# what its row has, not a flag; `answers` only if they are its own
_OF_THE_PAIR = ("--with, --without", "--question", "question_without", "--region")
_NAMED = 3  # refused rows
_OWN_ANSWERS = ("answers", "--sum-variants")


@dataclass(frozen=True)
class Gated:
    """How a pair did at the gate."""

    entry: Entry
    ld_with: float  # logit(Yes) - logit(No), untouched; NaN of a pair that nobody could measure
    ld_without: float
    readings: tuple[AnswerReading, AnswerReading]  # with and without the object
    # Whether both answers are right (the most likely token is the right answer's, in any case, and
    # LD has the right sign), and LD lies apart by the study's margin.
    passed: bool
    reason: str  # why it did not pass; empty if it did
    prompt: str  # as asked, with ``{question}`` in place of the question
    picture_shown: float = math.nan  # shares that the processor shows; NaN if not known
    region_shown: float = math.nan
    refused: bool = False  # whether its row could not be run at all

    @property
    def wrong_sign(self) -> bool:
        """Whether LD prefers the wrong answer in a run."""
        return not (self.ld_with > 0 > self.ld_without or math.isnan(self.ld_with))

    @property
    def neither(self) -> bool:
        """Whether the most likely token of a run is neither Yes nor No, in any case."""
        return any(reading.said == "neither" for reading in self.readings)

    @property
    def doubtful(self) -> bool:
        """Whether Yes and No together are unlikely in a run, if not so that it says neither."""
        return any(reading.doubtful for reading in self.readings) and not self.neither

    @property
    def spelling(self) -> str:
        """Which run says an answer in another case or with other space, and how likely that is."""
        return ", ".join(
            f"{reading.winner} {run}"
            for run, reading in zip(RUNS, self.readings, strict=True)
            if reading.as_variant
        )

    def columns(self) -> dict[str, float | str]:
        """Return what ``gate.csv`` says of the runs' answers, by column."""
        return {
            "spelling": self.spelling,
            **{
                f"{name}_{run}": getattr(reading, name)
                for run, reading in zip(("with", "without"), self.readings, strict=True)
                for name in ("p_yes", "p_no", "top", "p_top", "said")
            },
        }


def study_of(study: Study, entry: Entry) -> Study:
    """Return the study of one pair of a dataset: its pictures, questions, region and answers."""
    own = {
        "with_": str(entry.with_path),
        "without": str(entry.without_path),
        "question": entry.question,
        "question_without": entry.question_without,
        "answers": entry.answers or study.answers,
        "region": entry.region.name,
        "pairs": PairsOptions(margin=study.pairs.margin, level=study.pairs.level),
    }
    return study.model_copy(update=own)


def gate(entry: Entry, session: Session) -> Gated:
    """Judge a pair by its untouched runs."""
    present, absent = session.base.ld_with, session.base.ld_without
    yes, no = session.study.answers
    wrong = []
    if not present > 0:
        wrong.append(f"{no} with the object")
    if not absent < 0:
        wrong.append(f"{yes} without it")
    signs = present > 0, absent < 0
    for run, reading, right, sign in zip(RUNS, session.readings, RIGHT, signs, strict=True):
        # an LD of the wrong sign has said already that it is the other answer
        if reading.said == "neither" or (sign and reading.said != right):
            wrong.append(f"{reading.winner} {run}")
    margin = session.study.pairs.margin
    if not wrong and not present - absent >= margin:
        wrong.append(f"LD apart by less than {margin:g}")
    if seen_alike(session.prompt):  # no other question mends that
        wrong = [f"{SEEN_ALIKE}{session.cut_away and f'; {session.cut_away}'}"]
    shown = session.picture_shown, session.region_shown
    prompt = prompt_form(session.prompt.text, session.pair.question)
    why = ", ".join(wrong)
    return Gated(entry, present, absent, session.readings, not wrong, why, prompt, *shown)


def sessions(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    positions: Positions | None = None,
    on_gate: Callable[[Gated], None] | None = None,
    vision: bool = False,
    held: Mapping[str, Session] | None = None,
    checks: Checks | None = None,
) -> Iterator[Session]:
    """Open the pairs of a dataset one after the other, those that pass the gate.

    Each session's study is that of its pair, see `study_of`; its pair has the entry's name. Drop a
    session before asking for the next: it keeps a model's caches. The fast paths are compared with
    the plain one on the first pair of each length of prompt and of suffix (`Checks`).

    Parameters
    ----------
    positions, vision
        Where heads are to be changed, as for `headpatch.open_session`.
    on_gate
        Called with every pair, in order, whether or not it passed.
    held
        Pairs that are open already, by name: they are not run again.
    checks
        What is known of the fast paths already; what is found is added, unless all is decided.

    Raises
    ------
    InputError
        If a pair cannot be read or asked, or none passes (after `on_gate` was called with each).
        With the study's `force`, those that do not pass are opened too.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     entries = hp.draw_pairs(2, folder, size=168).entries
    ...     for one in hp.sessions(hp.Study(), vlm, entries):
    ...         print(one.pair.name, one.base.ld_with > 0 > one.base.ld_without)
    0001 True
    0002 True
    """
    checks = checks or Checks()
    failed: list[Gated] = []
    for entry in entries:
        own = study_of(study, entry)
        session = (held or {}).get(entry.name)
        try:
            session = session or run_entry(own, vlm, entry, positions, vision)
        except RowError as error:
            failed.append(not_run(entry, reason_of(entry, error)))
            if on_gate:
                on_gate(failed[-1])
            continue
        session = replace(session, study=own)
        found = gate(entry, session)
        if on_gate:
            on_gate(found)
        if not found.passed:
            failed.append(found)
            if not study.force:
                continue
        session = checked(session, checks)
        yield session
        del session  # its caches go before the next pair's are made
    if failed and len(failed) == len(entries) and not study.force:
        raise none_passed(failed)


def run_entry(
    study: Study, vlm: VLM, entry: Entry, positions: Positions | None, vision: bool
) -> Session:
    """Run a pair, by its own study; what is wrong with it is a `RowError`."""
    try:
        study.check_variants()
        session = run_both(study, vlm, entry.pair(), positions, vision)
        session.check_region()
    except InputError as error:
        raise of_the_row(error, entry) from None
    return session


def of_the_row(error: InputError, entry: Entry) -> InputError:
    """Say of a pair's row what is wrong with it; what is wrong with the model stays as it is."""
    own = [*_OF_THE_PAIR, *_OWN_ANSWERS * bool(entry.answers), *[CONTEXT] * bool(entry.context)]
    return entry.refused(error) if error.argument in own else error.again()


def reason_of(entry: Entry, error: InputError) -> str:
    """Say what is wrong with a row: its column, what was found there, and what was expected."""
    column = re.sub(r"^( \(row \d+\))?(, )?", "", error.argument.removeprefix(entry.where))
    found = f"{error.found}; expected {error.expected}"
    return f"{column}: {found}" if column else found


def not_run(entry: Entry, why: str) -> Gated:
    """Say of a pair that is not measured that it fails the gate, and why."""
    nothing = math.nan
    readings = [AnswerReading(nothing, nothing, 0, 0, "", nothing, said) for said in RIGHT]
    how = (readings[0], readings[1]), False, why, ""
    return Gated(entry, nothing, nothing, *how, refused=True)


def none_passed(failed: Sequence[Gated]) -> InputError:
    """Say that no pair passed the gate, and what the first was like."""
    refused = [one for one in failed if one.refused]
    if len(refused) == len(failed):
        named = [f"line {one.entry.line}: {one.reason}" for one in refused[:_NAMED]]
        found = f"none of {len(failed)} pairs can be run ({'; '.join(named)})"
        raise InputError("--pairs", found, "a row that can be run")
    first = next(one for one in failed if not one.refused)
    lds = f"LD_with = {first.ld_with:+.3f}, LD_without = {first.ld_without:+.3f}"
    found = f"none of {len(failed)} pairs passes the gate (line {first.entry.line}: {lds}"
    expected = "a pair whose answers are Yes and No (LD_with > 0 > LD_without), apart by the margin"
    hint = (
        "Try other questions, set pairs.margin lower, or use --force to run them marked as invalid."
    )
    if all(one.refused or one.reason.startswith(SEEN_ALIKE) for one in failed):
        expected, hint = "pictures that differ in what the model is given", SHAPE
    return InputError("--pairs", f"{found}: {first.reason})", expected, hint)


def _unaligned(layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """Say in how many pairs some tokens of the questions have no counterpart in the other run."""
    count = sum(any(-1 in one for one in layout.partners) for layout in layouts.values())
    if not count:
        return ()
    found = f"in {count:,} of {len(layouts):,} pairs the two questions are of several lengths: "
    return (f"{found}tokens between those that they share have no counterpart and keep their z",)


def cautions_of(
    study: Study, gated: Sequence[Gated], run: Sequence[Entry], layouts: Mapping[str, Layout]
) -> tuple[str, ...]:
    """Say what a reader of all pairs should know; `layouts` are of those that are run."""
    shared = shared_words(len(run), len({entry.scene for entry in run}))
    first = next(one.prompt for one in gated if one.prompt)
    reworded = (*filter(None, [shared]), *study.reworded(first), *_unaligned(layouts))
    if not (doubtful := sum(one.doubtful for one in gated)):
        return reworded
    own = any(one.entry.answers for one in gated)
    answers = "the two answers" if own else " and ".join(study.answers)
    return (
        f"in {doubtful:,} of {len(gated):,} pairs {answers} have less than {DOUBTFUL_BELOW:g} of "
        "the probability together; see gate.csv for what the model says",
        *reworded,
    )

"""What verbs say before they run: what, how, and at what price."""

from typing import TYPE_CHECKING

from headpatch.cli.show import warn
from headpatch.core.price import in_all, inexact
from headpatch.heads import Tower
from headpatch.questions.sweep.listed import Listed

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.session import Session
    from headpatch.questions.sweep.one import Plan


def announce(
    session: "Session",
    job: "Plan",
    listed: Listed | None,
    finished: int,
    survey: "Survey | None" = None,
) -> None:
    """Say on stderr what a sweep runs, how, and what is still to come of its cost.

    Parameters
    ----------
    job
        Of one pair alone, at the price of what is not finished.
    finished
        Rows that an earlier run has left.
    survey
        Of a dataset, of whose pairs the session is the first; None is one pair alone.
    """
    options = session.study.sweep
    pairs = None if survey is None else len(survey.entries)
    if pairs is None or job.tower == "vision":  # of many pairs, the survey says the other
        announce_plain(session, job.tower)
    if listed is not None and (repeated := len(listed.lines) - len(job.sets)):
        warn(
            f"{repeated:,} of the lines of {listed.path} repeat an earlier set; each "
            "set is run once"
        )
    what, where = "heads" if job.every else "sets", f"positions {options.positions}"
    if job.tower == "vision":
        what = "vision heads" if job.every else "sets of vision heads"
        where = f"{session.study.vision.positions} tokens of the vision tower"
    layers = f" and {len(job.layers):,} whole layers" if job.layers else ""
    asked = (
        f"{len(job.sets):,} {what}{layers} x "
        f"{', '.join(dict.fromkeys(options.kinds))} x "
        f"{', '.join(dict.fromkeys(options.directions))} at {where}, and "
        f"{job.noise} patched with their own z"
    )
    rows = len(job.asked) * (pairs or 1)
    still, share = rows - finished, 1.0
    if survey is not None:
        share = len(survey.entries) * still / rows
    included = ""
    if job.approx:
        included = ", the backward pass included" if pairs is None else ", backward passes included"
    price = in_all(job.passes * share, included, job.beside, survey)
    if finished:
        warn(f"{finished:,} of {rows:,} rows were finished before; going on")
    if pairs is not None:
        price = f"{pairs:,} pairs x {len(job.asked):,} rows ({asked}): {price}"
    else:
        price = f"{asked}: {still:,} rows{' are left' if finished else ''} for {price}"
    warn(price)


def announce_plain(session: "Session", tower: Tower = "lm") -> None:
    """Say on stderr, where a tower's fast path is not exact, why and what is done instead."""
    if words := inexact(session, tower):
        warn(words)

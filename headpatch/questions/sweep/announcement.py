"""What is said of a sweep before it is paid: what, how, and at what price."""

from pathlib import Path

from headpatch.core.baseline_runs import Survey
from headpatch.core.price import in_all, inexact
from headpatch.core.question import Call
from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.core.sweep_plan import Plan
from headpatch.questions.sweep.head_sets import Listed


def announce(session: Session, job: Plan, finished: int, survey: Survey | None, call: Call) -> None:
    """Say what is run, how, and what is still to come of its cost.

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
    slow = inexact(session, job.tower)
    if slow and (pairs is None or job.tower == "vision"):  # of many, the survey says the other
        call.say(slow)
    if call.given.get("sets") is None and options.sets is not None:
        listed = Listed.read(Path(options.sets))
        if repeated := len(listed.lines) - len(job.sets):
            call.say(
                f"{repeated:,} of the lines of {listed.path} repeat an earlier set; each set is "
                "run once"
            )
    rows = len(job.asked) * (pairs or 1)
    still = rows - finished
    share, included = 1.0, ", the backward pass included" * job.approx
    if pairs is not None:
        share, included = pairs * still / rows, ", backward passes included" * job.approx
    price = in_all(job.passes * share, included, job.beside, survey)
    if finished:
        call.say(f"{finished:,} of {rows:,} rows were finished before; going on")
    asked = _asked(session.study, job)
    if pairs is not None:
        call.say(f"{pairs:,} pairs x {len(job.asked):,} rows ({asked}): {price}")
    else:
        call.say(f"{asked}: {still:,} rows{' are left' if finished else ''} for {price}")


def _asked(study: Study, job: Plan) -> str:
    """Say what is changed, how, and where."""
    options = study.sweep
    what, where = "heads" if job.every else "sets", f"positions {options.positions}"
    if job.tower == "vision":
        what = "vision heads" if job.every else "sets of vision heads"
        where = f"{study.vision.positions} tokens of the vision tower"
    layers = f" and {len(job.layers):,} whole layers" if job.layers else ""
    ways = " x ".join(", ".join(dict.fromkeys(one)) for one in (options.kinds, options.directions))
    return (
        f"{len(job.sets):,} {what}{layers} x {ways} at {where}, and {job.noise} patched with their "
        "own z"
    )

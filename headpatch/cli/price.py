"""What verbs say before they run: what, how, and at what price."""

from typing import TYPE_CHECKING

from headpatch.analyses.sweep.listed import Listed
from headpatch.cli.show import warn
from headpatch.heads import Tower

if TYPE_CHECKING:
    from headpatch.analyses.ablate import one as ablate
    from headpatch.analyses.session import Session
    from headpatch.analyses.sweep.one import Plan


def announce(
    session: "Session",
    job: "Plan",
    listed: Listed | None,
    finished: int,
    pairs: int | None = None,
) -> None:
    """Say on stderr what a sweep runs, how, and what it costs.

    Parameters
    ----------
    finished
        Rows that an earlier run has left.
    pairs
        Of a dataset, of which the session is the first; None is one pair alone.
    """
    options = session.study.sweep
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
    price = passes(job.passes * (pairs or 1))
    if job.approx:
        price += ", the backward pass included" if pairs is None else ", backward passes included"
    rows = len(job.asked) * (pairs or 1)
    if pairs is None:
        warn(f"{asked}: {rows:,} rows for {price}")
    else:
        warn(f"{pairs:,} pairs x {len(job.asked):,} rows ({asked}): {price}")
    if finished:
        warn(f"{finished:,} of {rows:,} rows were finished before; going on")


def announce_plain(session: "Session", tower: Tower = "lm") -> None:
    """Say on stderr, where a tower's fast path is not exact, why and what is done instead."""
    fast, path, where = session.fast, "widening", f"at positions {session.positions}"
    if tower == "vision":
        fast, path, where = session.fast_vision, "resumed", "in its vision tower"
    if fast is not None and not fast.exact:
        warn(
            f"the {path} pass is not exact for {session.vlm.name} {where} ({fast.why}): every row "
            "gets a forward pass of its own"
        )


def announce_vision(session: "Session", job: "ablate.Plan", pairs: int = 1) -> None:
    """Say on stderr what vision heads cost, if some are changed; the others are cheap."""
    if job.vision_rows:
        announce_plain(session, "vision")
        rows = job.vision_rows * pairs
        warn(
            f"{rows:,} rows change vision heads ({session.study.vision.positions} tokens of the "
            f"tower): {passes(job.passes * pairs)}"
        )


def passes(count: float) -> str:
    """Write a number of forward passes."""
    return f"{count:{',.1f' if count >= 1 else '.1g'}} forward passes"

"""What `headpatch sweep` says before it runs: what, how, and at what price."""

import sys
from typing import TYPE_CHECKING

from headpatch.analyses.listed import Listed

if TYPE_CHECKING:
    from headpatch.analyses.session import Session
    from headpatch.analyses.sweep import Plan


def announce(session: "Session", job: "Plan", listed: Listed | None, finished: int) -> None:
    """Say on stderr what is run, how, and what it costs."""
    options, fast = session.study.sweep, session.fast
    if job.tower == "lm" and not session.widens:
        why = session.base.trace.prefills[0].refused
        if not why and fast is not None:
            why = f"it is off by {fast.worst:.1e} logits"
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name} at positions "
            f"{options.positions} ({why}): every row gets a forward pass of its own",
            file=sys.stderr,
        )
    if listed is not None and (repeated := len(listed.lines) - len(job.sets)):
        print(
            f"headpatch: {repeated:,} of the lines of {listed.path} repeat an earlier set; each "
            "set is run once",
            file=sys.stderr,
        )
    what, where = "heads" if job.every else "sets", f"positions {options.positions}"
    if job.tower == "vision":
        what = "vision heads" if job.every else "sets of vision heads"
        where = f"{session.study.vision.positions} tokens of the vision tower"
    layers = f" and {len(job.layers):,} whole layers" if job.layers else ""
    passes = f"{job.passes:{',.1f' if job.passes >= 1 else '.1g'}} forward passes"
    if job.approx:
        passes += ", the backward pass included"
    print(
        f"headpatch: {len(job.sets):,} {what}{layers} x "
        f"{', '.join(dict.fromkeys(options.kinds))} x "
        f"{', '.join(dict.fromkeys(options.directions))} at {where}, and "
        f"{job.noise} patched with their own z: {len(job.asked):,} rows for {passes}",
        file=sys.stderr,
    )
    if finished:
        print(
            f"headpatch: {finished:,} of {len(job.asked):,} rows were finished before; going on",
            file=sys.stderr,
        )

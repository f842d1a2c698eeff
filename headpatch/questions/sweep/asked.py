"""What a sweep is asked to do: the sets that a file lists, and what is said before it is paid."""

from dataclasses import dataclass
from pathlib import Path

from headpatch.core.baseline_runs import Survey
from headpatch.core.cost import Plan, in_all, inexact
from headpatch.core.question import Call
from headpatch.core.session import Session
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid, HeadSet
from headpatch.kinds import DONATED, donated


@dataclass(frozen=True)
class Listed:
    """The sets of a file, in its order, each with the number of its line."""

    path: Path
    lines: tuple[tuple[int, HeadSet], ...]

    @classmethod
    def read(cls, path: Path) -> "Listed":
        """Read one set a line, such as ``24.17+23.20``; ``#`` starts a comment."""
        wanted = "one set of heads a line, such as 24.17+23.20"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            why = f"{path}: {error.strerror}"
            raise InputError("--sets", why, f"a file with {wanted}") from None
        except UnicodeDecodeError:
            raise InputError("--sets", f"{path} is not UTF-8 text", wanted) from None
        lines = []
        for number, line in enumerate(text.splitlines(), start=1):
            if words := line.partition("#")[0].strip():
                lines.append((number, _parse(path, number, words)))
        if not lines:
            raise InputError("--sets", f"{path} holds no set", wanted)
        return cls(path, tuple(lines))

    def within(self, grid: Grid) -> tuple[HeadSet, ...]:
        """Return the sets, each once, all of whose heads must be in the grid."""
        for number, members in self.lines:
            for head in members:
                grid.check(head, f"--sets {self.path}, line {number}")
        return tuple(dict.fromkeys(members for _, members in self.lines))


def _parse(path: Path, number: int, words: str) -> HeadSet:
    try:
        return HeadSet.parse(words)
    except InputError as error:
        hint = "Join the heads of a set by +." if "," in words or " " in words else error.hint
        where = f"--sets {path}, line {number}"
        raise InputError(where, error.found, error.expected, hint) from None


def refuse_options(study: Study) -> None:
    """Refuse a bad file of sets, and what gradients or edges between heads do not go with."""
    if study.sweep.sets is not None:
        Listed.read(Path(study.sweep.sets))
    if study.sweep.approx and donated(study.sweep.kinds):
        found = f"both of them, and {' or '.join(DONATED)}"
        raise InputError("--approx, --kinds", found, "kinds of which gradients give estimates")
    if study.sweep.approx and study.quantize is not None:
        hint = "Gradients through quantised weights are not checked."
        raise InputError("--approx, --quantize", "both of them", "one of them", hint)
    if study.sweep.edges is not None and study.pairs.manifest is not None:
        raise InputError("--edges, --pairs", "both of them", "one of them")


def announce(session: Session, job: Plan, finished: int, survey: Survey | None, call: Call) -> None:
    """Say what is run, how, and what is still to come of its cost.

    `job` is of one pair alone, at the price of what is not finished; `finished` are rows that an
    earlier run has left; `survey` is of a dataset, of whose pairs the session is the first.
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
    still = max(rows - finished, 0)
    share, included = 1.0, ", the backward pass included" * job.approx
    if pairs is not None:
        share, included = pairs * still / rows, ", backward passes included" * job.approx
    price = in_all(job.passes * share, included, job.beside, survey)
    if finished:
        call.say(f"{finished:,} of {rows:,} rows were finished before; going on")
    what, where = "heads" if job.every else "sets", f"positions {options.positions}"
    if job.tower == "vision":
        what = "vision heads" if job.every else "sets of vision heads"
        where = f"{session.study.vision.positions} tokens of the vision tower"
    layers = f" and {len(job.layers):,} whole layers" if job.layers else ""
    ways = " x ".join(", ".join(dict.fromkeys(one)) for one in (options.kinds, options.directions))
    asked = f"{len(job.sets):,} {what}{layers} x {ways} at {where}, and {job.noise} patched with "
    asked += "their own z"
    if pairs is not None:
        call.say(f"{pairs:,} pairs x {len(job.asked):,} rows ({asked}): {price}")
    else:
        call.say(f"{asked}: {still:,} rows{' are left' if finished else ''} for {price}")
    if options.edges is not None:
        points = 1 + (0 if options.ig is None else max(options.ig, 1))
        call.say(
            f"every edge between two heads: about {points} backward passes of the pair and, in "
            f"each, one of every head's layer; {4 * options.edges:,} or more edges patched, each "
            "for two forward passes"
        )

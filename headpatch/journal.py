"""The finished part of a long run, kept on disk while it runs so that it can go on later."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from headpatch import __version__
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet

if TYPE_CHECKING:
    from headpatch.analyses.session import Session
    from headpatch.analyses.sweep.one import Plan
    from headpatch.engine.interventions import Direction, Intervention, Kind
    from headpatch.engine.patching import Outcome
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM
    from headpatch.pairs.manifest import Entry
    from headpatch.study import Study

NAME = ".sweep-journal.csv"
_MARK = "# headpatch sweep"
_COLUMNS = (
    "pair",
    "heads",
    "kind",
    "direction",
    "positions",
    "ld",
    "effect",
    "token",
    "token_before",
)
_SHOWN_ONLY = {
    "sets",
    "top",
    "rows",
    "budget",
    "approx",
}  # of the sweep's options: no number hangs on them


def key(session: "Session", job: "Plan") -> str:
    """Name what is run: whatever an effect depends on, hashed."""
    pictures = [
        hashlib.sha256(image.tobytes()).hexdigest()
        for image in (session.pair.with_image, session.pair.without_image)
    ]
    return _key(session.study, session.vlm, [str(members) for members in job.sets], pictures)


def key_of_pairs(
    study: "Study", vlm: "VLM", entries: "Sequence[Entry]", sets: "Sequence[HeadSet] | None"
) -> str:
    """Name what is run over a dataset, likewise; None is every head alone."""
    pictures = [
        (
            entry.name,
            entry.question,
            entry.region.box,
            *(
                hashlib.sha256(path.read_bytes()).hexdigest()
                for path in (entry.with_path, entry.without_path)
            ),
        )
        for entry in entries
    ]
    content = (study.pairs.margin, study.force, pictures)
    return _key(study, vlm, None if sets is None else [str(members) for members in sets], content)


def _key(study: "Study", vlm: "VLM", sets: Sequence[str] | None, pictures: Any) -> str:
    values = study.model_dump(
        include={"question", "answers", "prompt", "region", "seed", "sweep", "vision"}, mode="json"
    )
    values["sweep"] = {k: v for k, v in values["sweep"].items() if k not in _SHOWN_ONLY}
    content = {
        "study": values,
        "sets": sets,
        "pictures": pictures,
        "weights": vlm.fingerprint,
        "device": str(vlm.device),
        "dtype": str(vlm.dtype),
        "headpatch": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Journal:
    """An append-only file with one line for each finished intervention.

    A killed run loses at most the line that it was writing. Numbers are written so that they read
    back bit for bit.

    Attributes
    ----------
    path
        The file; there only between the first finished row and `remove`.
    count
        Rows that it holds.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.path, self.run = folder / NAME, run
        self.count = 0
        self._rows: dict[str, list[list[str]]] = {}  # by pair

    def open(self, resume: bool | None) -> None:
        """Read what an earlier run has left.

        Parameters
        ----------
        resume
            True goes on from it, False discards it, None refuses to decide.

        Raises
        ------
        InputError
            If it is another study's and is not to be discarded, if it is damaged, or if nothing
            was said about it.
        """
        if resume is False:
            self.remove()
            return
        found, rows, end = self._read()
        if not rows:
            self.remove()
            return
        what = f"{self.path} holds {len(rows):,} finished rows of an interrupted sweep"
        if found != self.run:
            raise InputError(
                "--resume" if resume else "--out",
                f"{what} of another study, other pictures or another model",
                "this study's",
                "Finish that one first, use another --out, or discard it with --no-resume.",
            )
        if resume is None:
            raise InputError(
                "--out",
                f"{what} of this study",
                "to be told what to do with them",
                "Use --resume to go on from there or --no-resume to start over.",
            )
        self.count = len(rows)
        for row in rows:
            self._rows.setdefault(row[0], []).append(row)
        with self.path.open("r+b") as stream:
            stream.truncate(end)  # without the line that was being written

    def finished(self, pair: str) -> "dict[Intervention, Outcome]":
        """Return what is finished of a pair."""
        from headpatch.engine.interventions import Intervention
        from headpatch.engine.patching import Outcome

        outcomes = {}
        for _, heads, kind, direction, positions, ld, effect, token, before in self._rows.get(
            pair, []
        ):
            one = Intervention(
                HeadSet.parse(heads),
                cast("Kind", kind),
                cast("Direction", direction),
                cast("Positions", positions),
            )
            outcomes[one] = Outcome(one, float(ld), float(effect), int(token), int(before))
        return outcomes

    @contextmanager
    def writing(self, pair: str) -> "Iterator[Callable[[Outcome], None]]":
        """Give a function that adds an outcome; each is on disk before the next is computed.

        Raises
        ------
        RunError
            If the file cannot be written.
        """
        stream: IO[str] | None = None

        def add(outcome: "Outcome") -> None:
            nonlocal stream
            one = outcome.intervention
            try:
                if stream is None:
                    stream = self._append()
                csv.writer(stream, lineterminator="\n").writerow(
                    [
                        pair,
                        one.heads,
                        one.kind,
                        one.direction,
                        one.positions,
                        repr(outcome.ld),
                        repr(outcome.effect),
                        outcome.token,
                        outcome.token_before,
                    ]
                )
                stream.flush()
            except OSError as error:
                raise RunError(f"--out: {self.path} cannot be written ({error})") from error
            self.count += 1

        try:
            yield add
        finally:
            if stream is not None:
                stream.close()

    def remove(self) -> None:
        """Delete the file, and forget what was read from it."""
        self.path.unlink(missing_ok=True)
        self._rows, self.count = {}, 0

    def _append(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        stream = self.path.open("a", encoding="utf-8", newline="")
        if new:
            stream.write(f"{_MARK} {self.run}\n{','.join(_COLUMNS)}\n")
        return stream

    def _read(self) -> tuple[str, list[list[str]], int]:
        """Return whose journal it is, its whole rows, and where the last of them ends."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return "", [], 0
        except OSError as error:
            raise InputError("--out", f"{self.path}: {error.strerror}", "a file to read") from None
        end = content.rfind(b"\n") + 1
        lines = content[:end].decode("utf-8", errors="replace").splitlines()
        if not lines:
            return "", [], 0
        rows = list(csv.reader(lines[2:]))
        for number, row in enumerate(rows, start=3):
            if not _whole(row):
                raise InputError(
                    "--out",
                    f"{self.path}, line {number} is damaged",
                    "a journal as headpatch wrote it",
                    "Discard it with --no-resume.",
                )
        return lines[0].removeprefix(_MARK).strip(), rows, end


def _whole(row: list[str]) -> bool:
    try:
        HeadSet.parse(row[1])
        _, _ = float(row[5]), float(row[6])
        _, _ = int(row[7]), int(row[8])
    except (ValueError, IndexError):
        return False
    return len(row) == len(_COLUMNS)

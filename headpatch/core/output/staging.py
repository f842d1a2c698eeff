"""Files of a run appear in a folder together, whole or not at all, whenever the run is killed.

They are written into a *stage*, a folder in the folder. Once all are on disk, a *plan* in the stage
says what is moved and what is deleted; from then on the run counts as done. ``run.yaml`` goes first
and comes last, so that it never lies beside files of another run. Who opens the folder next
finishes a stage that has a plan, and removes one without.
"""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from headpatch.core.output.files import reading, write_yaml
from headpatch.core.output.lock import Held, locked
from headpatch.core.output.records import digest, merged
from headpatch.core.output.shards import refuse_live
from headpatch.core.study.record import RUN, load
from headpatch.disk import nearest_folder, reason, reporting_failure
from headpatch.errors import InputError, RunError

_STAGE = ".headpatch-"
_PLAN = ".plan.json"
_PATIENCE = 10.0
"""Seconds that a reader waits for a run that is moving its files."""


def check_folder(out: Path) -> None:
    """Refuse, before any model loads, an output folder that cannot be written, or is a file."""
    place = out
    try:
        place = nearest_folder(out)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise RunError(f"--out: {out} cannot be written ({reason(place, error)})") from None
        why = "no file can be made there" if error.errno == errno.ENOENT else error.strerror
        found = f"{out} cannot be written ({place}: {why})"
        raise InputError("--out", found, "a folder to write in", "Choose another one.") from None


@contextmanager
def taken(folder: Path, verb: str) -> Iterator[None]:
    """Hold a folder for as long as the block runs, and put in order what a killed run left there.

    Within a thread blocks may be nested. An `InputError` if another run, or a shard of one, holds
    it, a `RunError` if it cannot be written.
    """
    with ExitStack() as stack:
        try:
            with reporting_failure(folder):
                if stack.enter_context(locked(folder, verb)):
                    refuse_live(folder)
                    _put_in_order(folder)
        except Held as other:
            raise other.refusal() from None
        yield


@contextmanager
def staged(out: Path, verb: str) -> Iterator[Path]:
    """Give a folder to write in; its files move to `out` together once all are written.

    A run that fails or is killed leaves `out` as it was. Where a ``run.yaml`` is written, those of
    other verbs whose files stay are kept in it, and what earlier runs of the verb, or of one whose
    table is replaced, have left is deleted, so that nobody takes it for a result of this one.
    Raises as `taken`.
    """
    with taken(out, verb), reporting_failure(out):
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=out))
        try:
            with reporting_failure(out):  # while the space is taken
                yield stage
                _plan(out, stage, verb)
        except BaseException as error:
            planned = (stage / _PLAN).exists()
            if not planned:
                shutil.rmtree(stage, ignore_errors=True)
            if not (planned and isinstance(error, KeyboardInterrupt)):  # that comes too late
                raise
        try:
            _finish(out, stage)
        except KeyboardInterrupt:  # so does this one
            _finish(out, stage)


def settle(folder: Path) -> None:
    """Put in order, before a folder is read, what a killed run has left there.

    An error if a run is moving its files there and does not come to an end, or has been killed
    while it did and the folder cannot be written.
    """
    until = time.monotonic() + _PATIENCE
    while _stages(folder):
        try:
            with locked(folder, "reader") as first:
                if first:
                    _put_in_order(folder)
            return
        except (Held, OSError) as error:
            if not any((stage / _PLAN).is_file() for stage in _stages(folder)):
                return  # nothing has moved yet
            if isinstance(error, OSError) or time.monotonic() > until:
                found = "files of a run are half moved there, and nobody can finish it now"
                expected = "a folder whose last run was finished"
                hint = "Try again, from an account that may write there."
                raise InputError(str(folder), found, expected, hint) from None
            time.sleep(0.05)


def _stages(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [one for one in folder.glob(f"{_STAGE}*") if one.is_dir()]
    return []


def _put_in_order(folder: Path) -> None:
    """Finish what was planned, and remove what was not; nobody else holds the folder."""
    for stage in _stages(folder):
        if (stage / _PLAN).is_file():
            _finish(folder, stage)
        else:
            shutil.rmtree(stage, ignore_errors=True)


def _plan(out: Path, stage: Path, verb: str) -> None:
    """Complete ``run.yaml``, bring all to disk, and say what is to be done."""
    names = sorted((file.name for file in stage.iterdir()), key=lambda name: (name == RUN, name))
    for name in names:
        if (out / name).is_dir():
            raise RunError(f"--out: {out / name} is a folder; move it or change --out")
    gone: set[str] = set()
    if RUN in names:
        own = load((stage / RUN).read_text(encoding="utf-8"))
        files = {name: digest(stage / name) for name in names[:-1]}
        content, gone = merged(out, verb, own, files)
        write_yaml(stage / RUN, content)
    for name in names:
        _to_disk(stage / name)
    plan = {"moved": names, "gone": sorted(name for name in gone if (out / name).is_file())}
    draft = stage / f"{_PLAN}.part"
    draft.write_text(json.dumps(plan), encoding="utf-8")
    _to_disk(draft)
    os.replace(draft, stage / _PLAN)
    _to_disk(stage)
    _to_disk(out)


def _finish(out: Path, stage: Path) -> None:
    """Do what the plan of a stage says, from wherever it was left."""
    if (stage / _PLAN).is_file():
        with reading(stage / _PLAN):
            plan = json.loads((stage / _PLAN).read_text(encoding="utf-8"))
            moved, gone = (
                [name for name in plan[key] if Path(name).name == name] for key in ("moved", "gone")
            )
        if (stage / RUN).exists():  # the old one goes first
            (out / RUN).unlink(missing_ok=True)
            _to_disk(out)
        for name in gone:
            (out / name).unlink(missing_ok=True)
        for name in moved:
            if (stage / name).exists():
                if name == RUN:  # and the new one comes last
                    _to_disk(out)
                os.replace(stage / name, out / name)
        _to_disk(out)
        os.unlink(stage / _PLAN)
    shutil.rmtree(stage, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        if path.is_dir():
            return
        raise
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}:
            raise  # some file systems know no such thing
    finally:
        os.close(file)

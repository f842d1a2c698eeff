"""A folder belongs to one run at a time; folders that last as long as a call.

A lock on a file in it, which the system releases when the process ends, however it ends. The file
says who holds it. Locks of this kind (``lockf``) are not inherited by forked children.
"""

import errno
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headpatch.disk import reporting_failure
from headpatch.errors import InputError

LOCK = ".headpatch.lock"
_SCRATCH, _PREFIX = "scratch", "headpatch-scratch-"
_NOT_INHERITED = getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_HELD: dict[tuple[int, str], int] = {}
"""Thread that holds a folder, by process (a forked child has its parent's memory) and folder."""
_REGISTRY = threading.Lock()


@dataclass(frozen=True)
class Owner:
    """Who holds a folder."""

    verb: str
    pid: int
    host: str
    began: int | None
    """When the process began, in ticks since the machine did: process numbers are used again."""
    since: str  # when it took the folder

    @classmethod
    def here(cls, verb: str) -> "Owner":
        """Return this process."""
        pid, since = os.getpid(), datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        return cls(verb, pid, socket.gethostname(), _began(pid), since)

    @classmethod
    def read(cls, file: int) -> "Owner | None":
        """Read who has left its name in a lock file; None if nobody has."""
        os.lseek(file, 0, os.SEEK_SET)
        try:
            content: Any = json.loads(os.read(file, 4096))
            return cls(**{**content, "pid": int(content["pid"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @property
    def alive(self) -> bool:
        """Whether it may still run; of another machine nobody can say."""
        if self.host != socket.gethostname() or os.name == "nt":
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's
        return self.began is None or self.began == _began(self.pid)


class Held(Exception):
    """Another run holds a folder: its owner, if known, and whether the system keeps the lock."""

    def __init__(self, folder: Path, owner: Owner | None, locks: bool) -> None:
        self.folder, self.owner, self.locks = folder, owner, locks
        super().__init__(str(folder))

    def refusal(self) -> InputError:
        """Say so in one line."""
        who, owner = "another run of headpatch", self.owner
        if owner is not None:
            process = f"process {owner.pid} on {owner.host}, since {owner.since}"
            who = f"headpatch {owner.verb} ({process})"
        over = "" if self.locks else f" If that run is over, delete {self.folder / LOCK}."
        hint = f"Wait for it to end, or choose another folder.{over}"
        found = f"{self.folder} is held by {who}"
        return InputError("--out", found, "a folder that no other run writes to", hint)


@contextmanager
def locked(folder: Path, verb: str) -> Iterator[bool]:
    """Hold a folder, which is made if it is not there, for as long as the block runs.

    Within a thread blocks may be nested; yields whether this one took the folder, and not one
    around it. `Held` if another run holds it, an `OSError` if it cannot be written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    watched = made[-1].parent if made else folder
    before = _changed_at(watched)
    folder.mkdir(parents=True, exist_ok=True)
    key, thread = (os.getpid(), str(folder.resolve())), threading.get_ident()
    with _REGISTRY:
        holder = _HELD.get(key)
        if holder is None:
            file = _acquired(folder, verb)
            _HELD[key] = thread
    if holder is not None:
        if holder != thread:
            raise Held(folder, Owner.here(verb), True)
        yield False
        return
    began = _changed_at(watched)
    try:
        yield True
    finally:
        if os.getpid() == key[0]:  # not a forked child that leaves its parent's block
            untouched = _changed_at(watched) == began
            with _REGISTRY:
                del _HELD[key]
                _release(folder, file)
            with suppress(OSError):
                for place in made:
                    place.rmdir()  # files are in it, if it was written to
                if untouched:  # a folder to which nothing was written looks so
                    os.utime(watched, ns=(watched.stat().st_atime_ns, before))


def owner_of(folder: Path) -> Owner | None:
    """Return who has left its name in a folder, whether or not it still runs.

    None if nobody has, or this process holds it: to close the file once more would release it.
    """
    with _REGISTRY:
        if (os.getpid(), str(folder.resolve())) in _HELD:
            return None
        try:
            file = os.open(folder / LOCK, os.O_RDONLY | _NOT_INHERITED)
        except OSError:
            return None
        try:
            return Owner.read(file)
        finally:
            os.close(file)


def _acquired(folder: Path, verb: str) -> int:
    """Lock the file; return its number."""
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | _NOT_INHERITED, 0o666)
        except FileNotFoundError:  # whoever made the folder has just removed it
            continue
        taken = False
        try:
            _try(folder, file)
            with suppress(FileNotFoundError):
                taken = os.path.samestat(os.stat(path), os.fstat(file))
            if taken:
                with suppress(OSError):  # a full disk: the lock holds, without a name
                    os.ftruncate(file, 0)
                    os.lseek(file, 0, os.SEEK_SET)
                    os.write(file, json.dumps(asdict(Owner.here(verb))).encode())
                return file
        finally:
            if not taken:  # or its last holder has just removed it
                os.close(file)


def _try(folder: Path, file: int) -> None:
    """Lock an open file; `Held` if another process has."""
    try:
        _system_lock(file)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
                raise Held(folder, Owner.read(file), True) from None
            raise
        owner = Owner.read(file)  # a file system without locks: the name must do
        own = (os.getpid(), socket.gethostname())
        if owner is not None and (owner.pid, owner.host) != own and owner.alive:
            raise Held(folder, owner, False) from None


def _system_lock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the name, which others may read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    import fcntl

    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(folder: Path, file: int) -> None:
    if os.name == "nt":  # an open file cannot be removed there
        os.close(file)
    with suppress(OSError):
        os.unlink(folder / LOCK)
    if os.name != "nt":
        os.close(file)


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _began(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def scratch_folder(within: Path | None = None) -> Iterator[Path]:
    """Give a new temporary folder that lasts as long as the block; those of killed processes go.

    It lies `within` another than the system's for temporary files, if that is given.
    """
    place = within or Path(tempfile.gettempdir())
    with ExitStack() as stack:
        with reporting_failure(place, "TMPDIR"):
            _remove_orphans(place)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked(folder, _SCRATCH))
        yield folder


def _remove_orphans(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError, Held):
            owner = owner_of(folder)
            if owner is not None and owner.verb == _SCRATCH:
                with locked(folder, _SCRATCH):
                    shutil.rmtree(folder)

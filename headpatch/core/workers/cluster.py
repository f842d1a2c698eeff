"""Ray, started for one run and stopped after it, or the user's own cluster.

Ray is quiet here: what it says of itself does not reach the terminal, it reports nothing home, and
it leaves no file outside a temporary folder that goes with the run. Its processes can be reached
with a token that only they know.
"""

import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from headpatch.core.output.lock import scratch_folder
from headpatch.core.output.provenance import PACKAGE
from headpatch.errors import InputError, RunError

_OBJECTS = 80 << 20  # bytes of shared memory: Ray's least is 75 MiB; results beyond go to disk
_LONGEST = 39  # bytes of a folder below which Ray's sockets may lie: their paths end at 103
_PATIENCE = 10.0  # seconds to wait for an answer of the user's cluster
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
_OWN = {
    # else Ray kills workers where other programs fill the machine's memory
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",  # else workers wait for whatever else runs on the machine
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True)
class Cluster:
    """A running Ray: cores and GPUs of each of its machines."""

    ray: Any
    nodes: tuple[tuple[int, int], ...]
    local: bool  # started by headpatch, on this machine

    @property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return sum(gpus for _, gpus in self.nodes)


def need_ray(argument: str) -> Any:
    """Import Ray; an `InputError` that says how to install it where it is not there."""
    try:
        import ray
    except ImportError:
        hint = "pip install 'headpatch[ray]'"
        raise InputError(argument, "Ray is not installed", "Ray", hint) from None
    return ray


class _Started:
    """The Ray that headpatch has started, and how many use it: the last to leave stops it."""

    users = 0
    found: Cluster
    stop: Callable[[], None]


@contextmanager
def cluster(workers: int | None, address: str | None) -> Iterator[Cluster]:
    """Give a Ray that lasts as long as those who use it, or the one at an address, which goes on.

    A Ray that the program has begun itself is used as it is.
    """
    argument = "--workers" if address is None else "--ray"
    if address is not None:
        _check_address(address)
    if _Started.users:
        need_ray(argument)
    else:
        with ExitStack() as stack:
            found = _connected(stack, workers, address, argument)
            if not found.local:
                yield found
                return
            _Started.found, _Started.stop = found, stack.pop_all().close
    _Started.users += 1
    try:
        yield _Started.found
    finally:
        _Started.users -= 1
        if not _Started.users:
            _Started.stop()


def _connected(
    stack: ExitStack, workers: int | None, address: str | None, argument: str
) -> Cluster:
    variables = {name: one for name, one in _QUIET.items() if name not in os.environ}
    if address is None:
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        variables |= {**_OWN, "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": path}
    stack.enter_context(_environment(variables))
    ray = need_ray(argument)
    if ray.is_initialized():
        return Cluster(ray, _nodes(ray), False)
    if address is None:
        _read_token_anew()
        stack.callback(_read_token_anew)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        folder = stack.enter_context(_short_folder())
        options |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": _OBJECTS,
            "_temp_dir": str(folder),
        }
    else:
        options["address"] = address
    stack.enter_context(_unprinted(ray))
    stack.callback(ray.shutdown)
    with _signals_kept():
        try:
            ray.init(**options)
        except Exception as error:
            raise _not_started(address, error) from error
    return Cluster(ray, _nodes(ray), address is None)


def _nodes(ray: Any) -> tuple[tuple[int, int], ...]:
    found = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return tuple((int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in found)


def _check_address(address: str) -> None:
    """Refuse what is no address, or one at which nothing answers: Ray would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        expected = "`auto`, or host:port of the head of a running cluster, such as 10.0.0.1:6379"
        raise InputError("--ray", repr(address), expected)
    try:
        with socket.create_connection((host, int(port)), timeout=_PATIENCE):
            pass
    except (OSError, OverflowError) as error:
        found = f"nothing answers at {address} ({error})"
        hint = "`ray start --head` starts one; --workers N alone needs none."
        raise InputError("--ray", found, "a running cluster", hint) from None


def _not_started(address: str | None, error: Exception) -> Exception:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    if address is None:
        return RunError(f"--workers: Ray could not be started ({words})")
    hint = "`ray start --head` starts one; --workers N alone needs none."
    return InputError("--ray", f"{address}: {words}", "a running cluster of the same Ray", hint)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which child processes take over, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _short_folder() -> Iterator[Path]:
    """Give a temporary folder whose path leaves room for the names of Ray's sockets."""
    place = Path(tempfile.gettempdir())
    fits = len(os.fsencode(place)) <= _LONGEST - len("/headpatch-scratch-12345678")
    with scratch_folder(place if fits or os.name == "nt" else Path("/tmp")) as folder:
        yield folder


def _read_token_anew() -> None:
    """Have Ray read from the environment what it keeps of an earlier start, or of its import."""
    with suppress(ImportError, AttributeError):  # of a Ray that knows no tokens
        raylet: Any = import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _unprinted(ray: Any) -> Iterator[None]:
    """Keep the deaths of workers, of which Ray has no switch, off the terminal."""
    module, name = ray._private.worker, "print_to_stdstream"
    before = getattr(module, name, None)
    setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        if before is not None:
            setattr(module, name, before)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what the program does on a signal: Ray puts its own in place."""
    kept = {}
    for one in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not in the main thread
            kept[one] = signal.signal(one, signal.getsignal(one))
    try:
        yield
    finally:
        for one, handler in kept.items():
            with suppress(ValueError, TypeError):
                signal.signal(one, handler)

"""The command, and how it fails: one line on stderr, an exit code that says whose fault it is."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from headpatch.errors import HeadpatchError, RunError
from headpatch.questions import VERBS
from headpatch.text import visible

# typer brings its own copy of click from 0.17 on, so the class is reached through typer.
_UsageError: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = "interrupted; nothing was written"


def _untyped(params: Any) -> Any:
    """Return what a command takes, without a type where it takes no value or the name says it."""
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
        elif one.param_type_name == "argument":  # DIR, not: DIR <path>
            one.display_type_rich = lambda ctx: None
    return params


class Command(TyperCommand):
    """A verb."""

    def get_params(self, ctx: Any) -> Any:
        """Return its flags and arguments."""
        return _untyped(super().get_params(ctx))


class _Group(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs that ask a question, in the order of the page, then the others."""
        names = super().list_commands(ctx)
        order = [verb.name for verb in VERBS]
        return sorted(names, key=lambda name: order.index(name) if name in order else len(order))

    def get_params(self, ctx: Any) -> Any:
        return _untyped(super().get_params(ctx))


app = typer.Typer(
    cls=_Group,
    name="headpatch",
    help="Test causally which attention heads of a vision-language model decide a Yes/No answer."
    "\n\n"
    "With no options, each verb runs the bundled study: a small LLaVA, two pictures that differ "
    "in one object, and a question about it. Start with `headpatch rank`, then "
    "`headpatch ablate --heads top:3`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> bool:
    if wanted:
        from headpatch import __version__

        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    _open_streams()
    signal.signal(signal.SIGTERM, _interrupt)  # so that what a run has begun is cleared away
    code = _run("--debug" in sys.argv)
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        _drain(name)
    sys.exit(code)


def _run(debug: bool) -> int:
    """Run the command line; return its exit code."""
    try:
        with redirect_stdout(_Stdout(sys.stdout)):
            code = app(standalone_mode=False)
            sys.stdout.flush()  # here, where a full disk is still one line
    except HeadpatchError as error:
        return _fail(str(error), error.exit_code, debug)
    except _UsageError as error:
        if message := error.format_message():  # without any, help was due and is printed
            return _fail(f"{message} (see headpatch --help)", 2, debug)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return _fail(_INTERRUPTED, 130, debug)
    except BrokenPipeError:  # who reads has seen enough
        return 1
    except SystemExit as left:  # of typer or rich, for the same reason
        return left.code if isinstance(left.code, int) else 1
    except Exception as error:  # a bug, or a fault of the machine
        if isinstance(error, ValueError) and (flag := _before_null_byte()):  # under an older typer
            return _fail(f"{flag}: {error} (see headpatch --help)", 2, debug)
        return _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1, debug)
    if code == 130:  # typer has caught the interrupt itself
        return _fail(_INTERRUPTED, 130, debug)
    return code if isinstance(code, int) else 0


class _Stdout:
    """A stream whose failing names it; where nobody reads, it fails as it always does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _named():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with _named():
            self._stream.flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        found = f"stdout: cannot be written ({error.strerror or error})"
        expected = "expected room for all that is printed. Files that were written stay."
        raise RunError(f"{found}; {expected}") from error


def _before_null_byte() -> str:
    """Return what was typed before a word that holds a null byte; empty if none does."""
    words = sys.argv
    return next((words[place - 1] for place, word in enumerate(words) if "\0" in word), "")


def _open_streams() -> None:
    """Let what is printed be lost rather than fail where it cannot be spelled, or is not read.

    A stream that was closed is opened on nothing, lest a file of the run take its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _drain(name: str) -> None:
    """Flush a stream; what nobody reads goes nowhere, so that Python does not complain of it."""
    stream = getattr(sys, name)
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int, debug: bool) -> int:
    """Say in one line what went wrong; return the exit code."""
    with suppress(OSError):  # nobody reads: the code says it alone
        if debug:
            print(visible(traceback.format_exc()), end="", file=sys.stderr)
        print(visible(f"headpatch: {' '.join(message.split())}"), file=sys.stderr)
    return code

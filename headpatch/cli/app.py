"""The command, and how it fails: one line on stderr, an exit code that says whose fault it is."""

import signal
import sys
import traceback
from typing import Annotated, Any

import typer

from headpatch.errors import HeadpatchError

# typer brings its own copy of click from 0.17 on, so the class is reached through typer.
_UsageError: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = "interrupted; nothing was written"

app = typer.Typer(
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
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, _interrupt)  # so that what a run has begun is cleared away
    try:
        code = app(standalone_mode=False)
    except HeadpatchError as error:
        _fail(str(error), error.exit_code, debug)
    except _UsageError as error:
        if message := error.format_message():  # without any, help was due and is printed
            _fail(f"{message} (see headpatch --help)", 2, debug)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _fail(_INTERRUPTED, 130, debug)
    except Exception as error:  # a bug, or a fault of the machine
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1, debug)
    else:
        if code == 130:  # typer has caught the interrupt itself
            _fail(_INTERRUPTED, 130, debug)
        sys.exit(code if isinstance(code, int) else 0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"headpatch: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)

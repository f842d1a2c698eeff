"""The command, and how it fails: one line on stderr, an exit code that says whose fault it is."""

import sys
import traceback
from typing import Annotated, Any

import typer

from headpatch.errors import HeadpatchError

# typer brings its own copy of click from 0.17 on, so the class is reached through typer.
_UsageError: Any = typer.BadParameter.__mro__[1]

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


def _version(wanted: bool) -> None:
    if wanted:
        from headpatch import __version__

        print(__version__)
        raise typer.Exit


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
    try:
        code = app(standalone_mode=False)
    except HeadpatchError as error:
        _fail(str(error), error.exit_code, debug)
    except _UsageError as error:
        _fail(f"{error.format_message()} (see headpatch --help)", 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written", 130, debug)
    except Exception as error:  # a bug, or a fault of the machine
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1, debug)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"headpatch: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)

"""What the package promises before any model is loaded."""

import json
import subprocess
import sys
from importlib import metadata, resources

import headpatch

# What makes a start slow; none of it is needed to print a help page.
HEAVY = {"torch", "transformers", "matplotlib", "pandas", "scipy", "transformer_lens"}

PROBE = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO

import headpatch

def loaded():
    return sorted({name.split(".")[0] for name in sys.modules})

report = {"import headpatch": [0, "", loaded()]}
from headpatch.cli import app, main
for verb in ("", *(one.name or one.callback.__name__ for one in app.registered_commands)):
    sys.argv = ["headpatch", *verb.split(), "--help"]
    with redirect_stdout(StringIO()) as out:
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
    report[" ".join(sys.argv)] = [code or 0, out.getvalue(), loaded()]
print(json.dumps(report))
"""


def said_by(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_neither_the_package_nor_a_help_page_loads_anything_heavy() -> None:
    """The public names are loaded on first use, not by ``import headpatch``."""
    report = json.loads(said_by(PROBE))
    assert {"headpatch --help", "headpatch rank --help", "headpatch report --help"} < set(report)
    for command, (code, page, roots) in report.items():
        assert code == 0, command
        assert "Usage" in page or command == "import headpatch", command
        assert not HEAVY & set(roots), command


def test_drawing_and_writing_load_neither_pandas_nor_statistics() -> None:
    """`headpatch rank` takes little more memory than the model does: 100 MiB hang on these."""
    rank = "headpatch.questions.rank.view, headpatch.questions.rank.question"
    loaded = said_by(f"import sys, {rank}, headpatch.core.output.writing; print(*sys.modules)")
    assert not {"pandas", "scipy.stats"} & set(loaded.split())


def test_every_public_name_resolves() -> None:
    """A lazy export that names a module or attribute that has moved would fail here."""
    for name in headpatch.__all__:
        assert getattr(headpatch, name) is not None


def test_version_is_the_installed_one() -> None:
    """The version is written once; another answer here means a stale installation."""
    assert metadata.version("headpatch") == headpatch.__version__


def test_console_script_points_at_the_cli() -> None:
    """``headpatch`` on the command line is `headpatch.cli.main`."""
    (script,) = metadata.entry_points(group="console_scripts", name="headpatch")
    assert script.value == "headpatch.cli:main"


def test_package_is_marked_as_typed() -> None:
    """Without ``py.typed``, type checkers ignore the annotations (PEP 561)."""
    assert resources.files("headpatch").joinpath("py.typed").is_file()

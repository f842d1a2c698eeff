"""What the package promises before any model is loaded."""

import json
import subprocess
import sys
from importlib import metadata, resources

import pytest

import headpatch

# What makes a start slow; none of it is needed to print a help page.
HEAVY = {"torch", "transformers", "matplotlib", "pandas", "scipy", "transformer_lens"}

PROBE = """
import json, sys
from headpatch.cli import main
sys.argv = ["headpatch", *json.loads(sys.argv[1])]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
roots = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"code": code or 0, "roots": roots}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([verb, "--help"] for verb in ("rank", "ablate", "check", "cut", "pairs", "sweep")),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """A fresh interpreter prints the help page and never loads a heavy package."""
    command = [sys.executable, "-c", PROBE, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["code"] == 0
    assert "Usage" in done.stdout
    assert not HEAVY & set(report["roots"])


def test_importing_the_package_loads_nothing_heavy() -> None:
    """The public names are loaded on first use, not by ``import headpatch``."""
    code = "import sys, headpatch; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_drawing_and_writing_load_neither_pandas_nor_statistics() -> None:
    """`headpatch rank` takes little more memory than the model does: 100 MiB hang on these."""
    rank = "headpatch.questions.rank.view, headpatch.questions.rank.question"
    code = f"import sys, {rank}, headpatch.core.output.writing; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not {"pandas", "scipy.stats"} & set(done.stdout.split())


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

"""A package that breaks transformers is named, with the way out."""

import subprocess
import sys
from pathlib import Path

import headpatch

SHADOW = """raise RuntimeError("operator torchvision::nms does not exist")\n"""


def test_a_torchvision_that_does_not_load_is_named(tmp_path: Path) -> None:
    """As one for CUDA beside a torch for CPUs, which pip may leave."""
    package, about = tmp_path / "torchvision", tmp_path / "torchvision-9.9.0.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(SHADOW, "utf-8")
    (package / "version.py").write_text("__version__ = '9.9.0+cu130'\n", "utf-8")
    requires = (
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9.0\nRequires-Dist: torch==9.8\n"
    )
    (about / "METADATA").write_text(requires, "utf-8")
    places = [str(tmp_path), str(Path(headpatch.__file__).parents[1])]
    start = f"import sys; sys.path[:0] = {places}; sys.argv[0] = 'headpatch'"
    code = f"{start}; from headpatch.cli import main; main()"
    command = [sys.executable, "-c", code, "rank", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("headpatch: torchvision: torchvision 9.9.0+cu130 does not load beside")
    assert "torch==9.8" in line and "pip uninstall torchvision" in line and "smolvlm" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

"""Which commit of headpatch runs."""

import importlib.metadata
import json
import os
import subprocess
import tomllib
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]


def commit(package: Path = _PACKAGE) -> str | None:
    """Return the commit of the headpatch that runs from a folder; None if it is not known.

    It is that of headpatch's own checkout, or the one that pip was told to install from. Another
    repository that the package happens to lie in, as the user's with an environment inside, says
    nothing of headpatch.
    """
    own = _is_own_checkout(package)
    return _git(package, "rev-parse", "HEAD") if own else _installed_from(package)


def _is_own_checkout(package: Path) -> bool:
    """Whether the package is tracked in a repository whose project is headpatch."""
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent.resolve():
        return False
    try:
        project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    init = f"{package.name}/__init__.py"
    tracked = _git(package.parent, "ls-files", "--error-unmatch", init)
    return project.get("project", {}).get("name") == "headpatch" and tracked is not None


def _installed_from(package: Path) -> str | None:
    """Return what pip noted of a version control system, if this package is what it installed."""
    try:
        found = importlib.metadata.distribution("headpatch")
        here = Path(str(found.locate_file(package.name))).resolve() == package.resolve()
        noted = json.loads(found.read_text("direct_url.json") or "{}") if here else {}
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return None
    commit_id: str | None = noted.get("vcs_info", {}).get("commit_id")
    return commit_id


def _git(folder: Path, *words: str) -> str | None:
    """Ask git, of the repository around a folder whatever the environment points at."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, timeout=5, check=False, env=own,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (found.stdout.strip() or None) if found.returncode == 0 else None

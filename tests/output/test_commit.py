"""``commit`` is headpatch's own, or none."""

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import headpatch
from headpatch.core.output.provenance import PACKAGE, commit

OWN = '[project]\nname = "headpatch"\n'
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="asks git")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    found = subprocess.run(
        ["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def checkout(folder: Path, package: str, project: str) -> Path:
    """A repository with a package and a project's file, all of it committed."""
    place = folder / package
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(project)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "all")
    return place


def test_of_its_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = checkout(tmp_path / "own", "headpatch", OWN)
    checkout(tmp_path / "users", "theirs", '[project]\nname = "theirs"\n')
    wanted = git(place, "rev-parse", "HEAD")
    assert commit(place) == wanted
    assert Path(headpatch.__file__).parent == PACKAGE  # the one that is asked of
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "users/.git"))  # as inside a git hook
    assert commit(place) == wanted


@pytest.mark.parametrize(
    ("package", "project"),
    [
        ("env/lib/python3.11/site-packages/headpatch", '[project]\nname = "theirs"\n'),
        ("env/lib/python3.11/site-packages/headpatch", OWN),
        ("headpatch", '[project]\nname = "theirs"\n'),
        ("headpatch", "not toml ="),
    ],
)
def test_not_of_a_repository_around_it(package: str, project: str, tmp_path: Path) -> None:
    assert commit(checkout(tmp_path, package, project)) is None


def test_not_of_a_checkout_that_does_not_hold_it(tmp_path: Path) -> None:
    place = checkout(tmp_path, "headpatch", OWN)
    git(tmp_path, "rm", "-q", "--cached", "headpatch/__init__.py")
    assert commit(place) is None


def test_of_the_repository_that_pip_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "headpatch"
    place.mkdir()
    noted = tmp_path / "headpatch-1.dist-info"
    noted.mkdir()
    (noted / "direct_url.json").write_text(json.dumps({"vcs_info": {"commit_id": "c0ffee"}}))
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(noted))
    assert commit(place) == "c0ffee"
    assert commit(tmp_path / "elsewhere/headpatch") is None

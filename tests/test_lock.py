"""lock.txt names the versions of constraints.txt, with hashes, and no pre-release without need."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parents[1]
ONLY_PRE_RELEASES = {"sphinx-basic-ng"}


def pinned(path: Path) -> dict[str, Requirement]:
    """Requirements of a file, without their hashes."""
    text = re.sub(r"\\\n\s*--hash=\S+ ?", "", path.read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def version(one: Requirement) -> Version:
    (pin,) = one.specifier
    assert pin.operator == "=="
    return Version(pin.version)


def test_the_lock_names_what_was_tested() -> None:
    tested, locked = pinned(HERE / "constraints.txt"), pinned(HERE / "lock.txt")
    assert {name: version(one) for name, one in tested.items()} == {
        name: version(locked[name]) for name in tested if name in locked
    }
    # what else it names belongs to other platforms, or to another build of torch
    assert all(locked[name].marker is not None for name in locked.keys() - tested.keys())


def test_every_locked_version_has_hashes() -> None:
    text = (HERE / "lock.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[A-Za-z])", text)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in one for one in entries)


def test_no_pre_release_is_needed() -> None:
    for name in ("constraints.txt", "lock.txt"):
        found = {key for key, one in pinned(HERE / name).items() if version(one).is_prerelease}
        assert found <= ONLY_PRE_RELEASES


def test_constraints_lie_in_the_allowed_ranges() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(one for extra in extras for one in extra)]
    tested = pinned(HERE / "constraints.txt")
    for one in map(Requirement, asked):
        if one.name != "headpatch":
            assert one.specifier.contains(version(tested[canonicalize_name(one.name)])), one

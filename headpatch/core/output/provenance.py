"""``run.yaml``: the study as run, and what ran it. ``--config run.yaml`` runs it again."""

import importlib.metadata
import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headpatch import __version__
from headpatch.core.output.files import write_yaml
from headpatch.core.study.record import RUN
from headpatch.core.study.study import Study

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.session import Session
    from headpatch.models.vlm import VLM

PACKAGE = Path(__file__).parents[2]
_PACKAGES = ("torch", "transformers", "torchvision", "pillow", "numpy", "scipy")


def pair_facts(session: "Session", noise_floor: float | None) -> dict[str, object]:
    """Return what ``run.yaml`` says of a run over one pair."""
    left_out = session.prompt.left_out
    return {
        "valid": session.valid,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "answer_probabilities": session.answer_probabilities,
        "noise_floor": noise_floor,
        "prompt": session.prompt.text,
        **({"prompt_left_out": list(left_out)} if left_out else {}),
        **({} if session.valid else {"invalid_because": list(session.faults)}),
        **model_facts(session.study, session.vlm),
    }


def dataset_facts(
    study: Study, vlm: "VLM", survey: "Survey", noise_floor: float | None, **more: object
) -> dict[str, object]:
    """Return what ``run.yaml`` says of a run over many pairs: how many passed and were run."""
    return {
        "valid": survey.valid,
        **survey.counts,
        "run": len(survey.entries),
        "noise_floor": noise_floor,
        "prompt": survey.prompts[0],
        "prompts": len(survey.prompts),
        **more,
        **model_facts(study, vlm),
    }


def write_draw(path: Path, study: Study) -> None:
    """Write how pairs were drawn; ``--config`` draws them again. Nothing in it changes by time."""
    values = study.model_dump(by_alias=True)
    draw = {key: value for key, value in values["draw"].items() if key != "folder"}
    run = {"headpatch": __version__, **_versions(("numpy", "pillow"))}
    write_yaml(path, {"study": {"seed": values["seed"], "draw": draw}, "run": run})


def write_corrupt(path: Path, seed: int, how: Sequence[str]) -> None:
    """Write how regions of pictures were corrupted. Nothing in it changes by time."""
    run = {"headpatch": __version__, **_versions(("numpy", "scipy", "pillow"))}
    write_yaml(path, {"corrupt": list(how), "seed": seed, "run": run})


def model_facts(study: Study, vlm: "VLM") -> dict[str, object]:
    """Return what ``run.yaml`` says of the model, and of where it ran."""
    return {
        "seed": study.seed,
        "model": vlm.name,
        "weights": vlm.fingerprint,
        **({"unused_weights": vlm.unused} if vlm.unused else {}),
        "settings": vlm.settings,
        "image_processor": vlm.image_processor,
        "device": str(vlm.device),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def write_record(folder: Path, study: Study, facts: Mapping[str, object]) -> None:
    """Write a run's own record; where it comes to lie, `staged` adds verb, files and checksum."""
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "commit": commit(),
        "python": platform.python_version(),
        "headpatch": __version__,
        **_versions(_PACKAGES),
    }
    study_as_run = study.portable()
    study_as_run["out"] = "."  # that of run.yaml itself, so results that are moved stay together
    del study_as_run["draw"]["folder"]  # of `headpatch pairs` alone
    write_yaml(folder / RUN, {"study": study_as_run, "run": run})


def _versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    """Return a package's version; None if it is not installed, as torchvision need not be."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(package: Path = PACKAGE) -> str | None:
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

"""``run.yaml``: the study as run, and what ran it. ``--config run.yaml`` runs it again."""

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headpatch import __version__
from headpatch.core.output.commit import commit
from headpatch.core.output.files import write_yaml
from headpatch.core.study import Study
from headpatch.core.study.record import RUN

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.session import Session
    from headpatch.models.vlm import VLM

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
        **_model_facts(session.study, session.vlm),
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
        **_model_facts(study, vlm),
    }


def write_draw(path: Path, study: Study) -> None:
    """Write how pairs were drawn; ``--config`` draws them again. Nothing in it changes by time."""
    values = study.model_dump(by_alias=True)
    draw = {key: value for key, value in values["draw"].items() if key != "folder"}
    run = {"headpatch": __version__, **_versions(("numpy", "pillow"))}
    write_yaml(path, {"study": {"seed": values["seed"], "draw": draw}, "run": run})


def _model_facts(study: Study, vlm: "VLM") -> dict[str, object]:
    """Return seed, weights, device and the like."""
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

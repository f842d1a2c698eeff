"""What a run leaves behind: tables and tensors with their provenance, whole or not at all."""

import csv
import errno
import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from headpatch import __version__
from headpatch.errors import InputError, RunError
from headpatch.pairs.manifest import NAME
from headpatch.study import Study

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    import pandas

    from headpatch.analyses.ablate import Ablation
    from headpatch.analyses.combine_judge import Combinations
    from headpatch.analyses.cut import Cuts
    from headpatch.analyses.path_table import Path as FollowedPath
    from headpatch.analyses.rank import Ranking
    from headpatch.analyses.rollout import Rolled
    from headpatch.analyses.selfrepair import SelfRepair
    from headpatch.analyses.session import Session
    from headpatch.analyses.survey import Survey
    from headpatch.analyses.sweep import Sweep
    from headpatch.analyses.trace import Traced
    from headpatch.models.vlm import VLM
    from headpatch.pairs.generate import Drawn

_STAGE = ".headpatch-"
_PACKAGES = ("torch", "transformers", "numpy", "scipy")


def check_folder(out: Path) -> None:
    """Refuse, before any model loads, an output folder that cannot be written.

    Raises
    ------
    InputError
        If `out` is a file, or neither it nor its nearest existing parent can be written.
    """
    place = out
    try:
        place = _nearest(out)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = "no file can be made there" if error.errno == errno.ENOENT else error.strerror
        raise InputError(
            "--out",
            f"{out} cannot be written ({place}: {reason})",
            "a folder to write in",
            "Choose another one.",
        ) from None


def _nearest(out: Path) -> Path:
    """Return `out` if it exists, else its nearest parent that does."""
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


@contextmanager
def staged(out: Path, may: Collection[str] = ()) -> Iterator[Path]:
    """Give a folder to write in; its files move to `out` together once all are written.

    A run that fails or is killed leaves `out` as it was.

    Parameters
    ----------
    may
        Files that only some runs of the same verb write: what an earlier run left of them, and this
        one does not write, is deleted, so that nobody takes it for a result of this one.
    """
    try:  # beside the place where the files will lie: a rename cannot cross file systems
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=_nearest(out)))
    except OSError as error:
        raise RunError(f"--out: {out} cannot be written ({error})") from error
    try:
        yield stage
        out.mkdir(parents=True, exist_ok=True)
        for file in stage.iterdir():
            if (out / file.name).is_dir():
                raise RunError(f"--out: {out / file.name} is a folder; move it or change --out")
        written = set()
        for file in sorted(stage.iterdir()):
            os.replace(file, out / file.name)
            written.add(file.name)
        for name in set(may) - written:
            if (out / name).is_file():
                (out / name).unlink()
    except OSError as error:
        raise RunError(f"--out: {out} cannot be written ({error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_ranking(folder: Path, session: "Session", ranking: "Ranking") -> None:
    """Write the four ``.pt`` files, ``heads.csv`` and ``run.yaml``."""
    torch.save(ranking.with_run, folder / "attention_with_triangle.pt")
    torch.save(ranking.without_run, folder / "attention_without_triangle.pt")
    torch.save(ranking.per_head, folder / "per_head_analysis.pt")
    torch.save(ranking.spatial, folder / "spatial_vision_analysis.pt")
    write_columns(folder / "heads.csv", ranking.columns)
    write_run(folder, session, noise_floor=None)


def write_ablation(folder: Path, session: "Session", ablation: "Ablation") -> None:
    """Write ``effects.csv`` and ``run.yaml``."""
    write_columns(
        folder / "effects.csv",
        {str(name): list(values) for name, values in ablation.effects.items()},
    )
    write_run(folder, session, ablation.noise_floor)


def write_sweep(folder: Path, session: "Session", sweep: "Sweep") -> None:
    """Write ``effects.csv``, ``sweep.pt``, ``run.yaml`` and, if estimated, ``approx.pt``."""
    torch.save(sweep.saved, folder / "sweep.pt")
    if sweep.approx is not None:
        torch.save(sweep.approx, folder / "approx.pt")
    write_columns(folder / "effects.csv", sweep_columns(sweep))
    write_run(folder, session, sweep.noise_floor)


def sweep_columns(sweep: "Sweep") -> dict[str, list[Any]]:
    """Return the columns of a sweep's ``effects.csv``."""
    columns = {str(name): list(values) for name, values in sweep.effects.items()}
    ranks = sweep.effects["attention_rank"]
    columns["attention_rank"] = list(ranks.astype("string").fillna(""))  # a set has none
    return columns


def write_cuts(folder: Path, session: "Session", cuts: "Cuts") -> None:
    """Write ``cuts.csv`` and ``run.yaml``."""
    write_columns(
        folder / "cuts.csv", {str(name): list(values) for name, values in cuts.effects.items()}
    )
    write_run(folder, session, cuts.noise_floor)


def combination_columns(
    combined: "Combinations", repaired: "SelfRepair | None"
) -> dict[str, dict[str, list[Any]]]:
    """Return what `combine` writes: the columns of each table, by file name."""
    tables = {"combinations.csv": combined.table.assign(word=combined.table["word"].fillna(""))}
    if repaired is not None:
        tables |= {"selfrepair.csv": repaired.table, "selfrepair_parts.csv": repaired.parts}
    return {
        file: {str(name): list(values) for name, values in table.items()}
        for file, table in tables.items()
    }


def write_combinations(
    folder: Path, session: "Session", combined: "Combinations", repaired: "SelfRepair | None"
) -> None:
    """Write ``combinations.csv``, ``run.yaml`` and, where LD can be attributed, self-repair."""
    for file, columns in combination_columns(combined, repaired).items():
        write_columns(folder / file, columns)
    write_run(folder, session, combined.noise_floor)


def write_path(folder: Path, session: "Session", traced: "FollowedPath") -> None:
    """Write ``path.csv``, ``path.pt`` and ``run.yaml``."""
    torch.save(traced.saved, folder / "path.pt")
    write_columns(
        folder / "path.csv", {str(name): list(values) for name, values in traced.table.items()}
    )
    write_run(folder, session, traced.noise_floor)


def write_rollout(folder: Path, session: "Session", rolled: "Rolled") -> None:
    """Write ``rollout.csv``, ``rollout.pt``, ``run.yaml`` and, if checked, ``perturbation.csv``."""
    torch.save(rolled.saved(), folder / "rollout.pt")
    tables = {"rollout.csv": rolled.table()}
    if rolled.check is not None:
        tables["perturbation.csv"] = rolled.check.curves
    for name, table in tables.items():
        write_columns(folder / name, {str(key): list(values) for key, values in table.items()})
    write_run(folder, session, None if rolled.check is None else rolled.check.noise_floor)


def write_trace(folder: Path, session: "Session", traced: "Traced") -> None:
    """Write ``trace.csv``, ``trace.pt`` and ``run.yaml``."""
    torch.save(traced.saved(), folder / "trace.pt")
    table = traced.table()
    write_columns(folder / "trace.csv", {str(key): list(values) for key, values in table.items()})
    write_run(folder, session, traced.noise_floor)


def effects_by(folder: Path) -> str | None:
    """Return which verb wrote the ``effects.csv`` in a folder; None if there is none, or another's.

    Both `ablate` and `sweep` write one, with columns of their own.
    """
    try:
        with (folder / "effects.csv").open(encoding="utf-8", newline="") as stream:
            columns = next(csv.reader(stream), [])
    except (OSError, ValueError, csv.Error):
        return None
    marks = {"control_n": "ablate", "attention_rank": "sweep"}
    return next((verb for mark, verb in marks.items() if mark in columns), None)


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]], more: bool = False) -> None:
    """Write a table as CSV; numbers with seven significant digits, which is what float32 holds.

    Parameters
    ----------
    more
        Add the rows to those of a file that has these columns.
    """
    with path.open("a" if more else "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if not more:
            writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(_cell(value) for value in row)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value


def read_table(path: Path) -> "pandas.DataFrame":
    """Read a table that a run wrote; heads such as ``24.10`` stay text."""
    import pandas

    texts = ("heads", "pair", "layers", "partners", "failed_nulls")
    return pandas.read_csv(path, dtype=dict.fromkeys(texts, str))


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a ``.pt`` file of a run, by the safe loader."""
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain tensors, numbers and texts, for `read_tensors`."""
    torch.save(dict(content), path)


def write_manifest(
    folder: Path, planned: "Sequence[Drawn]", extension: str
) -> list[dict[str, str]]:
    """Write the table of drawn pairs, and return its rows.

    Parameters
    ----------
    extension
        Of the pictures: png, jpg.
    """
    rows = [pair.row(extension) for pair in planned]
    write_columns(folder / NAME, {column: [row[column] for row in rows] for column in rows[0]})
    return rows


def write_draw(path: Path, study: Study) -> None:
    """Write how pairs were drawn; ``--config`` draws them again. Nothing in it changes by time."""
    values = yaml.safe_load(study.to_yaml())
    content = {
        "study": {key: values[key] for key in ("seed", "draw")},
        "run": {
            "headpatch": __version__,
            **{name: importlib.metadata.version(name) for name in ("numpy", "pillow")},
        },
    }
    content["study"]["draw"].pop("folder")
    path.write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8"
    )


def write_run(folder: Path, session: "Session", noise_floor: float | None) -> None:
    """Write ``run.yaml``: the study, and what ran it. ``--config run.yaml`` runs it again."""
    _write_run(folder, session.study, provenance(session, noise_floor))


def write_pairs(
    folder: Path,
    study: Study,
    vlm: "VLM",
    survey: "Survey",
    tables: "Mapping[str, pandas.DataFrame | Mapping[str, Sequence[Any]]]",
    noise_floor: float | None = None,
) -> None:
    """Write what a run over a dataset found: its `tables`, ``gate.csv`` and ``run.yaml``."""
    for name, table in tables.items():
        write_columns(folder / name, {str(key): list(values) for key, values in table.items()})
    write_columns(folder / "gate.csv", survey.gate_columns())
    passed = sum(one.passed for one in survey.gated)
    ran = {"pairs": len(survey.gated), "passed": passed, "run": len(survey.entries)}
    seen = {"valid": survey.valid, **ran, "noise_floor": noise_floor}
    _write_run(folder, study, _provenance(study, vlm, seen))


def _write_run(folder: Path, study: Study, run: Mapping[str, Any]) -> None:
    content = {"study": yaml.safe_load(_replayable(study).to_yaml()), "run": run}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    (folder / "run.yaml").write_text(text, encoding="utf-8")


def provenance(session: "Session", noise_floor: float | None) -> dict[str, Any]:
    """Say what ran: versions, seed, device, dtype, weights, commit, time and noise floor."""
    seen = {
        "valid": session.valid,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "noise_floor": noise_floor,
    }
    return _provenance(session.study, session.vlm, seen)


def _provenance(study: Study, vlm: "VLM", seen: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **seen,
        "seed": study.seed,
        "model": vlm.name,
        "weights": vlm.fingerprint,
        "device": str(vlm.device),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "python": platform.python_version(),
        "headpatch": __version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _replayable(study: Study) -> Study:
    """Return the study with paths that hold wherever ``run.yaml`` is read from."""
    paths: Mapping[str, str] = {
        key: value if value.startswith("bundled:") else str(Path(value).resolve())
        for key, value in (("with_", study.with_), ("without", study.without))
    }
    model = study.model
    if model != "demo" and Path(model).is_dir():
        model = str(Path(model).resolve())
    pairs = study.pairs
    if pairs.manifest is not None:
        pairs = pairs.model_copy(update={"manifest": str(Path(pairs.manifest).resolve())})
    sweep = study.sweep
    if sweep.sets is not None:
        sweep = sweep.model_copy(update={"sets": str(Path(sweep.sets).resolve())})
    return study.model_copy(update={**paths, "model": model, "sweep": sweep, "pairs": pairs})


def _commit() -> str | None:
    """The commit of headpatch's own checkout, if it runs from one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None

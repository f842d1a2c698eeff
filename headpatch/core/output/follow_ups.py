"""What the follow-ups of one pair write: `combine`, `rollout`, `trace`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.core.output.files import columns_of, write_columns, write_table, write_tensors
from headpatch.core.output.provenance import write_run

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.session import Session
    from headpatch.questions.combine.judge import Combinations
    from headpatch.questions.combine.selfrepair import SelfRepair
    from headpatch.questions.rollout.one import Rolled
    from headpatch.questions.trace.one import Traced


def combination_columns(
    combined: "Combinations", repaired: "SelfRepair | None"
) -> dict[str, dict[str, list[Any]]]:
    """Return what `combine` writes: the columns of each table, by file name."""
    tables = {"combinations.csv": combined.table.assign(word=combined.table["word"].fillna(""))}
    if repaired is not None:
        tables |= {"selfrepair.csv": repaired.table, "selfrepair_parts.csv": repaired.parts}
    return {file: columns_of(table) for file, table in tables.items()}


def write_combinations(
    folder: Path, session: "Session", combined: "Combinations", repaired: "SelfRepair | None"
) -> None:
    """Write ``combinations.csv``, ``run.yaml`` and, where LD can be attributed, self-repair."""
    for file, columns in combination_columns(combined, repaired).items():
        write_columns(folder / file, columns)
    write_run(folder, session, combined.noise_floor)


def write_rollout(folder: Path, session: "Session", rolled: "Rolled") -> None:
    """Write ``rollout.csv``, ``rollout.pt``, ``run.yaml`` and, if checked, ``perturbation.csv``."""
    write_tensors(folder / "rollout.pt", rolled.saved())
    write_table(folder / "rollout.csv", rolled.table())
    if rolled.check is not None:
        write_table(folder / "perturbation.csv", rolled.check.curves)
    write_run(folder, session, None if rolled.check is None else rolled.check.noise_floor)


def write_trace(folder: Path, session: "Session", traced: "Traced") -> None:
    """Write ``trace.csv``, ``trace.pt`` and ``run.yaml``."""
    write_tensors(folder / "trace.pt", traced.saved())
    write_table(folder / "trace.csv", traced.table())
    write_run(folder, session, traced.noise_floor)

"""What `rank` writes."""

from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.core.output.files import write_columns, write_tensors
from headpatch.core.output.provenance import write_run

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.ranking import Ranking
    from headpatch.core.session import Session


def write_ranking(folder: Path, session: "Session", ranking: "Ranking") -> None:
    """Write the four ``.pt`` files, ``heads.csv`` and ``run.yaml``."""
    write_tensors(folder / "attention_with_triangle.pt", ranking.with_run)
    write_tensors(folder / "attention_without_triangle.pt", ranking.without_run)
    write_tensors(folder / "per_head_analysis.pt", ranking.per_head)
    write_tensors(folder / "spatial_vision_analysis.pt", ranking.spatial)
    write_columns(folder / "heads.csv", ranking.columns)
    write_run(folder, session, noise_floor=None)

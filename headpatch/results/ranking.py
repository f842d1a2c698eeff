"""What `rank` writes."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headpatch.results.files import write_columns
from headpatch.results.provenance import write_run

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.analyses.rank import Ranking
    from headpatch.analyses.session import Session


def write_ranking(folder: Path, session: "Session", ranking: "Ranking") -> None:
    """Write the four ``.pt`` files, ``heads.csv`` and ``run.yaml``."""
    torch.save(ranking.with_run, folder / "attention_with_triangle.pt")
    torch.save(ranking.without_run, folder / "attention_without_triangle.pt")
    torch.save(ranking.per_head, folder / "per_head_analysis.pt")
    torch.save(ranking.spatial, folder / "spatial_vision_analysis.pt")
    write_columns(folder / "heads.csv", ranking.columns)
    write_run(folder, session, noise_floor=None)

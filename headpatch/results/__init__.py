"""What a run leaves behind: tables and tensors with their provenance, whole or not at all."""

from headpatch.results.dataset import write_manifest, write_pairs
from headpatch.results.effects import effects_by, sweep_columns, write_ablation, write_sweep
from headpatch.results.files import read_table, read_tensors, write_columns, write_tensors
from headpatch.results.follow_ups import (
    combination_columns,
    write_combinations,
    write_cuts,
    write_path,
    write_rollout,
    write_trace,
)
from headpatch.results.provenance import write_draw, write_run
from headpatch.results.ranking import write_ranking
from headpatch.results.staging import check_folder, staged

__all__ = [
    "check_folder",
    "combination_columns",
    "effects_by",
    "read_table",
    "read_tensors",
    "staged",
    "sweep_columns",
    "write_ablation",
    "write_columns",
    "write_combinations",
    "write_cuts",
    "write_draw",
    "write_manifest",
    "write_pairs",
    "write_path",
    "write_ranking",
    "write_rollout",
    "write_run",
    "write_sweep",
    "write_tensors",
    "write_trace",
]

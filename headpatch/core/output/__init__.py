"""What a run leaves behind: tables and tensors with their provenance, whole or not at all."""

from headpatch.core.output.files import (
    read_table,
    read_tensors,
    reading,
    write_columns,
    write_tensors,
)
from headpatch.core.output.lock import scratch_folder
from headpatch.core.output.records import effects_by
from headpatch.core.output.staging import check_folder, settle, staged, taken

__all__ = [
    "check_folder", "effects_by", "read_table", "read_tensors", "reading", "scratch_folder",
    "settle", "staged", "taken", "write_columns", "write_tensors",
]  # fmt: skip

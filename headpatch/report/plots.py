"""Every figure, by name.

Each function takes what a results file holds (arrays, or the tensors of a loaded ``.pt`` file,
in a dict; a table as a DataFrame) and an output path, and writes one figure. The suffix of the
path picks the format (``.png``, ``.pdf``, ``.svg``). ``attention_data/README.md`` describes every
key read here.
"""

from headpatch.report.sweeps import set_effects, sweep_maps

__all__ = [
    "set_effects",
    "sweep_maps",
]

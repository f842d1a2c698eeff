"""Every figure, by name.

Each function takes what a results file holds (arrays, or the tensors of a loaded ``.pt`` file,
in a dict; a table as a DataFrame) and an output path, and writes one figure. The suffix of the
path picks the format (``.png``, ``.pdf``, ``.svg``). ``attention_data/README.md`` describes every
key read here.
"""

from headpatch.present.overlays import attention_overlays
from headpatch.report.divergences import divergence_analysis
from headpatch.report.effects import head_effects
from headpatch.report.heads import top_different_heads
from headpatch.report.quadrants import spatial_distribution
from headpatch.report.sweeps import set_effects, sweep_maps
from headpatch.report.vision import vision_encoder_layers

__all__ = [
    "attention_overlays",
    "divergence_analysis",
    "head_effects",
    "set_effects",
    "spatial_distribution",
    "sweep_maps",
    "top_different_heads",
    "vision_encoder_layers",
]

"""Draw the figures of a run from what it saved. No model is run."""

from pathlib import Path

import numpy as np
from PIL import Image

from headpatch.report import plots
from headpatch.results import read_table, read_tensors


def draw_ranking(folder: Path, overlays: int) -> None:
    """Draw the five figures of `rank` from its files in `folder`, into that folder."""
    per_head = read_tensors(folder / "per_head_analysis.pt")
    spatial = read_tensors(folder / "spatial_vision_analysis.pt")
    present = read_tensors(folder / "attention_with_triangle.pt")
    absent = read_tensors(folder / "attention_without_triangle.pt")
    question = _asked(present["question"], present["valid"])
    words = {"question": question, "region": present["region_name"]}
    plots.top_different_heads(
        per_head, folder / "top_different_heads.png", per_head["top"], **words
    )
    plots.spatial_distribution(spatial, folder / "spatial_distribution.png", **words)
    if "vision_patch_with" in spatial:
        plots.vision_encoder_layers(spatial, folder / "vision_encoder_layers.png", **words)
    plots.divergence_analysis(spatial, folder / "divergence_analysis.png", **words)
    if overlays:
        first = per_head["rank"].ravel().argsort()[:overlays]
        plots.attention_overlays(
            Image.fromarray(np.asarray(present["image"])),
            Image.fromarray(np.asarray(absent["image"])),
            present,
            absent,
            [divmod(int(index), per_head["rank"].shape[1]) for index in first],
            folder / "attention_overlays.png",
            **words,
        )


def draw_ablation(folder: Path, question: str, region: str, valid: bool = True) -> None:
    """Draw the effects that `ablate` wrote to `folder`."""
    effects = read_table(folder / "effects.csv")
    question = _asked(question, valid)
    plots.head_effects(effects, folder / "head_effects.png", question=question, region=region)


def draw_sweep(folder: Path) -> None:
    """Draw the effects that `sweep` wrote to `folder`: a map of the heads, or the sets' spread."""
    swept = read_tensors(folder / "sweep.pt")
    every = next(iter(swept["normalized"].values())).ndim == 2
    draw = plots.sweep_maps if every else plots.set_effects
    words = {"question": _asked(swept["question"], swept["valid"]), "region": swept["region_name"]}
    draw(swept, folder / "sweep.png", **words)


def draw_cuts(folder: Path, question: str, region: str, valid: bool = True) -> None:
    """Draw the effects that `cut` wrote to `folder`."""
    cuts = read_table(folder / "cuts.csv")
    question = _asked(question, valid)
    plots.cut_effects(cuts, folder / "cuts.png", question=question, region=region)


def _asked(question: str, valid: bool) -> str:
    """The question as a figure shows it; a figure of a forced study says so."""
    return question if valid else f"{question} (INVALID STUDY: the two answers do not flip)"

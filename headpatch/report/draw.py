"""Draw the figures of a run from what it saved. No model is run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from headpatch.report import combinations, means, paths, plots
from headpatch.report.faithfulness import faithfulness_curves
from headpatch.report.verdicts import verdict_map
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


def draw_ranked_pairs(
    folder: Path, top: int, level: float, question: str, region: str, valid: bool = True
) -> None:
    """Draw the ranking that `rank` over a dataset wrote to `folder`."""
    means.mean_attention(
        read_table(folder / "heads.csv"),
        folder / "top_different_heads.png",
        top,
        level=level,
        question=_asked(question, valid),
        region=region,
    )


def draw_mean_effects(
    folder: Path, name: str, level: float, question: str, region: str, valid: bool = True
) -> None:
    """Draw the means over pairs that a run over a dataset wrote to `folder`."""
    means.mean_effects(
        read_table(folder / "effects_mean.csv"),
        folder / name,
        level=level,
        question=_asked(question, valid),
        region=region,
    )


def draw_verdict(
    folder: Path,
    delta: float,
    level: float,
    failed_nulls: Sequence[str],
    question: str,
    region: str,
    valid: bool = True,
) -> None:
    """Draw both figures of the verdict that was written to `folder`."""
    words = {"question": _asked(question, valid), "region": region}
    if failed_nulls:
        words["question"] += f" (A NULL FAILED: {', '.join(failed_nulls)})"
    curves = read_table(folder / "faithfulness.csv")
    verdict_map(
        read_table(folder / "verdicts.csv"),
        folder / "verdict.png",
        delta=delta,
        level=level,
        pairs=int(curves["pairs"].iloc[0]),
        **words,
    )
    faithfulness_curves(curves, folder / "faithfulness.png", level=level, **words)


def draw_combinations(folder: Path, question: str, region: str, valid: bool = True) -> None:
    """Draw the interactions that `combine` wrote to `folder`."""
    combinations.combination_maps(
        read_table(folder / "combinations.csv"),
        folder / "combinations.png",
        question=_asked(question, valid),
        region=region,
    )


def draw_path(folder: Path) -> None:
    """Draw what `path` wrote to `folder`."""
    saved = read_tensors(folder / "path.pt")
    words = {"question": _asked(saved["question"], saved["valid"]), "region": saved["region_name"]}
    paths.path_over_depth(saved, folder / "path.png", **words)


def _asked(question: str, valid: bool) -> str:
    """The question as a figure shows it; a figure of a forced study says so."""
    return question if valid else f"{question} (INVALID STUDY: the two answers do not flip)"

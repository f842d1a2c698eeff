"""Attention cut in windows of layers around every layer: it shows when an edge is read."""

from dataclasses import dataclass

import numpy as np

from headpatch.core.edge_cuts import Cutting, cut_edges
from headpatch.core.session import Session
from headpatch.core.study import PathOptions
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.errors import InputError
from headpatch.heads import Grid
from headpatch.questions.path.stream import DIRECTION, Curves


@dataclass(frozen=True, eq=False)
class EdgeCurves:
    """What cutting edges does, over the layers that the windows are centred on.

    Attributes
    ----------
    shares, effects
        By edge: normalized, and in logits.
    noise_floor
        In logits, as `headpatch.core.edge_cuts.CutTable` has it.
    """

    shares: Curves
    effects: Curves
    noise_floor: float


def check_window(options: PathOptions, grid: Grid) -> None:
    """Refuse a window that is wider than the model is deep.

    Raises
    ------
    InputError
        If so.
    """
    if options.window > grid.layers:
        found, most = f"{options.window} layers", f"at most {grid.layers} in this model"
        raise InputError("--window", found, most)


def edges(session: Session, on_progress: OnProgress | None = None) -> EdgeCurves:
    """Cut the edges of the study's ``path`` in windows of layers, in both runs.

    Raises
    ------
    InputError
        As `headpatch.core.edge_cuts.cut_edges`.
    """
    options = session.study.path
    cutting = Cutting(options.edges, options.window)
    found = cut_edges(session, cutting, on_progress=on_progress)
    named = found.named.sort_values("centre")
    shares: Curves = {edge: {} for edge in options.edges}
    effects: Curves = {edge: {} for edge in options.edges}
    for run, word in ((WITH, "with"), (WITHOUT, "without")):
        for edge in options.edges:
            rows = named[(named["edge"] == edge) & (named["run"] == word)]
            shares[edge][DIRECTION[run]] = rows["normalized"].to_numpy(dtype=np.float64)
            effects[edge][DIRECTION[run]] = rows["effect"].to_numpy(dtype=np.float64)
    return EdgeCurves(shares, effects, found.noise_floor)

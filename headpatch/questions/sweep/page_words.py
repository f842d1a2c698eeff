"""What the page says of a sweep beside its charts: what was changed, and the largest effects."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from headpatch.core.question import Context
from headpatch.present.canvas import signed
from headpatch.present.parts import Grid
from headpatch.present.section import said
from headpatch.questions.sweep.charts import sides
from headpatch.stats.rankings import descending

LISTED = 10
"""Heads in the table: those with the largest effects."""

Saved: TypeAlias = Mapping[str, Any]


def where(saved: Saved) -> str:
    """Say what was changed, on how many pairs, and at which positions."""
    count, vision = len(saved["heads"]), saved.get("tower") == "vision"
    what = "vision heads" if vision else "heads"
    if not _every(saved):
        what = f"sets of {what}"
    pairs = len(saved.get("pair_names", ()))
    over = f"means over {pairs:,} pairs" if pairs else "this pair"
    tokens = " tokens of the tower" if vision else ""
    return f"{count:,} {what}, {over}; z changed at: {saved['positions']}{tokens}."


def counted(saved: Saved, context: Context) -> str:
    """Say how many effects are above the noise floor, and what unread vision layers do."""
    floor, pairs = float(saved["noise_floor"]), len(saved.get("pair_names", ()))
    effects = [np.asarray(one, np.float64) for one in saved["effect"].values()]
    above = sum(int((np.abs(one) > floor).sum()) for one in effects)
    text = (
        f"{above:,} of {sum(one.size for one in effects):,} effects rise above the noise floor "
        f"({_logits(floor)} logits). "
    )
    feature = saved.get("feature_layer")
    if _every(saved) and feature is not None and feature + 1 < len(effects[0]):
        past = max(float(np.nanmax(np.abs(one[feature + 1 :]), initial=0.0)) for one in effects)
        text += (
            f"The language model reads layer {feature}: later layers (past the dashed line) cannot "
            f"reach the answer; the largest effect there is {_logits(past)} logits. "
        )
    return text + ("These are means without a test." if pairs else context.caveat)


def largest(saved: Saved) -> Grid:
    """List the heads with the largest effects of any kind and direction."""
    maps = {way: np.asarray(one, np.float64) for way, one in saved["normalized"].items()}
    size = np.abs(np.stack([np.nan_to_num(one) for one in maps.values()])).max(0)
    tower = "v" if saved.get("tower") == "vision" else ""
    rows = tuple(
        (
            "{}{}.{}".format(tower, *divmod(int(flat), size.shape[1])),
            *(said(one.flat[flat], 4) for one in maps.values()),
        )
        for flat in descending(size)[:LISTED]
    )
    headings = ("head", *(way.replace("_", ", ") for way in maps))
    return Grid("The largest effects of any kind and direction (shares of the difference)",
                headings, rows, (False, *[True] * len(maps)), place="page")  # fmt: skip


def farthest(saved: Saved, swept: Saved) -> str:
    """Name the head whose estimate lies farthest from its exact effect, over all ways."""
    both = sides(saved)
    gaps = {way: np.nan_to_num(np.abs(b - a)).ravel() for way, (a, b) in both.items()}
    way = max(gaps, key=lambda way: gaps[way].max(initial=0.0))
    if not gaps[way].any():
        return ""
    flat = int(gaps[way].argmax())
    exact, approx = (signed(float(side.flat[flat]), 3) for side in both[way])
    return (
        f"Farthest apart: {swept['heads'][flat]} ({way.replace('_', ', ')}), exact {exact} logits, "
        f"estimated {approx}."
    )


def _every(saved: Saved) -> bool:
    return np.ndim(next(iter(saved["normalized"].values()))) == 2


def _logits(value: float) -> str:
    """Write a size that is near 0."""
    return f"{value:.1e}" if value else "0"

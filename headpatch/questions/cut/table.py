"""The table of `cut`, and what it shows in one sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.session import Session
from headpatch.core.study import edge_ends
from headpatch.engine.generate import decode
from headpatch.engine.patching import WITH
from headpatch.engine.resumed import Shift
from headpatch.present.head_columns import with_head_columns
from headpatch.questions.cut.plan import NAMED, RUNS, Asked
from headpatch.stats.logits import normalized_effect
from headpatch.stats.summaries import spread


def table_of(session: Session, asked: Sequence[Asked], shifts: Sequence[Shift]) -> pd.DataFrame:
    """Return a row for each cut; the columns of ``cuts.csv``."""
    nulls: dict[tuple[str, str, int], list[float]] = {}
    rows = []
    for one, shift in zip(asked, shifts, strict=True):
        row = _row(session, one, shift)
        if one.role == "control" and not np.isnan(row["normalized"]):
            key = (one.place.name, one.edge, one.knockout.run)
            nulls.setdefault(key, []).append(row["normalized"])
        rows.append(row)
    for row, one in zip(rows, asked, strict=True):
        key = (one.place.name, one.edge, one.knockout.run)
        null = nulls.get(key, []) if one.role in NAMED else []
        summary = spread(null) if null else None
        row["control_mean"] = summary.mean if summary else np.nan
        row["control_sd"] = summary.sd if summary else np.nan
        row["control_n"] = len(null)
    return with_head_columns(pd.DataFrame(rows))


def _row(session: Session, one: Asked, shift: Shift) -> dict[str, Any]:
    base, place, run = session.base, one.place, one.knockout.run
    return {
        "pair": session.pair.name,
        "edge": one.edge,
        "heads": place.name if place.layers is None else "",
        "layers": place.name if place.layers is not None else "",
        "centre": np.nan if place.centre is None else float(place.centre),
        "run": RUNS[run],
        "ld_with": base.ld_with,
        "ld_without": base.ld_without,
        "ld": shift.ld,
        "effect": shift.effect,
        "normalized": normalized_effect(
            shift.ld, base.ld_with, base.ld_without, "noising" if run == WITH else "denoising"
        ),
        "role": one.role,
        "answer_before": decode(session.vlm, [shift.token_before]),
        "answer_after": decode(session.vlm, [shift.token]),
    }


def summarize(session: Session, table: pd.DataFrame, floor: float) -> str:
    """Say what the largest effect on the with-run was, and no more than one pair can show."""
    named = table[table["role"].isin(NAMED) & (table["run"] == "with")]
    row = max(named.to_dict("records"), key=lambda row: abs(row["effect"]))
    heads = row["heads"] if row["heads"].count("+") < 3 else "all named heads"
    where = f"in layers {row['layers']}" if row["layers"] else f"of {heads}"
    start, end = edge_ends(row["edge"])
    chosen = f", the largest of {len(named)} cuts tried," if len(named) > 1 else ""
    caveat = "One pair shows one case, not a rule."
    if not session.valid:
        caveat = "The study is INVALID (its answers are not Yes and No): these figures say nothing."
    if abs(row["effect"]) <= floor:
        return f"No cut moves LD of the with-run beyond the noise floor ({floor:.1e}). {caveat}"
    words = f"by {row['effect']:+.3f} logits"
    if not np.isnan(row["normalized"]):
        words += f" ({row['normalized']:+.1%} of the difference between the runs"
        if row["control_n"] > 1:
            mean, sd = row["control_mean"], row["control_sd"]
            words += f"; as many other image tokens instead: {mean:+.1%} ± {sd:.1%}"
        words += ")"
    flips = row["answer_before"] != row["answer_after"]
    return (
        f"Cutting {start} → {end} {where}{chosen} moves LD of the with-run {words}; the answer "
        f"{'becomes' if flips else 'stays'} {row['answer_after']!r}. {caveat}"
    )

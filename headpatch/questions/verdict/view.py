"""What people see of a verdict: nulls, heads, sets of heads, what rankings carry, the headline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from headpatch.core.measures import measure_of, ranking_name
from headpatch.core.question import Context, Files, rows_of, table_of
from headpatch.present.column import Cell, Row
from headpatch.present.effects_view import interval_cell
from headpatch.present.parts import Grid, Part, Place, Words, grid
from headpatch.present.tables import failed_words
from headpatch.questions.verdict.charts import (
    faithfulness_areas,
    faithfulness_chart,
    verdict_chart,
)
from headpatch.questions.verdict.columns import CURVES, FACTORS, HEADS, NULLS, SETS, TOGETHER
from headpatch.questions.verdict.headline import (
    MOST,
    by_effect,
    first_by_attention,
    headline_words,
    summarize,
)
from headpatch.questions.verdict.sentences import Setting, sentence
from headpatch.questions.verdict.sets_view import sets_parts
from headpatch.stats.verdict_labels import CAUSAL

_MEANINGS: Final = {
    "necessary+sufficient": "exchanging its z moves the answer beyond δ, both ways",
    "necessary": "with the other run's z instead of its own, the answer moves beyond δ",
    "sufficient": "its z alone, put into the other run, moves the answer beyond δ",
    "redundant": "not necessary alone, but together with a partner",
    "inhibitory": "it works against the answer, beyond δ",
    "mixed": "the mean hides what it does on pairs: beyond δ both ways, or for some pairs only",
    "watches": "it attends more with the object, beyond δ_a; its effect is shown to be small",
    "looks away": "it attends less with the object, beyond δ_a; its effect is shown to be small",
    "inert": "its effect is shown to be small: the mean lies within ±δ, and so do 95% of pairs",
    "undecided": "neither is shown: more pairs are needed",
}
_FEW: Final = 3
"""Partners of a set named in a cell."""
_SETS: Final = 1
"""Sets named in a cell, if there are more than two."""
_LAYER_P: Final = ("necessity_layer_p", "sufficiency_layer_p")


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show a verdict; tables that an earlier version did not write are left out."""
    table, saved = table_of(files[HEADS.file]), files.get("verdict.pt", {})
    curves = table_of(files.get(CURVES.file, {}))
    judged = context.facts.get("judged", context.pairs or 0)  # fewer if it stopped at a look
    setting = Setting.of(context, len(saved["pairs"]) if "pairs" in saved else judged)
    sets: list[Part] = []
    if SETS.file in files:
        sets = list(sets_parts(table_of(files[SETS.file]), table, context.level, saved))
    yield from _only(sets, "page")  # the main finding comes first there
    yield from _classes(table, setting)
    if NULLS.file in files:
        yield from _nulls(table_of(files[NULLS.file]))
    factors = table_of(files[FACTORS.file]) if FACTORS.file in files else None
    yield from _heads(table, context, setting, factors)
    if TOGETHER.file in files:
        yield from _as_one_set(table_of(files[TOGETHER.file]), context.level)
    yield from _only(sets, "terminal")
    shown: dict[str, Any] = {"level": context.level, "of": context.pairs}
    picks = ranking_name(_by(context))
    more = {"rhos": saved, "ranking": picks}
    yield verdict_chart(table, delta=setting.delta, pairs=setting.pairs, **more, **shown)
    if not curves.empty:
        yield Words(
            "Only the first k heads of a ranking keep their z and all others are resampled, or the "
            "other way round. A ranking that finds the heads that decide rises early when they are "
            "kept and falls early when they are taken away.",
            "page",
        )
        yield faithfulness_areas(curves)
        yield faithfulness_chart(curves, **shown)
    if {"rho", "true_rho"} <= set(saved):
        together = table_of(files[TOGETHER.file]) if TOGETHER.file in files else None
        top = int(context.options["top"])
        headline = summarize(table, saved, top, setting.pairs, together, picks)
        first, *lines = headline_words(headline, context)
        yield Words(first, "terminal", strong=True)
        yield from (Words(line, "terminal") for line in lines)


def _only(parts: Sequence[Part], place: Place) -> Iterator[Part]:
    """Give the words and tables of one of the places where people see them."""
    for part in parts:
        if isinstance(part, Words | Grid) and part.place in ("everywhere", place):
            yield replace(part, place=place)


def _by(context: Context) -> str:
    """Return the study's ranking, which results of earlier versions lack."""
    return str(context.study.get("rank", {}).get("by", "diff"))


def _classes(table: pd.DataFrame, setting: Setting) -> Iterator[Part]:
    """Say how many heads are of each class, and what it says."""
    yield Words(
        f"Every head, judged over {setting.pairs:,} pairs; δ = {setting.delta:g} is the smallest "
        "effect of interest, as a share of the difference between the two answers; δ_a = "
        f"{setting.attention_delta:g} the smallest attention difference of interest, as a share of "
        f"{'the image' if setting.attended == 'region' else 'all'} attention.",
        "page",
    )
    counts = table["verdict"].value_counts()
    names = (name for name in dict.fromkeys([*_MEANINGS, *counts.index]) if name in counts)
    rows = tuple((name, f"{counts[name]:,}", _MEANINGS.get(name, "")) for name in names)
    title, headings = "How many heads are of each class", ("verdict", "heads", "what it says")
    yield Grid(title, headings, rows, (False, False, False), place="page")


def _nulls(table: pd.DataFrame) -> Iterator[Part]:
    """Show every null's figures, and say what a failed one means."""

    def tested(row: Row, name: str) -> str:
        return "" if row["outcome"] == "not tested" else NULLS[name].cell(row)

    def value(row: Row) -> str:
        known = row.get("low") is not None and np.isfinite(row["low"])  # not of earlier versions
        ends = f" ({NULLS['low'].cell(row)} to {NULLS['high'].cell(row)})" if known else ""
        return tested(row, "value") + ends

    cells: dict[str, str | Cell] = {
        "null": "null",
        "outcome": "outcome",
        "pairs": lambda row: tested(row, "pairs"),
        "value": value,
        "must be": "limit",
        "figure": lambda row: f"{row['figure']} ({row['note']})" if row["note"] else row["figure"],
    }
    table = table.assign(note=table["note"].fillna(""))
    yield Words(
        "What must come out as nothing, or as the same again, if the verdict is to be believed. A "
        "value with an interval fails only if all of that lies beyond its limit.",
        "page",
    )
    yield grid("Nulls", table, cells, NULLS, wrapped="figure")
    failed = sorted(set(table.loc[table["outcome"] == "failed", "null"]))
    if failed:
        yield Words(failed_words(failed), "terminal", strong=True)
        yield Words(failed_words(failed), "page")


def _heads(
    table: pd.DataFrame, context: Context, setting: Setting, factors: pd.DataFrame | None
) -> Iterator[Part]:
    """Show the verdict of the heads that act, and of those that attention picks first."""
    rows = by_effect(table).set_index("name", drop=False)
    acting = rows.index[rows["verdict"].isin(CAUSAL)]
    picked = first_by_attention(rows, int(context.options.get("top", 20)))
    shown = rows.loc[list(dict.fromkeys([*acting, *picked]))]
    level, look = f"{context.level:.0%}", HEADS["attention_diff"]
    cells: dict[str, str | Cell] = {
        "head": lambda row: row["name"],
        "verdict": "verdict",
        "attention (rank)": lambda row: f"{look.cell(row)} ({row['attention_rank']:.0f})",
        "necessity": "necessity",
        f"{level} interval": interval_cell("necessity", 3),
        "q": "necessity_q",
        "sufficiency": "sufficiency",
        f"its {level} interval": interval_cell("sufficiency", 3),
        "its q": "sufficiency_q",
    }
    if any(_with_whom(value) for value in shown.get("partners", ())):
        cells["with"] = lambda row: _with_whom(row["partners"])
    title = f"Heads that act, and the first that {measure_of(_by(context)).picker} picks"
    yield grid(title, shown, cells, HEADS, place="terminal")
    yield from _acting(rows.loc[acting], cells, int(table["head"].max()) + 1)
    note = (
        "Means over pairs, as a share of the LD difference between the runs; resampled at the "
        "positions of the study. attention: its mean difference and, in brackets, its rank among "
        "all heads, both over the same pairs. A head is called after an effect whose interval lies "
        f"beyond ±δ = {setting.delta:g} and whose q (Benjamini-Hochberg, over all heads and both "
        f"directions) is below {1 - context.level:.2g}; 'watches', 'looks away' and 'inert' are "
        "shown to be small: the mean within ±δ by an equivalence test, and 95% of pairs by a "
        "tolerance interval; 'mixed': the mean hides what it does on pairs; nothing of it: "
        "undecided."
    )
    partners = " with: partners together with which it is necessary." * ("with" in cells)
    yield Words(note + partners)
    told = rows[rows["verdict"].isin((*CAUSAL, "mixed")) & (rows["verdict"] != "redundant")]
    yield from (Words(sentence(row, setting, factors)) for row in rows_of(told.head(MOST)))


def _as_one_set(table: pd.DataFrame, level: float) -> Iterator[Part]:
    """Show what the first heads of a ranking do together, beside random sets."""
    if table.empty:
        return
    cells: dict[str, str | Cell] = {
        "the first by": "ranking",
        "heads": "k",
        "direction": "direction",
        "together": "effect",
        f"{level:.0%} interval": interval_cell("effect", 3),
        "sum of each alone": "alone",
        "random sets": "random",
        "p": "p",
    }
    yield grid("The first heads of a ranking, changed as one set", table, cells, TOGETHER)
    draws = int(table["draws"].max())
    least = f"; with {draws} sets p is at least {2 / (draws + 1):.2g}" if draws else ""
    yield Words(
        "Chosen on one part of the pairs and judged on the other. Random sets: as many other heads "
        f"of each layer; p: that one of them has as large an effect{least}."
    )


def _acting(acting: pd.DataFrame, cells: Mapping[str, str | Cell], heads: int) -> Iterator[Part]:
    """Show on the page the heads that act; its table of all heads has the others.

    `heads` are those of a layer.
    """
    if acting.empty:
        return
    layer_p = all(name in acting and acting[name].notna().any() for name in _LAYER_P)
    if layer_p:
        cells = {**cells, "layer p": lambda row: " / ".join(f"{row[p]:.2g}" for p in _LAYER_P)}
    yield grid("Heads that are shown to act", acting.head(MOST), cells, HEADS, place="page")
    if layer_p:
        least = f"1/{heads} = {1 / heads:.2g} ({heads} heads a layer)"
        yield Words(
            "Layer p (necessity / sufficiency): the share of the layer's heads, the head itself "
            f"included, whose mean is at least as large in size; it is never below {least}. It "
            "says whether the head stands out in its layer; the verdict does not rest on it.",
            "page",
        )
    if len(acting) > MOST:
        yield Words(f"And {len(acting) - MOST:,} more, in the table of all heads.", "page")


def _with_whom(partners: object) -> str:
    """Name the partners of a redundant head; of many, say how many."""
    texts = partners.split(";") if isinstance(partners, str) else []
    sets = [text.split("+") for text in texts if text]
    named = ["+".join(one) if len(one) <= _FEW else f"{len(one)} others" for one in sets]
    rest = [f"{len(named) - _SETS} more sets"] if len(named) > _SETS + 1 else named[_SETS:]
    return "; ".join([*named[:_SETS], *rest])

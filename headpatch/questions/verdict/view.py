"""What people see of a verdict: nulls, heads, sets of heads, what rankings carry, the headline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from headpatch.core.question import Context, Files, table_of
from headpatch.present.column import Cell, Row
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.present.tables import failed_words
from headpatch.questions.verdict.charts import (
    faithfulness_areas,
    faithfulness_chart,
    head_names,
    measured_words,
    true_words,
    verdict_chart,
)
from headpatch.questions.verdict.columns import CURVES, FACTORS, HEADS, NULLS, SETS, TOGETHER
from headpatch.questions.verdict.sentences import Setting, percent, sentence
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation
from headpatch.stats.rankings import Correlation, Precision, descending, effect_size, precision_at
from headpatch.stats.verdict_labels import CAUSAL, SMALL

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
_MOST: Final = 12
"""Heads named in a sentence, and in the page's table: its table of all heads has the rest."""
_FEW: Final = 4
"""Partners named in a cell."""
_LAYER_P: Final = ("necessity_layer_p", "sufficiency_layer_p")


@dataclass(frozen=True)
class Headline:
    """The figures of the headline; heads by name, the largest effect first."""

    pairs: int  # that heads were judged on
    heads: int
    counts: dict[str, int]  # heads of each verdict
    picked: tuple[str, ...]  # that attention picks out
    picked_causal: tuple[str, ...]  # of these: shown to act,
    picked_within: tuple[str, ...]  # shown to be small,
    picked_mixed: tuple[str, ...]  # shown to act on pairs in ways that the mean hides,
    picked_undecided: tuple[str, ...]  # none of it
    causal: tuple[str, ...]  # every head that is shown to act
    missed: tuple[str, ...]  # those of them that attention did not pick
    rho: Correlation
    """Spearman's, over heads, of attention difference and effect size, both means over the pairs
    that were measured."""
    true_rho: TrueCorrelation
    """The same of true values, which endless pairs would show; how reliable both rankings are."""
    precision: tuple[Precision, ...]
    """Of the attention ranking against the exact causal one, at several k."""
    together: tuple[Mapping[str, Any], ...] = ()
    """Rows of ``together.csv``: what the first heads of a ranking do as one set."""


def summarize(
    table: pd.DataFrame,
    saved: Mapping[str, Any],
    top: int,
    pairs: int,
    together: pd.DataFrame | None = None,
) -> Headline:
    """Work out the headline of ``verdicts.csv``; both correlations are those of ``verdict.pt``.

    Attention picks out the `top` heads; `pairs` are those that heads were judged on.
    """
    counts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
    table = _by_effect(table)
    label = dict(zip(table["name"], table["verdict"], strict=True))
    picked = _first_by_attention(table, top)
    causal = tuple(name for name, verdict in label.items() if verdict in CAUSAL)

    def of(*classes: str) -> tuple[str, ...]:
        return tuple(name for name in label if name in picked and label[name] in classes)

    looks = descending(-table["attention_rank"].to_numpy(float))
    ks = sorted({k for k in (len(picked), len(causal)) if k > 0})
    return Headline(
        pairs=pairs,
        heads=len(label),
        counts=counts,
        picked=picked,
        picked_causal=of(*CAUSAL),
        picked_within=of(*SMALL),
        picked_mixed=of("mixed"),
        picked_undecided=of("undecided"),
        causal=causal,
        missed=tuple(name for name in causal if name not in picked),
        rho=Correlation(**saved["rho"]),
        true_rho=TrueCorrelation(**saved["true_rho"]),
        precision=tuple(precision_at(looks, np.arange(len(table)), k) for k in ks),
        together=() if together is None else tuple(_plain(together)),
    )


def _plain(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Give the rows; None for what was not measured."""
    yield from table.astype(object).where(table.notna(), None).to_dict("records")


def _by_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``verdicts.csv`` with each head's name, the largest effect first."""
    size = effect_size(table["necessity"].to_numpy(float), table["sufficiency"].to_numpy(float))
    return table.assign(name=head_names(table)).iloc[descending(size)]


def _first_by_attention(table: pd.DataFrame, top: int) -> tuple[str, ...]:
    """Name the heads that attention picks out, the first first."""
    picked = table[table["attention_rank"] <= top].sort_values("attention_rank")
    return tuple(picked["name"])


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show a verdict; tables that an earlier version did not write are left out."""
    table, saved = table_of(files[HEADS.file]), files.get("verdict.pt", {})
    curves = table_of(files.get(CURVES.file, {}))
    pairs = len(saved["pairs"]) if "pairs" in saved else context.pairs or 0
    delta = float(context.options.get("delta", 0.02))
    looks = float(context.options.get("attention_delta", 0.05))
    yield from _classes(table, pairs, delta, looks)
    if NULLS.file in files:
        yield from _nulls(table_of(files[NULLS.file]))
    factors = table_of(files[FACTORS.file]) if FACTORS.file in files else None
    yield from _heads(table, context, delta, pairs, factors)
    if TOGETHER.file in files:
        yield from _as_one_set(table_of(files[TOGETHER.file]), context.level)
    if SETS.file in files:
        yield from _together(table_of(files[SETS.file]), table, context.level)
    shown: dict[str, Any] = {"level": context.level, "of": context.pairs}
    yield verdict_chart(table, delta=delta, pairs=pairs, rhos=saved, **shown)
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
        headline = summarize(table, saved, int(context.options["top"]), pairs, together)
        first, *lines = headline_words(headline, context)
        yield Words(first, "terminal", strong=True)
        yield from (Words(line, "terminal") for line in lines)


def _classes(table: pd.DataFrame, pairs: int, delta: float, looks: float) -> Iterator[Part]:
    """Say how many heads are of each class, and what it says."""
    yield Words(
        f"Every head, judged over {pairs:,} pairs; δ = {delta:g} is the smallest effect of "
        "interest, as a share of the difference between the two answers; δ_a = "
        f"{looks:g} the smallest attention difference of interest, as a share of the image "
        "attention.",
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
    table: pd.DataFrame, context: Context, delta: float, pairs: int, factors: pd.DataFrame | None
) -> Iterator[Part]:
    """Show the verdict of the heads that act, and of those that attention picks first."""
    rows = _by_effect(table).set_index("name", drop=False)
    acting = rows.index[rows["verdict"].isin(CAUSAL)]
    picked = _first_by_attention(rows, int(context.options.get("top", 20)))
    shown = rows.loc[list(dict.fromkeys([*acting, *picked]))]
    level, look = f"{context.level:.0%}", HEADS["attention_diff"]
    cells: dict[str, str | Cell] = {
        "head": lambda row: row["name"],
        "verdict": "verdict",
        "attention (rank)": lambda row: f"{look.cell(row)} ({row['attention_rank']:.0f})",
        "necessity": "necessity",
        f"{level} interval": _interval("necessity"),
        "q": "necessity_q",
        "sufficiency": "sufficiency",
        f"its {level} interval": _interval("sufficiency"),
        "its q": "sufficiency_q",
    }
    if any(_with_whom(value) for value in shown.get("partners", ())):
        cells["with"] = lambda row: _with_whom(row["partners"])
    title = "Heads that act, and the first that attention picks"
    yield grid(title, shown, cells, HEADS, place="terminal")
    yield from _acting(rows.loc[acting], cells, int(table["head"].max()) + 1)
    note = (
        "Means over pairs, as a share of the LD difference between the runs; resampled at the "
        "positions of the study. A head is called after an effect whose interval lies beyond "
        f"±δ = {delta:g} and whose q (Benjamini-Hochberg, over all heads and both directions) is "
        f"below {1 - context.level:.2g}; 'watches', 'looks away' and 'inert' are shown to be "
        "small: the mean within ±δ by an equivalence test, and 95% of pairs by a tolerance "
        "interval; 'mixed': the mean hides what it does on pairs; nothing of it: undecided."
    )
    partners = " with: partners together with which it is necessary." * ("with" in cells)
    yield Words(note + partners)
    told = rows[rows["verdict"].isin((*CAUSAL, "mixed")) & (rows["verdict"] != "redundant")]
    study = Setting.of(context, pairs)
    yield from (Words(sentence(row, study, factors)) for row in told.head(_MOST).to_dict("records"))


def _as_one_set(table: pd.DataFrame, level: float) -> Iterator[Part]:
    """Show what the first heads of a ranking do together, beside random sets."""
    if table.empty:
        return
    cells: dict[str, str | Cell] = {
        "the first by": "ranking",
        "heads": "k",
        "direction": "direction",
        "together": "effect",
        f"{level:.0%} interval": _interval("effect"),
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
    yield grid("Heads that are shown to act", acting.head(_MOST), cells, HEADS, place="page")
    if layer_p:
        least = f"1/{heads} = {1 / heads:.2g} ({heads} heads a layer)"
        yield Words(
            "Layer p (necessity / sufficiency): the share of the layer's heads, the head itself "
            f"included, whose mean is at least as large in size; it is never below {least}. It "
            "says whether the head stands out in its layer; the verdict does not rest on it.",
            "page",
        )
    if len(acting) > _MOST:
        yield Words(f"And {len(acting) - _MOST:,} more, in the table of all heads.", "page")


def _interval(name: str) -> Cell:
    return lambda row: f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}"


def _with_whom(partners: object) -> str:
    """Name the partners of a redundant head; of many, say how many."""
    texts = partners.split(";") if isinstance(partners, str) else []
    sets = [text.split("+") for text in texts if text]
    return "; ".join("+".join(one) if len(one) <= _FEW else f"{len(one)} others" for one in sets)


def _together(sets: pd.DataFrame, table: pd.DataFrame, level: float) -> Iterator[Part]:
    """Show the sets of heads that do more together than alone, and what each of them adds."""
    kept = sets[sets["redundant"]]
    if kept.empty:
        yield Words(
            f"Sets of heads tested for doing more together than alone: {len(sets):,}; shown to do "
            "so: none."
        )
        return
    verdicts = dict(zip(head_names(table), table["verdict"], strict=True))

    def alike(row: Row) -> str:
        members = row["heads"].split("+")
        return f"{sum(verdicts[name] == 'redundant' for name in members)} of {len(members)}"

    cells: dict[str, str | Cell] = {
        "heads": lambda row: row["heads"].replace("+", " + "),
        "necessity together": "joint",
        f"{level:.0%} interval": _interval("joint"),
        "least that one adds": "excess",
        f"its {level:.0%} interval": _interval("excess"),
        "q": "q",
        "redundant": alike,
    }
    title = "More together than alone: sets of which every head is needed"
    yield grid(title, kept, cells, SETS, wrapped="heads")
    yield Words(
        f"{len(kept):,} of {len(sets):,} sets that were tested. Least that one adds: of any of the "
        "heads, once the others are gone, beyond what it does alone. redundant: how many of the "
        "heads are not shown to be necessary alone; the others are, and do more beside."
    )


def headline_words(facts: Headline, context: Context) -> list[str]:
    """Say in words and numbers whether the heads that look decide; the first line asks it."""
    level, delta = context.level, context.options["delta"]
    where = Setting.of(context, facts.pairs).where
    missed = f"Attention misses {len(facts.missed)} of them{_named(facts.missed)}."
    if not facts.causal:
        open_ones = facts.counts.get("undecided", 0)
        missed = "Each is shown to be small, or mixed."
        if open_ones:
            missed = f"That is no proof that none does: {open_ones:,} are undecided."
    elif not facts.missed:
        missed = "Attention picks all of them."
    elif len(facts.missed) == len(facts.causal):
        missed = "Attention misses all of them."
    lines = [
        "Do the heads that look decide?",
        f"Heads are changed {where}. Of the {len(facts.picked)} heads that attention picks out, "
        f"alone {_count(facts.picked_causal)} shown to act on the answer"
        f"{_named(facts.picked_causal)}; {_count(facts.picked_within)} shown to be small, in the "
        f"mean and on 95% of pairs within ±{delta:.3g} of the LD difference; "
        f"{_count(facts.picked_mixed)} mixed; {_count(facts.picked_undecided)} undecided.",
        *_together_words(facts.together, level),
        f"Of all {facts.heads:,} heads, {_count(facts.causal)} shown to act"
        f"{_named(facts.causal)}. {missed}",
        f"Spearman's rho, over {facts.heads:,} heads, of attention difference and size of effect. "
        f"Of the means that were measured: {measured_words(vars(facts.rho), level)}. Of the true "
        f"values: {true_words(vars(facts.true_rho), level)}.",
    ]
    lines += [
        f"Precision@{first.k}: {first.hits} of the first {first.k} by attention are among the "
        f"{first.k} with the largest effects ({first.share:.0%}; chance {first.chance:.1%}, "
        f"p = {first.p:.2g})."
        for first in facts.precision
    ]
    counts = ", ".join(f"{name} {count:,}" for name, count in facts.counts.items())
    return [*lines, f"Verdicts over {facts.pairs} pairs: {counts}."]


def _together_words(rows: Sequence[Mapping[str, Any]], level: float) -> Iterator[str]:
    """Say what the heads that attention picks do as one set, in both directions."""
    own = [row for row in rows if row["ranking"] == "attention"]
    if not own:
        return
    parts = []
    for row in own:
        verb = "take away" if row["direction"] == "noising" else "bring"
        random = "no random set could be drawn"
        if row["draws"]:
            random = (
                f"random sets of the same layers {percent(row['random'])}, "
                f"{percent(row['random_low'])} to {percent(row['random_high'])}, p = {row['p']:.2g}"
            )
        parts.append(
            f"they {verb} {percent(row['effect'])} [{percent(row['effect_low'])} to "
            f"{percent(row['effect_high'])}] of the LD difference ({row['direction']}; {random})"
        )
    yield (
        f"The {own[0]['k']} heads that attention picks on one part of the pairs, changed as one "
        f"set on the other: {', and '.join(parts)}; {level:.0%} intervals."
    )


def _count(names: Sequence[str]) -> str:
    if not names:
        return "none is"
    return "1 is" if len(names) == 1 else f"{len(names)} are"


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f" ({', '.join(names[:_MOST])}{rest})"

"""What people see of a verdict: nulls, heads, sets of heads, what rankings carry, the headline."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from headpatch.core.question import Context, Files, table_of
from headpatch.present.column import Cell, Row
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.present.tables import failed_words
from headpatch.questions.verdict.charts import RANKINGS, faithfulness_chart, verdict_chart
from headpatch.questions.verdict.columns import CURVES, HEADS, NULLS, SETS
from headpatch.questions.verdict.correlation_text import measured_words, true_words
from headpatch.stats.verdict_labels import CAUSAL

if TYPE_CHECKING:
    import pandas

    from headpatch.questions.verdict.summary import Headline

_MEANINGS: Final = {
    "necessary+sufficient": "exchanging its z moves the answer beyond δ, both ways",
    "necessary": "with the other run's z instead of its own, the answer moves beyond δ",
    "sufficient": "its z alone, put into the other run, moves the answer beyond δ",
    "redundant": "not necessary alone, but together with a partner",
    "inhibitory": "it works against the answer, beyond δ",
    "watches": "it attends more when the object is there; its effect is shown to lie within ±δ",
    "inert": "its effect is shown to lie within ±δ",
    "undecided": "the interval is too wide to say either",
}
_MOST: Final = 12
"""Heads named in a sentence, and in the page's table: its table of all heads has the rest."""
_FEW: Final = 4
"""Partners named in a cell."""
_LAYER_P: Final = ("necessity_layer_p", "sufficiency_layer_p")
_FAITHFULNESS: Final = (
    "Only the first k heads of a ranking keep their z and all others are resampled, or the other "
    "way round. A ranking that finds the heads that decide rises early when they are kept and "
    "falls early when they are taken away."
)
_LAYER_P_NOTE: Final = (
    "Layer p (necessity / sufficiency): how often a head drawn at random from the same layer, anew "
    "in each pair, has as large a mean. It says whether the head stands out in its layer; the "
    "verdict does not rest on it."
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show a verdict; tables that an earlier version did not write are left out."""
    from headpatch.questions.verdict.summary import summarize

    table, saved = table_of(files[HEADS.file]), files.get("verdict.pt", {})
    curves = table_of(files.get(CURVES.file, {}))
    pairs = context.pairs or 0 if curves.empty else int(curves["pairs"].iloc[0])
    delta = float(context.options.get("delta", 0.02))
    yield from _classes(table, pairs, delta)
    if NULLS.file in files:
        yield from _nulls(table_of(files[NULLS.file]))
    yield from _heads(table, context, delta)
    if SETS.file in files:
        yield from _together(table_of(files[SETS.file]), table, context.level)
    shown: dict[str, Any] = {"level": context.level, "of": context.pairs}
    yield verdict_chart(table, delta=delta, pairs=pairs, rhos=saved, **shown)
    if not curves.empty:
        yield Words(_FAITHFULNESS, "page")
        yield _areas(curves)
        yield faithfulness_chart(curves, **shown)
    if {"rho", "true_rho"} <= set(saved):
        headline = summarize(table, saved, int(context.options["top"]), pairs)
        first, *lines = headline_words(headline, context)
        yield Words(first, "terminal", strong=True)
        yield from (Words(line, "terminal") for line in lines)


def _classes(table: "pandas.DataFrame", pairs: int, delta: float) -> Iterator[Part]:
    """Say how many heads are of each class, and what it says."""
    yield Words(
        f"Every head, judged over {pairs:,} pairs; δ = {delta:g} is the smallest effect of "
        "interest, as a share of the difference between the two answers.",
        "page",
    )
    counts = table["verdict"].value_counts()
    rows = [
        {"verdict": name, "count": f"{counts[name]:,}", "meaning": _MEANINGS.get(name, "")}
        for name in (*_MEANINGS, *(name for name in counts.index if name not in _MEANINGS))
        if name in counts
    ]
    cells: dict[str, str | Cell] = {"verdict": "verdict", "heads": lambda row: row["count"],
             "what it says": lambda row: row["meaning"]}  # fmt: skip
    yield grid("How many heads are of each class", rows, cells, HEADS, place="page")


def _nulls(table: "pandas.DataFrame") -> Iterator[Part]:
    """Show every null's figures, and say what a failed one means."""

    def tested(row: Row, name: str) -> str:
        return "" if row["outcome"] == "not tested" else NULLS[name].cell(row)

    cells: dict[str, str | Cell] = {
        "null": "null",
        "outcome": "outcome",
        "pairs": lambda row: tested(row, "pairs"),
        "value": lambda row: tested(row, "value"),
        "must be": "limit",
        "figure": lambda row: f"{row['figure']} ({row['note']})" if row["note"] else row["figure"],
    }
    table = table.assign(note=table["note"].fillna(""))
    yield Words(
        "What must come out as nothing, or as the same again, if the verdict is to be believed.",
        "page",
    )
    yield grid("Nulls", table, cells, NULLS, wrapped="figure")
    failed = sorted(set(table.loc[table["outcome"] == "failed", "null"]))
    if failed:
        yield Words(failed_words(failed), "terminal", strong=True)
        yield Words(failed_words(failed), "page")


def _heads(table: "pandas.DataFrame", context: Context, delta: float) -> Iterator[Part]:
    """Show the verdict of the heads that act, and of those that attention picks first."""
    from headpatch.questions.verdict.summary import by_effect, first_by_attention

    rows = by_effect(table).set_index("name", drop=False)
    acting = rows.index[rows["verdict"].isin(CAUSAL)]
    picked = first_by_attention(rows, int(context.options.get("top", 20)))
    shown, level = rows.loc[list(dict.fromkeys([*acting, *picked]))], f"{context.level:.0%}"
    cells: dict[str, str | Cell] = {
        "head": lambda row: row["name"],
        "verdict": "verdict",
        "attention (rank)": _attention,
        "necessity": "necessity",
        f"{level} interval": lambda row: _interval(row, "necessity"),
        "q": "necessity_q",
        "sufficiency": "sufficiency",
        f"its {level} interval": lambda row: _interval(row, "sufficiency"),
        "its q": "sufficiency_q",
    }
    if any(with_whom(value) for value in shown.get("partners", ())):
        cells["with"] = lambda row: with_whom(row["partners"])
    title = "Heads that act, and the first that attention picks"
    yield grid(title, shown, cells, HEADS, place="terminal")
    yield from _acting(rows.loc[acting], cells)
    note = (
        "Means over pairs, as a share of the LD difference between the runs; resampled at the "
        "positions of the study. A head is called after an effect whose interval lies beyond "
        f"±δ = {delta:g} and whose q (Benjamini-Hochberg, over all heads and both directions) is "
        f"below {1 - context.level:.2g}; 'watches' and 'inert' are shown to stay within ±δ by an "
        "equivalence test; neither: undecided."
    )
    partners = " with: partners together with which it is necessary." * ("with" in cells)
    yield Words(note + partners)


def _acting(acting: "pandas.DataFrame", cells: Mapping[str, str | Cell]) -> Iterator[Part]:
    """Show on the page the heads that act; its table of all heads has the others."""
    if acting.empty:
        return
    layer_p = all(name in acting and acting[name].notna().any() for name in _LAYER_P)
    if layer_p:
        cells = {**cells, "layer p": lambda row: " / ".join(f"{row[p]:.2g}" for p in _LAYER_P)}
    yield grid("Heads that are shown to act", acting.head(_MOST), cells, HEADS, place="page")
    if layer_p:
        yield Words(_LAYER_P_NOTE, "page")
    if len(acting) > _MOST:
        yield Words(f"And {len(acting) - _MOST:,} more, in the table of all heads.", "page")


def _attention(row: Row) -> str:
    return f"{HEADS['attention_diff'].cell(row)} ({row['attention_rank']:.0f})"


def _interval(row: Row, name: str) -> str:
    return f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}"


def with_whom(partners: object) -> str:
    """Name the partners of a redundant head; of many, say how many."""
    texts = partners.split(";") if isinstance(partners, str) else []
    sets = [text.split("+") for text in texts if text]
    return "; ".join("+".join(one) if len(one) <= _FEW else f"{len(one)} others" for one in sets)


def _together(sets: "pandas.DataFrame", table: "pandas.DataFrame", level: float) -> Iterator[Part]:
    """Show the sets of heads that do more together than alone, and what each of them adds."""
    kept = sets[sets["redundant"]]
    if kept.empty:
        yield Words(
            f"Sets of heads tested for doing more together than alone: {len(sets):,}; shown to do "
            "so: none."
        )
        return
    names = table["layer"].astype(str) + "." + table["head"].astype(str)
    verdicts = dict(zip(names, table["verdict"], strict=True))

    def alike(row: Row) -> str:
        members = row["heads"].split("+")
        return f"{sum(verdicts[name] == 'redundant' for name in members)} of {len(members)}"

    cells: dict[str, str | Cell] = {
        "heads": lambda row: row["heads"].replace("+", " + "),
        "necessity together": "joint",
        f"{level:.0%} interval": lambda row: _interval(row, "joint"),
        "least that one adds": "excess",
        f"its {level:.0%} interval": lambda row: _interval(row, "excess"),
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


def _areas(curves: "pandas.DataFrame") -> Grid:
    """Show the area under each faithfulness curve."""
    areas = {
        (row["ranking"], row["way"]): f"{row['area']:.3f} ({row['area_low']:.3f} to "
        f"{row['area_high']:.3f})"
        for row in curves.to_dict("records")
    }
    names = {name: RANKINGS[name][1] if name in RANKINGS else name for name in curves["ranking"]}
    rows = tuple(
        (words, areas[name, "keep"], areas[name, "remove"]) for name, words in names.items()
    )
    title = (
        "Faithfulness: area under the share of the LD difference that is left, over log2(k + 1)\n"
        "(a good ranking: near 1 when kept, near 0 when removed)"
    )
    headings = ("ranking", "keep the first k", "remove the first k")
    return Grid(title, headings, rows, (False, True, True))


def headline_words(facts: "Headline", context: Context) -> list[str]:
    """Say in words and numbers whether the heads that look decide; the first line asks it."""
    level, delta = context.level, context.options["delta"]
    lines = [
        "Do the heads that look decide?",
        f"Of the {len(facts.picked)} heads that attention picks out (on other pairs), "
        f"{_count(facts.picked_causal)} shown to act on the answer{_named(facts.picked_causal)}; "
        f"{_count(facts.picked_within)} shown to stay within ±{delta:.3g} of the LD difference; "
        f"{_count(facts.picked_undecided)} undecided.",
        f"Of all {facts.heads:,} heads, {_count(facts.causal)} shown to act"
        f"{_named(facts.causal)}. {_missed(facts.causal, facts.missed)}",
        f"Spearman's rho, over {facts.heads:,} heads, of attention difference and size of effect. "
        f"Of the means that were measured: {measured_words(vars(facts.rho), level)}. Of the true "
        f"values: {true_words(vars(facts.true_rho), level)}.",
    ]
    for first in facts.precision:
        lines.append(
            f"Precision@{first.k}: {first.hits} of the first {first.k} by attention are among the "
            f"{first.k} with the largest effects ({first.share:.0%}; chance {first.chance:.1%}, "
            f"p = {first.p:.2g})."
        )
    counts = ", ".join(f"{name} {count:,}" for name, count in facts.counts.items())
    return [*lines, f"Verdicts over {facts.pairs} pairs: {counts}."]


def _count(names: Sequence[str]) -> str:
    if not names:
        return "none is"
    return "1 is" if len(names) == 1 else f"{len(names)} are"


def _missed(causal: Sequence[str], missed: Sequence[str]) -> str:
    """Say which of the heads that act attention does not pick."""
    if not causal:
        return "That is no proof that none does: some may be undecided."
    if not missed:
        return "Attention picks all of them."
    if len(missed) == len(causal):
        return "Attention misses all of them."
    return f"Attention misses {len(missed)} of them{_named(missed)}."


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f" ({', '.join(names[:_MOST])}{more})"

"""What people see of a sweep: the largest effects, what estimates are worth, maps of all heads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.core.question import Context, Files, table_of
from headpatch.kinds import kind_label
from headpatch.present.column import UNDEFINED, Row, Schema
from headpatch.present.effects_view import (
    effect_cell,
    interval_cell,
    mean_effects_chart,
    means_words,
    unread_words,
)
from headpatch.present.panel import ASKED
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.questions.sweep import page_words
from headpatch.questions.sweep.charts import approx_chart, sets_chart, sweep_chart
from headpatch.questions.sweep.columns import EFFECTS, MEANS
from headpatch.questions.sweep.listing import extremes, named_rows, top, top_means, unlisted

if TYPE_CHECKING:
    import pandas

_TOWER: Final = (
    "Heads of the vision encoder changed, and what that does to the answer: shares of the "
    "difference between the two runs; 0 = nothing, 1 = all of it, negative = the other way."
)
_LEGEND: Final = (
    "effect: shift of LD in logits, of the kind that sorts. Other columns: effect as a share of "
    "the difference between the runs (0 = nothing, 1 = all of it, negative = the other way). In "
    "brackets: not above the noise floor, {floor:.1e} logits: the largest effect of patching with "
    "its own z, over {noise} of them drawn by the seed, or what sets the fast path apart from "
    "plain passes, if that is more."
)
_CAUTION: Final = (
    " The largest of many are listed, and the largest of many are partly lucky: `headpatch verdict`"
    " picks heads on one half of the pairs and judges them on the other."
)
_APPROX: Final = " approx: what gradients estimate of the effect."
_ESTIMATE: Final = (
    "Attribution patching estimates from gradients, to first order, what changing a head would do. "
    "The estimate is no substitute: a head with a large effect can have a small estimate, or one "
    "of the wrong sign. Top-{k} recall: the share of the {k} largest exact effects that are among "
    "the {k} largest estimates."
)
_OF_PAIRS: Final = {"": "mean of the pairs", "of_means_": "mean effects"}


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the largest effects of each direction, what estimates are worth, and maps."""
    saved = files["sweep.pt"]
    if saved.get("tower") == "vision":
        yield Words(_TOWER, "page")
    yield Words(page_words.where(saved), "page")
    if MEANS.file in files:
        means = table_of(files[MEANS.file])
        yield from _tables(means, partial(top_means, means), MEANS, means_words, context)
    elif context.pairs is None and EFFECTS.file in files:
        effects = table_of(files[EFFECTS.file])
        named = named_rows(effects)
        listed = partial(top, named, floor=context.noise_floor or 0.0)
        yield from _tables(named, listed, EFFECTS, partial(_legend, effects), context)
        if "attention_diff" in saved:
            yield Words(_correlations(saved))
    yield from _estimates(files.get("approx.pt"), saved, context)
    if "unread" in saved:
        yield Words(unread_words(**saved["unread"]))
    yield Words(page_words.counted(saved, context), "page")
    yield from _figures(files, context)


def _tables(
    table: "pandas.DataFrame",
    listed: Callable[..., list[dict[str, Any]]],
    schema: Schema,
    legend: Callable[[float, float], str],
    context: Context,
) -> Iterator[Part]:
    """Show the largest effects of heads or sets, then of whole layers.

    Parameters
    ----------
    table
        Named effects of one pair, or means.
    listed
        Gives the first rows of each direction, of heads or of layers.
    """
    floor, count = context.noise_floor or 0.0, int(context.options.get("top", 10))
    heads, layers = listed(count=count), listed(count=count, layers=True)
    for what, rows in (("heads", heads), ("layer", layers)):
        for direction in dict.fromkeys(row["direction"] for row in rows):
            own = [row for row in rows if row["direction"] == direction]
            yield _largest(own, what, context, schema)
    caution = _CAUTION if schema is MEANS else ""
    yield Words(f"{legend(context.level, floor)}{_APPROX * ('approx' in table)}{caution}")
    if others := unlisted(extremes(table, floor), heads):
        named = "; ".join(_named(row, floor) for row in others)
        yield Words(f"Largest of their kind and direction, in no table here: {named}.")


def correlation(
    attention: Float[np.ndarray, "layers heads"], effects: Float[np.ndarray, "layers heads"]
) -> float:
    """Spearman's rho between attention difference and |effect|; NaN where one of them is flat."""
    from scipy.stats import spearmanr

    sizes, looks = np.abs(effects).ravel().astype(np.float64), attention.ravel()
    if np.ptp(sizes) == 0 or np.ptp(looks) == 0:
        return nan
    return float(spearmanr(looks, sizes).statistic)


def _largest(
    rows: Sequence[Mapping[str, Any]], what: str, context: Context, schema: Schema
) -> Grid:
    """Show the largest effects of a direction, beside the attention rank."""
    first, floor = rows[0], context.noise_floor or 0.0
    kind, direction, mean = first["kind"], first["direction"], ""
    cells: dict[str, Any] = {
        "": lambda row: str(row["place"]),
        what: "heads",
        "effect": effect_cell(floor),
    }
    if "approx" in first:
        cells["approx"] = "approx"
    if schema is EFFECTS:
        kinds = [kind, *(one for one in first["normalized"] if one != kind)]
        cells |= {one: partial(_share_of, kind=one) for one in kinds}
        cells["answer"] = _answer
    else:
        mean = "mean "
        cells |= {
            "norm.": "normalized",
            f"{context.level:.0%} interval": interval_cell("normalized"),
            "answer changed": "answer_changed",
        }
    if any(row["attention_rank"] is not None for row in rows):
        cells["attention rank"] = _rank
    title = f"{direction} ({ASKED[direction]}): largest {mean}effects of {kind_label(kind, first)}"
    wrapped = what if max(len(row["heads"]) for row in rows) > 30 else None
    whole = ", whole layers" * (what == "layer")
    return grid(title + whole, rows, cells, schema, wrapped=wrapped)


def _share(value: float) -> str:
    return UNDEFINED if isnan(value) else f"{value:+.4f}"


def _share_of(row: Row, kind: str) -> str:
    return _share(row["normalized"][kind])


def _answer(row: Row) -> str:
    before, after = row["answer_before"], row["answer_after"]
    return f"{before} → {after}" if before != after else "same"


def _rank(row: Row) -> str:
    rank = row["attention_rank"]
    return "" if rank is None or isnan(rank) else f"{rank:.0f}"


def _legend(effects: "pandas.DataFrame", _level: float, floor: float) -> str:
    noise = effects.loc[effects["role"] == "noise floor", "heads"].nunique()
    return _LEGEND.format(floor=floor, noise=noise)


def _named(row: Mapping[str, Any], floor: float) -> str:
    effect, share = effect_cell(floor)(row), _share(row["normalized"])
    kind = kind_label(row["kind"], row)
    return f"{kind} {row['direction']} {row['heads']} {effect} (share {share})"


def _correlations(saved: Mapping[str, Any]) -> str:
    """Say how attention difference and effect go together on this pair."""
    attention = np.asarray(saved["attention_diff"], np.float64)
    listed = []
    for way, effects in saved["effect"].items():
        rho = correlation(attention, np.asarray(effects, np.float64))
        listed.append(f"{way.replace('_', ' ')} {UNDEFINED if isnan(rho) else f'{rho:+.2f}'}")
    return (
        "Spearman's rho between attention difference and |effect|, over the "
        f"{attention.size:,} heads of this pair: {'; '.join(listed)}. One pair and one model: this "
        "describes the pair, it tests nothing. Heads are not independent draws, so no p-value is "
        "given."
    )


def _estimates(
    saved: Mapping[str, Any] | None, swept: Mapping[str, Any], context: Context
) -> Iterator[Part]:
    """Show how estimates from gradients agree with the exact effects of the same run."""
    if saved is None:
        return
    agreement = saved["agreement"]
    if not agreement:
        yield Words("Attribution patching: fewer than two effects to compare with, nothing to say.")
        return
    what = "heads" if np.ndim(next(iter(saved["effect"].values()))) == 2 else "sets"
    first = next(iter(agreement.values()))
    pairs = int(first.get("pairs", 0))
    rows = [
        {"way": way.rpartition("_"), "of": of, "prefix": prefix, **figures}
        for way, figures in agreement.items()
        for prefix, of in (_OF_PAIRS if pairs else {"": ""}).items()
    ]
    yield _agreement(rows, what, pairs, context)
    note = (
        f"Intervals resample {what}, which are not independent draws: they show how far a figure "
        "hangs on a few of them."
    )
    if pairs:
        note = (
            f"mean of the pairs: each pair's own agreement, averaged over {pairs:,} pairs; mean "
            "effects: of the means over pairs. Intervals are over pairs."
        )
    yield Words(f"{note} {_ESTIMATE.format(k=first['k'])}")
    if farthest := page_words.farthest(saved, swept):
        yield Words(farthest)


def _agreement(rows: Sequence[Mapping[str, Any]], what: str, pairs: int, context: Context) -> Grid:
    def figure(name: str, form: str) -> Any:
        return lambda row: _number(row[f"{row['prefix']}{name}"], form)

    def interval(name: str, form: str) -> Any:
        return lambda row: _ends(row, f"{row['prefix']}{name}", form)

    first, level = rows[0], f"{context.level:.0%} interval"
    cells: dict[str, Any] = {
        "kind": lambda row: row["way"][0],
        "direction": lambda row: row["way"][2],
    }
    if pairs:
        cells["of"] = lambda row: row["of"]
    cells |= {
        "Pearson": figure("pearson", "+.2f"),
        level: interval("pearson", "+.2f"),
        "Spearman": figure("spearman", "+.2f"),
        f"top-{first['k']} recall": figure("top_recall", ".2f"),
    }
    if pairs:
        cells[f"recall's {level}"] = interval("top_recall", ".2f")
    cells["by chance"] = lambda row: f"{row['top_recall_chance']:.2f}"
    title = (
        f"Attribution patching (one backward pass{' a pair' * bool(pairs)}) against the exact "
        f"effects of {first['heads']:,} {what}"
    )
    return grid(title, rows, cells, EFFECTS)


def _number(value: float, form: str) -> str:
    return UNDEFINED if isnan(value) else f"{value:{form}}"


def _ends(row: Mapping[str, Any], name: str, form: str) -> str:
    """Return an interval, or nothing where there is none."""
    low, high = (row.get(f"{name}_{end}", nan) for end in ("low", "high"))
    return "" if isnan(low) else f"{low:{form}} to {high:{form}}"


def _figures(files: Files, context: Context) -> Iterator[Part]:
    saved, approx = files["sweep.pt"], files.get("approx.pt")
    if np.ndim(next(iter(saved["normalized"].values()))) == 2:
        yield page_words.largest(saved)
        yield sweep_chart(saved)
    else:
        yield sets_chart(saved)
    if approx is not None:
        yield approx_chart(approx, [str(name) for name in saved["heads"]])
    if MEANS.file in files:
        yield mean_effects_chart("mean_effects.png", table_of(files[MEANS.file]), context.level)

"""What people see of a sweep: the largest effects, what estimates are worth, maps of all heads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.core.question import Context, Files, table_of
from headpatch.kinds import first_of, kind_label, notes
from headpatch.present.canvas import signed
from headpatch.present.column import UNDEFINED, Row, Schema
from headpatch.present.effects_view import (
    answer_cell,
    changed_name,
    effect_cell,
    interval_cell,
    mean_effects_chart,
    means_words,
    unread_words,
)
from headpatch.present.panel import ASKED
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.present.ratio_words import ratio_words
from headpatch.present.section import said
from headpatch.questions.sweep import charts
from headpatch.questions.sweep.charts import Saved, every_head
from headpatch.questions.sweep.columns import EDGES, EFFECTS, IG, MEANS
from headpatch.questions.sweep.edges import edges_view
from headpatch.questions.sweep.listing import extremes, named_rows, top, top_means, unlisted
from headpatch.stats.rankings import descending

if TYPE_CHECKING:
    import pandas

_ON_PAGE: Final = 10
"""Heads in the page's table: those with the largest effects."""
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
_IG: Final = (
    " integrated: the mean gradient on the way between the two pictures, in {ig} steps (integrated "
    "gradients, EAP-IG of heads)."
)
_ESTIMATE: Final = (
    "Attribution patching estimates from gradients, to first order, what changing a head would do. "
    "The estimate is no substitute: a head with a large effect can have a small estimate, or one "
    "of the wrong sign. Top-{k} recall: the share of the {k} largest exact effects that are among "
    "the {k} largest estimates."
)
_OF_PAIRS: Final = {"": "mean of the pairs", "of_means_": "mean effects"}


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the largest effects of each direction, what estimates are worth, and maps."""
    saved, approx = files["sweep.pt"], files.get("approx.pt")
    if saved.get("tower") == "vision":
        yield Words(_TOWER, "page")
    yield Words(_where(saved), "page")
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
    if note := notes(context.options.get("kinds", ())):
        yield Words(note)
    if approx is not None:
        yield from _estimates(approx, saved, context)
    if EDGES.file in files:
        yield from edges_view(table_of(files[EDGES.file]), context)
    if "unread" in saved:
        yield Words(unread_words(**saved["unread"]))
    yield Words(_counted(saved, context), "page")
    if every_head(saved):
        yield _largest_of_all(saved)
        yield charts.sweep_chart(saved)
    else:
        yield charts.sets_chart(saved)
    if approx is not None:
        yield charts.approx_chart(approx, [str(name) for name in saved["heads"]])
    if MEANS.file in files:
        yield mean_effects_chart("mean_effects.png", table_of(files[MEANS.file]), context.level)


# Tables of the largest effects


def _tables(
    table: "pandas.DataFrame",
    listed: Callable[..., list[dict[str, Any]]],
    schema: Schema,
    legend: Callable[[float, float], str],
    context: Context,
) -> Iterator[Part]:
    """Show the largest effects of one pair, or means: of heads or sets, then of whole layers."""
    floor, count = context.noise_floor or 0.0, int(context.options.get("top", 10))
    heads, layers = listed(count=count), listed(count=count, layers=True)
    for what, rows in (("heads", heads), ("layer", layers)):
        for direction in dict.fromkeys(row["direction"] for row in rows):
            own = [row for row in rows if row["direction"] == direction]
            yield _largest(own, what, context, schema)
    caution = _CAUTION if schema is MEANS else ""
    yield Words(f"{legend(context.level, floor)}{_APPROX * ('approx' in table)}{caution}")
    if schema is MEANS and (words := ratio_words([*heads, *layers], changed_name, floor)):
        yield Words(words)
    if others := unlisted(extremes(table, floor), heads):
        named = "; ".join(_named(row, floor) for row in others)
        by = kind_label(first_of(set(table["kind"])), heads[0])
        yield Words(
            "The largest effects of their kind and direction that are not listed above, since the "
            f"tables are sorted by {by}: {named}."
        )


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
    cells |= {name.replace("_", " "): name for name in ("approx", "approx_ig") if name in first}
    if schema is EFFECTS:
        kinds = [kind, *(one for one in first["normalized"] if one != kind)]
        cells |= {one: partial(_share_of, kind=one) for one in kinds}
        cells["answer"] = answer_cell
    else:
        mean = "mean "
        cells |= {
            "normalized": "normalized",
            f"{context.level:.0%} interval": interval_cell("normalized"),
            "answer changed": "answer_changed",
        }
    if any(row["attention_rank"] is not None for row in rows):
        cells["attention rank"] = lambda row: _number(
            float(row["attention_rank"] or nan), ".0f", ""
        )
    title = f"{direction} ({ASKED[direction]}): largest {mean}effects of {kind_label(kind, first)}"
    wrapped = what if max(len(row["heads"]) for row in rows) > 30 else None
    whole = ", whole layers" * (what == "layer")
    return grid(title + whole, rows, cells, schema, wrapped=wrapped)


def _number(value: float, form: str, unknown: str = UNDEFINED) -> str:
    return unknown if isnan(value) else f"{value:{form}}"


def _share_of(row: Row, kind: str) -> str:
    return _number(row["normalized"][kind], "+.4f")


def _legend(effects: "pandas.DataFrame", _level: float, floor: float) -> str:
    noise = effects.loc[effects["role"] == "noise floor", "heads"].nunique()
    return _LEGEND.format(floor=floor, noise=noise)


def _named(row: Mapping[str, Any], floor: float) -> str:
    effect, share = effect_cell(floor)(row), _number(row["normalized"], "+.4f")
    kind = kind_label(row["kind"], row)
    return f"{kind} {row['direction']} {row['heads']} {effect} (share {share})"


def correlation(
    attention: Float[np.ndarray, "layers heads"], effects: Float[np.ndarray, "layers heads"]
) -> float:
    """Spearman's rho between attention difference and |effect|; NaN where one of them is flat."""
    from scipy.stats import spearmanr

    sizes, looks = np.abs(effects).ravel().astype(np.float64), attention.ravel()
    if np.ptp(sizes) == 0 or np.ptp(looks) == 0:
        return nan
    return float(spearmanr(looks, sizes).statistic)


def _correlations(saved: Saved) -> str:
    """Say how attention difference and effect go together on this pair."""
    attention = np.asarray(saved["attention_diff"], np.float64)
    listed = []
    for way, effects in saved["effect"].items():
        rho = correlation(attention, np.asarray(effects, np.float64))
        listed.append(f"{way.replace('_', ' ')} {_number(rho, '+.2f')}")
    return (
        "Spearman's rho between attention difference and |effect|, over the "
        f"{attention.size:,} heads of this pair: {'; '.join(listed)}. One pair and one model: this "
        "describes the pair, it tests nothing. Heads are not independent draws, so no p-value is "
        "given."
    )


# Estimates from gradients


def _estimates(approx: Saved, swept: Saved, context: Context) -> Iterator[Part]:
    """Show how estimates from gradients agree with the exact effects of the same run."""
    agreement = approx["agreement"]
    if not agreement:
        yield Words("Attribution patching: fewer than two effects to compare with, nothing to say.")
        return
    what = "heads" if every_head(approx, "effect") else "sets"
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
    ig = context.options.get("ig")
    more = "" if ig is None else _IG.format(ig=ig)
    yield Words(f"{note} {_ESTIMATE.format(k=first['k'])}{more}")
    if farthest := _farthest(approx, swept):
        yield Words(farthest)


def _agreement(rows: Sequence[Mapping[str, Any]], what: str, pairs: int, context: Context) -> Grid:
    def figure(name: str, form: str) -> Any:
        return lambda row: _number(row[f"{row['prefix']}{name}"], form)

    def interval(name: str, form: str) -> Any:
        """Show an interval, or nothing where there is none."""

        def cell(row: Row) -> str:
            low, high = (row.get(f"{row['prefix']}{name}_{end}", nan) for end in ("low", "high"))
            return "" if isnan(low) else f"{low:{form}} to {high:{form}}"

        return cell

    first, level = rows[0], f"{context.level:.0%} interval"
    cells: dict[str, Any] = {
        "kind": lambda row: row["way"][0].replace(IG, " (integrated)"),
        "direction": lambda row: row["way"][2],
        **({"of": lambda row: row["of"]} if pairs else {}),
        "Pearson": figure("pearson", "+.2f"),
        level: interval("pearson", "+.2f"),
        "Spearman": figure("spearman", "+.2f"),
        f"top-{first['k']} recall": figure("top_recall", ".2f"),
        **({f"recall's {level}": interval("top_recall", ".2f")} if pairs else {}),
        "by chance": lambda row: f"{row['top_recall_chance']:.2f}",
    }
    title = (
        f"Attribution patching (one backward pass{' a pair' * bool(pairs)}) against the exact "
        f"effects of {first['heads']:,} {what}"
    )
    return grid(title, rows, cells, EFFECTS)


def _farthest(approx: Saved, swept: Saved) -> str:
    """Name the head whose estimate lies farthest from its exact effect, over all ways."""
    both = charts.sides(approx)
    gaps = {way: np.nan_to_num(np.abs(b - a)).ravel() for way, (a, b) in both.items()}
    way = max(gaps, key=lambda way: gaps[way].max(initial=0.0))
    if not gaps[way].any():
        return ""
    flat = int(gaps[way].argmax())
    exact, estimated = (signed(float(side.flat[flat]), 3) for side in both[way])
    return (
        f"Farthest apart: {swept['heads'][flat]} ({way.replace('_', ', ')}), exact {exact} logits, "
        f"estimated {estimated}."
    )


# What the page says beside its charts


def _where(saved: Saved) -> str:
    """Say what was changed, on how many pairs, and at which positions."""
    count, vision = len(saved["heads"]), saved.get("tower") == "vision"
    what = "vision heads" if vision else "heads"
    if not every_head(saved):
        what = f"sets of {what}"
    pairs = len(saved.get("pair_names", ()))
    over = f"means over {pairs:,} pairs" if pairs else "this pair"
    tokens = " tokens of the tower" if vision else ""
    return f"{count:,} {what}, {over}; z changed at: {saved['positions']}{tokens}."


def _counted(saved: Saved, context: Context) -> str:
    """Say how many effects are above the noise floor, and what unread vision layers do."""
    floor, pairs = float(saved["noise_floor"]), len(saved.get("pair_names", ()))
    effects = [np.asarray(one, np.float64) for one in saved["effect"].values()]
    above = sum(int((np.abs(one) > floor).sum()) for one in effects)
    text = (
        f"{above:,} of {sum(one.size for one in effects):,} effects rise above the noise floor "
        f"({_size(floor)} logits). "
    )
    feature = saved.get("feature_layer")
    if every_head(saved) and feature is not None and feature + 1 < len(effects[0]):
        past = max(float(np.nanmax(np.abs(one[feature + 1 :]), initial=0.0)) for one in effects)
        text += (
            f"The language model reads layer {feature}: later layers (past the dashed line) cannot "
            f"reach the answer; the largest effect there is {_size(past)} logits. "
        )
    return text + ("These are means without a test." if pairs else context.caveat)


def _size(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _largest_of_all(saved: Saved) -> Grid:
    """List the heads with the largest effects of any kind and direction."""
    maps = {way: np.asarray(one, np.float64) for way, one in saved["normalized"].items()}
    size = np.abs(np.stack([np.nan_to_num(one) for one in maps.values()])).max(0)
    tower = "v" if saved.get("tower") == "vision" else ""
    rows = tuple(
        (
            "{}{}.{}".format(tower, *divmod(int(flat), size.shape[1])),
            *(said(one.flat[flat], 4) for one in maps.values()),
        )
        for flat in descending(size)[:_ON_PAGE]
    )
    headings = ("head", *(way.replace("_", ", ") for way in maps))
    return Grid("The largest effects of any kind and direction (shares of the difference)",
                headings, rows, (False, *[True] * len(maps)), place="page")  # fmt: skip

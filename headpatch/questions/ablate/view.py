"""What people see of changed heads: words, tables and charts."""

from collections.abc import Iterator, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from headpatch.core.question import Context, Files, table_of
from headpatch.heads import Selection, abridged
from headpatch.kinds import KINDS, REWEIGHTED, first_of, notes
from headpatch.present.canvas import GREY, check_columns, signed
from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Row, Schema
from headpatch.present.effects_view import (
    MOST_ROWS,
    answer_cell,
    changed_at,
    changed_name,
    control_cell,
    effect_cell,
    effect_series,
    effects_chart,
    interval_cell,
    kind_cell,
    mean_effects_chart,
    means_words,
    row_names,
    unread_words,
)
from headpatch.present.panel import Guide, Look, Series
from headpatch.present.parts import Grid, Part, Words, grid
from headpatch.present.ratio_words import ratio_words
from headpatch.questions.ablate.columns import DOSES, DOSES_MEAN, EFFECTS, MEANS
from headpatch.questions.ablate.dose_view import dose_parts, dosed

if TYPE_CHECKING:
    import pandas

FILE: Final = "head_effects.png"
MOST_HEADS: Final = 40  # as many fit a page: those with the largest effects are shown
_ANSWERS: Final = tuple(  # what a filled and a hollow marker mean, for the legend
    Series(name, np.zeros(0), np.zeros(0), look=Look(GREY, hollow=hollow), mark="points")
    for name, hollow in (("answer changed", False), ("answer kept", True))
)


def named_effects_chart(effects: "pandas.DataFrame") -> Chart:
    """Show the normalized effect of every head and joint set, by kind and direction.

    Behind each effect lies the band of the same intervention on random heads of the same layers
    (mean, and one standard deviation either side) and, around 0, what patching heads with their own
    z does. A filled marker says that the first answer token changed.
    """
    needed = ("heads", "kind", "direction", "normalized", "role", "control_mean", "control_sd")
    check_columns(effects, (*needed, "answer_before", "answer_after"), "effects")
    table = effects.assign(row=row_names(effects))
    named = table[table["role"].isin(["head", "joint"])]
    if named.empty:
        raise ValueError("effects hold no row with the role 'head' or 'joint'")
    floor = float(table.loc[table["role"] == "noise floor", "normalized"].abs().max())
    own = Guide("x", -floor, floor, f"patched with own z (±{floor:.1g})", hatch="xxxx")
    return effects_chart(
        "effects",
        FILE,
        f"Effect of the intervention on the Yes/No answer{changed_at(named)}",
        named,
        _series,
        MOST_HEADS,
        guides=[own] if np.isfinite(floor) else [],
        room=0.36,  # for the printed values
    )


def _series(look: Look, rows: "pandas.DataFrame") -> list[Series]:
    mean, sd = (rows[name].to_numpy(np.float64) for name in ("control_mean", "control_sd"))
    half = np.nan_to_num(sd)
    kept = rows["answer_before"].astype(str) == rows["answer_after"].astype(str)
    texts = [_label(value) if np.isfinite(value) else "" for value in rows["normalized"]]
    chance = mean, mean - half, mean + half
    marks = {"hollow": kept.to_numpy(), "texts": texts}
    return [effect_series(rows, look, chance, "random heads, mean ± SD", **marks), *_ANSWERS]


def _label(value: float) -> str:
    """Two digits after the point, or the order of magnitude of what would read as 0.00."""
    if value and abs(value) < 0.005:
        return f"{value:+.0e}".replace("e-0", "e-").replace("-", "−")
    return signed(value, 2)


_TABLES: Final = 20  # sets whose tables the terminal shows
_CHANCE: Final = (
    "random heads: the same, mean ± sd over other heads of the same layers; p: two-sided rank of "
    "the effect among them"
)
Cells: TypeAlias = dict[str, str | Cell]


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show what each intervention did, beside random heads of the same layers."""
    many = MEANS.file in files
    schema = MEANS if many else EFFECTS
    table = table_of(files[schema.file])
    named = table[table["role"].isin(["head", "joint"])].reset_index(drop=True)
    if named.empty:
        return
    floor = context.noise_floor or 0.0
    yield from _means(named, context, floor) if many else _one_pair(named, context, floor)
    if note := notes(set(named["kind"])):
        yield Words(note)
    if (unread := context.facts.get("unread")) is not None:
        yield Words(unread_words(**unread))
    yield _page_words(named, context)
    of_doses = (DOSES_MEAN if many else DOSES).file
    one_dose = table
    if of_doses in files:
        yield from dose_parts(table_of(files[of_doses]), named, context)
        one_dose = table[~table["kind"].isin(dosed(named))]
    if one_dose["role"].isin(["head", "joint"]).any():
        yield (
            mean_effects_chart(FILE, one_dose, context.level)
            if many
            else named_effects_chart(one_dose)
        )
    yield _page_table(named, schema)


def summary(named: "pandas.DataFrame", context: Context) -> str:
    """Say what the last of the named rows of one pair show, in one line and no more than that."""
    last = named[named["heads"] == named["heads"].iloc[-1]]
    kind = first_of(set(last["kind"]))
    last = last[last["kind"] == kind]
    if KINDS[kind].alpha:  # of several doses the one that changes most
        far = (last["alpha"] - KINDS[kind].neutral).abs()
        last = last[last["alpha"] == last.loc[far.idxmax(), "alpha"]]
    floor = context.noise_floor or 0.0
    parts = "; ".join(_effect(row, floor) for row in last.to_dict("records"))
    heads, positions = (last[name].iloc[0] for name in ("heads", "positions"))
    factor = _factor(last.iloc[0].to_dict()) if KINDS[kind].alpha else ""
    return f"{KINDS[kind].doing} {abridged(heads)}{factor} ({positions}): {parts}. {context.caveat}"


def _factor(row: Mapping[Any, Any]) -> str:
    if row["kind"] in REWEIGHTED:
        return f" to the {row['toward']} by {1 + row['alpha']:g}"
    return f" by {row['alpha']:g}"


def _effect(row: Mapping[Any, Any], floor: float) -> str:
    if abs(row["effect"]) <= floor:
        words = f"{row['direction']} does not move LD beyond the noise floor"
    else:
        share = f"{row['normalized']:+.1%} of the difference between the runs"
        if isnan(row["normalized"]):
            share = "the two runs have the same LD, so it is no share of a difference"
        elif row["control_n"] > 1:
            mean, sd = row["control_mean"], row["control_sd"]
            share += f"; random heads of the same layers {mean:+.1%} ± {sd:.1%}"
        words = f"{row['direction']} moves LD by {row['effect']:+.3f} logits ({share})"
    changed = row["answer_before"] != row["answer_after"]
    return f"{words}; the answer {'becomes' if changed else 'stays'} {row['answer_after']!r}"


def _one_pair(named: "pandas.DataFrame", context: Context, floor: float) -> Iterator[Part]:
    first, places = named.iloc[0], list(named["positions"].unique())
    yield Words(
        f"Effect on LD = logit(Yes) - logit(No); positions: {', '.join(places)}; "
        f"LD with {first['ld_with']:+.3f}, without {first['ld_without']:+.3f}",
        strong=True,
    )
    cells: Cells = {
        "kind": kind_cell,
        "direction": "direction",
        "LD": "ld",
        "effect": effect_cell(floor),
        "normalized": "normalized",
        "random heads": control_cell,
        "p": _p,
        "answer": answer_cell,
    }
    yield from _tables(named, cells, EFFECTS)
    yield Words(
        "normalized: effect as a share of the difference between the runs (0 = nothing, 1 = all of "
        f"it, negative = the other way). {_CHANCE}{_least_p(named)}. Effects "
        f"below the noise floor ({floor:.1e} logits) are in brackets.",
        "terminal",
    )
    yield Words(summary(named, context))


def _means(named: "pandas.DataFrame", context: Context, floor: float) -> Iterator[Part]:
    cells: Cells = {
        "kind": kind_cell,
        "direction": "direction",
        "effect": effect_cell(floor),
        "normalized": "normalized",
        f"{context.level:.0%} interval": interval_cell("normalized"),
        "random heads": control_cell,
        **({"p": _p} if "control_p" in named else {}),
        "answer changed": "answer_changed",
    }
    yield from _tables(named, cells, MEANS)
    chance = f" {_CHANCE}{_least_p(named)}." if "control_p" in named else ""
    yield Words(means_words(context.level, floor) + chance, "terminal")
    if words := ratio_words(named.to_dict("records"), changed_name, floor):
        yield Words(words)
    if Selection.parse(context.options.get("heads", "")).needs_ranking:
        yield Words("These heads were picked by their attention on the same pairs.")


def _tables(named: "pandas.DataFrame", cells: Cells, schema: Schema) -> Iterator[Part]:
    """Show a table a set: of many sets those with the largest effects, and the last, of all."""
    several = named["positions"].nunique() > 1
    largest = named["normalized"].abs().groupby(named["heads"], sort=False).max()
    shown = {*largest.nlargest(_TABLES - 1).index, named["heads"].iloc[-1]}
    if (left_out := len(largest) - len(shown)) > 0:
        yield Words(f"{left_out:,} heads with smaller effects stand in {schema.file}.", "terminal")
    for heads, rows in named[named["heads"].isin(shown)].groupby("heads", sort=False):
        name = abridged(str(heads))
        at = f" ({rows['positions'].iloc[0]})" if several else ""
        title = name if len(name) < 60 else name.replace("+", " + ")  # a long set may wrap
        title = f"{'heads' if '+' in name else 'head'} {title}{at}"
        yield grid(title, rows, cells, schema, place="terminal")


def _p(row: Row) -> str:
    value = row.get("control_p", np.nan)
    return "" if isnan(value) else f"{value:.2f}"


def _least_p(named: "pandas.DataFrame") -> str:
    """Say below which p no effect can come, however large it is."""
    counts = named["control_n"].max() if "control_n" in named else 0
    return f", never below 2/({counts:.0f} + 1) = {2 / (counts + 1):.2g}" if counts > 0 else ""


def _page_words(named: "pandas.DataFrame", context: Context) -> Words:
    bars = "; bars are intervals over pairs" if context.pairs is not None else ""
    has_p = "control_p" in named
    p = f"; p is the two-sided rank among them{_least_p(named)}" if has_p else ""
    most = MOST_HEADS if context.pairs is None else MOST_ROWS
    left_out = named["heads"].nunique() - most
    cut = f" The figures leave out {left_out} sets with smaller effects." if left_out > 0 else ""
    return Words(
        f"Effects of heads that were named, alone and together{changed_at(named)}. 0 = nothing, 1 "
        "= the other run's answer. Beside each, in grey, the same change of random heads of the "
        f"same layers{bars}{p}.{cut}",
        "page",
    )


def _page_table(named: "pandas.DataFrame", schema: Schema) -> Grid:
    several = named["positions"].nunique() > 1
    cells: Cells = {
        "Heads": lambda row: row["heads"].replace("+", " + ") + f" ({row['positions']})" * several,
        "Kind": kind_cell,
        "Direction": "direction",
        "Logits": lambda row: signed(row["effect"], 4),
        "Normalized": _share,
        "Random heads": _page_controls,
    }
    if "control_p" in named:
        cells["p, not corrected for the number of heads"] = _p
    if schema is MEANS:
        cells["Answer changed"] = "answer_changed"
    else:
        cells["Answer"] = answer_cell
    return grid("The numbers", named, cells, schema, place="page")


def _share(row: Row) -> str:
    if isnan(row["normalized"]):
        return "undefined"
    text = signed(row["normalized"], 4)
    low, high = row.get("normalized_low", np.nan), row.get("normalized_high", np.nan)
    return text if isnan(low) else f"{text} [{signed(low, 4)}, {signed(high, 4)}]"


def _page_controls(row: Row) -> str:
    mean, sd = row["control_mean"], row.get("control_sd", np.nan)
    if isnan(mean):
        return ""
    return signed(mean, 4) + ("" if isnan(sd) else f" ± {sd:.4f}")

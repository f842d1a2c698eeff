"""Charts of looking against deciding, what a ranking's first heads carry; rho in words."""

from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.core.measures import MEASURES, words_of
from headpatch.present.canvas import BLUE, GREEN, GREY, ORANGE, VERMILLION, check_columns, signed
from headpatch.present.chart import Chart
from headpatch.present.panel import Guide, Look, Panel, Scale, Series
from headpatch.present.parts import Grid
from headpatch.stats.verdict_labels import CAUSAL

if TYPE_CHECKING:
    import pandas

CLASSES: Final = {
    "necessary+sufficient": Look(VERMILLION, "o", size=4.0, width=0.6),
    "necessary": Look(VERMILLION, "^", size=4.0, width=0.6),
    "sufficient": Look(VERMILLION, "v", size=4.0, width=0.6),
    "redundant": Look(GREEN, "D", size=4.0, width=0.6),
    "inhibitory": Look("#CC79A7", "s", size=4.0, width=0.6),  # Okabe and Ito's purple
    "mixed": Look("#B8860B", "P", size=4.5, width=0.6),
    "watches": Look(BLUE, "o", size=4.0, width=0.6),
    "looks away": Look("#56B4E9", "o", size=4.0, width=0.6),  # Okabe and Ito's sky blue
    "inert": Look("#BFBFBF", ".", size=3.0, width=0.6),
    "undecided": Look(ORANGE, "x", size=4.0, width=0.6),
}
"""Look of each class, in the order of the legend."""
LOOKING: Final = 4
"""Heads named because attention picks them first; those that are shown to act are all named."""
RANKINGS: Final = {
    "attention": (Look(BLUE, "o"), "attention difference"),
    "raw": (Look("#56B4E9", "v"), MEASURES["raw"].ranking),
    "entropy": (Look("#CC79A7", "P"), MEASURES["entropy"].ranking),
    "localization": (Look("#B8860B", "X"), MEASURES["localization"].ranking),
    "text-image": (Look("#7A4FBF", "<"), MEASURES["text-image"].ranking),
    "effect": (Look(VERMILLION, "^"), "exact effect"),
    "attribution": (Look(ORANGE, "s"), "attribution (estimated effect)"),
    "context": (Look(GREEN, "D"), "context: what a head adds once others are gone"),
    "random": (Look(GREY, ".", ":"), "random"),
}
"""Look and words of each ranking."""
_TABLE: Final = Look("#262626", ">")  # a ranking by a table of scores
_WORDS: Final = {
    "redundant": "redundant: necessary only together with others",
    "mixed": "mixed: acts on pairs in ways that the mean hides",
}
"""Words of the legend, where the class alone says too little."""
_PANELS: Final = {"necessity": "Necessity (noising)", "sufficiency": "Sufficiency (denoising)"}
_WAYS: Final = {
    "keep": "Only the first k keep their z (more is better)",
    "remove": "The first k are resampled (less is better)",
}


def head_names(table: "pandas.DataFrame") -> "pandas.Series[str]":
    """Name the heads of ``verdicts.csv``, as 24.17."""
    return table["layer"].astype(str) + "." + table["head"].astype(str)


def verdict_chart(
    verdicts: "pandas.DataFrame",
    *,
    delta: float,
    level: float,
    pairs: int,
    of: int | None = None,
    rhos: Mapping[str, Any] | None = None,
    ranking: str = "attention",
) -> Chart:
    """Show every head's mean attention difference against its mean effect, a panel a direction.

    Heads were judged on `pairs`, `of` so many in all, if that is known; `rhos` is ``verdict.pt``,
    for what it says of the correlation. The vertical axis is linear within ±δ and logarithmic
    beyond. Named heads carry their interval.
    """
    needed = {"layer", "head", "verdict", "attention_diff", "attention_rank"}
    needed |= {f"{name}{end}" for name in _PANELS for end in ("", "_low", "_high")}
    check_columns(verdicts, needed, "verdicts")
    if verdicts.empty:
        raise ValueError("verdicts hold no head")
    table = verdicts[verdicts["attention_diff"].notna()]
    first = table["attention_rank"].rank(method="first") <= LOOKING
    table = table.assign(name=head_names(table), written=table["verdict"].isin(CAUSAL) | first)
    size = table[list(_PANELS)].abs().max(axis=1)  # those that act most come first
    table = table.loc[size.sort_values(ascending=False, kind="stable").index]
    panels = [_panel(table, name, title, delta) for name, title in _PANELS.items()]
    acting = table.loc[table["verdict"].isin(CAUSAL), "name"]
    correlation = ""
    if rhos and {"rho", "true_rho"} <= set(rhos):  # results of earlier versions lack them
        correlation = (
            " Spearman's rho, over heads, of attention difference and size of effect: of the means "
            f"shown {measured_words(rhos['rho'], level)}; of the true values "
            f"{true_words(rhos['true_rho'], level)}."
        )
    return Chart(
        "verdict",
        "verdict.png",
        f"Looking against deciding: {len(table):,} heads, {judging(pairs, of)}",
        panels,
        f"Effect: share of the LD difference between the runs. Grey band: ±δ = {delta:g}, the "
        "smallest effect of interest; linear inside, logarithmic beyond. Named: every head that "
        f"is shown to act, and the first of {_ranking(ranking)}; bars: {level:.0%} intervals "
        f"over pairs.{correlation}",
        [f"Shown to act: {', '.join(acting) or 'none'}"] * len(panels),
        columns=2,
        heights=[2.9],
    )


def _ranking(name: str) -> str:
    return "the attention ranking" if name == "attention" else words_of(name).picker


def _panel(table: "pandas.DataFrame", name: str, title: str, delta: float) -> Panel:
    """Show one direction, a series a class."""
    classes = [one for one in CLASSES if (table["verdict"] == one).any()]
    series = [_class(table, one, name) for one in classes]
    guides = [Guide("y", -delta, delta), Guide("x", 0.0)]
    return Panel(title, series, "Attention difference, with − without", "Mean normalized effect",
                 y_scale=Scale("beyond", delta), guides=guides)  # fmt: skip


def _class(table: "pandas.DataFrame", verdict: str, name: str) -> Series:
    """Return the heads of one class."""
    rows = table[table["verdict"] == verdict]
    x, y, low, high = (
        rows[column].to_numpy(np.float64)
        for column in ("attention_diff", name, f"{name}_low", f"{name}_high")
    )
    written = rows["written"].to_numpy(bool)
    low, high = (np.where(written, end, np.nan) for end in (low, high))
    hover = [
        f"{head}, {verdict}: attention {signed(look, 3)}, effect {signed(effect, 4)}"
        for head, look, effect in zip(rows["name"], x, y, strict=True)
    ]
    label = f"{_WORDS.get(verdict, verdict)} ({len(rows):,})"
    return Series(label, x, y, low, high, look=CLASSES[verdict], mark="points", hover=hover,
                  labels=rows["name"].where(written, "").tolist())  # fmt: skip


def judging(pairs: int, of: int | None) -> str:
    """Say how many pairs judge, and of how many."""
    if of is None or of == pairs:
        return f"means over {pairs:,} pairs"
    return f"{of:,} pairs, {pairs:,} of them judge"


def faithfulness_chart(curves: "pandas.DataFrame", *, level: float, of: int | None = None) -> Chart:
    """Show the share of the LD difference that is left, over the number of heads."""
    needed = {"ranking", "way", "k", "share", "share_low", "share_high", "area", "draws", "pairs"}
    check_columns(curves, needed, "curves")
    if curves.empty:
        raise ValueError("there is no curve")
    draws = int(curves.loc[curves["ranking"] == "random", "draws"].max())
    return Chart(
        "faithfulness",
        "faithfulness.png",
        f"What the first k heads of a ranking carry; {judging(int(curves['pairs'].iloc[0]), of)}",
        [_curves(curves[curves["way"] == way], words) for way, words in _WAYS.items()],
        "0 = the without-run's answer, 1 = the with-run's. Rankings were made on other pairs; "
        f"random: mean of {draws}. Bands: {level:.0%} intervals over pairs. Area: under the curve "
        "over log2(k + 1), scaled to 0 to 1.",
        ["The areas under the curves are in the table"] * len(_WAYS),
        columns=2,
        heights=[2.1],
    )


def _curves(curves: "pandas.DataFrame", title: str) -> Panel:
    """Show one way, a line a ranking, with the areas under them."""
    series, areas = [], []
    there = list(curves["ranking"].unique())
    for ranking in [*(name for name in RANKINGS if name in there), *(set(there) - {*RANKINGS})]:
        look, label = RANKINGS.get(ranking, (_TABLE, f"scores of {ranking}"))
        rows = curves[curves["ranking"] == ranking]
        columns = ("k", "share", "share_low", "share_high")
        x, y, low, high = (rows[column].to_numpy(np.float64) for column in columns)
        series.append(Series(label, x, y, low, high, look=look))
        areas.append(f"{ranking}\N{NO-BREAK SPACE}{rows['area'].iloc[0]:.2f}")
    return Panel(title, series, "k heads", "Share of the LD difference left",
                 x_scale=Scale("counts"), guides=[Guide("y", 1.0)],
                 note=f"Area: {', '.join(areas)}")  # fmt: skip


def faithfulness_areas(curves: "pandas.DataFrame") -> Grid:
    """Show the areas under each faithfulness curve, as far as the table has them."""
    columns = [("area", "keep", "keep the first k"), ("area", "remove", "remove the first k")]
    columns += [(name, "keep", name.upper()) for name in ("cpr", "cmd") if name in curves]
    first = curves.groupby(["ranking", "way"], sort=False).first().to_dict("index")

    def shown(ranking: str, name: str, way: str) -> str:
        ends = [f"{first[ranking, way][f'{name}{end}']:.3f}" for end in ("", "_low", "_high")]
        return f"{ends[0]} ({ends[1]} to {ends[2]})"

    rows = tuple(
        (RANKINGS.get(name, (None, name))[1], *(shown(name, of, way) for of, way, _ in columns))
        for name in curves["ranking"].unique()
    )
    title = (
        "Faithfulness: area under the share of the LD difference that is left, over log2(k + 1)\n"
        "(a good ranking: near 1 when kept, near 0 when removed)"
    )
    if len(columns) > 2:
        title += (
            "\nCPR, CMD: of MIB (Mueller et al. 2025), for circuits of heads at the study's "
            "positions\n(over the share of heads kept; a good ranking: near 1, near 0)"
        )
    headings = ("ranking", *(heading for *_, heading in columns))
    return Grid(title, headings, rows, (False, *(True for _ in columns)))


def measured_words(rho: Mapping[str, float], level: float) -> str:
    """Say the rho of the means that were measured, a `headpatch.stats.rankings.Correlation`."""
    if isnan(rho["rho"]):
        return "undefined, one of them does not vary"
    return (
        f"{rho['rho']:+.2f} ({level:.0%} interval over pairs {_ends(rho)}; errors scramble ranks, "
        "which mostly pulls it to 0)"
    )


def true_words(rho: Mapping[str, Any], level: float) -> str:
    """Say the rho of true values, or why it cannot be told, and how reliable the rankings are.

    `rho`: the fields of `headpatch.stats.disattenuated_rank_correlation.TrueCorrelation`.
    """
    # with scipy: a ranking's figures do without
    from headpatch.stats.disattenuated_rank_correlation import LEAST

    words = f"{rho['rho']:+.2f} ({level:.0%} interval {_ends(rho)})"
    if rho["untold"]:
        words = f"cannot be told, {rho['untold']}"
    if isnan(rho["looks_reliability"]):
        return words
    needed = f"; {LEAST:g} is needed" if rho["untold"] else ""
    return (
        f"{words}; reliability of the rankings: {rho['looks_reliability']:.2f} (attention) and "
        f"{rho['effects_reliability']:.2f} (effect){needed}"
    )


def _ends(rho: Mapping[str, Any]) -> str:
    return f"{rho['low']:+.2f} to {rho['high']:+.2f}"

"""What a verdict says, for a terminal: nulls, the headline, the named heads."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.tables import failed_words, plain_table
from headpatch.questions.verdict.charts import RANKINGS
from headpatch.questions.verdict.rhos import measured_words, true_words

if TYPE_CHECKING:
    import pandas

_NAMES = 12  # heads listed in a sentence
_FEW = 4  # partners named in a cell


def nulls(table: "pandas.DataFrame") -> RenderableType:
    """Show every null's figures, and say what a failed one means."""
    shown = plain_table(
        "null", "", "pairs", "value", "must be", "figure", title="Nulls", wrapped="figure"
    )
    for row in table.to_dict("records"):
        tested = row["outcome"] != "not tested"
        figure = row["figure"] + (f" ({row['note']})" if row["note"] else "")
        shown.add_row(
            row["null"],
            Text(row["outcome"], style="bold red" if row["outcome"] == "failed" else ""),
            str(row["pairs"]) if tested else "",
            f"{row['value']:.3g}" if tested else "",
            row["limit"],
            Text(figure),
        )
    failed = sorted(set(table.loc[table["outcome"] == "failed", "null"]))
    if not failed:
        return shown
    warning = Text(failed_words(failed), style="bold red")
    return Group(shown, warning)


def headline(found: Mapping[str, Any], delta: float, level: float) -> RenderableType:
    """Say in words and numbers whether the heads that look decide.

    Parameters
    ----------
    found
        The fields of `headpatch.questions.verdict.headline.Headline`.
    delta, level
        Smallest effect of interest; coverage of the intervals.
    """
    causal, missed, picked = found["causal"], found["missed"], found["picked"]
    hits, within, open_ = (found[f"picked_{name}"] for name in ("causal", "within", "undecided"))
    lines = [
        f"Of the {len(picked)} heads that attention picks out (on other pairs), {_count(hits)} "
        f"shown to act on the answer{_named(hits)}; {_count(within)} shown to stay within "
        f"±{delta:.3g} of the LD difference; {_count(open_)} undecided.",
        f"Of all {found['heads']:,} heads, {_count(causal)} shown to act{_named(causal)}. "
        + _missed(causal, missed),
        _rho(found, level),
    ]
    for one in found["precision"]:
        lines.append(
            f"Precision@{one['k']}: {one['hits']} of the first {one['k']} by attention are among "
            f"the {one['k']} with the largest effects ({one['share']:.0%}; chance "
            f"{one['chance']:.1%}, p = {one['p']:.2g})."
        )
    counts = ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())
    lines.append(f"Verdicts over {found['pairs']} pairs: {counts}.")
    return Group(Text("Do the heads that look decide?", style="bold"), *map(Text, lines))


def _rho(found: Mapping[str, Any], level: float) -> str:
    return (
        f"Spearman's rho, over {found['heads']:,} heads, of attention difference and size of "
        f"effect. Of the means that were measured: {measured_words(found['rho'], level)}. "
        f"Of the true values: {true_words(found['true_rho'], level)}."
    )


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
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f" ({', '.join(names[:_NAMES])}{more})"


def heads(
    table: "pandas.DataFrame", named: Sequence[str], level: float, delta: float
) -> RenderableType:
    """Show the verdict of the heads that matter: those that act, and attention's first.

    Parameters
    ----------
    table
        ``verdicts.csv``.
    named
        Heads to list, in order.
    """
    names = table["layer"].astype(str) + "." + table["head"].astype(str)
    rows = dict(zip(names, table.to_dict("records"), strict=True))
    partnered = any(rows[name]["partners"] for name in named)
    shown = plain_table(
        "head",
        "verdict",
        "attention (rank)",
        "necessity",
        f"{level:.0%} interval",
        "q",
        "sufficiency",
        f"{level:.0%} interval",
        "q",
        *["with"] * partnered,
        title="Heads that act, and the first that attention picks",
    )
    for name in named:
        row = rows[name]
        shown.add_row(
            name,
            row["verdict"],
            f"{row['attention_diff']:+.3f} ({row['attention_rank']})",
            *_effect(row, "necessity"),
            f"{row['necessity_q']:.1g}",
            *_effect(row, "sufficiency"),
            f"{row['sufficiency_q']:.1g}",
            *[with_whom(row["partners"])] * partnered,
        )
    note = (
        "Means over pairs, as a share of the LD difference between the runs; resampled at the "
        "positions of the study. A head is called after an effect whose interval lies beyond "
        f"±δ = {delta:g} and whose q (Benjamini-Hochberg, over all heads and both directions) is "
        f"below {1 - level:.2g}; 'watches' and 'inert' are shown to stay within ±δ by an "
        "equivalence test; neither: undecided."
        + " with: partners together with which it is necessary."
        * partnered
    )
    return Group(shown, Text(note))


def with_whom(partners: str) -> str:
    """Name the partners of a redundant head; of many, say how many."""
    sets = [one.split("+") for one in partners.split(";") if one]
    return "; ".join("+".join(one) if len(one) <= _FEW else f"{len(one)} others" for one in sets)


def together(sets: "pandas.DataFrame", table: "pandas.DataFrame", level: float) -> RenderableType:
    """Show the sets of heads that do more together than alone, and what each of them adds.

    Parameters
    ----------
    sets, table
        ``partners.csv`` and ``verdicts.csv``.
    """
    names = table["layer"].astype(str) + "." + table["head"].astype(str)
    verdicts = dict(zip(names, table["verdict"], strict=True))
    shown = plain_table(
        "heads",
        "necessity together",
        f"{level:.0%} interval",
        "least that one adds",
        f"{level:.0%} interval",
        "q",
        "redundant",
        title="More together than alone: sets of which every head is needed",
        wrapped="heads",
    )
    kept = sets[sets["redundant"]]
    if kept.empty:
        return Text(
            f"Sets of heads tested for doing more together than alone: {len(sets):,}; shown to do "
            "so: none."
        )
    for row in kept.to_dict("records"):
        members = row["heads"].split("+")
        alike = sum(verdicts[name] == "redundant" for name in members)
        shown.add_row(
            row["heads"].replace("+", " + "),
            *_effect(row, "joint"),
            *_effect(row, "excess"),
            f"{row['q']:.1g}",
            f"{alike} of {len(members)}",
        )
    note = (
        f"{len(kept):,} of {len(sets):,} sets that were tested. Least that one adds: of any of the "
        "heads, once the others are gone, beyond what it does alone. redundant: how many of the "
        "heads are not shown to be necessary alone; the others are, and do more beside."
    )
    return Group(shown, Text(note))


def _effect(row: Mapping[Any, Any], name: str) -> tuple[str, str]:
    return f"{row[name]:+.3f}", f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}"


def areas(curves: "pandas.DataFrame") -> RenderableType:
    """Show the area under each faithfulness curve."""
    table = plain_table(
        "ranking",
        "keep the first k",
        "remove the first k",
        title="Faithfulness: area under the share of the LD difference that is left, over "
        "log2(k + 1)\n(a good ranking: near 1 when kept, near 0 when removed)",
    )
    for ranking in dict.fromkeys(curves["ranking"]):
        cells = []
        for way in ("keep", "remove"):
            row = curves[(curves["ranking"] == ranking) & (curves["way"] == way)].iloc[0]
            cells.append(f"{row['area']:.3f} ({row['area_low']:.3f} to {row['area_high']:.3f})")
        table.add_row(RANKINGS[ranking][1], *cells)
    return table


def claims(judged: Sequence[Mapping[str, str]], failed: Sequence[str]) -> RenderableType:
    """Show each claim, what became of it, and the figure behind it.

    Parameters
    ----------
    judged
        The fields of `headpatch.questions.claims.judge.Judged`.
    failed
        Nulls that failed.
    """
    table = plain_table("claim", "outcome", "figure", title="Claims", wrapped="figure")
    styles = {"supported": "green", "contradicted": "red", "not testable": ""}
    for one in judged:
        table.add_row(
            Text(one["claim"]),
            Text(one["outcome"], style=styles[one["outcome"]]),
            Text(one["figure"]),
        )
    note = "Figures: mean over pairs (interval over pairs), as a share of the LD difference."
    parts: list[RenderableType] = [table, Text(note)]
    if failed:
        parts.insert(0, Text(failed_words(failed), style="bold red"))
    return Group(*parts)

"""Whether the heads that look decide: the figures of a verdict's headline, and its words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from headpatch.core.measures import words_of
from headpatch.core.question import Context, rows_of
from headpatch.questions.verdict.charts import head_names, measured_words, true_words
from headpatch.questions.verdict.sentences import Setting, percent
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation
from headpatch.stats.rankings import Correlation, Precision, descending, effect_size, precision_at
from headpatch.stats.verdict_labels import CAUSAL, SMALL

MOST: Final = 12
"""Heads named in a sentence, and in the page's table: its table of all heads has the rest."""


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
    ranking: str = "attention"
    """What picks heads, as ``together.csv`` names it: attention, or another ranking."""
    rho_of: Mapping[str, Correlation] = field(default_factory=dict)
    """By each other ranking that was asked for: Spearman's rho of heads' places and effects."""


def summarize(
    table: pd.DataFrame,
    saved: Mapping[str, Any],
    top: int,
    pairs: int,
    together: pd.DataFrame | None = None,
    ranking: str = "attention",
) -> Headline:
    """Work out the headline of ``verdicts.csv``; both correlations are those of ``verdict.pt``.

    The ranking picks out the `top` heads; `pairs` are those that heads were judged on.
    """
    counts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
    table = by_effect(table)
    label = dict(zip(table["name"], table["verdict"], strict=True))
    picked = first_by_attention(table, top)
    causal = tuple(name for name, verdict in label.items() if verdict in CAUSAL)

    def of(*classes: str) -> tuple[str, ...]:
        return tuple(name for name in label if name in picked and label[name] in classes)

    joint = pd.DataFrame() if together is None else together
    measured = joint.astype(object).where(joint.notna(), None)  # None: no random set was drawn
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
        together=tuple(rows_of(measured)),
        ranking=ranking,
        rho_of={name: Correlation(**one) for name, one in saved.get("rho_of", {}).items()},
    )


def by_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``verdicts.csv`` with each head's name, the largest effect first."""
    size = effect_size(table["necessity"].to_numpy(float), table["sufficiency"].to_numpy(float))
    return table.assign(name=head_names(table)).iloc[descending(size)]


def first_by_attention(table: pd.DataFrame, top: int) -> tuple[str, ...]:
    """Name the heads that the study's ranking picks out, the first first."""
    picked = table[table["attention_rank"] <= top].sort_values("attention_rank")
    return tuple(picked["name"])


def headline_words(facts: Headline, context: Context) -> list[str]:
    """Say in words and numbers whether the heads that look decide; the first line asks it."""
    level, delta = context.level, context.options["delta"]
    where, picker = Setting.of(context, facts.pairs).where, words_of(facts.ranking).picker
    what = f"{picker[0].upper()}{picker[1:]}"
    missed = f"{what} misses {len(facts.missed)} of them{_named(facts.missed)}."
    if not facts.causal:
        open_ones = facts.counts.get("undecided", 0)
        missed = "Each is shown to be small, or mixed."
        if open_ones:
            missed = f"That is no proof that none does: {open_ones:,} are undecided."
    elif not facts.missed:
        missed = f"{what} picks all of them."
    elif len(facts.missed) == len(facts.causal):
        missed = f"{what} misses all of them."
    lines = [
        "Do the heads that look decide?",
        f"Heads are changed {where}. Of the {len(facts.picked)} heads that {picker} picks out, "
        f"alone {_count(facts.picked_causal)} shown to act on the answer"
        f"{_named(facts.picked_causal)}; {_count(facts.picked_within)} shown to be small, in the "
        f"mean and on 95% of pairs within ±{delta:.3g} of the LD difference; "
        f"{_count(facts.picked_mixed)} mixed; {_count(facts.picked_undecided)} undecided.",
        *_together_words(facts.together, facts.ranking, level),
        *(
            line
            for name in dict.fromkeys(row["ranking"] for row in facts.together)
            if name not in (facts.ranking, "effect")
            for line in _together_words(facts.together, name, level)
        ),
        f"Of all {facts.heads:,} heads, {_count(facts.causal)} shown to act"
        f"{_named(facts.causal)}. {missed}",
        f"Spearman's rho, over {facts.heads:,} heads, of attention difference and size of effect. "
        f"Of the means that were measured: {measured_words(vars(facts.rho), level)}. Of the true "
        f"values: {true_words(vars(facts.true_rho), level)}.",
    ]
    lines += [
        f"Spearman's rho of the place in {_ranking(name)}, taken as it is, and size of effect: "
        f"{measured_words(vars(rho), level)}."
        for name, rho in facts.rho_of.items()
    ]
    by = "attention" if facts.ranking == "attention" else words_of(facts.ranking).ranking
    lines += [
        f"Precision@{first.k}: {first.hits} of the first {first.k} by {by} are among the "
        f"{first.k} with the largest effects ({first.share:.0%}; chance {first.chance:.1%}, "
        f"p = {first.p:.2g})."
        for first in facts.precision
    ]
    counts = ", ".join(f"{name} {count:,}" for name, count in facts.counts.items())
    return [*lines, f"Verdicts over {facts.pairs} pairs{_look(context)}: {counts}."]


def _look(context: Context) -> str:
    """Say at which look a study stopped that was judged batch by batch."""
    look = context.facts.get("look")
    if look is None:
        return ""
    return (
        f" (look {look} of {context.facts['looks']}; intervals and q at {context.level:.2%}, which "
        "keeps the error rates whenever it stops)"
    )


def _ranking(name: str) -> str:
    return f"the ranking by {words_of(name).ranking}"


def _together_words(rows: Sequence[Mapping[str, Any]], ranking: str, level: float) -> Iterator[str]:
    """Say what the heads that a ranking picks do as one set, in both directions."""
    own = [row for row in rows if row["ranking"] == ranking]
    if not own:
        return
    parts = []
    for row in own:
        verb = "take away" if row["direction"] == "noising" else "bring"
        random = "no random set could be drawn"
        if row["draws"]:
            random = (
                f"random sets of the same layers {percent(row['random'])}, "
                f"{percent(row['random_low'])} to {percent(row['random_high'])}, "
                f"p = {row['p']:.2g}, never below {2 / (row['draws'] + 1):.2g}"
            )
        parts.append(
            f"they {verb} {percent(row['effect'])} [{percent(row['effect_low'])} to "
            f"{percent(row['effect_high'])}] of the LD difference ({row['direction']}; {random})"
        )
    yield (
        f"The {own[0]['k']} heads that {words_of(ranking).picker} picks on one part of the pairs, "
        f"changed as one set on the other: {', and '.join(parts)}; {level:.0%} intervals."
    )


def _count(names: Sequence[str]) -> str:
    if not names:
        return "none is"
    return "1 is" if len(names) == 1 else f"{len(names)} are"


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f" ({', '.join(names[:MOST])}{rest})"

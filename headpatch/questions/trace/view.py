"""What people see of a trace: each token with its first heads, a sentence, a chart over tokens."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from headpatch.core.question import Context, Files
from headpatch.present.parts import Grid, Part, Place, Words
from headpatch.questions.trace.charts import shown, trace_chart
from headpatch.questions.trace.records import RUNS, records

Row: TypeAlias = Mapping[str, Any]
_DIRECTIONS: Final = ("noising", "denoising")
_FORCED: Final = {
    "with": "The with-run's answer",
    "without": "The without-run's answer",
    "text": "The given answer",
}
_LOGITS: Final = ("logit with", "logit without")
_ASKED: Final = (
    "Both runs are made to say the same answer. At the position before each token every head's z "
    "is changed alone. Tokens that both runs would say are controls. Negative effects: towards "
    "another token."
)
_COLUMNS: Final = (
    "with, without: in that run, logit(token) - logit(the token under `or`, which a run would say "
    "instead); logit(token) in brackets where {both} would say it. attention: heads whose {share} "
    "differs most, and by how much. The other columns: heads with the largest effects on that "
    "difference (or logit), in logits. Effects at or below the noise floor ({floor:.1e} logits at "
    "most) are in brackets."
)
_MEANS: Final = (
    "Means over pairs, with {level:.0%} intervals over pairs; n: pairs that have the "
    "token, and after the stroke those of them with another one under `or`, over which alone that "
    "difference is averaged. Fewer than two pairs have no interval. The largest of many heads are "
    "listed, and the largest of many are partly lucky. "
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show each token with its first heads, by attention and by effect: a table an answer."""
    traced = files["trace.pt"]
    tokens = records(traced, context.options.get("top", 3))
    if not tokens or not traced["effect_logit"]:
        raise ValueError("it holds no effects on tokens")
    yield Words(_ASKED, "page")
    for source in dict.fromkeys(token["forced"] for token in tokens):
        of_answer = [token for token in tokens if token["forced"] == source]
        yield from _tables(of_answer, f"{_FORCED[source]}, token by token")
    many = context.pairs is not None
    floor = max(token["noise_floor"] for token in tokens)
    both = "both runs of most pairs" if many else "both"
    means = _MEANS.format(level=context.level) if many else ""
    yield Words(means + _COLUMNS.format(both=both, floor=floor, share=context.share))
    yield Words(summary(tokens, context))
    yield trace_chart(traced)


def summary(tokens: Sequence[Row], context: Context) -> str:
    """Say in a line which token heads move most, of those that a run would not say.

    A logit that moves where both runs would say the token anyway is no match for that. Of many
    pairs, tokens are considered that at least half of the pairs have. No more is said than one
    pair, or these pairs, can show.
    """
    caveat, pairs = context.caveat, context.pairs
    if pairs is not None:
        caveat = caveat or f"Means over {pairs:,} pairs."
        tokens = [token for token in tokens if 2 * token["pairs"] >= pairs] or tokens
    contested = [token for token in tokens if token["rival"]] or tokens
    sentences = []
    for way in _ways(tokens):
        token = max(contested, key=lambda token: token[way]["total"])
        first = token[way]["top"][0]
        sentences.append(
            f"{_way(way)}: heads move {shown(token['token'])!r} most (sum of |effects| "
            f"{token[way]['total']:.1f} logits{_ends(token[way], 'total')}), head {first['head']} "
            f"the furthest ({first['effect']:+.2f}{_ends(first, 'effect')})"
        )
    which = f"Both runs would say every token themselves, so all {len(tokens)} are considered"
    if any(token["rival"] for token in tokens):
        every = f"{len(contested)} of {len(tokens)} tokens"
        which = f"Considering only the {every} that one of the runs would not say itself"
    return f"{which}: {'; '.join(sentences)}. {caveat}"


def _tables(tokens: Sequence[Row], title: str) -> Iterator[Grid]:
    """Show an answer, a row a token; a page has room for the token's own logit."""
    ways, many = _ways(tokens), "pairs" in tokens[0]
    headings = ["token", "or", *["n"] * many, "with", "without"]
    heads = ["attention", *map(_way, ways)]
    rows, on_page = [], []
    for token in tokens:
        about = [shown(token["token"]), shown(token["rival"]), *map(_count, [token] * many)]
        form = "{:+.2f}" if token["rival"] else "({:.2f})"
        about += [form.format(token[f"{token['measure']}_{run}"]) for run in RUNS]
        logits = [f"{token[f'logit_{run}']:+.2f}" for run in RUNS]
        first = [_heads(token["attention"], "value")]
        first += [_heads(token[way]["top"], "effect") for way in ways]
        rows.append((*about, *map("\n".join, first)))
        on_page.append((*about, *logits, *map(", ".join, first)))
    yield _grid(title, [*headings, *heads], rows, "terminal")
    yield _grid(title, [*headings, *_LOGITS, *heads], on_page, "page")


def _grid(title: str, headings: list[str], rows: list[tuple[str, ...]], place: Place) -> Grid:
    numeric = tuple(heading in ("n", *RUNS, *_LOGITS) for heading in headings)
    return Grid(title, tuple(headings), tuple(rows), numeric, place=place)


def _ways(tokens: Sequence[Row]) -> list[str]:
    """Name the kinds and directions that a record has figures of."""
    return [name for name in tokens[0] if name.rpartition("_")[2] in _DIRECTIONS]


def _way(name: str) -> str:
    kind, _, direction = name.rpartition("_")
    return f"{kind}, {direction}"


def _count(token: Row) -> str:
    pairs, averaged = token["pairs"], token["measure_pairs"]
    return f"{pairs:,}" if pairs == averaged else f"{pairs:,}/{averaged:,}"


def _heads(rows: Sequence[Row], name: str) -> list[str]:
    return [f"{row['head']} {_value(row, name)}{_ends(row, name)}" for row in rows] or ["none"]


def _value(row: Row, name: str) -> str:
    below = row.get("below_floor", False)
    return f"({row[name]:+.0e})" if below else f"{row[name]:+.2f}"


def _ends(row: Row, name: str) -> str:
    """Return an interval, where there is one."""
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    return "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"

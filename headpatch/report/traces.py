"""The heads behind each token of an answer: a figure over the tokens, and the table of them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.report.canvas import (
    BLUE,
    VERMILLION,
    WITH,
    WITHOUT,
    Target,
    array,
    drawing,
    frame,
    signed,
)
from headpatch.report.effects import DIRECTIONS
from headpatch.report.sweeps import digits, root, square
from headpatch.report.tables import plain_table

if TYPE_CHECKING:
    import matplotlib.axes

HEADS: Final = 12
"""Heads with a line of their own in the maps: those with the largest effect on any token."""
_LOOKS: Final = {"noising": (WITH, "o", "-"), "denoising": (WITHOUT, "s", "--")}
Values = Float[np.ndarray, "..."]


def token_traces(
    results: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw, over the tokens of the answer, where heads look and what they do.

    From the top: the heads' attention to the region (the highest and the mean, in both runs); the
    summed size of all heads' effects, a line a direction; then a map of tokens × heads a direction,
    of the `HEADS` heads with the largest effect on any token, coloured by their signed effect.

    Parameters
    ----------
    results
        ``trace.pt``: tensors ``[tokens, layers, heads]`` ``with``, ``without`` (shares of the image
        attention) and, by kind and direction, ``effect_contrast``, ``effect_logit`` (logits), and
        lists ``tokens``, ``rivals``, ``forced``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no effect.
    """
    effects = lead_effects(results)
    if not effects:
        raise ValueError("'effect_logit' holds no effects by kind_direction")
    tokens = len(results["tokens"])
    names, chosen = _largest(effects)
    rows = 0.13 * len(names) + 0.25
    heights = [1.05, 1.05, *[rows] * len(effects)]
    with drawing(path, sum(heights) + 0.75) as figure:
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
        looking, moving, *maps = panels.ravel()
        _draw_attention(looking, results)
        _draw_totals(moving, effects, results)
        most = max(float(np.abs(values).max()) for values in chosen.values()) or 1.0
        ticks = [most * share for share in (-1, -0.25, -0.0625, 0, 0.0625, 0.25, 1)]
        for axes, (way, values) in zip(maps, chosen.items(), strict=True):
            image = _draw_map(axes, values.T, most)
            kind, _, direction = way.rpartition("_")
            axes.set_ylabel(f"{kind.capitalize()},\n{DIRECTIONS[direction]}")
            axes.set_yticks(range(len(names)), names, fontsize=5.5)
        _mark_tokens(maps[-1], results)
        for axes in panels.ravel():
            _part(axes, results["forced"])
        looking.set_xlim(-0.5, tokens - 0.5)
        bar = figure.colorbar(image, ax=maps, fraction=0.03, pad=0.01, aspect=30, ticks=ticks)
        bar.ax.set_yticklabels([signed(tick, digits(most)) for tick in ticks])
        bar.set_label("Effect (logits, square-root scale)")
        bar.outline.set_linewidth(0.6)
        frame(
            figure,
            "Heads behind each token of the answer",
            question=question,
            region=region,
            legend=(looking, moving),
            note="Each token is looked at from the position before it; both runs are made to say "
            "the same tokens. Effect: what replacing one head's z there does to logit(token) - "
            "logit(the token in brackets, which a run would say instead), or to logit(token) where "
            "both runs would say it. Negative: towards another token.",
        )


def lead_effects(results: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "tokens layers heads"]]:
    """Return, by kind and direction, effects on the contrast, or on the logit without a rival."""
    logits, contrasts = results.get("effect_logit", {}), results.get("effect_contrast", {})
    rival = np.array([bool(one) for one in results["rivals"]])[:, None, None]
    return {way: np.where(rival, array(contrasts, way, 3), array(logits, way, 3)) for way in logits}


def _largest(effects: Mapping[str, Values]) -> tuple[list[str], dict[str, Values]]:
    """Name the heads with the largest effects, in layer order, and pick theirs: tokens × heads."""
    size = np.max([np.abs(values).max(0) for values in effects.values()], axis=0)
    order = sorted(np.argsort(-size, axis=None, kind="stable")[:HEADS].tolist())
    places = [divmod(flat, size.shape[1]) for flat in order]
    layers, heads = np.array(places).T
    picked = {way: values[:, layers, heads] for way, values in effects.items()}
    return [f"{layer}.{head}" for layer, head in places], picked


def _draw_attention(axes: "matplotlib.axes.Axes", results: Mapping[str, Any]) -> None:
    tokens = np.arange(len(results["tokens"]))
    for run, color, marker in (("with", WITH, "o"), ("without", WITHOUT, "s")):
        shares = array(results, run, 3).reshape(len(tokens), -1)
        if np.isnan(shares).all():
            continue
        for one in _answers(results):
            axes.plot(tokens[one], shares.max(1)[one], marker, linestyle="-", color=color,
                      label=f"highest head, {run}")  # fmt: skip
            axes.plot(tokens[one], shares.mean(1)[one], marker, linestyle=":", color=color,
                      fillstyle="none", label=f"mean, {run}")  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("Region's share of\nimage attention")


def _draw_totals(
    axes: "matplotlib.axes.Axes", effects: Mapping[str, Values], results: Mapping[str, Any]
) -> None:
    for way, values in effects.items():
        kind, _, direction = way.rpartition("_")
        color, marker, line = _LOOKS[direction]
        total = np.abs(values).sum((1, 2))
        label = direction if kind == "resample" else f"{direction}, {kind}"
        for one in _answers(results):
            axes.plot(np.arange(len(total))[one], total[one], marker, color=color, label=label,
                      linestyle=line if kind == "resample" else "-.")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Sum over heads of\n|effect| (logits)")


def _draw_map(axes: "matplotlib.axes.Axes", values: Values, most: float) -> Any:
    from matplotlib.colors import FuncNorm, LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("towards", [BLUE, "#F7F7F7", VERMILLION], 512)
    norm = FuncNorm((root, square), vmin=-most, vmax=most)
    return axes.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")


def _mark_tokens(axes: "matplotlib.axes.Axes", results: Mapping[str, Any]) -> None:
    words = [
        _shown(token) + (f"\n({_shown(rival)})" if rival else "")
        for token, rival in zip(results["tokens"], results["rivals"], strict=True)
    ]
    longest = max(len(line) for word in words for line in word.split("\n"))
    steep = longest * len(words) > 90
    axes.set_xticks(range(len(words)), words, rotation=90 if steep else 0, fontsize=6.5)
    axes.set_xlabel("Token of the answer (in brackets: what a run would say instead)")


def _shown(word: str) -> str:
    return repr(word)[1:-1] if word.isspace() or "\n" in word else word


def _answers(results: Mapping[str, Any]) -> list[slice]:
    """Return the places of each answer's tokens: lines do not join them."""
    forced = list(results["forced"])
    starts = [forced.index(source) for source in dict.fromkeys(forced)]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(forced)], strict=True)]


def _part(axes: "matplotlib.axes.Axes", forced: Sequence[str]) -> None:
    """Draw a line where another answer begins."""
    for place, (before, after) in enumerate(pairwise(forced)):
        if before != after:
            axes.axvline(place + 0.5, color="0.3", linewidth=0.8)


_FORCED: Final = {
    "with": "The with-run's answer",
    "without": "The without-run's answer",
    "text": "The given answer",
}


def trace_tables(tokens: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show each token with its first heads, by attention and by effect: a table an answer."""
    parts: list[RenderableType] = []
    ways = [name for name in tokens[0] if isinstance(tokens[0][name], Mapping)]
    for source in dict.fromkeys(one["forced"] for one in tokens):
        table = plain_table(
            "token",
            "or",
            "with",
            "without",
            "attention",
            *(_way(name) for name in ways),
            title=f"{_FORCED[source]}, token by token",
        )
        for one in tokens:
            if one["forced"] == source:
                _add(table, one, ways)
        parts.append(table)
    floor = max(one["noise_floor"] for one in tokens)
    parts.append(
        Text(
            "with, without: in that run, logit(token) - logit(the token under `or`, which a run "
            "would say instead); logit(token) in brackets where both would say it. attention: "
            "heads whose share of the image attention that falls on the region differs most, and "
            "by how much. The other columns: heads with the largest effects on that difference (or "
            "logit), in logits. Effects at or below the noise floor "
            f"({floor:.1e} logits at most) are in brackets."
        )
    )
    return Group(*parts)


def _way(name: str) -> str:
    kind, _, direction = name.rpartition("_")
    return f"{kind}, {direction}"


def _add(table: Any, one: Mapping[str, Any], ways: Sequence[str]) -> None:
    form = "{:+.2f}" if one["rival"] else "({:.2f})"
    runs = [form.format(one[f"{one['measure']}_{run}"]) for run in ("with", "without")]
    looks = [(row["head"], f"{row['value']:+.2f}") for row in one["attention"]]
    columns = [_lines(looks)]
    for way in ways:
        found = [(row["head"], _effect(row)) for row in one[way]["top"]]
        columns.append(_lines(found))
    table.add_row(Text(_shown(one["token"])), Text(_shown(one["rival"])), *runs, *columns)


def _lines(rows: Sequence[tuple[str, str]]) -> Text:
    return Text("\n".join(f"{head} {value}" for head, value in rows) or "none")


def _effect(row: Mapping[str, Any]) -> str:
    return f"({row['effect']:+.0e})" if row["below_floor"] else f"{row['effect']:+.2f}"


def trace_summary(tokens: Sequence[Mapping[str, Any]], valid: bool) -> str:
    """Say in a line which token heads move most, of those that a run would not say.

    A logit that moves where both runs would say the token anyway is no match for that. No more is
    said than one pair can show.
    """
    caveat = "One pair shows one case, not a rule."
    if not valid:
        caveat = "The study is INVALID (the answers do not flip): these figures say nothing."
    ways = [name for name in tokens[0] if isinstance(tokens[0][name], Mapping)]
    said = []
    contested = [one for one in tokens if one["rival"]] or tokens
    for way in ways:
        one = max(contested, key=lambda token: token[way]["total"])
        first = one[way]["top"][0]
        said.append(
            f"{_way(way)}: heads move {_shown(one['token'])!r} most (sum of |effects| "
            f"{one[way]['total']:.1f} logits), head {first['head']} the furthest "
            f"({first['effect']:+.2f})"
        )
    return f"{'; '.join(said)}. {caveat}"

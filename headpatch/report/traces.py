"""The heads behind each token of an answer: a figure over the tokens."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.kinds import BY_PLACE, KINDS, kind_label
from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    WITH,
    WITHOUT,
    Target,
    array,
    drawing,
    frame,
    signed,
)
from headpatch.present.root_scale import digits, root, square
from headpatch.report.effects import DIRECTIONS

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

HEADS: Final = 12
"""Heads with a line of their own in the maps: those with the largest effect on any token."""
LOOKS: Final = {"noising": (GREEN, "^", "-"), "denoising": (ORANGE, "v", "--")}
"""Colour, marker and line of a direction: none of a run's."""
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
    names, chosen = largest(effects)
    heights = [1.05, 1.05, *[map_height(names)] * len(effects)]
    with drawing(path, sum(heights) + 0.75) as figure:
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
        looking, moving, *maps = panels.ravel()
        _draw_attention(looking, results)
        _draw_totals(moving, effects, results)
        draw_maps(figure, maps, names, chosen)
        mark_tokens(maps[-1], labels(results))
        maps[-1].set_xlabel("Token of the answer (in brackets: what a run would say instead)")
        for axes in panels.ravel():
            part(axes, results["forced"])
        looking.set_xlim(-0.5, tokens - 0.5)
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


def largest(effects: Mapping[str, Values]) -> tuple[list[str], dict[str, Values]]:
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
        for one in answers(results):
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
        color, marker, line = LOOKS[direction]
        total = np.abs(values).sum((1, 2))
        name = way_name(kind, direction, results)
        for one in answers(results):
            axes.plot(np.arange(len(total))[one], total[one], marker, color=color, label=name,
                      linestyle=KINDS[kind].line or line)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Sum over heads of\n|effect| (logits)")


def way_name(kind: str, direction: str, results: Mapping[str, Any]) -> str:
    """Name a line: by its direction, and by its kind where it is not the usual one."""
    return direction if kind == BY_PLACE[0] else f"{direction}, {kind_label(kind, results)}"


def map_height(names: Sequence[str]) -> float:
    """Return the height, in inches, of a map with a row for each of these heads."""
    return 0.13 * len(names) + 0.25


def draw_maps(
    figure: "matplotlib.figure.Figure",
    panels: "Sequence[matplotlib.axes.Axes]",
    names: Sequence[str],
    chosen: Mapping[str, Values],
) -> None:
    """Draw a map of tokens × heads for each kind and direction, in one scale of colours."""
    from matplotlib.colors import FuncNorm, LinearSegmentedColormap

    most = max(float(np.abs(values).max()) for values in chosen.values()) or 1.0
    ticks = [most * share for share in (-1, -0.25, -0.0625, 0, 0.0625, 0.25, 1)]
    colours = LinearSegmentedColormap.from_list("towards", [BLUE, "#F7F7F7", VERMILLION], 512)
    norm = FuncNorm((root, square), vmin=-most, vmax=most)
    for axes, (way, values) in zip(panels, chosen.items(), strict=True):
        image = axes.imshow(
            values.T, cmap=colours, norm=norm, aspect="auto", interpolation="nearest"
        )
        kind, _, direction = way.rpartition("_")
        axes.set_ylabel(f"{kind.capitalize()},\n{DIRECTIONS[direction]}")
        axes.set_yticks(range(len(names)), names, fontsize=5.5)
    bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, aspect=30, ticks=ticks)
    bar.ax.set_yticklabels([signed(tick, digits(most)) for tick in ticks])
    bar.set_label("Effect (logits, square-root scale)")
    bar.outline.set_linewidth(0.6)


def labels(results: Mapping[str, Any]) -> list[str]:
    """Return each token, and below it in brackets its rival."""
    return [
        shown(token) + (f"\n({shown(rival)})" if rival else "")
        for token, rival in zip(results["tokens"], results["rivals"], strict=True)
    ]


def mark_tokens(axes: "matplotlib.axes.Axes", words: Sequence[str]) -> None:
    """Write tokens below their places; upright where they would run into each other."""
    longest = max(len(line) for word in words for line in word.split("\n"))
    steep = longest * len(words) > 90
    axes.set_xticks(range(len(words)), words, rotation=90 if steep else 0, fontsize=6.5)


def shown(word: str) -> str:
    """Return a token so that white space can be seen."""
    return repr(word)[1:-1] if word.isspace() or "\n" in word else word


def answers(results: Mapping[str, Any]) -> list[slice]:
    """Return the places of each answer's tokens: lines do not join them."""
    forced = list(results["forced"])
    starts = [forced.index(source) for source in dict.fromkeys(forced)]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(forced)], strict=True)]


def part(axes: "matplotlib.axes.Axes", forced: Sequence[str]) -> None:
    """Draw a line where another answer begins."""
    for place, (before, after) in enumerate(pairwise(forced)):
        if before != after:
            axes.axvline(place + 0.5, color="0.3", linewidth=0.8)

"""What every head, or every set of heads, does to the answer, as charts; estimates beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from headpatch.kinds import kind_label
from headpatch.present.canvas import GREY, array, signed
from headpatch.present.chart import Cells, Chart, Colours, HeadMap, largest_cells
from headpatch.present.effects_view import DIRECTIONS, KINDS
from headpatch.present.panel import Guide, Look, Panel, Scale, Series
from headpatch.present.section import said

LABELLED: Final = 5
"""Heads named in each map: those with the largest effects above the noise floor."""
LOOKING: Final = 5
"""Heads outlined in each map: the first of the attention ranking; at most a quarter of all."""
NAMED: Final = 3
"""Points named beside estimates: the largest exact effects."""
_BINS: Final = 40
_BELOW: Final = -0.35  # where counts end, with room for a mark below 0
_NORMALIZED: Final = "Normalized effect"
_ON_THE_ANSWER: Final = " on the Yes/No answer"
_NOTE: Final = (
    "Normalized effect: 0 = nothing, 1 = the whole difference between the two runs, negative = "
    "the other way."
)
_ESTIMATES: Final = (
    "Estimated by attribution patching, one backward pass a run. Each point is a head (or a set of "
    "the list); on the dashed line the estimate equals the exact effect. Both axes follow the "
    "signed square root. Named: the largest exact effects."
)

Saved: TypeAlias = Mapping[str, Any]
Values: TypeAlias = Float[np.ndarray, "..."]
Sides: TypeAlias = tuple[Values, Values]
"""Exact effects, and what is estimated of them, in logits."""


def every_head(saved: Saved, key: str = "normalized") -> bool:
    """Whether every head was changed, rather than the sets of a list."""
    return np.ndim(next(iter(saved[key].values()))) == 2


def sweep_chart(saved: Saved) -> Chart:
    """Show the normalized effect of every head: one map of layers × heads a kind and direction.

    Colours follow the signed square root, since a few heads usually tower over the rest. Whole
    layers, if they were changed too, stand as one column right of the heads.
    """
    maps, below = _read(saved, axes=2)
    vision = saved.get("tower") == "vision"
    note = f"{_NOTE} Named: the largest effects. {_floor_note(below)}"
    note += " The column on the right: all heads of a layer together." * (
        "layer_normalized" in saved
    )
    chart = _chart(
        "sweep",
        _title(f"Effect of each {'vision ' * vision}head", saved, _ON_THE_ANSWER),
        {way: _map(saved, way, values, below[way]) for way, values in maps.items()},
        note,
        colours=Colours(_NORMALIZED, rooted=True),
        on_page=vision,  # the page has maps of the language model's heads above
    )
    return replace(chart, spoken=[_largest(panel) for panel in chart.panels])


def _map(
    saved: Saved,
    way: str,
    values: Float[np.ndarray, "layers heads"],
    below: Bool[np.ndarray, "layers heads"],
) -> HeadMap:
    """Show one kind and direction."""
    title, asked = _heading(saved, way)
    tower, effect = "v" * (saved.get("tower") == "vision"), array(saved["effect"], way, 2)
    hover = [
        [f"head {tower}{layer}.{head}: {said(share, 4)} ({said(effect[layer, head], 4)} logits)"
         for head, share in enumerate(row)]
        for layer, row in enumerate(values)
    ]  # fmt: skip
    named = largest_cells(np.where(below, np.nan, values), LABELLED)
    whole = saved.get("layer_normalized", {})
    return HeadMap(
        title,
        values,
        "Head",
        f"{asked}Layer",
        hover=hover,
        cells=_looking(saved),
        labels={cell: f"{tower}{cell[0]}.{cell[1]}" for cell in named},
        last_read=saved.get("feature_layer"),
        whole=array(whole, way, 1) if way in whole else None,
    )


def _looking(saved: Saved) -> list[Cells]:
    """Outline the heads whose attention differs most."""
    if saved.get("attention_rank") is None:
        return []
    ranks = np.asarray(saved["attention_rank"])
    layers, heads = np.nonzero(ranks <= min(LOOKING, max(ranks.size // 4, 1)))
    name = f"attention differs most ({len(layers)})"
    return [Cells(layers.tolist(), heads.tolist(), "s", name)]


def _largest(panel: object) -> str:
    if isinstance(panel, HeadMap) and (cells := largest_cells(panel.values, 1)):
        return f"Largest: {panel.hover[cells[0][0]][cells[0][1]]}"
    return ""


def sets_chart(saved: Saved) -> Chart:
    """Show how the normalized effects of many sets lie, a panel a kind and direction."""
    effects, below = _read(saved, axes=1)
    finite = np.concatenate([values[np.isfinite(values)] for values in effects.values()])
    span = np.abs(finite).max(initial=0.0)
    low, high = (finite.min(), finite.max()) if span else (-1.0, 1.0)
    edges = np.linspace(low - 0.02 * span, high + 0.02 * span, _BINS + 1)
    count, columns = len(next(iter(effects.values()))), len(_kinds(effects))
    panels = {way: _distribution(saved, way, one, edges, columns) for way, one in effects.items()}
    note = f"{_NOTE} Counts are on a logarithmic scale; the largest effect is named (▲). "
    title = _title(f"Effects of {count:,} sets of heads", saved, _ON_THE_ANSWER)
    return _chart("sweep", title, panels, note + _floor_note(below))


def _distribution(
    saved: Saved,
    way: str,
    values: Float[np.ndarray, " sets"],
    edges: Float[np.ndarray, " edges"],
    columns: int,
) -> Panel:
    """Count the sets of one kind and direction by their effect; name the largest."""
    title, asked = _heading(saved, way)
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    between = zip(edges, edges[1:], counts, strict=False)
    hover = [f"{low:.3f} to {high:.3f}: {sets:,} sets" for low, high, sets in between]
    middles, width = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    look, heights = Look(_color(way)), counts.astype(np.float64)
    bars = Series("", middles, heights, look=look, mark="bars", width=width, hover=hover)
    largest, note = [], ""
    if np.isfinite(values).any():
        index, room = int(np.nanargmax(np.abs(values))), 72 // columns
        name = str(saved["heads"][index])
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        note = f"{name}: {signed(values[index], 3)}"
        at, look = (values[index : index + 1], np.array([_BELOW / 2])), Look("#262626", "^")
        largest = [Series("", *at, mark="points", look=look, hover=[note])]
    most = [10**power for power in range(len(str(len(values))))]
    scale = Scale("counts", low=_BELOW, ticks={0.0: "0"} | {float(n): f"{n:,}" for n in most})
    shown, label, zero = [*largest, bars], f"{asked}Sets", [Guide("x", 0.0)]
    return Panel(title, shown, _NORMALIZED, label, y_scale=scale, guides=zero, note=note)


def approx_chart(saved: Saved, names: Sequence[str]) -> Chart:
    """Show estimated against exact effects, one panel a kind and direction, each on its own scale.

    `saved` is ``approx.pt``; `names` are those of the heads, or of the sets of a list.
    """
    panels = {way: _points(saved, way, both, names) for way, both in sides(saved).items()}
    title = _title("Estimated and exact effects", saved)
    note = _ESTIMATES + " In brackets: intervals over pairs." * ("pair_names" in saved)
    chart = _chart("approx", title, panels, note, share_x="none", share_y="none")
    return replace(chart, heights=[2.0] * (len(chart.panels) // chart.columns))


def sides(saved: Saved) -> dict[str, Sides]:
    """Return exact effects and their estimates by kind and direction."""
    both = {}
    for way in saved.get("approx", {}):
        exact, approx = (np.asarray(saved[side][way], np.float64) for side in ("effect", "approx"))
        if exact.shape != approx.shape:
            raise ValueError(
                f"approx.pt: its estimates {approx.shape} are not of the effects {exact.shape}"
            )
        both[way] = exact, approx
    if not both:
        raise ValueError("'approx' holds no estimates")
    return both


def _points(saved: Saved, way: str, both: Sides, names: Sequence[str]) -> Panel:
    """Show every head's estimate beside its effect."""
    title, asked = _heading(saved, way)
    every = both[0].ndim == 2
    exact, approx = (side.ravel() for side in both)
    most = float(np.nanmax(np.abs([exact, approx]), initial=0.0)) or 1.0
    ends = np.array([-most, most])
    order = np.argsort(-np.abs(exact), kind="stable")  # the first are named, and choose first
    labels = [names[index] if every and rank < NAMED else "" for rank, index in enumerate(order)]
    hover = [
        f"{names[index]}: exact {signed(exact[index], 4)}, estimated {signed(approx[index], 4)}"
        for index in order
    ]
    at, look = (exact[order], approx[order]), Look(_color(way), ".", size=4.0, alpha=0.6)
    points = Series("", *at, look=look, mark="points", labels=labels, hover=hover)
    equal = Series("", ends, ends, look=Look(GREY, "", "--", width=0.7), hover=["equal", "equal"])
    scale = Scale("root", low=-1.2 * most, high=1.2 * most)
    axes = "Exact effect (logits)", f"{asked}Estimated effect (logits)"
    words = _agreement(saved.get("agreement", {}).get(way))
    return Panel(title, [points, equal], *axes, x_scale=scale, y_scale=scale, text=words)


def _agreement(figures: Mapping[str, float] | None) -> str:
    """Say how estimates agree; of many pairs those of the means, then the mean of the pairs."""
    if figures is None:
        return ""
    own = "of_means_" if "of_means_pearson" in figures else ""
    words = "r undefined"
    if not np.isnan(figures[f"{own}pearson"]):
        r, low, high = (signed(figures[f"{own}pearson{end}"], 2) for end in ("", "_low", "_high"))
        words = f"r = {r} ({low} to {high})"
    words += f"\ntop-{figures['k']} recall {figures[f'{own}top_recall']:.2f}"
    words += f"\n(by chance {figures['top_recall_chance']:.2f})"
    if own:
        mean = "undefined" if np.isnan(figures["pearson"]) else signed(figures["pearson"], 2)
        words += f"\nmean of the pairs: r = {mean}, recall {figures['top_recall']:.2f}"
    return words


def _read(saved: Saved, axes: int) -> tuple[dict[str, Values], dict[str, Bool[np.ndarray, "..."]]]:
    """Return the normalized effects, and which of them lie below the noise floor."""
    effects = {
        way: np.asarray(values, np.float64) for way, values in saved.get("normalized", {}).items()
    }
    if not effects or any(values.ndim != axes for values in effects.values()):
        raise ValueError(f"'normalized' holds no effects of {axes} axes by kind_direction")
    floor = float(saved["noise_floor"])
    below = {way: np.abs(np.asarray(saved["effect"][way])) <= floor for way in effects}
    return effects, below


def _floor_note(below: Mapping[str, Bool[np.ndarray, "..."]]) -> str:
    """Say how many effects cannot be told from rounding."""
    shown = sum(int(values.sum()) for values in below.values())
    total = sum(values.size for values in below.values())
    return f"{shown:,} of {total:,} effects do not rise above the noise floor."


def _title(what: str, saved: Saved, otherwise: str = "") -> str:
    """Say over which pairs, and where z was changed: a scope of the prompt, or of the tower."""
    pairs, positions = len(saved.get("pair_names", ())), str(saved["positions"])
    if saved.get("tower") == "vision":
        scopes = {"class": "the class token", "patches": "the patches"}
        positions = f"{scopes.get(positions, 'all tokens')} of the tower"
    over = f", means over {pairs:,} pairs" if pairs else otherwise
    return f"{what}{over}; z changed at: {positions}"


def _heading(saved: Saved, way: str) -> tuple[str, str]:
    """Return the title of a panel, and the first lines of its y label."""
    kind, _, direction = way.rpartition("_")
    return f"{kind_label(kind, saved).capitalize()}, {direction}", f"{DIRECTIONS[direction]}\n\n"


def _kinds(by_way: Mapping[str, Any]) -> list[str]:
    return [kind for kind in KINDS if any(way.rpartition("_")[0] == kind for way in by_way)]


def _chart(name: str, title: str, panels: Mapping[str, Any], note: str, **more: Any) -> Chart:
    """Show a panel for every kind of every direction; none where it was not run."""
    kinds, directions = _kinds(panels), {way.rpartition("_")[2] for way in panels}
    ways = [f"{kind}_{way}" for way in DIRECTIONS if way in directions for kind in kinds]
    shown = [panels.get(way) for way in ways]
    return Chart(name, f"{name}.png", title, shown, note, columns=len(kinds), **more)


def _color(way: str) -> str:
    return KINDS[way.rpartition("_")[0]][0]

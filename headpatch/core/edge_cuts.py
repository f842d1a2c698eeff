"""Cutting edges of attention: the operation behind `cut`, the windows of `path`, and claims.

Attention knockout: queries no longer see keys, and what attention they have left is renormalised.
Over the layers it is done in windows around each layer, as in M. Geva, J. Bastings, K. Filippova
and A. Globerson, Dissecting Recall of Factual Associations in Auto-Regressive Language Models
(EMNLP 2023, arXiv:2304.14767): all heads of the window's layers at once. Here a window starts
window // 2 layers before its centre, and is clipped at both ends of the model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from headpatch.core.session import Session
from headpatch.core.sinks import Sinks, find_sinks
from headpatch.core.stream_swaps import Ends, random_tokens
from headpatch.core.study.options import SINK_TAU, edge_ends, layer_span
from headpatch.engine.answers import decode
from headpatch.engine.comparison import TOLERANCE, Rounding
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Direction
from headpatch.engine.knockout import Knockout, disagreement, knock_out
from headpatch.engine.memory import split
from headpatch.engine.patching import (
    PLAIN_BATCH,
    WITH,
    WITHOUT,
    Baseline,
    OnProgress,
    Outcome,
    run_pair,
)
from headpatch.engine.widen import rows_that_fit
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from headpatch.models.prompt import need_one_length
from headpatch.present.head_columns import with_head_columns
from headpatch.stats.effects import noise_floor, normalized_effect, spread

Role = Literal["window", "layers", "head", "joint", "control", "noise floor"]
NAMED: tuple[Role, ...] = ("window", "layers", "head", "joint")
RUNS: Mapping[int, str] = {WITH: "with", WITHOUT: "without"}


@runtime_checkable
class Settings(Protocol):
    """What is cut: the options of `headpatch cut`, or `Cutting`."""

    @property
    def edges(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def window(self) -> int: ...  # noqa: D102
    @property
    def layers(self) -> str | None: ...  # noqa: D102
    @property
    def heads(self) -> str | None: ...  # noqa: D102
    @property
    def controls(self) -> int: ...  # noqa: D102
    @property
    def itself(self) -> bool: ...  # noqa: D102
    @property
    def sink_dims(self) -> Sequence[int] | None: ...  # noqa: D102
    @property
    def sink_tau(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Cutting:
    """Edges that another question cuts; the meaning is that of the options of `headpatch cut`."""

    edges: tuple[str, ...]
    window: int = 5
    layers: str | None = None
    heads: str | None = None
    controls: int = 0
    itself: bool = False
    sink_dims: tuple[int, ...] | None = None
    sink_tau: float = SINK_TAU


@dataclass(frozen=True)
class Place:
    """Where edges are cut: heads, or all heads from a first to a last layer, around a centre."""

    heads: HeadSet
    role: Role
    centre: int | None = None
    layers: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Return ``10-14``, or the heads."""
        if self.layers is None:
            return str(self.heads)
        first, last = self.layers
        return f"{first}-{last}" if last > first else str(first)


@dataclass(frozen=True, eq=False)
class Cut:
    """One cut, and what it is measured for."""

    place: Place
    edge: str
    role: Role
    knockout: Knockout


@dataclass(frozen=True, eq=False)
class Job:
    """Cuts that are going to be made: named, controls, and cuts of nothing.

    `base` holds both untouched runs, with what resuming needs; `disagreement` says how far resumed
    passes lay from whole ones where they were compared, in logits (infinite: none can be resumed).
    """

    cuts: tuple[Cut, ...]
    base: Baseline
    disagreement: float
    allowed: float = TOLERANCE  # what rounding explains of that
    sinks: Sinks | None = None  # where an edge names them

    @property
    def resumed(self) -> bool:
        """Whether passes are resumed at the first layer that is cut, or all are whole."""
        return self.disagreement <= self.allowed


@dataclass(frozen=True, eq=False)
class CutTable:
    """What cuts of one pair did: a row for each place × edge × run, the columns of ``cuts.csv``.

    The fast path of the noise floor (in logits; `headpatch.stats.effects.noise_floor`) are passes
    that are resumed at the first layer that is cut.
    """

    table: pd.DataFrame
    noise_floor: float
    sink_dims: tuple[int, ...] = ()  # at which sinks were told, where an edge names them

    @property
    def named(self) -> pd.DataFrame:
        """What was asked for, without controls."""
        return named_cuts(self.table)


def named_cuts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``cuts.csv`` that were asked for, without controls."""
    return table[table["role"].isin(NAMED)].reset_index(drop=True)


def cut_edges(
    session: Session,
    settings: Settings,
    ranking: Callable[[], Sequence[Head]] = tuple,
    on_progress: OnProgress | None = None,
) -> CutTable:
    """Cut every edge at every place, in both runs.

    Where an edge names the region, the same is done with random image tokens outside it, as many
    as the region has, in the region's place; where it names sinks, with as many that are none.
    `ranking` gives the heads by attention, if the
    settings' heads hold ``top:N``.
    """
    return make(session, prepare(session, settings, ranking), on_progress)


def make(session: Session, job: Job, on_progress: OnProgress | None = None) -> CutTable:
    """Make the cuts that are prepared; see `cut_edges`."""
    knockouts = [cut.knockout for cut in job.cuts]
    shifts = knock_out(session.vlm, job.base, knockouts, on_progress, job.resumed)
    table = _table(session, job.cuts, shifts)
    if job.sinks is not None:
        counts = [
            len(job.sinks.tokens[cut.knockout.run]) if "sinks" in edge_ends(cut.edge) else None
            for cut in job.cuts
        ]
        table["sinks"] = pd.array(counts, "Int64")
    nothing_cut = table.loc[table["role"] == "noise floor", "effect"].tolist()
    floor = noise_floor(nothing_cut, job.disagreement if job.resumed else 0.0)
    return CutTable(table, floor, () if job.sinks is None else job.sinks.dimensions)


def prepare(
    session: Session, settings: Settings, ranking: Callable[[], Sequence[Head]] = tuple
) -> Job:
    """List every cut, and compare resumed passes with whole ones, each edge at the middle place."""
    need_one_length(session.prompt, session.pair.name)
    sinks = None
    if any("sinks" in edge_ends(edge) for edge in settings.edges):
        sinks = find_sinks(session, settings.sink_tau, settings.sink_dims)
    cuts = plan(session, settings, ranking, sinks)
    start = min(cut.knockout.start for cut in cuts)
    base = session.base
    if not base.trace.prefills or base.trace.prefills[WITH].start > start:
        base = run_pair(session.vlm, session.prompt, Keep(suffix=start), exact=True)
    named = [cut for cut in cuts if cut.role in NAMED and cut.knockout.run == WITH]
    middle = named[len(named) // 2].place
    probes = [cut.knockout for cut in named if cut.place == middle]
    allowed = Rounding.of(session.vlm, base).explains(0.0)
    return Job(tuple(cuts), base, disagreement(session.vlm, base, probes), allowed, sinks)


def cost(session: Session, job: Job) -> float:
    """Return what the cuts cost, in forward passes of the prompt.

    What the layers' weights are multiplied with, untouched rows included, over what a pass of the
    prompt multiplies them with: a resumed row runs through the layers from the first of its batch
    that is cut, at the positions that the untouched runs keep.
    """
    vlm, size, share = session.vlm, PLAIN_BATCH - 1, 1.0
    if job.resumed:
        prefill = job.base.trace.prefills[WITH]
        size = rows_that_fit(vlm, prefill)
        share = (prefill.tokens - prefill.start) / prefill.tokens
    layers, total = vlm.lm.grid.layers, 0.0
    for run in {cut.knockout.run for cut in job.cuts}:
        entries = sorted(cut.knockout.entry for cut in job.cuts if cut.knockout.run == run)
        for batch in split(entries, size):
            skipped = batch[0] if job.resumed else 0
            total += (len(batch) + 1) * share * (1 - skipped / layers)
    return total


def plan(
    session: Session,
    settings: Settings,
    ranking: Callable[[], Sequence[Head]] = tuple,
    sinks: Sinks | None = None,
) -> list[Cut]:
    """List every cut: what is asked for, its controls, and cuts of nothing; see `cut_edges`."""
    own = (None, None) if sinks is None else sinks.tokens
    ends_of = {
        (edge, run): Ends.of(session, edge, own[run]) for edge in settings.edges for run in RUNS
    }
    others = any("sinks" not in edge_ends(edge) for edge in settings.edges)
    drawn = random_tokens(session, settings.controls) if others else []
    cuts: list[Cut] = []

    def add(role: Role, place: Place, edge: str, run: int, ends: Ends) -> None:
        knockout = Knockout(run, place.heads, ends.queries, ends.keys, settings.itself)
        cuts.append(Cut(place, edge, role, knockout))

    for place in places(session, settings, ranking):
        for (edge, run), ends in ends_of.items():
            add(place.role, place, edge, run, ends)
            instead = drawn
            if sinks is not None and "sinks" in edge_ends(edge):
                instead = sinks.random(session, run, settings.controls)
            for tokens in instead if ends.controlled else ():
                add("control", place, edge, run, ends.moved(tokens))
        edge = settings.edges[0]
        for run in RUNS:
            ends = ends_of[edge, run]
            nothing = Knockout(run, place.heads, ends.queries, ends.keys[:0])
            cuts.append(Cut(place, edge, "noise floor", nothing))
    return cuts


def check_layers(session: Session, settings: Settings) -> None:
    """Refuse a window or layers that the model does not have, or that have no heads."""
    grid, layers = session.vlm.lm.grid, session.vlm.lm.grid.layers
    if settings.layers is not None:
        first, last = layer_span(settings.layers)
        if last >= layers:
            raise InputError("--layers", settings.layers, f"layers 0-{layers - 1} in this model")
        grid.need_heads(first, last, "--layers")
    if settings.layers is None and settings.heads is None:
        check_window(settings.window, session.vlm.lm.grid)


def check_window(window: int, grid: Grid) -> None:
    """Refuse a window that is wider than the model is deep."""
    if window > grid.layers:
        raise InputError("--window", f"{window} layers", f"at most {grid.layers} in this model")


def places(
    session: Session, settings: Settings, ranking: Callable[[], Sequence[Head]] = tuple
) -> Iterator[Place]:
    """Say where edges are cut: at heads, at fixed layers, or in windows of layers.

    Layers without heads have no edges; a window of such layers alone is left out.
    """
    check_layers(session, settings)
    grid = session.vlm.lm.grid

    def all_heads(first: int, last: int) -> HeadSet:
        return HeadSet(tuple(head for head in grid if first <= head.layer <= last))

    if settings.heads is not None:
        selection = Selection.parse(settings.heads)
        heads = selection.resolve(grid, ranking() if selection.needs_ranking else ())
        yield from (Place(HeadSet.of(head), "head") for head in heads)
        if len(heads) > 1:
            yield Place(HeadSet(heads), "joint")
    elif settings.layers is not None:
        span = layer_span(settings.layers)
        yield Place(all_heads(*span), "layers", None, span)
    else:
        for centre in range(grid.layers):
            start = centre - settings.window // 2
            span = max(start, 0), min(start + settings.window, grid.layers) - 1
            if whole := all_heads(*span):
                yield Place(whole, "window", centre, span)


def _table(
    session: Session, cuts: Sequence[Cut], shifts: Sequence[Outcome[Knockout]]
) -> pd.DataFrame:
    rows = [_row(session, cut, shift) for cut, shift in zip(cuts, shifts, strict=True)]
    keys = [(cut.place.name, cut.edge, cut.knockout.run) for cut in cuts]
    nulls: dict[tuple[str, str, int], list[float]] = {}
    for row, key in zip(rows, keys, strict=True):
        if row["role"] == "control" and not np.isnan(row["normalized"]):
            nulls.setdefault(key, []).append(row["normalized"])
    for row, key in zip(rows, keys, strict=True):
        null = nulls.get(key, []) if row["role"] in NAMED else []
        summary = spread(null) if null else None
        row["control_mean"] = summary.mean if summary else np.nan
        row["control_sd"] = summary.sd if summary else np.nan
        row["control_n"] = len(null)
    return with_head_columns(pd.DataFrame(rows))


def _row(session: Session, cut: Cut, shift: Outcome[Knockout]) -> dict[str, Any]:
    place, run = cut.place, cut.knockout.run
    lds = session.base.ld_with, session.base.ld_without
    direction: Direction = "noising" if run == WITH else "denoising"
    return {
        "pair": session.pair.name,
        "edge": cut.edge,
        "heads": place.name if place.layers is None else "",
        "layers": place.name if place.layers is not None else "",
        "centre": np.nan if place.centre is None else float(place.centre),
        "run": RUNS[run],
        "ld_with": lds[0],
        "ld_without": lds[1],
        "ld": shift.ld,
        "effect": shift.effect,
        "normalized": normalized_effect(shift.ld, *lds, direction),
        "role": cut.role,
        "answer_before": decode(session.vlm, [shift.token_before]),
        "answer_after": decode(session.vlm, [shift.token]),
    }

"""What cutting attention between named positions does to the answer of one pair.

Attention knockout: queries no longer see keys, and what attention they have left is renormalised.
Over the layers it is done in windows around each layer, as in M. Geva, J. Bastings, K. Filippova
and A. Globerson, Dissecting Recall of Factual Associations in Auto-Regressive Language Models
(EMNLP 2023, arXiv:2304.14767): all heads of the window's layers at once. Here a window starts
window // 2 layers before its centre, and is clipped at both ends of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headpatch.analyses.session import Session
from headpatch.engine.forward import Keep
from headpatch.engine.generate import decode
from headpatch.engine.knockout import Knockout, disagreement, knock_out, resume
from headpatch.engine.patching import WITH, WITHOUT, Baseline, OnProgress, run_pair
from headpatch.engine.resumed import Shift
from headpatch.engine.sweep import TOLERANCE
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Selection
from headpatch.measures.logits import normalized_effect
from headpatch.measures.stats import noise_floor, spread
from headpatch.study import edge_ends, layer_span

Role = Literal["window", "layers", "head", "joint", "control", "noise floor"]
NAMED: tuple[Role, ...] = ("window", "layers", "head", "joint")
_RUNS = {WITH: "with", WITHOUT: "without"}


@dataclass(frozen=True)
class Place:
    """Where edges are cut.

    Attributes
    ----------
    centre
        The layer a window is centred on.
    layers
        First and last, where all heads of these layers are cut.
    """

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
class Cuts:
    """What `cut` found.

    Attributes
    ----------
    effects
        One row for each place × edge × run; the columns of ``cuts.csv``.
    noise_floor
        The largest effect, in logits, of cutting nothing; or how far resumed passes lay from
        whole ones where they were compared, if that is more.
    resumed
        Whether passes were resumed at the first layer that is cut, or all were whole.
    summary
        One line of plain words.
    """

    effects: pd.DataFrame
    noise_floor: float
    resumed: bool
    summary: str

    @property
    def named(self) -> pd.DataFrame:
        """What was asked for, without controls."""
        return self.effects[self.effects["role"].isin(NAMED)].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class _Asked:
    place: Place
    edge: str
    role: Role
    knockout: Knockout


def cut(
    session: Session,
    ranking: Callable[[], Sequence[Head]] = tuple,
    on_progress: OnProgress | None = None,
) -> Cuts:
    """Cut every edge of the study at every place, in both runs.

    Where an edge names the region, the same is done with random image tokens outside it, as many
    as the region has, in the region's place.

    Parameters
    ----------
    ranking
        Gives the heads by attention, if the study's heads hold ``top:N``.

    Raises
    ------
    InputError
        If the model has no such layers or heads, or the prompt no such positions.
    """
    options = session.study.cut
    ends = {edge: _Ends.of(session, edge) for edge in options.edges}
    drawn = random_tokens(session, options.controls)
    asked: list[_Asked] = []
    for place in places(session, ranking):
        for (edge, one), run in product(ends.items(), _RUNS):
            whole = Knockout(run, place.heads, one.queries, one.keys, options.itself)
            asked.append(_Asked(place, edge, place.role, whole))
            for tokens in drawn if one.has_region else ():
                other = one.moved(tokens)
                away = Knockout(run, place.heads, other.queries, other.keys, options.itself)
                asked.append(_Asked(place, edge, "control", away))
        edge, one = next(iter(ends.items()))
        for run in _RUNS:
            nothing = Knockout(run, place.heads, one.queries, one.keys[:0])
            asked.append(_Asked(place, edge, "noise floor", nothing))
    base, apart = _base(session, asked)
    resumed = apart <= TOLERANCE
    run_all = resume if resumed else knock_out
    shifts = run_all(session.vlm, base, [one.knockout for one in asked], on_progress)
    table = _table(session, asked, shifts)
    nothing_cut = table.loc[table["role"] == "noise floor", "effect"].tolist()
    floor = noise_floor([*nothing_cut, apart] if resumed else nothing_cut)
    return Cuts(table, floor, resumed, _summary(session, table, floor))


def check_layers(session: Session) -> None:
    """Refuse a window or layers that the model does not have.

    Raises
    ------
    InputError
        If so.
    """
    options, layers = session.study.cut, session.vlm.lm.grid.layers
    if options.layers is not None and layer_span(options.layers)[1] >= layers:
        raise InputError("--layers", options.layers, f"layers 0-{layers - 1} in this model")
    if options.layers is None and options.heads is None and options.window > layers:
        raise InputError("--window", f"{options.window} layers", f"at most {layers} in this model")


def places(session: Session, ranking: Callable[[], Sequence[Head]] = tuple) -> Iterator[Place]:
    """Say where the study's edges are cut: at heads, at fixed layers, or in windows of layers."""
    check_layers(session)
    options, grid = session.study.cut, session.vlm.lm.grid

    def all_heads(first: int, last: int) -> HeadSet:
        numbers = range(grid.heads)
        return HeadSet(tuple(Head(*one) for one in product(range(first, last + 1), numbers)))

    if options.heads is not None:
        heads = _selected(session, ranking)
        yield from (Place(HeadSet.of(head), "head") for head in heads)
        if len(heads) > 1:
            yield Place(HeadSet(heads), "joint")
    elif options.layers is not None:
        span = layer_span(options.layers)
        yield Place(all_heads(*span), "layers", None, span)
    else:
        for centre in range(grid.layers):
            start = centre - options.window // 2
            span = max(start, 0), min(start + options.window, grid.layers) - 1
            yield Place(all_heads(*span), "window", centre, span)


def _selected(session: Session, ranking: Callable[[], Sequence[Head]]) -> tuple[Head, ...]:
    selection = Selection.parse(session.study.cut.heads or "")
    return selection.resolve(session.vlm.lm.grid, ranking() if selection.needs_ranking else ())


def positions(session: Session, end: str) -> Tensor:
    """Return the positions that one end of an edge names.

    ``words`` is the question without the answer position; ``image`` is every image token; ``other``
    is every one outside the region, those that stand for no place (a class token, ends of lines)
    included.

    Raises
    ------
    InputError
        If there are none.
    """
    prompt = session.prompt
    spans = prompt.spans
    if end in ("answer", "question", "all"):
        return spans.positions(end)  # type: ignore[arg-type]
    if end == "words":
        return spans.question[:-1]
    if spans.crossed:
        raise InputError(
            "--edges",
            f"{end}: {session.vlm.name} looks at the image by cross-attention",
            "a model whose image is among the prompt's tokens",
        )
    image = spans.image.cpu()
    if end == "image":
        return image
    region = prompt.image_positions.cpu()[torch.from_numpy(session.region_tokens)]
    if end == "region":
        return region
    other = image[~torch.isin(image, region)]
    if len(other) == 0:
        raise InputError(
            "--edges",
            f"other: the region {session.pair.region.name} is the whole image",
            "a region smaller than the image",
        )
    return other


def random_tokens(session: Session, count: int) -> list[Tensor]:
    """Draw sets of image tokens outside the region, each as large as the region.

    Seeded by the study; the same sets serve every place, edge and run. Empty if fewer tokens lie
    outside the region than inside.
    """
    prompt = session.prompt
    if prompt.spans.crossed:
        return []
    mask, placed = session.region_tokens, prompt.image_positions.cpu().numpy()
    outside, size = placed[~mask], int(mask.sum())
    if len(outside) < size:
        return []
    rng = np.random.default_rng([session.study.seed % 2**64, 0xC07])  # numpy takes no negatives
    draws = (rng.choice(outside, size, replace=False) for _ in range(count))
    return [torch.from_numpy(np.sort(drawn)) for drawn in draws]


@dataclass(frozen=True, eq=False)
class _Ends:
    """The positions of an edge.

    Attributes
    ----------
    at
        Which of the two ends are the region.
    """

    queries: Tensor
    keys: Tensor
    at: tuple[bool, bool]

    @classmethod
    def of(cls, session: Session, edge: str) -> "_Ends":
        start, end = edge_ends(edge)
        at = start == "region", end == "region"
        return cls(positions(session, start), positions(session, end), at)

    @property
    def has_region(self) -> bool:
        return any(self.at)

    def moved(self, tokens: Tensor) -> "_Ends":
        """Put `tokens` where the region is."""
        queries, keys = self.at
        return _Ends(tokens if queries else self.queries, tokens if keys else self.keys, self.at)


def _base(session: Session, asked: Sequence[_Asked]) -> tuple[Baseline, float]:
    """Return both untouched runs with what resuming needs, and how far off resuming is.

    It is compared with whole passes on every edge, at the place in the middle.
    """
    start = min(one.knockout.start for one in asked)
    base = session.base
    if not base.trace.prefills or base.trace.prefills[WITH].start > start:
        base = run_pair(session.vlm, session.prompt, Keep(suffix=start), exact=True)
    named = [one for one in asked if one.role in NAMED and one.knockout.run == WITH]
    middle = named[len(named) // 2].place
    probes = [one.knockout for one in named if one.place == middle]
    return base, disagreement(session.vlm, base, probes)


def _table(session: Session, asked: Sequence[_Asked], shifts: Sequence[Shift]) -> pd.DataFrame:
    nulls: dict[tuple[str, str, int], list[float]] = {}
    rows = []
    for one, shift in zip(asked, shifts, strict=True):
        row = _row(session, one, shift)
        if one.role == "control" and not np.isnan(row["normalized"]):
            key = (one.place.name, one.edge, one.knockout.run)
            nulls.setdefault(key, []).append(row["normalized"])
        rows.append(row)
    for row, one in zip(rows, asked, strict=True):
        key = (one.place.name, one.edge, one.knockout.run)
        null = nulls.get(key, []) if one.role in NAMED else []
        summary = spread(null) if null else None
        row["control_mean"] = summary.mean if summary else np.nan
        row["control_sd"] = summary.sd if summary else np.nan
        row["control_n"] = len(null)
    return pd.DataFrame(rows)


def _row(session: Session, one: _Asked, shift: Shift) -> dict[str, Any]:
    base, place, run = session.base, one.place, one.knockout.run
    return {
        "pair": session.pair.name,
        "edge": one.edge,
        "heads": place.name if place.layers is None else "",
        "layers": place.name if place.layers is not None else "",
        "centre": np.nan if place.centre is None else float(place.centre),
        "run": _RUNS[run],
        "ld_with": base.ld_with,
        "ld_without": base.ld_without,
        "ld": shift.ld,
        "effect": shift.effect,
        "normalized": normalized_effect(
            shift.ld, base.ld_with, base.ld_without, "noising" if run == WITH else "denoising"
        ),
        "role": one.role,
        "answer_before": decode(session.vlm, [shift.token_before]),
        "answer_after": decode(session.vlm, [shift.token]),
    }


def _summary(session: Session, table: pd.DataFrame, floor: float) -> str:
    """Say what the largest effect on the with-run was, and no more than one pair can show."""
    named = table[table["role"].isin(NAMED) & (table["run"] == "with")]
    row = max(named.to_dict("records"), key=lambda row: abs(row["effect"]))
    heads = row["heads"] if row["heads"].count("+") < 3 else "all named heads"
    where = f"in layers {row['layers']}" if row["layers"] else f"of {heads}"
    start, end = edge_ends(row["edge"])
    chosen = f", the largest of {len(named)} cuts tried," if len(named) > 1 else ""
    caveat = "One pair shows one case, not a rule."
    if not session.valid:
        caveat = "The study is INVALID (the answers do not flip): these figures say nothing."
    if abs(row["effect"]) <= floor:
        return f"No cut moves LD of the with-run beyond the noise floor ({floor:.1e}). {caveat}"
    words = f"by {row['effect']:+.3f} logits"
    if not np.isnan(row["normalized"]):
        words += f" ({row['normalized']:+.1%} of the difference between the runs"
        if row["control_n"] > 1:
            mean, sd = row["control_mean"], row["control_sd"]
            words += f"; as many other image tokens instead: {mean:+.1%} ± {sd:.1%}"
        words += ")"
    flips = row["answer_before"] != row["answer_after"]
    return (
        f"Cutting {start} → {end} {where}{chosen} moves LD of the with-run {words}; the answer "
        f"{'becomes' if flips else 'stays'} {row['answer_after']!r}. {caveat}"
    )

"""What `cut` is going to do: which edges it cuts, where, in which run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from headpatch.core.session import Session
from headpatch.core.study import layer_span
from headpatch.engine.knockout import Knockout
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Selection
from headpatch.questions.cut.edges import Ends, random_tokens

Role = Literal["window", "layers", "head", "joint", "control", "noise floor"]
NAMED: tuple[Role, ...] = ("window", "layers", "head", "joint")
RUNS: Mapping[int, str] = {WITH: "with", WITHOUT: "without"}


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
class Asked:
    """One cut, and what it is measured for."""

    place: Place
    edge: str
    role: Role
    knockout: Knockout


def plan(session: Session, ranking: Callable[[], Sequence[Head]] = tuple) -> list[Asked]:
    """List every cut: what the study asks for, its controls, and cuts of nothing.

    Arguments and errors are those of `headpatch.questions.cut.one.cut`.
    """
    options = session.study.cut
    ends = {edge: Ends.of(session, edge) for edge in options.edges}
    drawn = random_tokens(session, options.controls)
    asked: list[Asked] = []
    for place in places(session, ranking):
        for (edge, one), run in product(ends.items(), RUNS):
            whole = Knockout(run, place.heads, one.queries, one.keys, options.itself)
            asked.append(Asked(place, edge, place.role, whole))
            for tokens in drawn if one.has_region else ():
                other = one.moved(tokens)
                away = Knockout(run, place.heads, other.queries, other.keys, options.itself)
                asked.append(Asked(place, edge, "control", away))
        edge, one = next(iter(ends.items()))
        for run in RUNS:
            nothing = Knockout(run, place.heads, one.queries, one.keys[:0])
            asked.append(Asked(place, edge, "noise floor", nothing))
    return asked


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

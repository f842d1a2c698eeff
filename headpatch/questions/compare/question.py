"""Comparing saved runs: which heads and layers they rank alike. No model is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from headpatch.core.output.staging import check_folder, taken
from headpatch.core.output.writing import write
from headpatch.core.question import Call, Context, Files, Opened, Origin, Question, Result
from headpatch.core.study.keywords import CompareKeywords
from headpatch.core.study.record import RUN
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.questions.compare import VERB
from headpatch.questions.compare.columns import COMPARE
from headpatch.questions.compare.runs import ATTENTION, Figure, SavedRun, read_runs
from headpatch.questions.compare.view import summary
from headpatch.stats.run_agreement import at_depths, rank_agreement
from headpatch.stats.verdict_labels import CAUSAL
from headpatch.text import user_path

_LEAST = 3  # heads or layers of which ranks say something


@dataclass(frozen=True)
class Settings:
    """How runs are compared."""

    top: int = 20
    depth: bool = False
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Compared(Result):
    """What `headpatch.compare` found.

    Attributes
    ----------
    table
        A row for each two runs, figure of heads and unit: the columns of ``compare.csv``.
    """

    table: pd.DataFrame

    @property
    def summary(self) -> str:
        """What agrees, a sentence for each two runs and figure of heads."""
        return "\n".join(summary(self.table))

    def files(self) -> Files:
        """Return the table."""
        return {COMPARE.file: self.table}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the comparison."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return {"compared": table.to_dict("records")}


class Compare(Question[Compared]):
    """Compares saved runs; it is asked of folders, not of pictures."""

    verb = VERB

    def answer(self, opened: Opened, call: Call) -> Compared:
        """Refuse pictures."""
        raise NotImplementedError("compare is asked of folders of results: headpatch.compare")


QUESTION = Compare()


def compare(
    *runs: str | Path,
    out: str | Path | None = None,
    top: int = 20,
    depth: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    **figures: Unpack[CompareKeywords],
) -> Compared:
    """Say how far saved runs agree on which heads look and which act; no model is run.

    Parameters
    ----------
    runs
        Folders of results, two or more, of `rank`, `sweep`, `ablate` or `verdict`.
    out
        A folder for ``compare.csv``, its figure and ``run.yaml``. None writes nothing.
    top
        How many of the first heads are compared; chance alone shares ``top² / heads``.
    depth
        Compare layers by relative depth where models have other numbers of them.
    level, resamples, seed
        Coverage of the intervals over scenes, and how they are resampled.
    figures
        Override those of the first run's `headpatch.Study.figures`: ``format``, ``width``,
        ``style``.

    Raises
    ------
    InputError
        If a folder holds no figures of heads, was changed after its run, or two of them have no
        figure in common that can be compared.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     names = hp.rank(session).save(folder)
    ...     found = hp.compare("attention_data", folder)
    >>> found.table[["figure", "unit", "rho", "shared"]].head(1).values.tolist()
    [['attention difference', 'head', 1.0, 20.0]]
    """
    place = None if out is None else user_path(out, "out")
    if place is not None:
        check_folder(place)
    if top < 1:
        raise InputError("--top", str(top), "at least 1 head")
    if not 0 < level < 1:
        raise InputError("--level", f"{level:g}", "a share between 0 and 1")
    found = read_runs([user_path(one, "RUN") for one in runs])
    settings = Settings(top, depth, level, resamples, seed)
    rows = [row for both in combinations(found, 2) for row in _rows(*both, settings)]
    table = pd.DataFrame(rows, columns=[column.name for column in COMPARE])
    origin = _origin(found, settings)
    drawn = origin.study.model_copy(update={"figures": origin.study.figures.given(**figures)})
    result = Compared(table, origin=replace(origin, study=drawn))
    if place is not None:
        with taken(place, VERB.name):
            write(result, place)
    return result


def _origin(runs: list[SavedRun], settings: Settings) -> Origin:
    first = runs[0]
    study = Study.make(first.folder / RUN, verb=first.record.verb or None)
    valid = all(one.record.run.get("valid") is not False for one in runs)
    own = {key: first.record.run[key] for key in ("model", "weights") if key in first.record.run}
    facts = {
        **own,
        "runs": [str(one.folder.resolve()) for one in runs],
        "models": [str(one.record.run.get("model", "")) for one in runs],
        "valid": valid,
        "top": settings.top,
        "depth": settings.depth,
        "level": settings.level,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    context = Context(valid=valid, level=settings.level, facts=facts)
    return Origin(VERB, study, facts, context)


def _rows(first: SavedRun, second: SavedRun, settings: Settings) -> Iterator[dict[str, Any]]:
    """Compare two runs by every figure that both have; an `InputError` if there is none."""
    common = [name for name in first.figures if name in second.figures]
    classed = first.classes is not None and second.classes is not None
    if not common and not classed:
        held = ["; ".join(one.figures) or "classes alone" for one in (first, second)]
        found = f"{first.name} has {held[0]}. {second.name} has {held[1]}"
        raise InputError("RUN", found, "runs with a figure of heads in common")
    names = {"first": first.name, "second": second.name}
    for figure in common:
        one, other = first.figures[figure], second.figures[figure]
        together = bool(one.names) and one.names == other.names and first.pairs == second.pairs
        own = {**names, "figure": figure, "scenes_first": len(one.values),
               "scenes_second": len(other.values), "together": together}  # fmt: skip
        for unit, values in _units(names, figure, one, other, settings.depth):
            yield own | _agreement(figure, unit, values, together, settings)
    if first.classes is not None and second.classes is not None:
        yield from _classes(names, first.classes, second.classes)


def _units(
    names: Mapping[str, str], figure: str, one: Figure, other: Figure, depth: bool
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what is set side by side: heads, layers, or layers by depth."""
    shapes = one.values.shape[1:], other.values.shape[1:]
    if one.named or other.named:
        wider = max(shapes[0][0], shapes[1][0]), max(shapes[0][1], shapes[1][1])
        yield "head", (_flat(one.padded(wider)), _flat(other.padded(wider)))
        return
    if shapes[0] == shapes[1]:
        yield "head", (_flat(one.values), _flat(other.values))
    layers = one.layers(), other.layers()
    if shapes[0][0] == shapes[1][0]:
        yield "layer", layers
    elif depth:
        count = min(shapes[0][0], shapes[1][0])
        yield "depth", (at_depths(layers[0], count), at_depths(layers[1], count))
    else:
        found = f"{names['first']} has {shapes[0][0]} layers, {names['second']} {shapes[1][0]}"
        hint = "With --depth layers are compared by relative depth."
        raise InputError("RUN", f"{figure}: {found}", "as many layers in both", hint)


def _flat(values: Any) -> Any:
    return values.reshape(len(values), -1)


def _agreement(
    figure: str, unit: str, values: tuple[Any, Any], together: bool, settings: Settings
) -> dict[str, Any]:
    there = np.isfinite(values[0]).all(0) & np.isfinite(values[1]).all(0)
    n = int(there.sum())
    row: dict[str, Any] = {"unit": unit, "n": n}
    if n < _LEAST:
        return row
    rng = np.random.default_rng(settings.seed % 2**64)
    asked = together, settings.top, settings.level, settings.resamples, rng
    sizes = not figure.startswith(ATTENTION)
    found = rank_agreement(values[0][:, there], values[1][:, there], *asked, sizes)
    row |= {"rho": found.rho, "rho_low": found.low, "rho_high": found.high}
    row["ceiling"] = found.ceiling
    if unit != "head" or found.k == n:  # all of them are the first ones
        return row
    k = found.k
    row |= {"k": k, "k_second": k, "shared": found.shared, "chance": k * k / n, "p": found.p}
    return row | {"shared_low": found.shared_low, "shared_high": found.shared_high}


def _classes(names: Mapping[str, str], first: Any, second: Any) -> Iterator[dict[str, Any]]:
    """Count heads of the same class, and those that act in both."""
    if first.shape != second.shape:
        return
    n, one, other = first.size, first.ravel(), second.ravel()
    own = {**names, "unit": "head", "n": n, "scenes_first": 1, "scenes_second": 1,
           "together": False}  # fmt: skip
    kinds = sorted({*one, *other})
    chance = sum(float((one == kind).sum()) * float((other == kind).sum()) / n for kind in kinds)
    yield own | {"figure": "class", "shared": int((one == other).sum()), "chance": chance}
    acting = [np.isin(each, list(CAUSAL)) for each in (one, other)]
    k, k_second = (int(each.sum()) for each in acting)
    shared = int((acting[0] & acting[1]).sum())
    p = float(hypergeom.sf(shared - 1, n, k, k_second))
    counts = {"k": k, "k_second": k_second, "shared": shared, "chance": k * k_second / n, "p": p}
    yield own | {"figure": "acting heads", **counts}

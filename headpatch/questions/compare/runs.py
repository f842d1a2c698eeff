"""Figures of heads that saved runs hold, by name: attention, effects, classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.core.output.files import read_table, read_tensors, reading
from headpatch.core.output.folder import written_in
from headpatch.core.question import COMPARED_BY
from headpatch.core.study.record import RUN, Record
from headpatch.errors import InputError
from headpatch.kinds import kind_label
from headpatch.pairs.region import compared_by
from headpatch.stats.scenes import by_scene

Cube = Float[np.ndarray, "scenes layers heads"]
ATTENTION = "attention difference"
_ARGUMENT = "RUN"
_VERDICTS = {"layer": "whole", "head": "whole", "verdict": "text"}
_EFFECTS = {"heads": "text", "kind": "text", "direction": "text", "role": "text",
            "normalized": "number"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of every head, NaN where a head has none; one row a scene, or one of means."""

    values: Cube
    names: tuple[str, ...] = ()  # of the scenes; empty: means alone
    named: bool = False  # whether it is of heads that were named, so that the grid is not known

    def padded(self, shape: tuple[int, int]) -> Cube:
        """Return the values on a larger grid; NaN beyond their own."""
        layers, heads = self.values.shape[1:]
        found = np.full((len(self.values), *shape), np.nan)
        found[:, :layers, :heads] = self.values
        return np.asarray(found)

    def layers(self) -> Float[np.ndarray, "scenes layers"]:
        """Mean over the heads of each layer that have the figure; NaN where none has."""
        there = np.isfinite(self.values)
        total, count = np.where(there, self.values, 0.0).sum(2), there.sum(2)
        means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return np.asarray(means)


@dataclass(frozen=True, eq=False)
class SavedRun:
    """What a folder of results says of heads."""

    name: str
    folder: Path
    record: Record  # of the latest verb whose files were taken
    figures: Mapping[str, Figure] = field(default_factory=dict)
    classes: np.ndarray | None = None  # layers × heads, of a verdict

    @property
    def pairs(self) -> tuple[Any, ...]:
        """What its pairs hang on: runs that agree in it ran the same ones."""
        study = self.record.study
        own = study.get("pairs", {}).get("manifest"), study.get("draw"), study.get("seed")
        return *own, study.get("force")


def read_runs(folders: Sequence[Path]) -> list[SavedRun]:
    """Read two folders or more; an `InputError` if one holds no figures of heads."""
    if len(folders) < 2:
        raise InputError(_ARGUMENT, f"{len(folders)} folder", "two folders of results, or more")
    places = [folder.resolve() for folder in folders]
    if twice := [one for one in places if places.count(one) > 1]:
        raise InputError(_ARGUMENT, f"{twice[0]} twice", "each folder once")
    short = [place.name for place in places]
    names = [str(folder) if short.count(name) > 1 else name
             for folder, name in zip(folders, short, strict=True)]  # fmt: skip
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> SavedRun:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InputError(_ARGUMENT, f"{folder}: {found}", "a folder of results")
    records = written_in(folder, _ARGUMENT)
    figures: dict[str, Figure] = {}
    used: list[Record] = []
    for file, read in _READ.items():
        for record in records.wrote(file)[:1] if (folder / file).is_file() else ():
            records.refuse_changed(_ARGUMENT, record, [file, RUN])
            with reading(folder / file):
                new = dict(read(folder, record))
            figures = new | figures
            used += [record] * bool(new)
    classes = None
    if (folder / "verdicts.csv").is_file() and (wrote := records.wrote("verdicts.csv")):
        records.refuse_changed(_ARGUMENT, wrote[0], ["verdicts.csv", RUN])
        classes = _classes(folder / "verdicts.csv")
        used += wrote[:1]
    if not figures and classes is None:
        found = f"{folder} holds no figures of heads"
        raise InputError(_ARGUMENT, found, "what rank, sweep, ablate or verdict wrote")
    return SavedRun(name, folder, used[0], figures, classes)


def _verdict(folder: Path, record: Record) -> Iterator[tuple[str, Figure]]:
    saved = read_tensors(folder / "verdict.pt", {"attention_diff": 3, "resample_noising": 3})
    scenes, names = saved.get("scenes"), [str(one) for one in saved["pairs"]]
    number = np.arange(len(names)) if scenes is None else scenes.numpy()
    yield _attention(record), _figure(saved["attention_diff"].numpy(), number, names)
    for way in ("resample_noising", "resample_denoising", "mean_noising", "mean_denoising"):
        if way in saved and np.ndim(saved[way]) == 3 and len(saved[way]) == len(names):
            yield _effect(way, saved), _figure(saved[way].numpy(), number, names)


def _verdict_means(folder: Path, record: Record) -> Iterator[tuple[str, Figure]]:
    """Read ``verdicts.csv``, where ``verdict.pt`` is not kept beside it."""
    of = {"attention_diff": _attention(record)}
    positions = {"positions": record.study.get("verdict", {}).get("positions", "answer")}
    for name, way in (("necessity", "noising"), ("sufficiency", "denoising")):
        of[name] = _effect(f"resample_{way}", positions)
    table = read_table(folder / "verdicts.csv", _VERDICTS | dict.fromkeys(of, "number"))
    for name, figure in of.items():
        yield figure, Figure(_cube(table["layer"], table["head"], [table[name].to_numpy()]))


def _sweep(folder: Path, record: Record) -> Iterator[tuple[str, Figure]]:
    saved = read_tensors(folder / "sweep.pt")
    if saved.get("tower", "lm") != "lm":
        return
    names = [str(one) for one in saved.get("pair_names", ())]
    number = _scenes(folder, names)
    if "attention_diff" in saved:
        yield _attention(record), Figure(saved["attention_diff"].double().numpy()[None])
    for way, means in saved["normalized"].items():
        if np.ndim(means) != 2:  # sets
            continue
        each = saved.get("normalized_by_pair", {}).get(way)
        one = Figure(means.double().numpy()[None])
        yield _effect(way, saved), one if each is None else _figure(each.numpy(), number, names)


def _ranking(folder: Path, record: Record) -> Iterator[tuple[str, Figure]]:
    table = read_table(folder / "heads.csv", {"layer": "whole", "head": "whole", "diff": "number"})
    means = _cube(table["layer"], table["head"], [table["diff"].to_numpy()])
    yield _attention(record), Figure(means)


def _ablation(folder: Path, record: Record) -> Iterator[tuple[str, Figure]]:
    if record.verb != "ablate":  # a sweep's are in sweep.pt
        return
    table = read_table(folder / "effects.csv", _EFFECTS)
    one_head = (table["role"] == "head") & table["heads"].str.fullmatch(r"[0-9]+\.[0-9]+")
    positions = record.study.get("ablate", {}).get("positions", "answer")
    table = table[one_head].assign(pair=table.get("pair", ""))
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        wide = rows.pivot_table("normalized", "pair", "heads", sort=False)
        places = np.array([[int(part) for part in one.split(".")] for one in wide.columns])
        cube = _cube(places[:, 0], places[:, 1], wide.to_numpy())
        names = [str(one) for one in wide.index]
        of = Figure(cube) if len(names) < 2 else _figure(cube, _scenes(folder, names), names)
        way = _effect(f"{kind}_{direction}", {"positions": positions})
        yield way, Figure(of.values, of.names, named=True)


_READ: Mapping[str, Callable[[Path, Record], Iterator[tuple[str, Figure]]]] = {
    "verdict.pt": _verdict, "verdicts.csv": _verdict_means, "sweep.pt": _sweep,
    "heads.csv": _ranking, "effects.csv": _ablation,
}  # fmt: skip
"""By file; of a figure that several hold, the first counts."""


def _attention(record: Record) -> str:
    """Name the attention difference by what heads are compared by, where that is not a region."""
    by_image = compared_by(str(record.run.get(COMPARED_BY, ""))) == "image"
    return f"{ATTENTION}, of raw image mass" if by_image else ATTENTION


def _effect(way: str, saved: Mapping[str, Any]) -> str:
    kind, _, direction = way.rpartition("_")
    return f"{kind_label(kind, saved)}, {direction}, at {saved['positions']}"


def _figure(values: Any, number: Any, names: Sequence[str]) -> Figure:
    """Take the means of scenes; they are called by their first pairs."""
    first = dict(zip(reversed(number.tolist()), reversed(names), strict=True))
    order = list(dict.fromkeys(number.tolist()))
    cube = by_scene(np.asarray(values, np.float64), number)
    return Figure(cube, tuple(first[one] for one in order))


def _scenes(folder: Path, names: Sequence[str]) -> Any:
    """Number the scenes of pairs, as ``gate.csv`` has them; each its own where that is missing."""
    own: Mapping[str, str] = {}
    if (folder / "gate.csv").is_file():
        gate = read_table(folder / "gate.csv", {"pair": "text"})
        if list(gate)[1:2] == ["scene"]:
            own = dict(zip(gate["pair"].astype(str), gate["scene"].astype(str), strict=True))
    called = [own.get(name, name) for name in names]
    numbers = {name: place for place, name in enumerate(dict.fromkeys(called))}
    return np.array([numbers[name] for name in called], dtype=np.int64)


def _cube(layer: Any, head: Any, rows: Any) -> Cube:
    """Lay values out as layers × heads; NaN where a head is missing."""
    layer, head = np.asarray(layer, int), np.asarray(head, int)
    found = np.full((len(rows), int(layer.max()) + 1, int(head.max()) + 1), np.nan)
    found[:, layer, head] = rows
    return found


def _classes(path: Path) -> np.ndarray:
    table = read_table(path, _VERDICTS)
    with reading(path):
        shape = int(table["layer"].max()) + 1, int(table["head"].max()) + 1
        found = np.full(shape, "", dtype=object)
        found[table["layer"], table["head"]] = table["verdict"]
    return found

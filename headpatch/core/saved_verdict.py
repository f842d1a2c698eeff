"""How a verdict judges heads over many pairs, and a verdict read back from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.output.files import read_table, read_tensors, reading
from headpatch.core.output.records import Records
from headpatch.core.output.staging import settle
from headpatch.core.study.record import RUN
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.same_scene import need_scenes, scenes_of
from headpatch.stats.scenes import by_scene
from headpatch.stats.verdict_labels import Rule


def rule(study: Study) -> Rule:
    """Return by what heads are judged."""
    options = study.pairs
    look = study.verdict.attention_delta
    return Rule(study.verdict.delta, options.level, options.resamples, study.seed, look)


LEAST = 20
"""Scenes to judge heads on: with fewer, intervals no longer cover what they say (see the tests)."""


def can_judge(count: int) -> bool:
    """Whether so many pairs are enough to judge heads on."""
    return count >= LEAST


@dataclass(frozen=True)
class Halves:
    """Which pairs choose heads, and which judge them."""

    discovery: tuple[Entry, ...]
    confirmation: tuple[Entry, ...]


def need_pairs(study: Study, count: int, argument: str) -> None:
    """Refuse a study of too few pairs, whatever the gate says, to choose on and to judge on."""
    split = study.verdict.split
    kept = round(split * count)
    if count >= 2 and kept in (0, count):
        half = "discovery" if kept == 0 else "confirmation"
        found = f"{split:g} of {count} pairs leaves the {half} half empty"
        raise InputError("--split", found, "a share that leaves pairs in both halves")
    if count - kept < LEAST:
        least = next(n for n in range(LEAST, 10**7) if n - round(split * n) >= LEAST)
        raise InputError(
            argument,
            f"{count} pairs, of which {max(count - kept, 0)} would judge heads",
            f"at least {least} pairs that pass the gate, so that {LEAST} judge (--split {split:g})",
        )


def halve(study: Study, entries: Sequence[Entry]) -> Halves:
    """Split the pairs by the seed, so that each region and question is in both parts alike.

    All pairs of a scene are in one part.
    """
    need_scenes(entries, lambda count: need_pairs(study, count, "--pairs"))
    scenes = scenes_of(entries).tolist()
    asked: dict[int, list[tuple[str, str]]] = {}
    for scene, entry in zip(scenes, entries, strict=True):
        asked.setdefault(scene, []).append((entry.region.name, entry.question))
    total, count = len(asked), round(study.verdict.split * len(asked))
    rng = np.random.default_rng([study.seed % 2**64, total])
    alike = sorted(  # at random among those that are
        rng.permutation(total).tolist(), key=lambda scene: sorted(asked[scene])
    )
    every = np.floor((np.arange(count) + rng.random()) * total / count).astype(int)
    first = {alike[place] for place in every.tolist()}
    both = list(zip(scenes, entries, strict=True))
    return Halves(
        tuple(one for scene, one in both if scene in first),
        tuple(one for scene, one in both if scene not in first),
    )


_NEEDED = ("verdicts.csv", "partners.csv", "gate.csv", RUN)
_READ = (*_NEEDED, "vision.csv", "verdict.pt")
_INTERVAL = ("", "_low", "_high")


def _numbers(*names: str, ends: tuple[str, ...] = (*_INTERVAL, "_q")) -> dict[str, str]:
    return {f"{name}{end}": "number" for name in names for end in ends}


_HEADS = {
    "layer": "whole",
    "head": "whole",
    "verdict": "text",
    "attention_rank": "whole",
    "partners": "text",
    "failed_nulls": "text",
    "equivalence_q": "number",
    **_numbers("attention_diff", "necessity", "sufficiency"),
}
_SETS = {"heads": "text", "redundant": "truth", **_numbers("joint", "excess", ends=_INTERVAL)}
_VISION = {"layer": "whole", **_numbers("necessity")}
_GATE = {"pair": "text", "region": "text", "question": "text", "passed": "truth"}


@dataclass(frozen=True, eq=False)
class SavedVerdict:
    """A verdict's tables, and what ran it; `folder` is None if it was not written."""

    study: Study
    heads: pd.DataFrame  # ``verdicts.csv``
    sets: pd.DataFrame  # ``partners.csv``
    gate: pd.DataFrame
    looks: Float[np.ndarray, " scenes"] | None  # see `mean_looks`
    vision: pd.DataFrame | None
    entries: tuple[Entry, ...]  # none if they are not there, or are drawn again when needed
    run: Mapping[str, Any]
    folder: Path | None = None
    correlation: Mapping[str, Any] | None = None
    """Over heads, of attention difference and effect, of true values: the fields of
    `headpatch.stats.disattenuated_rank_correlation.TrueCorrelation`."""

    @classmethod
    def read(cls, folder: Path, argument: str) -> "SavedVerdict":
        """Read a verdict's folder, unless it is damaged or was changed; `argument` names it."""
        settle(folder)
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        if absent:
            found, expected = f"{folder} holds no {' nor '.join(absent)}", "the folder of a verdict"
            hint = "Run headpatch verdict with this --out, or headpatch claims with an empty one."
            raise InputError(argument, found, expected, hint)
        records = Records.read(folder)
        record = records.of("verdict")
        if record is None:
            found = f"{folder / RUN} has no record of a verdict"
            expected = "the record of the run that wrote verdicts.csv"
            hint = "Run headpatch verdict again with this --out."
            raise InputError(argument, found, expected, hint)
        records.refuse_changed(argument, record, _READ)
        study = Study.make(folder / RUN, verb="verdict")
        vision, tensors = folder / "vision.csv", folder / "verdict.pt"
        heads, sets = _heads(folder / "verdicts.csv"), read_table(folder / "partners.csv", _SETS)
        looks, correlation = _of_tensors(tensors) if tensors.is_file() else (None, None)
        layers = read_table(vision, _VISION) if vision.is_file() else None
        gate = _gate(folder / "gate.csv")
        tables = heads, sets, gate, looks, layers
        return cls(study, *tables, _entries(study), record.run, folder, correlation)

    @staticmethod
    def lies_in(folder: Path) -> bool:
        """Say whether a folder holds a verdict, whole or in part."""
        return (folder / "verdicts.csv").is_file()

    @property
    def weights(self) -> str:
        """Of its model."""
        return str(self.run.get("weights", ""))

    @property
    def failed_nulls(self) -> tuple[str, ...]:
        """The verdict's nulls that failed."""
        failed = str(self.heads["failed_nulls"].iloc[0])
        return tuple(failed.split(";")) if failed else ()

    @property
    def grid(self) -> Grid:
        """The heads that were judged; layers after the last that has any are not known."""
        layers, heads = (int(self.heads[name].max()) + 1 for name in ("layer", "head"))
        without = set(range(layers)) - {*self.heads["layer"]}
        return Grid(layers, heads, without=tuple(sorted(without)))

    def followed_pairs(self, study: Study, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return the pairs, of all `entries`, on which claims are followed up.

        The first that judged, one of each scene, so that each counts as one.
        """
        judging = self.judging_pairs(study, entries)
        first = {entry.scene: entry for entry in reversed(judging)}
        each = [entry for entry in judging if first[entry.scene] is entry]
        return tuple(each[: study.verdict.followed])

    def judging_pairs(self, study: Study, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return those pairs, of all `entries`, on which the verdict judged heads: all that ran."""
        known = {(one.name, one.region.name, one.question): one for one in entries}
        gate = self.gate if self.study.force else self.gate[self.gate["passed"]]
        ran = list(zip(gate["pair"], gate["region"], gate["question"], strict=True))
        if gone := [name for name, *rest in ran if (name, *rest) not in known]:
            found = f"pair {gone[0]} of the verdict is not there, or has another question or region"
            hint = "Run the verdict again over the pairs that there are."
            raise InputError("--pairs", found, f"the {len(ran):,} pairs that the verdict ran", hint)
        scenes = _scenes(gate)
        own = zip(ran, scenes, strict=True)
        return tuple(replace(known[one], scene=scene) for one, scene in own)


def _scenes(gate: pd.DataFrame) -> list[str]:
    """Name the scenes by which a verdict split its pairs, from ``gate.csv``.

    An earlier version split pairs; a column of that name is then a factor, at the table's end.
    """
    columns = list(gate.columns)
    split_by = "scene" if columns[1] == "scene" else "pair"
    return [str(name) for name in gate[split_by]]


def _heads(path: Path) -> pd.DataFrame:
    table = read_table(path, _HEADS)
    with reading(path):
        layers, heads = (np.unique(table[name]) for name in ("layer", "head"))
        every = {"layer": np.repeat(layers, len(heads)), "head": np.tile(heads, len(layers))}
        whole = len(heads) and np.array_equal(heads, np.arange(len(heads)))
        if not whole or not all(np.array_equal(table[name], one) for name, one in every.items()):
            raise ValueError("it does not list every head once, in order")
    return table


def _gate(path: Path) -> pd.DataFrame:
    table = read_table(path, _GATE)
    with reading(path):
        if table.empty:
            raise ValueError("it lists no pairs")
    return table


def _of_tensors(path: Path) -> tuple[Float[np.ndarray, " scenes"], Mapping[str, Any] | None]:
    saved = read_tensors(path, {"attention_diff": 3})
    with reading(path):
        return mean_looks(saved), saved.get("true_rho")


def mean_looks(saved: Mapping[str, Any]) -> Float[np.ndarray, " scenes"]:
    """Mean attention difference of each scene of ``verdict.pt``, over heads that see the image.

    Of each pair, if the file does not say which scenes they show: an earlier version.
    """
    each = saved["attention_diff"].double().numpy()
    looks = np.asarray(np.nanmean(each.reshape(len(each), -1), 1))
    return by_scene(looks, saved["scenes"].numpy()) if "scenes" in saved else looks


def _entries(study: Study) -> tuple[Entry, ...]:
    """Return the pairs of a study's dataset; none if it has none, or it cannot be read."""
    if study.pairs.manifest is None:
        return ()
    try:
        manifest = Manifest.read(Path(study.pairs.manifest))
    except InputError:
        return ()
    return manifest.take(study.pairs.limit, study.seed).entries

"""A verdict read back from its folder, as what claims are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.decision_rule import rule
from headpatch.core.output.reading import read_table, read_tensors, reading
from headpatch.core.output.records import Records
from headpatch.core.output.staging import settle
from headpatch.core.study import Study
from headpatch.core.study.record import RUN, Record
from headpatch.errors import InputError
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.followed import table_of
from headpatch.stats.claim_evidence import Evidence, missing
from headpatch.stats.claims import Claim
from headpatch.stats.followed import Ask, Followed
from headpatch.stats.judged_claims import Judged, judge_claim

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
_SETS = {
    "heads": "text",
    "redundant": "truth",
    **_numbers("joint", "excess", ends=_INTERVAL),
}
_VISION = {"layer": "whole", **_numbers("necessity")}
_GATE = {"pair": "text", "region": "text", "question": "text", "passed": "truth"}
FOLLOWED = "followed.csv"


@dataclass(frozen=True, eq=False)
class SavedVerdict:
    """A verdict's tables, and what was measured beside it.

    Attributes
    ----------
    study
        As it was run.
    evidence
        What claims are judged by.
    gate
        ``gate.csv``.
    followed
        ``followed.csv``; None if nothing was measured beside the verdict.
    run
        What ran it, as its record says.
    folder
        Where it lies; None if it was not written.
    """

    study: Study
    evidence: Evidence
    gate: pd.DataFrame
    followed: pd.DataFrame | None
    run: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def read(cls, folder: Path, argument: str = "--out") -> "SavedVerdict":
        """Read a verdict's folder.

        Raises
        ------
        InputError
            If it holds none, a damaged one, or one whose files were changed after the run.
        """
        settle(folder)
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        if absent:
            raise InputError(
                argument,
                f"{folder} holds no {' nor '.join(absent)}",
                "the folder of a verdict",
                "Run headpatch verdict with this --out, or headpatch claims with an empty one.",
            )
        record = _record(folder, argument)
        study = Study.make(folder / RUN, verb="verdict")
        vision = folder / "vision.csv"
        seen = Evidence(
            heads=_heads(folder / "verdicts.csv"),
            sets=read_table(folder / "partners.csv", _SETS),
            rule=rule(study),
            top=study.verdict.top,
            looks=_looks(folder / "verdict.pt"),
            vision=read_table(vision, _VISION) if vision.is_file() else None,
        )
        gate = read_table(folder / "gate.csv", _GATE)
        with reading(folder / "gate.csv"):
            if gate.empty:
                raise ValueError("it lists no pairs")
        return cls(study, seen, gate, read_followed(folder), record.run, folder)

    @staticmethod
    def lies_in(folder: Path) -> bool:
        """Say whether a folder holds a verdict, whole or in part."""
        return (folder / "verdicts.csv").is_file()

    @property
    def failed_nulls(self) -> list[str]:
        """The verdict's nulls that failed."""
        failed = str(self.evidence.heads["failed_nulls"].iloc[0])
        return failed.split(";") if failed else []

    def check_model(self, study: Study, argument: str = "--out") -> None:
        """Refuse a verdict of another model than a study's.

        Raises
        ------
        InputError
            If it is.
        """
        if self.study.model != study.model:
            raise InputError(
                argument,
                f"a verdict of model {self.study.model} lies there",
                f"one of the claims' model, {study.model}",
            )

    def missing(self, claims: Sequence[Claim]) -> tuple[Ask, ...]:
        """Return what claims need that is not there, each once.

        Raises
        ------
        InputError
            If one names a head or a layer that the model does not have.
        """
        for claim in claims:
            self.evidence.check(claim)
        asked = [ask for claim in claims for ask in missing(claim, self.evidence)]
        return tuple({ask.name: ask for ask in asked}.values())

    def judge(self, claims: Sequence[Claim]) -> list[Judged]:
        """Judge every claim."""
        return [judge_claim(claim, self.evidence) for claim in claims]

    def passed(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return those of the verdict's pairs that were run."""
        run = self.gate if self.study.force else self.gate[self.gate["passed"]]
        names = set(run["pair"])
        return tuple(entry for entry in entries if entry.name in names)

    def study_like(self, study: Study) -> Study:
        """Return the study as it was run, on the device and into the folder of another."""
        here = {"device", "dtype", "device_map", "quantize", "out", "claims"}
        return self.study.model_copy(update={name: getattr(study, name) for name in here})

    def with_followed(self, found: Mapping[str, Followed], pairs: Sequence[str]) -> "SavedVerdict":
        """Add what was measured beside the verdict.

        Parameters
        ----------
        pairs
            On which.
        """
        both = {**self.evidence.followed, **found}
        more = table_of(found, pairs)
        table = more if self.followed is None else pd.concat([self.followed, more])
        return replace(self, evidence=replace(self.evidence, followed=both), followed=table)


def _record(folder: Path, argument: str) -> Record:
    """Return how the verdict of a folder was run; refuse files that are not what it wrote."""
    records = Records.read(folder)
    found = records.of("verdict")
    if found is None:
        raise InputError(
            argument,
            f"{folder / RUN} has no record of a verdict",
            "the record of the run that wrote verdicts.csv",
            "Run headpatch verdict again with this --out.",
        )
    records.refuse_changed(argument, found, _READ)
    return found


def read_followed(folder: Path) -> pd.DataFrame | None:
    """Read the ``followed.csv`` of a folder; None if there is none.

    Its rows are signed: what was changed since it was measured is not taken.

    Raises
    ------
    InputError
        If it is no table.
    """
    path = folder / FOLLOWED
    return read_table(path) if path.is_file() else None


def _heads(path: Path) -> pd.DataFrame:
    table = read_table(path, _HEADS)
    with reading(path):
        place = table["layer"] * (table["head"].max() + 1) + table["head"]
        if not len(table) or not np.array_equal(place, np.arange(len(table))):
            raise ValueError("it does not list every head once, in order")
    return table


def _looks(path: Path) -> Float[np.ndarray, " pairs"] | None:
    if not path.is_file():
        return None
    saved = read_tensors(path, {"attention_diff": 3})
    with reading(path):
        return looks_of(saved)


def looks_of(saved: Mapping[str, Any]) -> Float[np.ndarray, " pairs"]:
    """Mean attention difference of each pair, over the heads that attend to the image.

    Parameters
    ----------
    saved
        What ``verdict.pt`` holds.
    """
    each = saved["attention_diff"].double().numpy()
    return np.asarray(np.nanmean(each.reshape(len(each), -1), 1))

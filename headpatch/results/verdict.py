"""A verdict read back from its folder, as what claims are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.analyses.rules import rule
from headpatch.analyses.verdict.followed import from_table, table_of
from headpatch.errors import InputError
from headpatch.measures.claim_evidence import Evidence, missing
from headpatch.measures.claims import Claim
from headpatch.measures.followed import Ask, Followed
from headpatch.measures.judged_claims import Judged, judge_claim
from headpatch.pairs.manifest import Entry
from headpatch.results.files import read_table, read_tensors
from headpatch.study import Study

_NEEDED = ("verdicts.csv", "partners.csv", "gate.csv", "run.yaml")


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
    """

    study: Study
    evidence: Evidence
    gate: pd.DataFrame
    followed: pd.DataFrame | None

    @classmethod
    def read(cls, folder: Path, argument: str = "--out") -> "SavedVerdict":
        """Read a verdict's folder.

        Raises
        ------
        InputError
            If it holds none.
        """
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        if absent:
            raise InputError(
                argument,
                f"{folder} holds no {' nor '.join(absent)}",
                "the folder of a verdict",
                "Run headpatch verdict with this --out, or headpatch claims with an empty one.",
            )
        study = Study.make(folder / "run.yaml")
        heads, vision = read_table(folder / "verdicts.csv"), folder / "vision.csv"
        beside = folder / "followed.csv"
        followed = read_table(beside) if beside.is_file() else None
        seen = Evidence(
            heads=heads.fillna({"partners": "", "failed_nulls": ""}),
            sets=read_table(folder / "partners.csv"),
            rule=rule(study),
            top=study.verdict.top,
            looks=_looks(folder / "verdict.pt"),
            vision=read_table(vision) if vision.is_file() else None,
            followed={} if followed is None else from_table(followed),
        )
        return cls(study, seen, read_table(folder / "gate.csv"), followed)

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


def _looks(path: Path) -> Float[np.ndarray, " pairs"] | None:
    return looks_of(read_tensors(path)) if path.is_file() else None


def looks_of(saved: Mapping[str, Any]) -> Float[np.ndarray, " pairs"]:
    """Mean attention difference of each pair, over the heads that attend to the image.

    Parameters
    ----------
    saved
        What ``verdict.pt`` holds.
    """
    each = saved["attention_diff"].double().numpy()
    return np.asarray(np.nanmean(each.reshape(len(each), -1), 1))

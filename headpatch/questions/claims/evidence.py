"""What claims are judged by: a verdict's tables, and what experiments beside it have shown.

Experiments are kept in ``followed.csv``, so that each is run once. Each row says, by hashes, of
which verdict and what rows it is one, and with which pictures it was measured. A row of another
verdict, one that was changed since, or of pictures that are no longer what they were, is not used.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, assert_never

import pandas as pd

from headpatch import __version__
from headpatch.core.claims_grammar import Claim, Form
from headpatch.core.decision_rule import rule
from headpatch.core.output.files import read_table
from headpatch.core.saved_verdict import SavedVerdict
from headpatch.core.study import Study
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.questions.claims.columns import FOLLOWED, MEASURED
from headpatch.questions.claims.experiments import Experiment, Figures, Kind, Measured
from headpatch.stats.verdict_labels import Rule

_DECIDES = {"answers", "prompt", "seed", "force", "verdict", "cut", "draw", "vision"}
_WHERE = {"device", "dtype", "device_map", "quantize", "allow_unused_weights"}
_GATE = ["pair", "region", "question", "passed"]


class UnmeasuredError(Exception):
    """What a claim hangs on was not measured; says why."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is there to judge claims by: a verdict, and experiments by their names."""

    verdict: SavedVerdict
    measured: Mapping[str, Measured]

    @cached_property
    def rule(self) -> Rule:
        """By what heads were judged."""
        return rule(self.verdict.study)

    def row(self, head: Head) -> Mapping[str, Any]:
        """Return a head's row of ``verdicts.csv``."""
        place = head.layer * self.verdict.grid.heads + head.head
        return records(self.verdict.heads.iloc[place : place + 1])[0]

    def figures(self, experiment: Experiment, without: str, before: str = "") -> Figures:
        """Return what an experiment measured.

        Parameters
        ----------
        without
            What to say if it was not run.
        before
            What to say ahead of why there is nothing.

        Raises
        ------
        UnmeasuredError
            If there is nothing.
        """
        measured = self.measured.get(experiment.name, Measured({}, without))
        if measured.why_not:
            raise UnmeasuredError(before + measured.why_not)
        return measured.figures

    def missing(self, claim: Claim) -> list[Experiment]:
        """Return what a claim needs that was not measured."""
        return [one for one in _needed(claim, self) if one.name not in self.measured]


def _needed(claim: Claim, evidence: Evidence) -> list[Experiment]:
    """Return the experiments that a claim needs beside the verdict's tables."""
    match claim.form:
        case Form.REDUNDANT | Form.MORE_TOGETHER:
            tested = str(claim.tested_set) in set(evidence.verdict.sets["heads"])
            return [] if tested else [Experiment("together", claim.heads)]
        case Form.WORK_TOGETHER | Form.INDEPENDENT:
            return [Experiment("interaction", claim.heads)]
        case Form.VISION_HEADS:
            return each_layer(claim, "vision heads") if evidence.verdict.vision is None else []
        case Form.VISION_SPAN:
            return [Experiment("vision span", layers=claim.layers)]
        case Form.VISION_CARRIES:
            return stream_swaps(claim)
        case Form.READS:
            return [region_cut(claim)]
        case Form.CLASS | Form.LOOKS | Form.MODEL_LOOKS | Form.HOLD:
            return []
        case _:
            assert_never(claim.form)


def each_layer(claim: Claim, kind: Kind) -> list[Experiment]:
    """Do the same at every vision layer that a claim names."""
    first, last = claim.layers
    return [Experiment(kind, layers=(layer, layer)) for layer in range(first, last + 1)]


def stream_swaps(claim: Claim) -> list[Experiment]:
    """Swap after the vision layers that a claim names, and before them if there are some."""
    first, last = claim.layers
    after = [layer for layer in (last, first - 1) if layer >= 0]
    return [Experiment("stream", layers=(layer, layer)) for layer in after]


def region_cut(claim: Claim) -> Experiment:
    """Cut the region; of the question only its words, as the answer has a claim of its own."""
    queries = {"answer": "answer", "question": "words"}[claim.word]
    return Experiment("cut", layers=claim.layers, queries=queries)


def records(table: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Return a table's rows."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


@dataclass(frozen=True)
class Basis:
    """What figures beside a verdict hang on.

    Attributes
    ----------
    verdict
        Hash of how the verdict was run, of its weights, of its pairs and how they did at the gate,
        of where the model runs now, and of the version of headpatch.
    pictures
        Hash of the pictures on which experiments are run; empty if none are there to look at.
        Those that were drawn are not: they are drawn again from what `verdict` covers.
    """

    verdict: str
    pictures: str

    @classmethod
    def of(cls, verdict: SavedVerdict, study: Study) -> "Basis":
        """Work it out.

        Parameters
        ----------
        study
            As the verdict was run, on the device where experiments are run.
        """
        content = {
            "study": study.model_dump(
                mode="json", include=_DECIDES | _WHERE, exclude={"draw": {"folder"}}
            ),
            "weights": verdict.weights,
            "gate": verdict.gate[_GATE].astype(str).to_numpy().tolist(),
            "headpatch": __version__,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        return cls(_short(digest.hexdigest()), _pictures(verdict, study))

    def sign(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return rows of ``followed.csv``, saying of what they are."""
        return table.assign(verdict=self._signatures(table), pictures=self.pictures)

    def recall(self, folders: Iterable[Path]) -> pd.DataFrame | None:
        """Return what was measured on this basis and lies in some folders; None if nothing does.

        Raises
        ------
        InputError
            If a ``followed.csv`` is no table.
        """
        known: pd.DataFrame | None = None
        for path in (folder / FOLLOWED.file for folder in folders):
            table = self._own(read_table(path)) if path.is_file() else pd.DataFrame()
            if len(table):  # each experiment is run once, whole
                new = table if known is None else table[~table["what"].isin(set(known["what"]))]
                known = new if known is None else pd.concat([known, new])
        return known

    def _own(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return those rows that are of this verdict, and of pictures that have not changed.

        An experiment counts as a whole: if a row was changed or is missing, none is taken.
        """
        if not {*MEASURED, "verdict", "pictures"} <= set(table.columns):  # of an earlier headpatch
            return table.iloc[:0]
        mine = table["verdict"] == self._signatures(table)
        if self.pictures:
            mine &= table["pictures"] == self.pictures
        return table[mine & ~table["what"].isin(set(table["what"][~mine]))]

    def _signatures(self, table: pd.DataFrame) -> list[str]:
        """Hash, for each row, all rows of its experiment, and the verdict."""
        plain = table[list(MEASURED)].astype(object).where(table[list(MEASURED)].notna(), "")
        digests: dict[str, Any] = {}
        for what, *cells, value, why_not in plain.itertuples(index=False):
            row = what, *cells, value if isinstance(value, str) else f"{value:.7g}", why_not
            digest = digests.setdefault(what, hashlib.sha256(self.verdict.encode()))
            digest.update(json.dumps(row).encode())
        return [_short(digests[what].hexdigest()) for what in plain["what"]]


def _pictures(verdict: SavedVerdict, study: Study) -> str:
    if not verdict.entries:
        return ""
    try:
        files = [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for entry in verdict.judging_pairs(study, verdict.entries)[: study.verdict.followed]
            for path in (entry.with_path, entry.without_path)
        ]
    except (InputError, OSError):
        return "changed"  # no figure was measured with such
    return _short(hashlib.sha256(json.dumps(files).encode()).hexdigest())


def _short(digest: str) -> str:
    """Shorten a digest; a table reads it back as text, whatever its digits."""
    return f"sha256:{digest[:16]}"

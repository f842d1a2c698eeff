"""Claims, the verdict by which they are judged, and what experiments beside it have shown.

Experiments are kept in ``followed.csv``, so that each is run once. Each row says, by hashes, of
which verdict and what rows it is one, and with which pictures it was measured. A row of another
verdict, one that was changed since, or of pictures that are no longer what they were, is not used.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, assert_never

import pandas as pd
from scipy.stats import norm

from headpatch import __version__
from headpatch.core.claims_grammar import Claim, Form, check_claims
from headpatch.core.output.files import read_table
from headpatch.core.question import rows_of
from headpatch.core.saved_verdict import SavedVerdict, rule
from headpatch.core.store import Store
from headpatch.core.study.reading import absolute
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from headpatch.models.weights import weights_of
from headpatch.pairs.manifest import Entry
from headpatch.questions.claims.columns import FOLLOWED, MEASURED
from headpatch.questions.claims.experiments import (
    Experiment,
    Figures,
    Measured,
    from_table,
    run_experiments,
    table_of,
)
from headpatch.stats.verdict_labels import Rule

_OF_THIS_RUN = ("device", "dtype", "device_map", "quantize", "out", "claims")
_DECIDES = {
    "answers", "prompt", "system", "context_images", "seed", "force", "verdict", "cut", "draw",
    "vision",
}  # fmt: skip
_WHERE = {"device", "dtype", "device_map", "quantize", "allow_unused_weights"}
_GATE = ["pair", "region", "question", "passed"]


class UnmeasuredError(Exception):
    """What a claim hangs on was not measured; says why."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is there to judge claims by: a verdict, and experiments by their names."""

    verdict: SavedVerdict
    measured: Mapping[str, Measured]
    claims: int = 1  # that are judged by it: each at the level 1 - α over their number (Bonferroni)

    @cached_property
    def rule(self) -> Rule:
        """By what claims are judged: as heads were, at a level corrected for the other claims."""
        own = rule(self.verdict.study)
        return replace(own, level=1 - own.alpha / self.claims)

    @cached_property
    def wider(self) -> float:
        """By what the distance of an interval's ends from a normal mean grows at that level."""
        own = rule(self.verdict.study)
        return float(norm.ppf(1 - self.rule.alpha / 2) / norm.ppf(1 - own.alpha / 2))

    def row(self, head: Head) -> Mapping[str, Any]:
        """Return a head's row of ``verdicts.csv``; see `rows`."""
        table = self.verdict.heads
        return self.rows(table[(table["layer"] == head.layer) & (table["head"] == head.head)])[0]

    def rows(self, table: pd.DataFrame) -> list[Mapping[str, Any]]:
        """Return a table's rows with intervals at the claims' level.

        Each end is moved away from the mean as that of a normal mean would be: a table has no
        single pairs.
        """
        means = [str(name) for name in table if f"{name}_low" in table]
        moved = {
            f"{name}_{end}": table[name] + (table[f"{name}_{end}"] - table[name]) * self.wider
            for name in means
            for end in ("low", "high")
        }
        return list(rows_of(table.assign(**moved) if self.claims > 1 else table))

    def figures(self, experiment: Experiment, without: str, before: str = "") -> Figures:
        """Return what an experiment measured.

        If that is nothing, an `UnmeasuredError` says `before` and why, or `without`: not run.
        """
        measured = self.measured.get(experiment.name, Measured({}, without))
        if measured.why_not:
            raise UnmeasuredError(before + measured.why_not)
        return measured.figures

    def missing(self, claim: Claim) -> list[Experiment]:
        """Return what a claim needs beside the verdict's tables that was not measured."""
        needed: list[Experiment] = []
        match claim.form:
            case Form.REDUNDANT | Form.MORE_TOGETHER:
                if str(claim.tested_set) not in set(self.verdict.sets["heads"]):
                    needed = [Experiment("together", claim.heads)]
            case Form.WORK_TOGETHER | Form.INDEPENDENT:
                needed = [Experiment("interaction", claim.heads)]
            case Form.TOGETHER | Form.OTHERS:
                needed = [Experiment("joint", claim.heads)]
            case Form.SPAN:
                needed = [Experiment("span", layers=claim.layers)]
            case Form.VISION_HEADS:
                if self.verdict.vision is None:
                    needed = each_layer(claim)
            case Form.VISION_SPAN:
                needed = [Experiment("vision span", layers=claim.layers)]
            case Form.VISION_CARRIES:
                needed = stream_swaps(claim)
            case Form.READS:
                needed = [attention_cut(claim)]
            case Form.CLASS | Form.LOOKS | Form.MODEL_LOOKS | Form.HOLD | Form.CORRELATE:
                pass
            case _:
                assert_never(claim.form)
        return [one for one in needed if one.name not in self.measured]


def each_layer(claim: Claim) -> list[Experiment]:
    """Change the heads of each vision layer that a claim names."""
    first, last = claim.layers
    return [Experiment("vision heads", layers=(layer, layer)) for layer in range(first, last + 1)]


def stream_swaps(claim: Claim) -> list[Experiment]:
    """Swap after the vision layers that a claim names, and before them if there are some."""
    first, last = claim.layers
    after = [layer for layer in (last, first - 1) if layer >= 0]
    return [Experiment("stream", layers=(layer, layer)) for layer in after]


def attention_cut(claim: Claim) -> Experiment:
    """Cut what is read; of the question only its words, as the answer has a claim of its own."""
    queries, keys = ("words" if one == "question" else one for one in (claim.word, claim.object))
    return Experiment("cut", layers=claim.layers, queries=queries, keys=keys)


@dataclass(frozen=True)
class Basis:
    """What figures beside a verdict hang on, as hashes."""

    verdict: str
    """How it was run, its weights, its pairs and how they did at the gate, where the model runs
    now, and the version of headpatch."""
    pictures: str
    """On which experiments are run; empty if none are there to look at. Those that were drawn are
    not: they are drawn again from what `verdict` covers."""

    @classmethod
    def of(cls, verdict: SavedVerdict, study: Study) -> "Basis":
        """Work it out; the study is the verdict's, on the device where experiments are run."""
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
        """Return what was measured on this basis and lies in some folders; None if nothing does."""
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
            for entry in verdict.followed_pairs(study, verdict.entries)
            for path in (entry.with_path, entry.without_path)
        ]
    except (InputError, OSError):
        return "changed"  # no figure was measured with such
    return _short(hashlib.sha256(json.dumps(files).encode()).hexdigest())


def _short(digest: str) -> str:
    """Shorten a digest; a table reads it back as text, whatever its digits."""
    return f"sha256:{digest[:16]}"


@dataclass(frozen=True, eq=False)
class Case:
    """Claims, the verdict by which they are judged, and what is known beside it."""

    claims: tuple[Claim, ...]
    verdict: SavedVerdict
    study: Study  # as the verdict was run, on the device where experiments are run
    basis: Basis
    followed: pd.DataFrame | None  # ``followed.csv``, if something was measured

    @classmethod
    def open(
        cls, asked: Study | Iterable[str], verdict: SavedVerdict, argument: str, out: Path | None
    ) -> "Case":
        """Put claims, or the study that lists them, before a verdict.

        The argument that gave the verdict is named in messages; in `out` they will be written, and
        an earlier run may have left what it measured. Refused are claims that cannot be read or
        name what the model does not have, a verdict of another model, of weights that this no
        longer has or of other answers than are named, and an `out` that holds another verdict.
        """
        study = _study_of(asked, verdict, argument)
        if out is not None:
            _refuse_another_verdict(out, verdict.folder)
        if verdict.folder is not None and (weights := weights_of(study.model)) is not None:
            _refuse_other_weights(study.model, weights, verdict)
        own = {name: getattr(study, name) for name in _OF_THIS_RUN}
        study = verdict.study.model_copy(update=own)
        basis = Basis.of(verdict, study)
        folders = [place.resolve() for place in (verdict.folder, out) if place is not None]
        followed = basis.recall(dict.fromkeys(folders))
        claims = tuple(map(Claim.parse, study.claims))
        for claim in claims:
            claim.check(verdict.grid, None if verdict.vision is None else len(verdict.vision))
        return cls(claims, verdict, study, basis, followed)

    @cached_property
    def evidence(self) -> Evidence:
        """What the claims are judged by."""
        measured = {} if self.followed is None else from_table(self.followed)
        return Evidence(self.verdict, measured, len(self.claims))

    @property
    def missing(self) -> tuple[Experiment, ...]:
        """What the claims need that was not measured, each once."""
        needed = [one for claim in self.claims for one in self.evidence.missing(claim)]
        return tuple({one.name: one for one in needed}.values())

    def pairs(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return the pairs, of all `entries`, on which it is measured: the first that judged."""
        return self.verdict.followed_pairs(self.study, entries)

    def passes(self, vlm: VLM) -> int:
        """Return how many forward passes that takes at most, on one pair."""
        return 2 + sum(one.passes(self.study, vlm) for one in self.missing)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that is not the verdict's, or does not have what the claims name."""
        _refuse_other_weights(vlm.name, vlm.fingerprint, self.verdict)
        check_claims(self.claims, vlm)

    def measured(
        self, vlm: VLM, entries: Sequence[Entry], store: Store, on_progress: OnProgress
    ) -> "Case":
        """Measure what is missing, with the verdict's model on the verdict's pairs."""
        self.check(vlm)
        pairs = self.pairs(entries)
        new = run_experiments(self.study, vlm, pairs, self.missing, store, on_progress)
        table = table_of(new, pairs)
        if self.followed is not None:
            table = pd.concat([self.followed, table])
        return replace(self, followed=self.basis.sign(table))


def _study_of(asked: Study | Iterable[str], verdict: SavedVerdict, argument: str) -> Study:
    """Return the study of the claims; sentences alone are about the verdict's own."""
    if not isinstance(asked, Study):
        sentences = (asked,) if isinstance(asked, str) else tuple(asked)
        asked = verdict.study.override({"claims": sentences})
    if not asked.claims:
        raise InputError("claims", "none", "claims such as 'head 24.17 is necessary'")
    places = {absolute("model", one.model) for one in (asked, verdict.study)}
    if len(places) > 1:
        given = f"a verdict of model {verdict.study.model} lies there"
        raise InputError(argument, given, f"one of the claims' model, {asked.model}")
    if "answers" in asked.model_fields_set and asked.answers != verdict.study.answers:
        given = f"a verdict of the answers {','.join(verdict.study.answers)} lies there"
        raise InputError(argument, given, f"one of the claims' answers, {','.join(asked.answers)}")
    if (
        "sum_variants" in asked.model_fields_set
        and asked.sum_variants != verdict.study.sum_variants
    ):
        given = f"a verdict with sum_variants {verdict.study.sum_variants} lies there"
        raise InputError(argument, given, f"the claims' {asked.sum_variants}")
    return asked


def _refuse_other_weights(model: str, weights: str, verdict: SavedVerdict) -> None:
    if weights != verdict.weights:
        given = f"the weights of {model} ({weights})"
        wanted = f"those of the verdict ({verdict.weights})"
        raise InputError("--model", given, wanted, "Run the verdict again with this model.")


def _refuse_another_verdict(out: Path, place: Path | None) -> None:
    """Refuse to write claims beside another verdict than the one that judges them."""
    if SavedVerdict.lies_in(out) and (place is None or out.resolve() != place.resolve()):
        raise InputError(
            "--out",
            f"{out} holds another verdict",
            "the folder of the verdict that judges, or one without a verdict",
            "What claims need is written beside the verdict that it belongs to, or elsewhere.",
        )

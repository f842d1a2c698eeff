"""Claims and the verdict by which they are judged, with what is known beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from headpatch.core.claims_grammar import Claim, check_claims
from headpatch.core.saved_verdict import SavedVerdict
from headpatch.core.store import Store
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.models.weights import weights_of
from headpatch.pairs.manifest import Entry
from headpatch.questions.claims.evidence import Basis, Evidence
from headpatch.questions.claims.experiments import (
    Experiment,
    from_table,
    run_experiments,
    table_of,
)

_OF_THIS_RUN = ("device", "dtype", "device_map", "quantize", "out", "claims")


@dataclass(frozen=True, eq=False)
class Case:
    """Claims, the verdict by which they are judged, and what is known beside it.

    Attributes
    ----------
    study
        As the verdict was run, on the device where experiments are run.
    followed
        The columns of ``followed.csv``; None if nothing was measured.
    """

    claims: tuple[Claim, ...]
    verdict: SavedVerdict
    study: Study
    basis: Basis
    followed: pd.DataFrame | None

    @classmethod
    def open(
        cls, asked: Study | Iterable[str], verdict: SavedVerdict, argument: str, out: Path | None
    ) -> "Case":
        """Put claims before a verdict.

        Parameters
        ----------
        asked
            The study that lists the claims, or the claims.
        argument
            That gave the verdict, for messages.
        out
            Where they will be written, and an earlier run may have left what it measured.

        Raises
        ------
        InputError
            If there are none, one cannot be read or names what the model does not have, the verdict
            is of another model, of weights that this no longer has or of other answers than are
            named, or `out` holds another verdict.
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
        return Evidence(self.verdict, {} if self.followed is None else from_table(self.followed))

    @property
    def missing(self) -> tuple[Experiment, ...]:
        """What the claims need that was not measured, each once."""
        evidence = self.evidence
        needed = [one for claim in self.claims for one in evidence.missing(claim)]
        return tuple({one.name: one for one in needed}.values())

    def pairs(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return the pairs, of all `entries`, on which it is measured: the first that judged."""
        return self.verdict.judging_pairs(self.study, entries)[: self.study.verdict.followed]

    def passes(self, vlm: VLM) -> int:
        """Return how many forward passes that takes at most, on one pair."""
        return 2 + sum(one.passes(self.study, vlm) for one in self.missing)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that is not the verdict's, or does not have what the claims name.

        Raises
        ------
        InputError
            If it is so.
        """
        _refuse_other_weights(vlm.name, vlm.fingerprint, self.verdict)
        check_claims(self.claims, vlm)

    def measured(
        self, vlm: VLM, entries: Sequence[Entry], store: Store, on_progress: OnProgress
    ) -> "Case":
        """Measure what is missing.

        Raises
        ------
        InputError
            If the model or the pairs are not those of the verdict, or a claim names what the model
            does not have.
        """
        self.check(vlm)
        pairs = self.pairs(entries)
        found = run_experiments(self.study, vlm, pairs, self.missing, store, on_progress)
        table = table_of(found, pairs)
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
    if verdict.study.model != asked.model:
        raise InputError(
            argument,
            f"a verdict of model {verdict.study.model} lies there",
            f"one of the claims' model, {asked.model}",
        )
    if "answers" in asked.model_fields_set and asked.answers != verdict.study.answers:
        raise InputError(
            argument,
            f"a verdict of the answers {','.join(verdict.study.answers)} lies there",
            f"one of the claims' answers, {','.join(asked.answers)}",
        )
    return asked


def _refuse_other_weights(model: str, weights: str, verdict: SavedVerdict) -> None:
    if weights != verdict.weights:
        raise InputError(
            "--model",
            f"the weights of {model} ({weights})",
            f"those of the verdict ({verdict.weights})",
            "Run the verdict again with this model.",
        )


def _refuse_another_verdict(out: Path, place: Path | None) -> None:
    """Refuse to write claims beside another verdict than the one that judges them."""
    if SavedVerdict.lies_in(out) and (place is None or out.resolve() != place.resolve()):
        raise InputError(
            "--out",
            f"{out} holds another verdict",
            "the folder of the verdict that judges, or one without a verdict",
            "What claims need is written beside the verdict that it belongs to, or elsewhere.",
        )

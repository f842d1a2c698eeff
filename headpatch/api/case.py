"""Claims of a study, the verdict that judges them, and what they need beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headpatch.api.judged import Claims
from headpatch.api.measured import Basis, followed_pairs, recalled
from headpatch.core.store import Store
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.models.weights import weights_of
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.questions.verdict.choice import check_claims
from headpatch.questions.verdict.followed import follow, passes
from headpatch.questions.verdict.saved import SavedVerdict
from headpatch.stats.claims import Claim
from headpatch.stats.followed import Ask


@dataclass(frozen=True, eq=False)
class Case:
    """Claims, the verdict by which they are judged, and what is known beside it.

    Attributes
    ----------
    study
        As the verdict was run, on the device where claims are followed up.
    weights
        Of its model.
    entries
        Its pairs; none if they are not there, or are drawn again when they are needed.
    """

    listed: tuple[Claim, ...]
    saved: SavedVerdict
    study: Study
    weights: str
    entries: tuple[Entry, ...]
    basis: Basis

    @classmethod
    def of(
        cls,
        study: Study,
        saved: SavedVerdict,
        weights: str,
        entries: tuple[Entry, ...],
        out: Path | None,
    ) -> "Case":
        """Put it together.

        Parameters
        ----------
        study
            Which lists the claims.
        out
            Where an earlier run may have left what it measured.
        """
        listed, own = map(Claim.parse, study.claims), saved.study_like(study)
        basis = Basis.of(saved, own, weights, entries)
        return cls(tuple(listed), recalled(saved, basis, out), own, weights, entries, basis)

    @classmethod
    def read(
        cls, study: Study | Iterable[str], folder: Path, argument: str, out: Path | None
    ) -> "Case":
        """Read a verdict's folder.

        Parameters
        ----------
        study
            Which lists the claims, or the claims.
        argument
            That names the folder, for messages.

        Raises
        ------
        InputError
            If it holds none, or one of another model than the study's, or of other weights than
            that has now.
        """
        saved = SavedVerdict.read(folder, argument)
        asked = study_of_claims(study, saved, argument)
        weights = str(saved.run.get("weights", ""))
        if (there := weights_of(asked.model)) is not None:
            _refuse_other_weights(asked.model, there, weights)
        return cls.of(asked, saved, weights, _entries(saved.study), out)

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What the claims need that is not known.

        Raises
        ------
        InputError
            If one names a head or a layer that the model does not have.
        """
        return self.saved.missing(self.listed)

    def passes(self, vlm: VLM) -> int:
        """Return how many forward passes that takes at most, on one pair."""
        layers = 0 if vlm.vision is None else vlm.vision.grid.layers
        return 2 + sum(passes(self.study, one, layers) for one in self.asks)

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the pairs on which it is measured."""
        return followed_pairs(self.saved, self.study, entries)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that is not the verdict's, or does not have what the claims name.

        Raises
        ------
        InputError
            If it is so.
        """
        _refuse_other_weights(vlm.name, vlm.fingerprint, self.weights)
        check_claims(self.listed, vlm)

    def measured(
        self, vlm: VLM, entries: Sequence[Entry], store: Store, on_progress: OnProgress
    ) -> "Case":
        """Measure it.

        Raises
        ------
        InputError
            If the model or the pairs are not those of the verdict, or a claim names what the model
            does not have.
        """
        self.check(vlm)
        chosen = self.chosen(entries)
        found = follow(self.study, vlm, chosen, self.asks, store, on_progress)
        names = [entry.name for entry in chosen]
        known = self.saved.with_followed(found, names)
        assert known.followed is not None
        signed = self.basis.sign(known.followed)
        return replace(self, saved=replace(known, followed=signed))

    def judged(self) -> Claims:
        """Judge the claims."""
        saved = self.saved
        found, failed = tuple(saved.judge(self.listed)), tuple(saved.failed_nulls)
        place = None if saved.folder is None else str(saved.folder.resolve())
        by = {"valid": saved.run.get("valid"), "verdict": place, "weights": self.weights}
        return Claims(found, failed, saved.followed, self.study, by)


def _refuse_other_weights(model: str, found: str, of_verdict: str) -> None:
    if found != of_verdict:
        raise InputError(
            "--model",
            f"the weights of {model} ({found})",
            f"those of the verdict ({of_verdict})",
            "Run the verdict again with this model.",
        )


def refuse_another_verdict(out: Path, place: Path | None) -> None:
    """Refuse to write claims of one verdict beside another.

    Parameters
    ----------
    place
        Of the verdict that judges; None if it was not written.

    Raises
    ------
    InputError
        If `out` holds a verdict, and is another folder.
    """
    if SavedVerdict.lies_in(out) and (place is None or out.resolve() != place.resolve()):
        raise InputError(
            "--out",
            f"{out} holds another verdict",
            "the folder of the verdict that judges, or one without a verdict",
            "What claims need is written beside the verdict that it belongs to, or elsewhere.",
        )


def study_of_claims(study: Study | Iterable[str], saved: SavedVerdict, argument: str) -> Study:
    """Return the study of the claims; sentences alone are about the verdict's own.

    Raises
    ------
    InputError
        If there are none, or the verdict is of another model, or of other answers than are named.
    """
    if not isinstance(study, Study):
        sentences = (study,) if isinstance(study, str) else tuple(study)
        study = saved.study.override({"claims": sentences})
    if not study.claims:
        raise InputError("claims", "none", "claims such as 'head 24.17 is necessary'")
    saved.check_model(study, argument)
    if "answers" in study.model_fields_set and study.answers != saved.study.answers:
        raise InputError(
            argument,
            f"a verdict of the answers {','.join(saved.study.answers)} lies there",
            f"one of the claims' answers, {','.join(study.answers)}",
        )
    return study


def _entries(study: Study) -> tuple[Entry, ...]:
    """Return the pairs of a study's dataset; none if it has none, or it cannot be read."""
    if study.pairs.manifest is None:
        return ()
    try:
        found = Manifest.read(Path(study.pairs.manifest))
    except InputError:
        return ()
    return found.take(study.pairs.limit, study.seed).entries

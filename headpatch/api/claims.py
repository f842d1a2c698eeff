"""One call that judges claims by a verdict."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from headpatch.api.case import Case, refuse_another_verdict, study_of_claims
from headpatch.api.judged import Claims
from headpatch.api.many_pairs import Verdict
from headpatch.core import output as results
from headpatch.core.dataset import found_pairs
from headpatch.core.decision_rule import rule
from headpatch.core.keeping import store_in
from headpatch.core.progress import Stages
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.session import model_of
from headpatch.core.study import Study
from headpatch.models.vlm import VLM
from headpatch.questions.verdict.halves import need_pairs
from headpatch.questions.verdict.saved import SavedVerdict, looks_of
from headpatch.stats.claim_evidence import Evidence
from headpatch.text import user_path


def claims(
    study: Study | Iterable[str],
    verdict: Verdict | str | Path,
    out: str | Path | None = None,
    vlm: VLM | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
) -> Claims:
    """Judge claims about a model: supported, contradicted, or not testable.

    They are judged by a verdict. What a claim needs beside it is measured on some of the pairs that
    judged: attention to the region is cut, the stream at the region's patches is swapped, heads and
    vision layers are changed together. An interval over pairs must lie beyond, or within, the
    smallest effect of interest; what that leaves open is not testable.

    Parameters
    ----------
    study
        Whose ``claims`` are judged, or the claims themselves: ``head 24.17 is necessary``,
        ``heads 24.17 and 23.20 work together``, ``layers 17-26 hold the sensitive heads``,
        ``the answer reads the region in layers 17-24``, … (every form, and what it means:
        `headpatch.stats.claims`).
    verdict
        Of `headpatch.verdict`, or a folder that `headpatch verdict` wrote.
    out
        A folder for ``claims.csv`` and ``followed.csv``. What an earlier call has measured and left
        there, or in the verdict's folder, is not measured again, unless it is of another verdict
        or its pictures have changed. None writes nothing.
    vlm
        The verdict's model, if something must be measured. None takes the one that a `Verdict`
        holds, or loads the study's.
    keep
        A folder for finished pairs, from which an interrupted call goes on; it is empty at the end.
    on_progress
        Called with (done, total), in pairs. None shows a bar on a terminal or in a notebook; False
        nothing.

    Raises
    ------
    InputError
        If there is no claim or a claim cannot be read, the model has no such heads or layers, the
        folder holds no verdict, or model or pairs are no longer those of the verdict.

    Examples
    --------
    >>> listed = ["head 9.31 looks at the region", "head 9.31 is causal"]
    >>> found = hp.claims(listed, "attention_data/verdict")
    >>> found.table["outcome"].tolist()
    ['supported', 'contradicted']
    >>> found.summary.splitlines()[0]
    'Of 2 claims: 1 supported, 1 contradicted, 0 not testable.'
    """
    place = None if out is None else user_path(out, "out")
    if place is None:
        return _judged(study, verdict, None, vlm, keep, stages_of(on_progress))
    results.check_folder(place)
    with results.taken(place, "claims"):
        judged = _judged(study, verdict, place, vlm, keep, stages_of(on_progress))
        judged.write(place)
    return judged


def _judged(
    study: Study | Iterable[str],
    verdict: Verdict | str | Path,
    place: Path | None,
    vlm: VLM | None,
    keep: str | Path | None,
    stages: Stages,
) -> Claims:
    case = _case(study, verdict, place)
    if place is not None:
        there = None if isinstance(verdict, Verdict) else user_path(verdict, "verdict")
        refuse_another_verdict(place, there)
    if case.asks:
        if isinstance(verdict, Verdict):
            vlm = vlm or verdict.pairs.vlm
        need = partial(need_pairs, case.study)
        found = found_pairs(case.study, case.entries or None, None, need, stages)
        vlm = vlm or model_of(case.study)
        with (
            store_in(keep, "pairs", "run of claims") as store,
            stages("Following claims up") as advance,
        ):
            case = case.measured(vlm, found.entries, store, advance)
    return case.judged()


def _case(study: Study | Iterable[str], verdict: Verdict | str | Path, out: Path | None) -> Case:
    if not isinstance(verdict, Verdict):
        return Case.read(study, user_path(verdict, "verdict"), "verdict", out)
    saved = _saved(verdict)
    asked = study_of_claims(study, saved, "verdict")
    entries = tuple(one.entry for one in verdict.survey.gated)
    return Case.of(asked, saved, verdict.pairs.vlm.fingerprint, entries, out)


def _saved(verdict: Verdict) -> SavedVerdict:
    """Return a verdict as its folder would be read."""
    judgement, by = verdict.judgement, rule(verdict.study)
    seen = Evidence(
        heads=verdict.heads,
        sets=verdict.partners,
        rule=by,
        top=verdict.study.verdict.top,
        looks=looks_of(judgement.saved),
        vision=judgement.vision,
    )
    run = {"valid": verdict.survey.valid}
    return SavedVerdict(verdict.study, seen, verdict.gate, None, run)

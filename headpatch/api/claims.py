"""One call that judges claims by a verdict."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from headpatch.api.many_pairs import Verdict
from headpatch.core import output as results
from headpatch.core.dataset import found_pairs
from headpatch.core.keeping import store_in
from headpatch.core.progress import Stages
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.saved_verdict import SavedVerdict, mean_looks
from headpatch.core.session import model_of
from headpatch.core.split import need_pairs
from headpatch.core.study import Study
from headpatch.models.vlm import VLM
from headpatch.questions.claims.claims import Case, Claims
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
        `headpatch.core.claims_grammar`).
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
    stages = stages_of(on_progress)
    if place is None:
        return _judged(study, verdict, None, vlm, keep, stages)
    results.check_folder(place)
    with results.taken(place, "claims"):
        judged = _judged(study, verdict, place, vlm, keep, stages)
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
    if isinstance(verdict, Verdict):
        vlm, saved = vlm or verdict.pairs.vlm, _saved(verdict)
    else:
        saved = SavedVerdict.read(user_path(verdict, "verdict"), "verdict")
    case = Case.open(study, saved, "verdict", place)
    if not case.missing:
        return case.judged()
    need = partial(need_pairs, case.study)
    found = found_pairs(case.study, saved.entries or None, None, need, stages)
    vlm = vlm or model_of(case.study)
    with (
        store_in(keep, "pairs", "run of claims") as store,
        stages("Following claims up") as advance,
    ):
        return case.measured(vlm, found.entries, store, advance).judged()


def _saved(verdict: Verdict) -> SavedVerdict:
    """Return a verdict as its folder would be read."""
    return SavedVerdict(
        verdict.study,
        verdict.heads,
        verdict.partners,
        verdict.gate,
        mean_looks(verdict.judgement.saved),
        verdict.judgement.vision,
        tuple(one.entry for one in verdict.survey.gated),
        {"valid": verdict.survey.valid, "weights": verdict.pairs.vlm.fingerprint},
    )

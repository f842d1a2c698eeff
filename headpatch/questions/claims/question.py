"""From sentences to outcomes: what they need is found, measured beside the verdict, and judged."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from headpatch.core.dataset import found_pairs
from headpatch.core.output.staging import check_folder, taken
from headpatch.core.output.writing import write
from headpatch.core.progress import Progress, stages_of
from headpatch.core.question import Call, Context, Files, Opened, Origin, Question, Result
from headpatch.core.saved_verdict import SavedVerdict, mean_looks, need_pairs
from headpatch.core.session import model_of
from headpatch.core.store import store_in
from headpatch.core.study.study import Study
from headpatch.models.vlm import VLM
from headpatch.present.tables import failed_words
from headpatch.questions.claims import VERB
from headpatch.questions.claims.case import Case
from headpatch.questions.claims.columns import CLAIMS, FOLLOWED
from headpatch.questions.claims.judge import Judged, judge_claim
from headpatch.questions.claims.outcomes import Outcome
from headpatch.text import user_path

if TYPE_CHECKING:
    from headpatch.questions.verdict.question import Verdict


@dataclass(frozen=True, eq=False, repr=False)
class Claims(Result):
    """What `headpatch.claims` found.

    Attributes
    ----------
    judged
        Each claim, what became of it, and the figure behind it.
    failed_nulls
        Nulls of the verdict that failed; then no outcome can be taken at its word.
    followed
        What was measured beside the verdict: the columns of ``followed.csv``; None if nothing was.
    """

    judged: tuple[Judged, ...]
    failed_nulls: tuple[str, ...]
    followed: pd.DataFrame | None

    @property
    def study(self) -> Study:
        """That of the verdict, with the claims."""
        return self.origin.study

    @property
    def table(self) -> pd.DataFrame:
        """A row for each claim: the columns of ``claims.csv``."""
        rows = pd.DataFrame([asdict(one) for one in self.judged])
        return rows.assign(failed_nulls=";".join(self.failed_nulls))

    @property
    def summary(self) -> str:
        """How many are supported, contradicted and so on; then each, and why."""
        every = [one.outcome for one in self.judged]
        counts = ", ".join(f"{every.count(name):,} {name}" for name in get_args(Outcome))
        lines = [failed_words(self.failed_nulls)] if self.failed_nulls else []
        lines += [f"Of {len(every):,} claims: {counts}."]
        lines += [f"{one.outcome}: {one.claim} ({one.figure})" for one in self.judged]
        return "\n".join(lines)

    def files(self) -> Files:
        """Return the claims and, where something was measured, its figures."""
        followed = {} if self.followed is None else {FOLLOWED.file: self.followed}
        return {CLAIMS.file: self.table, **followed}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the claims."""
        judged = [asdict(one) for one in self.judged]
        return {"claims": judged, "failed_nulls": list(self.failed_nulls)}


class Judge(Question[Claims]):
    """Judges claims; by a verdict, so that it is asked by `claims` alone."""

    verb = VERB

    def answer(self, opened: Opened, call: Call) -> Claims:
        """Refuse pictures without a verdict."""
        raise NotImplementedError("claims are asked of a verdict: headpatch.claims")


QUESTION = Judge()


def judged(case: Case) -> Claims:
    """Judge claims by a verdict, and by what was measured beside it."""
    verdict, evidence, failed = case.verdict, case.evidence, case.verdict.failed_nulls
    outcomes = tuple(judge_claim(claim, evidence) for claim in case.claims)
    facts = {
        "valid": verdict.run.get("valid"),
        "verdict": None if verdict.folder is None else str(verdict.folder.resolve()),
        "weights": verdict.weights,
        "failed_nulls": list(failed),
        "seed": case.study.seed,
        "model": case.study.model,
    }
    context = Context(valid=facts["valid"] is not False, facts=facts)
    return Claims(outcomes, failed, case.followed, origin=Origin(VERB, case.study, facts, context))


def claims(
    study: Study | Iterable[str],
    verdict: "Verdict | str | Path",
    out: str | Path | None = None,
    vlm: VLM | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
) -> Claims:
    """Judge claims about a model: supported, contradicted, undecided, or not testable.

    They are judged by a verdict. What a claim needs beside it is measured on some of the pairs that
    judged: attention to the region is cut, the stream at the region's patches is swapped, heads and
    vision layers are changed together. An interval over pairs must lie beyond, or within, the
    smallest effect of interest, at a level corrected for the number of claims; what that leaves
    open is undecided.

    Parameters
    ----------
    study
        Whose ``claims`` are judged, or the claims themselves: ``head 24.17 is necessary``,
        ``layers 17-26 hold the sensitive heads``, … (every form, and what it means:
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
    'Of 2 claims: 1 supported, 1 contradicted, 0 undecided, 0 not testable.'
    """
    place = None if out is None else user_path(out, "out")
    stages = stages_of(on_progress)
    if place is not None:
        check_folder(place)
    with nullcontext() if place is None else taken(place, "claims"):
        if isinstance(verdict, str | Path):
            saved = SavedVerdict.read(user_path(verdict, "verdict"), "verdict")
        else:
            vlm, saved = vlm or verdict.pairs.vlm, _saved(verdict)
        case = Case.open(study, saved, "verdict", place)
        if case.missing:
            need = partial(need_pairs, case.study)
            pairs = found_pairs(case.study, saved.entries or None, None, need, stages)
            vlm = vlm or model_of(case.study)
            with (
                store_in(keep, "pairs", "run of claims") as store,
                stages("Following claims up") as advance,
            ):
                case = case.measured(vlm, pairs.entries, store, advance)
        result = judged(case)
        if place is not None:
            write(result, place)
    return result


def _saved(verdict: "Verdict") -> SavedVerdict:
    """Return a verdict as its folder would be read."""
    tables, saved = (verdict.heads, verdict.partners, verdict.gate), verdict.judgement.saved
    looks, vision = mean_looks(saved), verdict.judgement.vision
    entries = tuple(one.entry for one in verdict.survey.gated)
    run = {"valid": verdict.survey.valid, "weights": verdict.pairs.vlm.fingerprint}
    rho = saved.get("true_rho")
    return SavedVerdict(verdict.study, *tables, looks, vision, entries, run, correlation=rho)

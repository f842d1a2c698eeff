"""What follows from a head that decides: one call for each question, of one pair or of many.

The functions are called as those of `headpatch.api.one_pair`.
"""

from pathlib import Path
from typing import Any, overload

from headpatch.api import over_pairs
from headpatch.api.asking import asked
from headpatch.core.dataset import Pairs
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.session import Session, ready
from headpatch.questions.rollout import one as rollouts
from headpatch.questions.trace import many as traced_pairs
from headpatch.questions.trace import one as traces


@overload
def trace(session: Session, on_progress: Progress = None, **options: Any) -> traces.Traced: ...
@overload
def trace(
    session: Pairs, on_progress: Progress = None, *, keep: str | Path | None = None, **options: Any
) -> traced_pairs.TracedPairs: ...
def trace(
    session: Session | Pairs, on_progress: Progress = None, **options: Any
) -> traces.Traced | traced_pairs.TracedPairs:
    """Find the heads behind each token of the answer.

    Both runs are made to say the same answer; token by token, every head is changed.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`. Over many, each says its own answer, and tokens
        are averaged that stand in the same slot of it.
    keep
        Over many pairs: a folder for finished tokens, from which an interrupted call goes on.
    options
        Override `headpatch.Study.trace`: ``forced``, ``answer``, ``tokens``, ``kinds``,
        ``directions``, ``top``, ``noise``.

    Returns
    -------
    Traced or TracedPairs
        ``table()`` has the columns of ``trace.csv`` (over many pairs ``trace_mean.csv``);
        ``saved()`` holds tensors ``[tokens, layers, heads]``.

    Raises
    ------
    InputError
        If an option is wrong, or the answer cannot stand after the prompt.
    RunError
        If a run made to say its own answer would not say it.

    Examples
    --------
    >>> traced = hp.trace(session, tokens=2, directions=["noising"], noise=1)
    >>> [(one.text, one.rival) for one in traced.tokens][0]
    ('Yes', 'No')
    >>> len(traced.table())  # a row for each token × head
    2048
    """
    if isinstance(session, Pairs):
        return over_pairs.trace(session, on_progress, **options)
    return traces.trace(ready(asked(session, "trace", options), "answer"), stages_of(on_progress))


def rollout(session: Session, on_progress: Progress = None, **options: Any) -> rollouts.Rolled:
    """Roll attention back from a token of the answer to the patches, and check the map.

    Attention rollout (S. Abnar and W. Zuidema, Quantifying Attention Flow in Transformers, ACL
    2020, arXiv:2005.00928) and gradient-weighted relevance (H. Chefer, S. Gur and L. Wolf, Generic
    Attention-model Explainability, ICCV 2021, arXiv:2103.15679), checked by deleting patches
    (V. Petsiuk, A. Das and K. Saenko, RISE, BMVC 2018, arXiv:1806.07421).

    Parameters
    ----------
    options
        Override `headpatch.Study.rollout`: ``forced``, ``answer``, ``token``, ``draws``, ``fill``.

    Returns
    -------
    Rolled
        ``table()`` has the columns of ``rollout.csv``, ``check.curves`` those of
        ``perturbation.csv``.

    Raises
    ------
    InputError
        If an option is wrong, the answer has no such token, the region no patch, or the image is
        not among the prompt's tokens.
    RunError
        If attention cannot be followed back in this model.

    Examples
    --------
    >>> rolled = hp.rollout(session, draws=2)
    >>> rolled.table()["method"].unique().tolist()
    ['rollout', 'relevance']
    >>> [one.name for one in rolled.maps]
    ['rollout_tokens', 'rollout_patches', 'relevance_tokens', 'relevance_patches']
    """
    with stages_of(on_progress)("Replacing patches") as advance:
        return rollouts.roll_out(asked(session, "rollout", options), advance)

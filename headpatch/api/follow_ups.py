"""What follows from a head that decides: one call for each question about a pair of pictures.

The functions are called as those of `headpatch.api.one_pair`.
"""

from typing import Any

from headpatch.analyses import combined as combining
from headpatch.analyses import path as paths
from headpatch.analyses import rollout as rollouts
from headpatch.analyses import trace as traces
from headpatch.analyses.session import Session, ready
from headpatch.api.asking import Heads, asked, named
from headpatch.api.progress import Progress, stages_of
from headpatch.engine.patching import ZMeans


def combine(
    session: Session,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> combining.Combined:
    """Change heads two by two, to see whether they stand in for or need each other.

    Then self-repair: what heads write straight to the logits against what follows when they are
    changed (T. McGrath et al., The Hydra Effect, 2023, arXiv:2307.15771; C. Rushing and N. Nanda,
    Explorations of Self-Repair in Language Models, ICML 2024, arXiv:2402.15390).

    Parameters
    ----------
    heads
        Two or more. None takes the study's, or the first of its rankings.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out.
    options
        Override `headpatch.Study.combine`: ``top``, ``by``, ``kinds``, ``directions``,
        ``positions``, …

    Raises
    ------
    InputError
        If an option is wrong, the model has no such heads, or there are fewer than two.

    Examples
    --------
    >>> found = hp.combine(session, "20.18,21.14,23.9")
    >>> int((found.table["role"] == "pair").sum())  # 3 pairs × 2 directions
    6
    >>> found.repair.table[["heads", "direct", "total", "repair"]].shape[1]
    4
    """
    session = asked(session, "combine", options | named(heads))
    session = ready(session, session.study.combine.positions)
    return combining.combine(session, stages_of(on_progress), means)


def path(
    session: Session,
    heads: Heads | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> paths.FollowedPath:
    """Follow the object through the model: where what tells the pictures apart is, and when.

    The stream is swapped as in causal tracing (K. Meng et al., Locating and Editing Factual
    Associations in GPT, NeurIPS 2022, arXiv:2202.05262), edges are cut as by `headpatch.cut`, LD is
    attributed to what writes it, and paths to heads are patched (N. Goldowsky-Dill et al.,
    Localizing Model Behavior with Path Patching, 2023, arXiv:2304.05969).

    Parameters
    ----------
    heads
        To which paths are patched. None takes the study's, or the first of its rankings.
    options
        Override `headpatch.Study.path`: ``top``, ``by``, ``edges``, ``window``.

    Returns
    -------
    FollowedPath
        ``table`` has the columns of ``path.csv``, ``saved`` holds what ``path.pt`` does, and
        ``summary`` says it in sentences.

    Raises
    ------
    InputError
        If an option is wrong, or the model has no such heads, layers or positions.

    Examples
    --------
    >>> followed = hp.path(session, "top:1", edges=["answer-region"], window=1)
    >>> sorted(set(followed.table["view"]))
    ['direct', 'edge', 'head path', 'stream']
    """
    session = asked(session, "path", options | named(heads))
    return paths.follow(ready(session, "answer"), stages_of(on_progress))


def trace(session: Session, on_progress: Progress = None, **options: Any) -> traces.Traced:
    """Find the heads behind each token of the answer.

    Both runs are made to say the same answer; token by token, every head is changed.

    Parameters
    ----------
    options
        Override `headpatch.Study.trace`: ``forced``, ``answer``, ``tokens``, ``kinds``,
        ``directions``, ``top``, ``noise``.

    Returns
    -------
    Traced
        ``table()`` has the columns of ``trace.csv``; ``saved()`` holds tensors ``[tokens, layers,
        heads]``.

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

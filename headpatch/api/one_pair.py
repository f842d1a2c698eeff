"""Which heads look, which decide, and when: one call for each question, of one pair or of many.

Every function takes a session, or pairs that are open, for whatever positions: where it needs
others, it runs the pictures again. Over many pairs the figures are means with intervals over those
that pass the gate. Keyword arguments override the study's own section of that name. `on_progress`
is called with (done, total), stage by stage; where it is None, a terminal or a notebook shows a
bar; False shows nothing.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

from headpatch.api import over_pairs
from headpatch.api.asking import asked_to_sweep, sets_of
from headpatch.core.dataset import Pairs
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.session import Session
from headpatch.engine.patching import ZMeans
from headpatch.heads import HeadSet
from headpatch.questions.sweep import many as swept_pairs
from headpatch.questions.sweep import one as sweeps


@overload
def sweep(
    session: Session,
    sets: Iterable[HeadSet | str] | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> sweeps.Sweep: ...
@overload
def sweep(
    session: Pairs,
    sets: Iterable[HeadSet | str] | None = None,
    means: None = None,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Any,
) -> swept_pairs.Sweeps: ...
def sweep(
    session: Session | Pairs,
    sets: Iterable[HeadSet | str] | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> sweeps.Sweep | swept_pairs.Sweeps:
    """Change every head, one after the other, or every set of heads, and see what each does.

    Exact for each head. At the answer position all heads together cost a few forward passes.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    sets
        ``20.18+21.14`` or a `HeadSet` each. None takes the study's file, or every single head.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out. Not for many pairs: theirs is
        their own mean.
    keep
        Over many pairs: a folder for finished rows, from which an interrupted sweep goes on.
    options
        Override `headpatch.Study.sweep`: ``kinds``, ``directions``, ``positions``, ``tower``,
        ``layers``, ``approx``, ``reference``, …; with tower ``vision``, ``positions`` is that of
        `headpatch.Study.vision`.

    Returns
    -------
    Sweep or Sweeps
        ``named`` and ``effects`` are tables with the columns of ``effects.csv``;
        ``saved["normalized"]`` holds a tensor ``[layers, heads]`` for each ``kind_direction``. Over
        many pairs ``means`` has the columns of ``effects_mean.csv``, and ``saved`` the means, their
        intervals (``normalized_low``, …) and each pair's (``normalized_by_pair``).

    Raises
    ------
    InputError
        If an option is wrong, or a set does not fit the model.

    Examples
    --------
    >>> swept = hp.sweep(session, ["20.18", "20.18+21.14"], kinds=["zero"], noise=1)
    >>> swept.named[["heads", "kind", "direction"]].values.tolist()[1]
    ['20.18+21.14', 'zero', 'noising']
    >>> bool(swept.noise_floor < 1e-4)  # logits
    True
    >>> swept = hp.sweep(pairs, ["20.18", "20.18+21.14"], kinds=["zero"], noise=1)
    >>> swept.saved["normalized_by_pair"]["zero_noising"].shape  # pairs, sets
    torch.Size([2, 2])
    """
    if isinstance(session, Pairs):
        return over_pairs.sweep(session, sets, means, on_progress, **options)
    session = asked_to_sweep(session, options)
    return sweeps.sweep(session, sets_of(sets), means, stages_of(on_progress))

"""Which heads look, which decide, and when: one call for each question about a pair of pictures.

Every function takes a session, opened for whatever positions: where it needs others, it runs both
pictures again. Keyword arguments override the study's own section of that name. `on_progress` is
called with (done, total), stage by stage; where it is None, a terminal or a notebook shows a bar;
False shows nothing.
"""

from collections.abc import Iterable
from typing import Any

from headpatch.analyses import ablate as ablations
from headpatch.analyses import cut as cuts
from headpatch.analyses import rank as ranking
from headpatch.analyses import sweep as sweeps
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session, ready, reopen, towers_of
from headpatch.analyses.towers import resolve
from headpatch.api.asking import Heads, asked, named
from headpatch.api.progress import Progress, stages_of
from headpatch.engine.patching import ZMeans
from headpatch.heads import HeadSet, Selection


def rank(session: Session, **options: Any) -> ranking.Ranking:
    """Rank every head by how much more it looks at the region when the object is there.

    Correlational: it shows where heads look, not what they do.

    Parameters
    ----------
    options
        Override `headpatch.Study.rank`: ``top``, ``overlays``.

    Raises
    ------
    InputError
        If an option is wrong, or the region holds no patch's centre.

    Examples
    --------
    >>> ranked = hp.rank(session, top=5)
    >>> ranked.heads.shape  # a row for each of 32 × 32 heads, the largest difference first
    (1024, 9)
    >>> list(ranked.heads.columns)[:6]
    ['rank', 'layer', 'head', 'diff', 'with', 'without']
    >>> tuple(ranked.with_run["lm_rows"].shape)  # layers, heads, keys
    (32, 32, 160)
    """
    session = asked(session, "rank", options)
    if session.positions is not None:  # rows of the vision tower are not kept then
        session = reopen(session)
    return ranking.rank(session)


def ablate(
    session: Session,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> ablations.Ablation:
    """Change each of some heads alone, then all together, beside random heads of their layers.

    Kind ``resample`` is activation patching (J. Vig et al., Investigating Gender Bias in Language
    Models Using Causal Mediation Analysis, NeurIPS 2020, arXiv:2004.12265); F. Zhang and N. Nanda,
    Towards Best Practices of Activation Patching (ICLR 2024, arXiv:2309.16042), compare the kinds.

    Parameters
    ----------
    heads
        None takes the study's.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out.
    options
        Override `headpatch.Study.ablate`: ``kinds``, ``directions``, ``positions``, ``controls``,
        ``reference``; ``vision_positions`` overrides that of `headpatch.Study.vision`, where vision
        heads (``v8.3``) change.

    Returns
    -------
    Ablation
        Its ``named`` and ``effects`` are tables with the columns of ``effects.csv``; effects in
        logits, ``normalized`` as a share of LD_with - LD_without.

    Raises
    ------
    InputError
        If an option is wrong, or the model has no such heads.

    Examples
    --------
    >>> found = hp.ablate(session, "20.18,21.14", kinds=["resample"], controls=2)
    >>> found.named[["heads", "direction", "role"]].values.tolist()[0]
    ['20.18', 'noising', 'head']
    >>> found.summary.startswith("Resampling 20.18+21.14 (answer): noising moves LD by")
    True
    """
    at = {"vision.positions": options.pop("vision_positions", None)}
    session = asked(session, "ablate", options | named(heads), at)
    section = session.study.ablate
    selection = Selection.parse(section.heads)
    chosen = resolve(selection, session.vlm, lambda: ranking.order(session))
    vision = selection.names_vision
    session = ready(session, section.positions, vision)
    stages = stages_of(on_progress)
    if means is None and "mean" in section.kinds:
        with stages("Averaging reference pairs") as advance:
            means = mean_z(session, advance, towers=towers_of(section.positions, vision))
    with stages("Changing heads") as advance:
        return ablations.ablate(session, chosen, means, advance)


def sweep(
    session: Session,
    sets: Iterable[HeadSet | str] | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> sweeps.Sweep:
    """Change every head, one after the other, or every set of heads, and see what each does.

    Exact for each head. At the answer position all heads together cost a few forward passes.

    Parameters
    ----------
    sets
        ``20.18+21.14`` or a `HeadSet` each. None takes the study's file, or every single head.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out.
    options
        Override `headpatch.Study.sweep`: ``kinds``, ``directions``, ``positions``, ``tower``,
        ``layers``, ``approx``, ``reference``, …; with tower ``vision``, ``positions`` is that of
        `headpatch.Study.vision`.

    Returns
    -------
    Sweep
        ``named`` and ``effects`` are tables with the columns of ``effects.csv``;
        ``saved["normalized"]`` holds a tensor ``[layers, heads]`` for each ``kind_direction``.

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
    """
    tower = options.get("tower", session.study.sweep.tower)
    at = options.pop("positions", None) if tower == "vision" else None
    session = asked(session, "sweep", options, {"vision.positions": at})
    listed = None if sets is None else [_set(one) for one in sets]
    return sweeps.sweep(session, listed, means, stages_of(on_progress))


def cut(session: Session, on_progress: Progress = None, **options: Any) -> cuts.Cuts:
    """Cut attention between named positions, in windows of layers: it shows when what is read.

    Attention knockout (M. Geva et al., Dissecting Recall of Factual Associations in Auto-Regressive
    Language Models, EMNLP 2023, arXiv:2304.14767).

    Parameters
    ----------
    options
        Override `headpatch.Study.cut`: ``edges``, ``window``, ``layers``, ``heads``, ``controls``,
        ``itself``.

    Returns
    -------
    Cuts
        ``named`` and ``effects`` are tables with the columns of ``cuts.csv``.

    Raises
    ------
    InputError
        If an option is wrong, or the model has no such layers, heads or positions.

    Examples
    --------
    >>> found = hp.cut(session, edges=["answer-region"], layers="10-14", controls=2)
    >>> found.named[["edge", "layers", "run"]].values.tolist()
    [['answer-region', '10-14', 'with'], ['answer-region', '10-14', 'without']]
    """
    session = asked(session, "cut", options)
    with stages_of(on_progress)("Cutting edges") as advance:
        return cuts.cut(session, lambda: ranking.order(session), advance)


def _set(one: HeadSet | str) -> HeadSet:
    return HeadSet.parse(one) if isinstance(one, str) else one

"""One call for each question about a pair of pictures.

Every function takes a session, opened for whatever positions: where it needs others, it runs both
pictures again. Keyword arguments override the study's own section of that name. `on_progress` is
called with (done, total), stage by stage; without it nothing is shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from headpatch.analyses import ablate as ablations
from headpatch.analyses import combine as combining
from headpatch.analyses import combine_judge, path_table, selfrepair
from headpatch.analyses import cut as cuts
from headpatch.analyses import path as paths
from headpatch.analyses import rank as ranking
from headpatch.analyses import rollout as rollouts
from headpatch.analyses import sweep as sweeps
from headpatch.analyses import trace as traces
from headpatch.analyses.combine_heads import choose, single_effects
from headpatch.analyses.path_heads import head_paths
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session, reopen
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import RunError
from headpatch.heads import Head, HeadSet, Selection
from headpatch.models.spans import Positions

if TYPE_CHECKING:
    import pandas

Heads: TypeAlias = str | Head | Iterable[Head]
"""``24.17,23.20`` or ``24.0-24.31`` or ``layer:24`` or ``top:5`` (of the attention ranking), a
`Head`, or several."""


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
    session = _asked(session, "rank", options)
    if session.positions is not None:  # rows of the vision tower are not kept then
        session = reopen(session)
    return ranking.rank(session)


def ablate(
    session: Session,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
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
        ``reference``.

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
    session = _asked(session, "ablate", options | _named(heads))
    section = session.study.ablate
    session = _at(session, section.positions)
    chosen = _resolved(session, section.heads)
    if means is None and "mean" in section.kinds:
        means = mean_z(session)
    return ablations.ablate(session, chosen, means, on_progress)


def sweep(
    session: Session,
    sets: Iterable[HeadSet | str] | None = None,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
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
    session = _asked(session, "sweep", options, {"vision.positions": at})
    section = session.study.sweep
    session = _at(session, section.positions if section.tower == "lm" else None)
    listed = None if sets is None else [_set(one) for one in sets]
    return sweeps.sweep(session, listed, means, on_progress)


def cut(session: Session, on_progress: OnProgress | None = None, **options: Any) -> cuts.Cuts:
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
    return cuts.cut(_asked(session, "cut", options), lambda: ranking.order(session), on_progress)


@dataclass(frozen=True, eq=False)
class Combined:
    """What `combine` found.

    Attributes
    ----------
    combinations
        Every set in every way; its ``largest(count)`` are the largest interactions.
    repair
        Direct and total effects of sets, and the parts that make the difference; None where LD
        cannot be attributed to the model's parts (`why_not` says why).
    summary
        In plain words.
    """

    combinations: combine_judge.Combinations
    repair: selfrepair.SelfRepair | None
    why_not: str
    summary: str

    @property
    def table(self) -> "pandas.DataFrame":
        """A row for each set × kind × direction: the columns of ``combinations.csv``."""
        return self.combinations.table

    @property
    def noise_floor(self) -> float:
        """Largest effect, in logits, of patching heads with their own z."""
        return self.combinations.noise_floor


def combine(
    session: Session,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Combined:
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
    session = _asked(session, "combine", options | _named(heads))
    study, section = session.study, session.study.combine
    session = _at(session, section.positions)
    chosen = choose(
        session.vlm.lm.grid,
        section,
        lambda: single_effects(session, section.positions, on_progress),
        lambda: ranking.order(session),
    )
    plan = combining.Plan.of(study, chosen)
    if means is None and "mean" in section.kinds:
        means = mean_z(session, on_progress, section.reference)
    found = combine_judge.judge(study, plan, [combining.measure(session, plan, means, on_progress)])
    repair, why_not = None, ""
    try:
        asked = selfrepair.plan(study, found.repaired)
        repair = selfrepair.judge(study, [selfrepair.measure(session, asked, means, on_progress)])
    except RunError as error:
        why_not = str(error)
    return Combined(found, repair, why_not, found.summary(session.valid))


def path(
    session: Session,
    heads: Heads | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> path_table.Path:
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
    Path
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
    session = _at(_asked(session, "path", options | _named(heads)), "answer")
    cuts.check_layers(paths.cut_session(session))
    paths.token_classes(session)  # a region without tokens is refused before any work
    chosen = choose(
        session.vlm.lm.grid,
        session.study.path,
        lambda: single_effects(session, "answer", on_progress),
        lambda: ranking.order(session),
    )
    streams = paths.streams(session, on_progress)
    edges = paths.edges(session, on_progress)
    try:
        attribution = paths.attribute(session)
    except RunError:
        attribution = None
    heard = head_paths(session, chosen, on_progress)
    return path_table.assemble(session, streams, edges, attribution, heard)


def trace(session: Session, on_progress: OnProgress | None = None, **options: Any) -> traces.Traced:
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
    return traces.trace(_at(_asked(session, "trace", options), "answer"), on_progress)


def rollout(
    session: Session, on_progress: OnProgress | None = None, **options: Any
) -> rollouts.Rolled:
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
    return rollouts.roll_out(_asked(session, "rollout", options), on_progress)


def _asked(
    session: Session,
    section: str,
    options: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> Session:
    """Return the session with options of the study's section overridden."""
    flags = {f"{section}.{name}": value for name, value in options.items()} | dict(more or {})
    if not any(value is not None for value in flags.values()):
        return session
    return replace(session, study=session.study.override(flags))


def _at(session: Session, positions: Positions | None) -> Session:
    """Return a session in which heads can be changed there."""
    return session if session.positions == positions else reopen(session, positions)


def _named(heads: Heads | None) -> dict[str, str]:
    """Write heads as the study does."""
    if heads is None:
        return {}
    if isinstance(heads, str | Head):
        return {"heads": str(heads)}
    return {"heads": ",".join(map(str, heads))}


def _resolved(session: Session, text: str) -> tuple[Head, ...]:
    selection = Selection.parse(text)
    order = ranking.order(session) if selection.needs_ranking else ()
    return selection.resolve(session.vlm.lm.grid, order)


def _set(one: HeadSet | str) -> HeadSet:
    return HeadSet.parse(one) if isinstance(one, str) else one

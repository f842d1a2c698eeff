"""Ranking heads by how much more they look at the region when the object is there.

Attention is read at the answer position (language model), and for the class token and the mean
patch query (vision tower).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float

from headpatch.core.ask import ask, origin
from headpatch.core.dataset import Pairs
from headpatch.core.measures import Figures, check_table, measure_of, places
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result, rows_of
from headpatch.core.ranking import (
    MASSES,
    columns_of,
    image_rows,
    masses,
    ranked_by,
)
from headpatch.core.session import Session, reopen
from headpatch.core.study.keywords import RankKeywords
from headpatch.core.study.study import Study
from headpatch.core.tower import InTower, in_tower
from headpatch.engine.answers import generate
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.heads import Grid
from headpatch.models.vlm import VLM
from headpatch.pairs.region import compared_by
from headpatch.questions.rank import VERB
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL, WITH_RUN, WITHOUT_RUN
from headpatch.stats import divergence
from headpatch.stats.attention_mass import QUADRANTS, distribution, mass, quadrant_masks

if TYPE_CHECKING:
    import pandas

Columns: TypeAlias = dict[str, list[Any]]
Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""
Mask: TypeAlias = Bool[np.ndarray, " tokens"]
_KEPT_PIXELS = 672  # longest side of the pictures kept beside the results


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Result):
    """What `headpatch.rank` found.

    Attributes
    ----------
    columns
        All language-model heads, the first of the ranking first: the columns of
        ``heads.csv``, by name. Over many pairs they are means, with intervals.
    per_head, spatial, with_run, without_run
        Of one pair, what the four ``.pt`` files hold; ``attention_data/README.md`` gives every key.
        Empty over many pairs.
    answers
        What the model says of each picture of one pair, in full.
    """

    columns: Columns
    per_head: Saved = field(default_factory=dict)
    spatial: Saved = field(default_factory=dict)
    with_run: Saved = field(default_factory=dict)
    without_run: Saved = field(default_factory=dict)
    answers: tuple[str, str] | None = None

    @cached_property
    def heads(self) -> "pandas.DataFrame":
        """Give `columns` as a table (imports pandas, which `headpatch rank` does without)."""
        import pandas

        return pandas.DataFrame(self.columns)

    @cached_property
    def gate(self) -> "pandas.DataFrame":
        """A row for each of many pairs, run or not: the columns of ``gate.csv``."""
        import pandas

        return pandas.DataFrame(self.origin.gate)

    @property
    def in_full(self) -> tuple[str, str] | None:
        """What the model says of both pictures."""
        return self.answers

    def top(self, count: int) -> list[dict[str, Any]]:
        """Return the first rows of the table."""
        return rows_of(self.columns, count)

    def files(self) -> Files:
        """Return the table, and of one pair the tensors."""
        runs = {WITH_RUN: self.with_run, WITHOUT_RUN: self.without_run}
        tensors = {**runs, PER_HEAD: self.per_head, SPATIAL: self.spatial}
        return {HEADS.file: self.columns, **(tensors if self.per_head else {})}

    def json(self) -> Mapping[str, Any]:
        """Return the first heads, and of one pair the answers and where attention falls."""
        heads = self.top(self.origin.context.options["top"])
        if self.answers is None:
            return {"heads": heads}
        answers = dict(zip(("answer_with", "answer_without"), self.answers, strict=True))
        return {**answers, "heads": heads, "spatial": self.spatial}


RankedPairs = Ranking


class Rank(Question[Ranking]):
    """Ranks heads."""

    verb = VERB

    def check(self, study: Study) -> None:
        """Refuse a table of scores that cannot be read."""
        check_table(study.rank.by)

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse a table of scores of heads that the model does not have."""
        check_table(study.rank.by, vlm.lm.grid)

    def needs(self, _study: Study) -> Needs:
        """Nothing is done to a pair beyond running it."""
        return Needs(count=1)

    def answer(self, opened: Opened, call: Call) -> Ranking:
        """Rank every head of one pair, or by means over pairs."""
        if isinstance(opened, Session):
            return _one_pair(opened)
        assert isinstance(opened, Pairs)
        return Ranking(_over_pairs(opened), origin=origin(VERB, opened))


QUESTION = Rank()


def rank(session: Session | Pairs, **options: Unpack[RankKeywords]) -> Ranking:
    """Rank every head by how much more it looks at the region, or otherwise by its attention.

    Correlational: it shows where heads look, not what they do.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    options
        Override `headpatch.Study.rank`: ``top``, ``by``, ``tau``, ``overlays``. Spatial entropy
        and the localization criterion are those of S. Kang et al., Your Large Vision-Language Model
        Only Needs A Few Attention Heads For Visual Grounding, CVPR 2025, arXiv:2503.06287.

    Returns
    -------
    Ranking
        ``heads`` has the columns of ``heads.csv``; over many pairs they are means, with intervals.

    Raises
    ------
    InputError
        If an option is wrong, or the region holds no patch's centre, or all of them (but for the
        whole picture, where heads are ranked by raw image mass).

    Examples
    --------
    >>> ranked = hp.rank(session, top=5)
    >>> ranked.heads.shape  # a row for each of 32 × 32 heads, the largest difference first
    (1024, 10)
    >>> list(ranked.heads.columns)[:6]
    ['rank', 'layer', 'head', 'diff', 'with', 'without']
    >>> tuple(ranked.with_run["lm_rows"].shape)  # layers, heads, keys
    (32, 32, 160)
    >>> ranked = hp.rank(pairs)
    >>> list(ranked.heads.columns)[9:]
    ['diff_low', 'diff_high', 'diff_raw_low', 'diff_raw_high', 'pairs', 'compared_by']
    """
    return ask(QUESTION, session, options)


def _one_pair(session: Session) -> Ranking:
    mask = session.region_tokens if session.pair.region.whole else session.compared_tokens
    if session.positions is not None:  # run in float32, over weights of low precision too
        session = reopen(session)
    grid, by = session.vlm.lm.grid, session.study.rank.by
    figures = masses(session) | ranked_by(session, by)
    answers = generate(session.vlm, session.prompt)
    columns, tower = columns_of(figures, grid, by), in_tower(session)
    return Ranking(
        _declared(columns, session.pair.region.yardstick),
        _tensors(_per_head(figures, grid, by, min(session.study.rank.top, len(grid)))),
        _tensors(_where_attention_falls(session, mask, tower)),
        _kept_run(session, WITH, answers[WITH], tower),
        _kept_run(session, WITHOUT, answers[WITHOUT], tower),
        (answers[WITH], answers[WITHOUT]),
        origin=origin(VERB, session),
    )


def _over_pairs(pairs: Pairs) -> Columns:
    """Return means over pairs, then the interval of each difference and the number of pairs."""
    from headpatch.core.aggregate import intervals  # loads pandas

    survey = pairs.survey
    survey.compare()
    by = pairs.study.rank.by
    keys = [key.name for key in measure_of(by).keys]
    ranked = [name for name in survey.masses if name in MASSES or name in keys]
    figures = {name: survey.mean_masses(name) for name in ranked}
    for name in dict.fromkeys(("diff", "diff_raw", *keys)):
        values = survey.masses[name]
        _, low, high = intervals(pairs.study, values.reshape(len(values), -1), survey.scenes)
        shape = values.shape[1:]
        figures |= {f"{name}_low": low.reshape(shape), f"{name}_high": high.reshape(shape)}
    columns = columns_of(figures, pairs.vlm.lm.grid, by)
    columns["pairs"] = [len(survey.entries)] * len(columns["rank"])
    return _declared(columns, survey.yardstick)


def _declared(columns: Columns, yardstick: str) -> Columns:
    columns["compared_by"] = [compared_by(yardstick)] * len(columns["rank"])
    return {one.name: columns[one.name] for one in HEADS if one.name in columns}


def _per_head(figures: Figures, grid: Grid, by: str, top: int) -> Saved:
    """Return every head's masses and rank, and how many of the first `top` each layer has."""
    order = measure_of(by).order(figures, grid)
    counts = np.bincount(order[:top] // grid.heads, minlength=grid.layers)
    return {**figures, "rank": places(order, grid), "layer_counts": counts, "top": top}


def _where_attention_falls(session: Session, mask: Mask, tower: InTower | None) -> Saved:
    """Return quadrants, divergences of both runs, and the region's share in the vision tower."""
    grid, per_head = session.vlm.lm.grid, distribution(image_rows(session))
    by_layer = distribution(per_head.mean(2))  # every head of a layer weighs the same
    overall = distribution(per_head.mean((1, 2)))
    masks = quadrant_masks(session.prompt.patches.boxes)
    quadrants = np.stack([mass(per_head, quadrant) for quadrant in masks], -1)
    each = grid.spread(quadrants.mean(2))  # a row for each layer
    layers = _divergences(by_layer).items()
    return {
        "quadrant_names": list(QUADRANTS),
        "quadrants_by_layer_with": each[WITH],
        "quadrants_by_layer_without": each[WITHOUT],
        "divergence_overall": {name: float(value) for name, value in _divergences(overall).items()},
        "divergence_lm": {name: grid.spread(one[:, None])[:, 0] for name, one in layers},
        **_both_runs("quadrants", quadrants.mean((1, 2))),
        **_vision(session, tower),
    }


def _vision(session: Session, tower: InTower | None) -> Saved:
    if session.vlm.vision is None:
        return {}
    saved: Saved = {"feature_layer": session.vlm.feature_layer}
    if tower is None:
        return saved
    for name, rows in tower.rows.items():
        shares = distribution(rows).mean(2)
        saved |= _both_runs(name, mass(shares, tower.region))
        saved |= _both_runs(name, mass(rows, tower.region).mean(2), "_raw")
        saved[f"divergence_{name}"] = _divergences(distribution(shares))
    return saved


def _both_runs(name: str, runs: Float[np.ndarray, "runs *rest"], suffix: str = "") -> Saved:
    return {
        f"{name}_with{suffix}": runs[WITH],
        f"{name}_without{suffix}": runs[WITHOUT],
        f"{name}_diff{suffix}": runs[WITH] - runs[WITHOUT],
    }


def _divergences(runs: Float[np.ndarray, "runs *rest tokens"]) -> Saved:
    """Divergences of two runs' distributions; NaN where a run has no attention to the image."""
    p, q = runs[WITH], runs[WITHOUT]
    there = (p.sum(-1) > 0) & (q.sum(-1) > 0)
    divergences: Saved = {}
    for name in ("kl", "js", "js_distance"):
        measured = np.full(there.shape, np.nan)
        measured[there] = getattr(divergence, name)(p[there], q[there])
        divergences[name] = measured
    return divergences


def _kept_run(session: Session, run: int, answer: str, tower: InTower | None) -> Saved:
    """Return what is kept of one run: its attention, answer and picture."""
    pair, prompt, trace = session.pair, session.prompt, session.base.trace
    logits = trace.logits[run]
    yes, no = map(float, prompt.answers.logits(logits))
    small = (pair.with_image if run == WITH else pair.without_image).copy()
    small.thumbnail((_KEPT_PIXELS, _KEPT_PIXELS))
    ids = prompt.select(run).input_ids.cpu()
    assert trace.lm_rows is not None
    saved: Saved = {
        "lm_rows": trace.lm_rows[run, ..., : len(ids)].cpu().clone(),
        "image_positions": prompt.image_positions,
        "boxes": torch.from_numpy(prompt.patches.boxes).float(),
        "grid": torch.tensor(prompt.patches.grid),
        "input_ids": ids,
        "tokens": session.vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist()),
        "ld": yes - no,
        "logit_yes": yes,
        "logit_no": no,
        "answer": answer,
        "question": pair.questions[run],
        "region_name": pair.region.name,
        "region_box": torch.tensor(pair.region.box),
        "image": torch.from_numpy(np.array(small)),
        "valid": session.valid,
    }
    if tower is not None:
        rows = tower.rows.items()
        saved |= {f"{name}_rows": torch.from_numpy(one[run]).float() for name, one in rows}
        if not np.array_equal(tower.boxes, prompt.patches.boxes):
            saved["vision_boxes"] = torch.from_numpy(tower.boxes).float()
    return saved


def _tensors(arrays: Saved) -> Saved:
    """Turn arrays into tensors, float64 into float32."""
    plain: Saved = {}
    for key, value in arrays.items():
        plain[key] = value
        if isinstance(value, dict):
            plain[key] = _tensors(value)
        elif isinstance(value, np.ndarray):
            tensor = torch.from_numpy(np.ascontiguousarray(value))
            plain[key] = tensor.float() if tensor.is_floating_point() else tensor
    return plain

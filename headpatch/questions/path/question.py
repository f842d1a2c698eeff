"""Following the object through the model, on one pair of pictures or over many.

What is finished of a pair is kept, whole or not at all, so that a killed run goes on later and
finds the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Unpack

import numpy as np
import pandas as pd

from headpatch.core.ask import ask, origin
from headpatch.core.cost import inexact, widened
from headpatch.core.dataset import Pairs
from headpatch.core.edge_cuts import check_window
from headpatch.core.fast_paths import decide
from headpatch.core.head_selection import (
    Heads,
    check_candidates,
    choose,
    choose_heads,
    named,
    ranking_price,
    single_effects,
)
from headpatch.core.outlook import Stage
from headpatch.core.over_pairs import each_pair
from headpatch.core.progress import Progress, reporting
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.ranking import order
from headpatch.core.session import Session
from headpatch.core.stream_swaps import Ends, token_classes
from headpatch.core.study.keywords import PathKeywords
from headpatch.core.study.options import edge_ends
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.present.head_columns import with_head_columns
from headpatch.questions.path import VERB
from headpatch.questions.path.columns import MEANS, PATH
from headpatch.questions.path.sentences import sentences
from headpatch.questions.path.tables import MeasuredPair, OverPairs
from headpatch.stats.scenes import by_scene


@dataclass(frozen=True, eq=False, repr=False)
class FollowedPath(Result):
    """All views of one pair of pictures, or of many.

    Attributes
    ----------
    table
        The columns of ``path.csv``: a row for each figure of each pair.
    means
        Over many pairs, the columns of ``path_mean.csv``; None of one.
    saved
        What ``path.pt`` holds.
    summary
        Plain sentences.
    whole
        Pairs on which every swapped stream took a whole forward pass.
    why_not
        Why there is no direct attribution; empty if there is.
    """

    table: pd.DataFrame
    means: pd.DataFrame | None
    saved: Mapping[str, Any]
    summary: tuple[str, ...]
    whole: int
    why_not: str

    @property
    def resumed(self) -> bool:
        """Whether passes with a swapped stream were resumed at that layer, or all were whole."""
        return self.whole == 0

    def files(self) -> Files:
        """Return the tables and tensors."""
        means = {} if self.means is None else {MEANS.file: self.means}
        return {PATH.file: self.table, **means, "path.pt": self.saved}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints: the figures, or their means."""
        rows = {"path": self.table} if self.means is None else {"path_mean": self.means}
        return {"noise_floor": self.noise_floor, **rows, "summary": list(self.summary)}


FollowedPaths = FollowedPath
"""What `headpatch.path` found over many pairs."""


_CLASSES, _INPUTS = 4, 7  # of tokens whose stream is swapped; of inputs of a head
_SHARE = 0.5  # of a pass that a run takes that is resumed at its layer, in the mean


def _first(edges: Sequence[str]) -> Positions:
    """Return the tokens from the first of which runs with cut edges differ from the untouched."""
    ends = {edge_ends(edge)[0] for edge in edges}
    if ends == {"answer"}:
        return "answer"
    return "question" if ends <= {"answer", "question", "words"} else "all"


class Path(Question[FollowedPath]):
    """Follows the object through the model."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Change heads at the answer position; pairs of a dataset are opened one by one."""
        return Needs("answer", one_length=True, of_pairs=Needs(one_length=True))

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse heads and layers that the model does not have."""
        grid = vlm.lm.grid
        check_window(study.path.window, grid)
        check_candidates(grid, study.path)

    def price(self, study: Study, vlm: VLM, pairs: Pair | Sequence[Entry]) -> list[Stage]:
        """Count the swaps, cuts and paths of every pair, about: it depends on the prompt."""
        grid, many = vlm.lm.grid, 1 if isinstance(pairs, Pair) else len(pairs)
        heads, stages = ranking_price(study, vlm, study.path, pairs)
        layers = grid.layers + (vlm.vision.grid.layers if vlm.vision else 0)
        swapped = 2 * _CLASSES * layers * many
        cuts = 2 * (len(study.path.edges) + 1) * grid.layers * many  # and of nothing
        paths = 2 * _INPUTS * heads * (1 if isinstance(pairs, Pair) else -(-many // 2))
        views = [
            Stage("Swapping the stream", swapped, _SHARE * swapped),
            Stage(
                "Cutting edges", cuts, widened(study, vlm, pairs, cuts, _first(study.path.edges))
            ),
            Stage("Patching paths to heads", paths, _SHARE * paths),
        ]
        if not isinstance(pairs, Pair):
            whole = sum(one.rows for one in views), sum(one.passes for one in views)
            views = [Stage("Following the object", *whole)]
        return [*stages, *views]

    def answer(self, opened: Opened, call: Call) -> FollowedPath:
        """Measure every view of every pair."""
        if isinstance(opened, Session):
            return self._one(opened, call)
        assert isinstance(opened, Pairs)
        return self._many(opened, call)

    def _one(self, session: Session, call: Call) -> FollowedPath:
        study, base = session.study, session.base
        if words := inexact(session):
            call.say(words)
        token_classes(session)  # a region without tokens is refused here, one without others below
        for edge in study.path.edges:
            Ends.of(session, edge)
        with call.stages("Ranking heads by effect") as advance:
            heads = choose(
                session.vlm.lm.grid,
                study.path,
                lambda: single_effects(session, "answer", advance),
                lambda: order(session),
            )
        pair = MeasuredPair.of(session, _heard(session.vlm, heads, call), call.stages)
        facts = {"ld_with": base.ld_with, "ld_without": base.ld_without,
                 "question": session.pair.question,
                 "region_name": session.pair.region.name}  # fmt: skip
        return _followed(session, [pair], facts, 0, call)

    def _many(self, pairs: Pairs, call: Call) -> FollowedPath:
        study, survey, vlm = pairs.study, pairs.survey, pairs.vlm
        checks = decide(study, vlm, (entry.pair() for entry in pairs.entries), "answer")
        here = pairs.positions == "answer" and not pairs.vision
        survey = replace(survey, checks=checks, open_pairs=survey.open_pairs if here else None)
        pairs = replace(pairs, survey=survey, positions="answer", vision=False)
        with call.stages("Ranking heads by effect") as advance:
            chosen = choose_heads(pairs, call, study.path, advance)
        heads: dict[str, tuple[Head, ...]] = {entry.name: () for entry in survey.entries}
        named_heads = _heard(vlm, chosen.heads, call)
        heads |= {entry.name: named_heads for entry in chosen.entries}
        with call.stages("Following the object") as advance:
            followed = list(_each(pairs, heads, call, advance))
        gated = [one for one in survey.gated if one.entry.name in heads]
        lds = np.array([(one.ld_with, one.ld_without) for one in gated])
        facts = {
            "pairs": len(followed),
            "pairs_heads": len(chosen.entries),
            "level": study.pairs.level,
            "ld_with": float(by_scene(lds[:, 0], survey.scenes).mean()),
            "ld_without": float(by_scene(lds[:, 1], survey.scenes).mean()),
            "question": survey.question,
            "region_name": survey.region_name,
        }
        return _followed(pairs, followed, facts, chosen.chosen_on, call)


QUESTION = Path()


def path(
    session: Session | Pairs,
    heads: Heads | None = None,
    on_progress: Progress = None,
    *,
    keep: str | FilePath | None = None,
    **options: Unpack[PathKeywords],
) -> FollowedPath:
    """Follow the object through the model: where what tells the pictures apart is, and when.

    The stream is swapped as in causal tracing (K. Meng et al., Locating and Editing Factual
    Associations in GPT, NeurIPS 2022, arXiv:2202.05262), edges are cut as by `headpatch.cut`, LD is
    attributed to what writes it, and paths to heads are patched (N. Goldowsky-Dill et al.,
    Localizing Model Behavior with Path Patching, 2023, arXiv:2304.05969).

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`. Over many, heads that a ranking picks are
        picked on one half of the pairs, and the paths to them are patched on the other.
    heads
        To which paths are patched. None takes the study's, or the first of its rankings.
    keep
        Over many pairs: a folder for finished ones, from which an interrupted call goes on.
    options
        Override `headpatch.Study.path`: ``top``, ``by``, ``edges``, ``window``.

    Returns
    -------
    FollowedPath
        ``table`` has the columns of ``path.csv``, ``saved`` holds what ``path.pt`` does, and
        ``summary`` says it in sentences. Over many pairs ``means`` has the columns of
        ``path_mean.csv``.

    Raises
    ------
    InputError
        If an option is wrong, or the model has no such heads, layers or positions.

    Examples
    --------
    >>> followed = hp.path(session, "top:1", edges=["answer-region"], window=1)
    >>> sorted(set(followed.table["view"]))
    ['direct', 'edge', 'head path', 'stream']
    >>> followed = hp.path(pairs, "0.1", edges=["answer-region"], window=1)
    >>> [name for name in followed.means if name.startswith("normalized")][:4]
    ['normalized', 'normalized_low', 'normalized_high', 'normalized_ratio']
    """
    return ask(QUESTION, session, {**options, **named(heads)}, on_progress, keep)


def _heard(vlm: VLM, heads: tuple[Head, ...], call: Call) -> tuple[Head, ...]:
    """Return the heads to which paths are patched; none where what they hear does not give z."""
    if not vlm.lm.at_output:
        return heads
    call.say(
        f"paths to heads are left out: between the attention of {vlm.name} and its projection lies "
        "more than what its queries, keys and values say"
    )
    return ()


def _each(
    pairs: Pairs, heads: Mapping[str, tuple[Head, ...]], call: Call, on_progress: OnProgress
) -> Iterator[MeasuredPair]:
    """Yield every pair, in order: as it was finished before, or measured now."""
    where = {entry.name: entry.where for entry in pairs.entries}

    def measure(session: Session, _: OnProgress) -> MeasuredPair:
        name = session.pair.name
        if words := inexact(session):
            call.say(f"pair {name}: {words}")
        try:
            return MeasuredPair.of(session, heads[name], reporting(None))
        except InputError as error:
            argument = f"{where[name]}, {error.argument}"
            raise InputError(argument, error.found, error.expected, error.hint) from None

    asked = pairs.study.model_dump(include={"path": {"edges", "window"}}, mode="json")
    paths_to = [[str(head) for head in heads[entry.name]] for entry in pairs.entries]
    what = "Following the object"
    return each_pair(pairs, call, what, measure, on_progress, asked=asked, each=paths_to)


def _followed(
    opened: Opened, pairs: list[MeasuredPair], facts: Mapping[str, Any], chosen_on: int, call: Call
) -> FollowedPath:
    """Put together what was measured; `facts` are what ``path.pt`` says beside the curves."""
    study, vlm = opened.study, opened.vlm
    scenes, gaps = np.zeros(1, dtype=np.int64), None
    if isinstance(opened, Pairs):
        scenes, gaps = opened.survey.scenes, opened.survey.ld_gaps
    rows = OverPairs(study, [pair.table for pair in pairs], scenes, gaps)
    floor = max(pair.noise_floor for pair in pairs)
    whole = sum(not pair.resumed for pair in pairs)
    why_not = next((pair.why_not for pair in pairs if pair.why_not), "")
    if whole:
        dtype = str(vlm.dtype).removeprefix("torch.")
        call.say(
            f"passes of {vlm.name} ({dtype}) cannot be resumed halfway: every swap"
            f"{f' of {whole:,} pairs' * rows.many} took a whole forward pass"
        )
    if why_not:
        call.say(f"direct attribution is left out: {why_not}")
    summary = sentences(rows, chosen_on, opened.valid, floor)
    layer = vlm.feature_layer
    saved = rows.saved() | {
        "window": study.path.window,
        "feature_layer": -1 if layer is None else layer,
        "noise_floor": floor,
        "valid": opened.valid,
        **facts,
        "summary": list(summary),
    }
    table = pd.concat([pair.table for pair in pairs], ignore_index=True)
    return FollowedPath(
        with_head_columns(table, "head_layer"),
        rows.means if rows.many else None,
        saved,
        summary,
        whole,
        why_not,
        origin=origin(VERB, opened, floor),
    )

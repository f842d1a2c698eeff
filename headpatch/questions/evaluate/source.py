"""Where labelled rows come from: a table, the runs of pairs, or what is open already."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Pairs
from headpatch.core.labelled_rows import Rows
from headpatch.core.pair_units import Keys
from headpatch.core.ranking import order
from headpatch.core.session import Session, run_both
from headpatch.core.share import Share
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from headpatch.pairs.labelled import Labelled, Listed, of_entries, ordered, read_rows, runs_of
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.same_scene import with_scenes
from headpatch.questions.evaluate.measure import turned


def listed_of(study: Study) -> Listed:
    """Read a study's rows: of a table, or both runs of every pair, or of its own."""
    options = study.evaluate
    if options.rows is not None:
        found = read_rows(options.rows, study.answers)
    elif study.pairs.manifest is None:
        pair = study.pair()
        return Listed(_runs(study, pair.name, pair))
    else:
        found = of_entries(
            with_scenes(Manifest.read(Path(study.pairs.manifest)).entries), study.answers
        )
    refuse_resample(study, found)
    return _limited(study, found)


def rows_of(study: Study, vlm: VLM, listed: Listed, share: Share) -> Rows:
    """Open what is listed; the pairs that rows are runs of rank heads, if they are asked to."""
    judged = study.model_copy(update={"force": True})

    def ranking() -> Sequence[Head]:
        if listed.of_pairs:
            return survey(judged, vlm, listed.of_pairs).order(study.rank.by)
        return order(run_both(judged, vlm, study.pair()))

    of_pairs = study.evaluate.rows is None
    return Rows(
        study, vlm, listed.entries, listed.refused, of_pairs, ranking if of_pairs else None, share
    )


def refuse_resample(study: Study, listed: Listed) -> None:
    """Refuse z of another run where rows have none."""
    if "resample" in study.evaluate.kinds and not listed.of_pairs:
        found, expected = "resample, and single pictures", "--pairs: it takes z of another run"
        raise InputError("--kinds", found, expected)


def _limited(study: Study, listed: Listed) -> Listed:
    """Take at most so many rows, or pairs, by the study's seed."""
    limit, units = study.pairs.limit, len(listed.of_pairs) or len(listed.entries)
    if limit is None or limit >= units:
        return listed
    if listed.of_pairs:
        entries = Manifest(Path(), listed.of_pairs).take(limit, study.seed).entries
        return of_entries(entries, study.answers)
    rng = np.random.default_rng([study.seed % 2**64, limit])  # numpy takes no negative seed
    drawn = sorted(rng.choice(units, size=limit, replace=False).tolist())
    return replace(listed, entries=tuple(listed.entries[place] for place in drawn))


def _runs(study: Study, name: str, pair: Any) -> tuple[Labelled, ...]:
    own = pair.answers or study.answers
    more = {"scene": name, "choices": ordered(own, study.answers), "region": pair.region}
    return runs_of(name, pair.images, pair.questions, own, **more)


def as_rows(opened: Session | Pairs | Rows) -> Rows:
    """Return what is open as labelled rows: both runs of a pair, or of each of many."""
    if isinstance(opened, Rows):
        return opened
    study, vlm = opened.study, opened.vlm
    if isinstance(opened, Session):
        runs = _runs(study, opened.pair.name, opened.pair)
        return Rows(study, vlm, runs, (), True, lambda: order(opened))
    entries: list[Entry] = [one.entry for one in opened.survey.gated]
    listed = of_entries(entries, study.answers)
    ranking = partial(opened.survey.order, study.rank.by)
    return Rows(study, vlm, listed.entries, (), True, ranking, opened.share, opened.keep)


def keys_of(rows: Rows, asked: Mapping[str, Any]) -> list[str]:
    """Name the rows' units, by what is asked of all of them and by their own choices."""
    twins = "resample" in rows.study.evaluate.kinds
    each = [
        json.dumps([one.choices, one.answer, twins and one.twin and one.twin.question,
                    *[one.region.box] * turned(rows.study)])
        for one in rows.entries
    ]  # fmt: skip
    return Keys(rows.vlm).of(rows.study, rows.entries, asked, each)

"""From what rows say to metrics, their differences, tests and places among random sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from headpatch.core.labelled_rows import Rows
from headpatch.engine.interventions import Intervention
from headpatch.errors import InputError
from headpatch.pairs.labelled import Labelled
from headpatch.questions.evaluate.columns import EVALUATION, ROWS
from headpatch.questions.evaluate.measure import Asked, Plan, Said
from headpatch.questions.evaluate.scores import (
    Objects,
    Score,
    Scored,
    Texts,
    by_choice,
    by_function,
    by_objects,
    by_pope,
    by_word,
    contains,
    exact,
)
from headpatch.stats.behaviour import Metric, by_scene_sums, sign_flip_p
from headpatch.stats.effects import rank_of, spread
from headpatch.stats.scenes import Scenes
from headpatch.stats.significance import adjusted
from headpatch.text import spelling, user_path

_ONE_BY_ONE: Mapping[str, Score] = {"exact": exact, "contains": contains}


def check_scores(rows: Rows, score: Score | None) -> None:
    """Refuse, before any row is asked, what its answers could not be scored by."""
    nothing = [("",)] * len(rows.entries)
    if rows.study.evaluate.generate and score is None:
        _named_score(rows, nothing)
    elif score is not None and not rows.study.evaluate.generate:
        expected = "generate=N as well: it scores a text"
        raise InputError("score", "a function, and no text", expected)
    list(_subsets(rows))


def scored(rows: Rows, said: Sequence[Said], score: Score | None) -> list[Scored]:
    """Score what was said in every way that is asked for; the first is that of the rows."""
    texts = [one.texts for one in said]
    if not rows.study.evaluate.generate:
        choice = by_choice([one.choices for one in said], rows.entries)
        return [by_word(texts, rows.entries), *([choice] if choice else [])]
    if score is not None:
        return [by_function(score, texts, rows.entries)]
    return [_named_score(rows, texts)]


def _named_score(rows: Rows, texts: Texts) -> Scored:
    """Score texts by a name: the study's, or POPE's reading where every answer is Yes or No."""
    options, entries = rows.study.evaluate, rows.entries
    yes_no = all(spelling(one.answer) in ("yes", "no") for one in entries)
    name = options.score or ("pope" if yes_no else "contains")
    if name == "pope":
        return by_pope(texts, entries)
    if name == "chair":
        table = Objects.read(user_path(options.synonyms or "", "--synonyms"))
        return by_objects(table, texts, entries)
    if missing := [one.name for one in entries if not one.answer]:
        raise InputError("--score", f"{name}, and row {missing[0]} has no answer", "an answer each")
    return by_function(_ONE_BY_ONE[name], texts, entries)


def scene_numbers(rows: Sequence[Labelled]) -> Scenes:
    """Number the rows' scenes from 0, in the order in which they come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(one.scene, len(numbers)) for one in rows], dtype=np.int64)


def evaluation(rows: Rows, asked: Plan, each: Sequence[Scored]) -> pd.DataFrame:
    """Return the table of metrics: a row for each scoring, subset, set and metric."""
    found: list[dict[str, Any]] = []
    for one in each:
        for value, kept in _subsets(rows):
            found += _metrics(rows, asked, one, value, kept)
    table = pd.DataFrame(found)
    table["q"] = np.nan
    keys = ["scoring", "subset", "metric"]
    for _, places in table[table["p"].notna()].groupby(keys, sort=False).groups.items():
        table.loc[places, "q"] = adjusted(table.loc[places, "p"].to_numpy(np.float64))
    return pd.DataFrame(EVALUATION.ordered(_where_any(table)))


def _subsets(rows: Rows) -> Iterator[tuple[str, Bool[np.ndarray, " rows"]]]:
    """Yield all rows, then those with each value of the column that is asked for."""
    yield "", np.ones(len(rows.entries), dtype=bool)
    name = rows.study.evaluate.factor
    if name is None:
        return
    values = [one.factors.get(name, "") for one in rows.entries]
    if not any(values):
        known = ", ".join(dict.fromkeys(key for one in rows.entries for key in one.factors))
        raise InputError(
            "--factor", name, f"a column of the rows: {known or 'they have none more'}"
        )
    for value in sorted({*values} - {""}):
        yield value, np.array([one == value for one in values])


def _metrics(
    rows: Rows, asked: Plan, one: Scored, subset: str, kept: Bool[np.ndarray, " rows"]
) -> Iterator[dict[str, Any]]:
    entries = [row for row, there in zip(rows.entries, kept, strict=True) if there]
    scenes, part, pairs = scene_numbers(entries), one.of(kept), rows.study.pairs
    place = {change: number for number, change in enumerate(asked.changes, start=1)}
    own = [place[each.change] for each in asked.asked]
    for metric in part.metrics(entries, scenes, rows.of_pairs):
        values = metric.values
        few = [0, *own]
        named = replace(metric, over=metric.over[few], under=metric.under[few])
        rng = np.random.default_rng(rows.study.seed % 2**64)  # numpy takes no negative seed
        ends = named.differences(pairs.level, pairs.resamples, rng)
        for number, each in enumerate(asked.asked):
            chance = values[[place[change] for change in each.controls]] - values[0]
            yield {
                **_what(each), "scoring": one.scoring, "subset": subset, "metric": metric.name,
                "rows": metric.over.shape[1], "scenes": len(np.unique(metric.scenes)),
                "base": values[0], "value": values[own[number]],
                **{key: end[number] for key, end in ends.columns("difference").items()},
                **_tested(part, metric, own[number]),
                **_beside(float(ends.mean[number]), chance),
            }  # fmt: skip


def _what(each: Asked) -> dict[str, Any]:
    one = each.change
    what = {"set": each.named.name, "heads": str(each.named.heads), "kind": one.kind}
    return {**what, "alpha": one.alpha, "toward": one.toward}


def _tested(part: Scored, metric: Metric, change: int) -> dict[str, float]:
    """Say how many cells are lost and gained, and test that by McNemar, for accuracies."""
    nothing = dict.fromkeys(("lost", "gained", "mcnemar_p", "p"), np.nan)
    if not part.tested or not metric.name.endswith("accuracy"):
        return nothing
    before, after = (np.asarray(metric.over[row], np.int64) for row in (0, change))
    apart = before - after
    return {
        "lost": float((apart > 0).sum()),
        "gained": float((apart < 0).sum()),
        "mcnemar_p": sign_flip_p(apart),
        "p": sign_flip_p(by_scene_sums(apart, metric.scenes)),
    }


def _beside(difference: float, chance: np.ndarray) -> dict[str, float]:
    """How a difference stands to those of random sets, where all are defined."""
    mean = sd = p = np.nan
    if len(chance) and np.isfinite([difference, *chance]).all():
        found = spread(chance)
        mean, sd, p = found.mean, found.sd, rank_of(difference, chance)
    return {"control_mean": mean, "control_sd": sd, "control_n": len(chance), "control_p": p}


def _where_any(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns of kinds that did not run."""
    table["alpha"] = table["alpha"].astype(float)
    return table.drop(columns=[one for one in ("alpha", "toward") if table[one].isna().all()])


def row_table(rows: Rows, asked: Plan, said: Sequence[Said], first: Scored) -> pd.DataFrame:
    """Return what each row was answered: with nothing changed, then by every named change."""
    place: dict[Intervention, int] = {one: at for at, one in enumerate(asked.changes, start=1)}
    nothing = {"heads": "", "kind": "", "alpha": np.nan, "toward": None}
    each = [(0, nothing)]
    for one in asked.asked:
        what = _what(one)
        each.append((place[one.change], {key: what[key] for key in nothing}))
    right: Callable[[int, int], float] = lambda change, row: (  # noqa: E731
        np.nan if first.right is None else float(first.right[change, row])
    )
    found = [
        {
            "row": row.name, "scene": row.scene, "group": row.group, "question": row.question,
            "answer": row.answer, **what, "said": words.texts[change],
            "right": right(change, number),
            "choice": row.choices[words.choices[change]] if words.choices[change] >= 0 else "",
            "margin": words.margins[change] if words.margins else np.nan,
        }
        for change, what in each
        for number, (row, words) in enumerate(zip(rows.entries, said, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(ROWS.ordered(_where_any(pd.DataFrame(found))))

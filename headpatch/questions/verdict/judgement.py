"""Which heads decide: the causal verdict of every head, over many pairs.

Every head is judged, on all pairs. What is *chosen* (sets of heads, rankings) is chosen on one part
of the pairs and judged on the other, and the other way round, so that the effect that is reported
is not the one that selected (cross-fitting).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from headpatch.core.baseline_runs import Survey
from headpatch.core.measures import ranking_name
from headpatch.core.ratio_columns import ratio_columns
from headpatch.core.saved_verdict import can_judge, halve
from headpatch.core.share import ALONE, Share
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction
from headpatch.engine.patching import OnProgress
from headpatch.heads import Grid, HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.discovery import (
    Change,
    Choice,
    choose,
    claimed,
    curves,
    set_counts,
    with_parts,
)
from headpatch.questions.verdict.looks import Look, looks, open_heads
from headpatch.questions.verdict.measure import Runner
from headpatch.questions.verdict.nulls import Null, failed, judge_nulls
from headpatch.questions.verdict.pair_record import DIRECTIONS, PairRecord, PerPair, Task
from headpatch.questions.verdict.together import joint_effects, random_effects
from headpatch.stats.disattenuated_rank_correlation import true_correlation
from headpatch.stats.interactions import HeldOutSets
from headpatch.stats.intervals import interval_by
from headpatch.stats.rankings import Ranking, correlation
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import adjusted, minimum_effect_test
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, Verdicts, judge

Places = Int[np.ndarray, "_"]
UnitEffects = Float[np.ndarray, "units all"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What `run` found; the tables name the nulls that failed in a last column."""

    verdicts: Verdicts
    together: pd.DataFrame  # the first heads of rankings, and those by effect, as one set
    nulls: list[Null]
    faithfulness: pd.DataFrame
    vision: pd.DataFrame | None  # over the pairs on which layers were changed; None: too few
    noise_floor: float  # in logits, the largest of all pairs
    look: Look  # at which it was reached, of one or several
    saved: dict[str, Any]  # what ``verdict.pt`` holds: every pair's arrays


@dataclass(frozen=True, eq=False)
class Part:
    """What some pairs have chosen, and what the others measured of it."""

    choice: Choice
    judges: Places  # among all pairs
    effects: Mapping[Direction, Mapping[HeadSet, Float[np.ndarray, " judges"]]]


@dataclass(frozen=True, eq=False)
class Measured:
    """All pairs that were run: what they are, and what was measured of each."""

    entries: Sequence[Entry]
    records: Sequence[PairRecord]
    attention: PerPair
    raw: PerPair
    scenes: Int[np.ndarray, " pairs"]
    parts: Sequence[Part]

    @property
    def judged(self) -> Places:
        """Pairs that judge what others have chosen, part by part."""
        return np.concatenate([part.judges for part in self.parts])


def run(
    study: Study,
    vlm: VLM,
    survey: Survey,
    store: Store | None,
    on_progress: OnProgress | None = None,
    say: Callable[[str], None] = lambda _: None,
    share: Share = ALONE,
) -> Judgement:
    """Judge every head on all pairs, and what a part of them chooses on the others.

    The survey is of the positions of the study's ``verdict``. `on_progress` is called with (done,
    total), in heads or sets changed once; the total is an estimate.
    """
    survey.compare()
    grid, entries = vlm.lm.grid, survey.entries
    attention, scenes = survey.masses["diff"], survey.scenes
    price = cost(study, grid, entries)
    runner = Runner(study, vlm, survey, store, on_progress, price, say, share)
    planned = looks(study, scenes)
    tasks = _tasks(study, _parts(study, entries, planned[0].places), entries)
    records: dict[int, PairRecord] = {}
    for look in planned:
        new = [i for i in look.places.tolist() if i not in records]
        asked = [tasks.get(i) or _more(study, i) for i in new]
        records |= dict(zip(new, runner.measured([entries[i] for i in new], asked), strict=True))
        ways = [
            np.stack([records[i].effects[f"resample_{way}"] for i in look.places])
            for way in DIRECTIONS
        ]
        of_look = attention[look.places], scenes[look.places]
        if look is planned[-1] or not open_heads(study, grid, look, ways, *of_look):
            break
    both = _parts(study, entries, look.places)

    def part(choosing: Places, judges: Places) -> Part:
        def noised(some: Sequence[int], sets: Sequence[HeadSet]) -> Float[np.ndarray, "pairs sets"]:
            asked: list[Change] = [(one, "noising") for one in sets]
            return runner.changed([entries[choosing[i]] for i in some], asked)

        seen = [records[i] for i in choosing]
        choice = choose(study, grid, survey, seen, choosing.tolist(), noised)
        effects = runner.changed([entries[i] for i in judges], choice.changes)
        by: dict[Direction, dict[HeadSet, Float[np.ndarray, " judges"]]] = {
            way: {} for way in DIRECTIONS
        }
        for (members, way), values in zip(choice.changes, effects.T, strict=True):
            by[way][members] = values
        return Part(choice, judges, by)

    parts = [part(*ordered) for ordered in _folds(both, entries)]
    place = {int(i): k for k, i in enumerate(look.places)}
    parts = [replace(one, judges=np.array([place[int(i)] for i in one.judges])) for one in parts]
    at = look.places
    measured = Measured(
        [entries[i] for i in at], [records[int(i)] for i in at], attention[at],
        survey.masses["diff_raw"][at], scenes[at], parts,
    )  # fmt: skip
    orders = {
        ranking_name(by): grid.among(survey.ranking(by, at.tolist())) for by in study.rankings
    }
    return _conclude(study, grid, measured, look, orders)


def _more(study: Study, place: int) -> Task:
    """Return what to do with a pair that a later look adds."""
    return Task(drawn=(study.verdict.groups, study.seed, place))


def _parts(study: Study, entries: Sequence[Entry], places: Places) -> tuple[Places, Places]:
    """Split some of the pairs in two parts; return the places of both among all."""
    place = {one.name: i for i, one in enumerate(entries)}
    halves = halve(study, [entries[i] for i in places])
    first, second = (
        np.array([place[one.name] for one in part], dtype=np.int64)
        for part in (halves.discovery, halves.confirmation)
    )
    return first, second


def _folds(
    both: tuple[Places, Places], entries: Sequence[Entry]
) -> Iterator[tuple[Places, Places]]:
    """Give (those that choose, those that judge): both ways, if the first part can judge."""
    first, second = both
    yield first, second
    if can_judge(len({entries[i].scene for i in first.tolist()})):
        yield second, first


def cost(study: Study, grid: Grid, entries: Sequence[Entry]) -> int:
    """Return about how many rows a verdict over pairs takes: heads or sets changed once."""
    both = _parts(study, entries, np.arange(len(entries)))
    seeking, judging = set_counts(study, grid)
    rows = sum(task.rows(grid) for task in _tasks(study, both, entries).values())
    for choosing, judges in _folds(both, entries):
        rows += min(study.verdict.search, len(choosing)) * seeking + len(judges) * judging
    return rows


def _tasks(study: Study, both: tuple[Places, Places], entries: Sequence[Entry]) -> dict[int, Task]:
    """Return what to do with each pair, by its place, but for chosen sets."""
    options = study.verdict
    tasks: dict[int, Task] = {}
    choosing = {int(place): i for some, _ in _folds(both, entries) for i, place in enumerate(some)}
    judging = {int(place): i for i, place in enumerate(both[1])}
    for place in (int(place) for place in np.concatenate(both)):
        tasks[place] = Task(
            drawn=(options.groups, study.seed, place) if place in choosing else None,
            attribution=choosing.get(place, options.attribution) < options.attribution,
            nulls=options.source == "twin" and judging.get(place, options.nulls) < options.nulls,
            vision=not study.of_pair(entries[place]).context_images
            and judging.get(place, options.vision) < options.vision,
        )
    return tasks


def _conclude(
    study: Study, grid: Grid, seen: Measured, look: Look, orders: Mapping[str, Ranking]
) -> Judgement:
    """Judge every head by what the pairs of a look show; `orders` are of the study's rankings."""
    by, records, judged = look.rule, seen.records, seen.judged
    scenes = seen.scenes
    effects = {way: np.stack([pair.effects[way] for pair in records]) for way in records[0].effects}
    necessity, sufficiency = effects["resample_noising"], effects["resample_denoising"]
    noised = [part.effects["noising"] for part in seen.parts]
    claims = claimed(study)
    of_claims = {
        one: np.concatenate([joint[one] for joint in noised]) for one in with_parts(claims)
    }
    held_out = []
    if claims:
        held_out = [HeldOutSets(claims, of_claims, necessity[judged], scenes[judged])]
    held_out += [
        HeldOutSets(part.choice.partners, joint, necessity[part.judges], scenes[part.judges], place)
        for place, (part, joint) in enumerate(zip(seen.parts, noised, strict=True), start=1)
    ]
    names = [pair.name for pair in records]
    lds = np.array([[pair.ld_with for pair in records], [pair.ld_without for pair in records]])
    looks, needs, suffices = map(grid.there, (seen.attention, necessity, sufficiency))
    observed = Observed(
        looks, needs, suffices, chosen=held_out, raw=grid.there(seen.raw), lds=lds, scenes=scenes,
        factors=_factors(seen.entries), layers=grid.with_heads,
    )  # fmt: skip
    verdicts = judge(observed, by)
    verdicts.heads["attention_rank"] = orders[ranking_name(study.rank.by)].argsort() + 1
    for name, way in zip(("necessity", "sufficiency"), DIRECTIONS, strict=True):
        values = by_scene(grid.there(effects[f"mean_{way}"]), scenes)
        for column, ends in interval_by(values, by).columns(f"{name}_mean_kind").items():
            verdicts.heads[column] = ends.ravel()
        flat = grid.there(effects[f"resample_{way}"]).reshape(len(records), -1)
        beside = ratio_columns(study, flat, lds[0] - lds[1], names, whole=True, scenes=scenes)
        for end, ends in beside.items():
            verdicts.heads[f"{name}{end}"] = ends
    together = joint_effects(seen.parts, necessity, sufficiency, by, scenes)
    from_others = study.verdict.source == "other"
    nulls = _nulls(seen, by, "z is taken from other pairs" if from_others else "")
    gaps = np.array([pair.gap for pair in records])[judged]
    chosen = [(part.choice.rankings, part.effects["noising"]) for part in seen.parts]
    faithfulness = curves(grid, chosen, gaps, by, scenes[judged])
    vision = _vision(records, scenes, by)
    for table in (verdicts.heads, verdicts.sets, verdicts.factors, together, faithfulness, vision):
        if table is not None:
            table["failed_nulls"] = ";".join(failed(nulls))
    units = [
        by_scene(values.reshape(len(values), -1), scenes)
        for values in (np.nan_to_num(looks), needs, suffices)
    ]
    saved = {
        "positions": study.verdict.positions,
        "delta": study.verdict.delta,
        "attention_delta": study.verdict.attention_delta,
        "level": by.level,
        "attention_diff": _tensor(seen.attention),
        **{way: _tensor(values) for way, values in effects.items()},
        "pairs": names,
        "scenes": torch.from_numpy(scenes),
        "ld_with": _tensor(lds[0]),
        "ld_without": _tensor(lds[1]),
        "parts": [
            {
                "judges": [names[i] for i in part.judges],
                "picked": list(map(str, part.choice.picked)),
                "chosen": list(map(str, part.choice.chosen)),
                **{f"sets_{way}": list(map(str, part.effects[way])) for way in DIRECTIONS},
                **{way: _tensor(list(part.effects[way].values())) for way in DIRECTIONS},
            }
            for part in seen.parts
        ],
        # of looking and deciding over heads: of the measured means, and of true values
        "rho": asdict(correlation(units[0], units[1], units[2], by.level)),
        "true_rho": asdict(true_correlation(units[0], units[1], units[2], by.level)),
    }
    saved |= _of_places(orders, units[1], units[2], by)
    floor = max(pair.floor for pair in records)
    return Judgement(verdicts, together, nulls, faithfulness, vision, floor, look, saved)


def _of_places(
    orders: Mapping[str, Ranking], necessity: UnitEffects, sufficiency: UnitEffects, by: Rule
) -> dict[str, Any]:
    """Return the rho of heads' places in each other ranking, taken as it is, and their effects."""
    found = {
        name: correlation(
            np.tile(-order.argsort().astype(np.float64), (len(necessity), 1)),
            necessity, sufficiency, by.level,
        )
        for name, order in orders.items()
        if name != "attention"
    }  # fmt: skip
    return {"rho_of": {name: asdict(one) for name, one in found.items()}} if found else {}


def _nulls(seen: Measured, by: Rule, unasked: str) -> list[Null]:
    """Judge the nulls on the pairs that judge what the first part has chosen."""
    first = seen.parts[0]
    records = [seen.records[i] for i in first.judges]
    by_effect = [part for part in seen.parts if part.choice.chosen]
    random, own = np.zeros((0, len(records))), None
    if by_effect:
        own = np.concatenate(
            [part.effects["noising"][part.choice.together["effect"]] for part in by_effect]
        )
        random = random_effects(by_effect, "effect", "noising").T
    nothing = max(pair.nothing / abs(pair.gap) for pair in seen.records)
    attention = seen.attention[first.judges]
    choice = first.choice
    more = random, own, nothing, by, unasked
    return judge_nulls(records, attention, choice.looking, choice.chosen, *more)


def _factors(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return each factor's level on every pair; the region and the question are factors, too."""
    names = dict.fromkeys(name for one in entries for name in one.factors)
    levels = {name: [one.factors.get(name, "") for one in entries] for name in names}
    own = {"region": [one.region.name for one in entries]}
    return own | {"question": [one.question for one in entries]} | levels


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _vision(
    pairs: Sequence[PairRecord], scenes: Int[np.ndarray, " pairs"], by: Rule
) -> pd.DataFrame | None:
    """Judge whole vision layers by the pairs on which they were changed."""
    places = [i for i, pair in enumerate(pairs) if len(pair.vision)]
    if len(set(scenes[places].tolist())) < 2:
        return None
    values = by_scene(np.stack([pairs[i].vision for i in places]), scenes[places])
    columns = {"layer": np.arange(values.shape[1]), **interval_by(values, by).columns("necessity")}
    q = adjusted(minimum_effect_test(values))
    return pd.DataFrame({**columns, "necessity_q": q, "pairs": len(places)})

"""The heads behind each token of an answer, over a dataset: means over its pairs.

Every pair is traced as `headpatch.questions.trace.one` traces one, saying its own answer. Tokens of
different answers are averaged where they stand in the same slot, see
`headpatch.questions.trace.slots`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from headpatch.core.baseline_runs import Survey
from headpatch.core.gate import sessions
from headpatch.core.progress import Stages, reporting
from headpatch.core.ranking import MASSES
from headpatch.core.store import Store
from headpatch.core.study import Study, alpha_of
from headpatch.engine.patching import OnProgress
from headpatch.errors import RunError
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.present.head_columns import with_alpha
from headpatch.questions.trace.answer_token import MEASURES, Token, Way
from headpatch.questions.trace.forced import own_answers
from headpatch.questions.trace.one import spoken, stacked
from headpatch.questions.trace.slot_mean import SlotMean, mean_of, rows, summary
from headpatch.questions.trace.slot_reference import Said, SlotReference, Slots, average
from headpatch.questions.trace.slots import Slot, slots_of
from headpatch.questions.trace.token_runner import TokenRunner


@dataclass(frozen=True, eq=False)
class TracedPairs:
    """What `run` found.

    Attributes
    ----------
    slots
        Of every forced answer, in order.
    """

    study: Study
    survey: Survey
    slots: tuple[SlotMean, ...]

    @property
    def noise_floor(self) -> float:
        """Largest effect of patching a head with its own z, on any token of any pair."""
        return max(one.floor for one in self.slots)

    def table(self) -> pd.DataFrame:
        """One row for each slot × kind × direction × head: the columns of ``trace_mean.csv``."""
        table = pd.concat(
            [rows(one, way) for one in self.slots for way in one.moves], ignore_index=True
        )
        return with_alpha(table, self.study.trace.alpha)

    def said(self) -> pd.DataFrame:
        """One row for each pair × token: the columns of ``trace_tokens.csv``."""
        found = pd.concat([one.said for one in self.slots], ignore_index=True)
        places = {entry.name: place for place, entry in enumerate(self.survey.entries)}
        order = found["pair"].map(places)
        return found.loc[order.sort_values(kind="stable").index].reset_index(drop=True)

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each slot: its logits, first heads and correlations."""
        return [summary(one, self.study.trace.top) for one in self.slots]

    def saved(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds: what it holds of one pair, a slot in a token's place."""
        slots = self.slots
        found: dict[str, Any] = {
            "tokens": [one.text for one in slots],
            "texts": [dict(one.slot.texts) for one in slots],
            "index": torch.tensor([one.slot.index for one in slots]),
            "forced": [one.slot.source for one in slots],
            "rivals": [one.rival for one in slots],
            "measures": [one.measure for one in slots],
            "pairs": torch.tensor([one.pairs for one in slots]),
            "measure_pairs": torch.tensor([one.counts[one.measure] for one in slots]),
            "floor": torch.tensor([one.floor for one in slots]),
            "diff_low": stacked([one.looks.low for one in slots]),
            "diff_high": stacked([one.looks.high for one in slots]),
        }
        for name in MEASURES:
            runs = stacked([one.measured[name] for one in slots])
            found[f"{name}_with"], found[f"{name}_without"] = runs.unbind(1)
        for name in MASSES:
            found[name] = stacked([one.attention[name] for one in slots])
        ways = {"_".join(way): way for way in slots[0].moves}
        for name in MEASURES:
            found[f"effect_{name}"] = {
                word: stacked([one.effects[way][name] for one in slots])
                for word, way in ways.items()
            }
        for end in ("low", "high"):
            found[f"effect_{end}"] = {
                word: stacked([getattr(one.moves[way], end) for one in slots])
                for word, way in ways.items()
            }
        for name, end in (("total", "mean"), ("total_low", "low"), ("total_high", "high")):
            found[name] = {
                word: stacked([getattr(one.totals[way], end) for one in slots])
                for word, way in ways.items()
            }
        found["effect_by_pair"] = {word: self._by_pair(way) for word, way in ways.items()}
        return found | {
            "pair_names": [entry.name for entry in self.survey.entries],
            "level": self.study.pairs.level,
            "noise_floor": self.noise_floor,
            "valid": self.survey.valid,
            "question": self.survey.question,
            "region_name": self.survey.region_name,
            **alpha_of(self.study.trace),
        }

    def _by_pair(self, way: Way) -> Tensor:
        """Effects ``[pairs, slots, layers, heads]``; NaN where a pair is not averaged."""
        shape = self.slots[0].looks.mean.shape
        found = torch.full((len(self.survey.entries), len(self.slots), *shape), torch.nan)
        for place, one in enumerate(self.slots):
            found[one.slot.answers, place] = torch.from_numpy(one.each[way]).float()
        return found


def run(
    study: Study,
    vlm: VLM,
    survey: Survey,
    store: Store,
    stages: Stages | None = None,
) -> TracedPairs:
    """Trace every pair's answer, or answers, through every head of the language model.

    Parameters
    ----------
    survey
        Of the positions ``answer``.
    store
        Where finished tokens are kept; those that are there are not run again.

    Raises
    ------
    InputError
        If the study's own answer cannot stand after a pair's prompt.
    RunError
        If a run made to say its own answer would not say it.
    """
    stages, entries = stages or reporting(None), survey.entries
    judged = study.model_copy(update={"force": True})  # the survey was the gate
    with stages("Reading the answers") as advance:
        said = _answers(judged, vlm, entries, advance)
    slots = [slots_of([chosen[source] for chosen in said]) for source in range(len(said[0]))]
    means = None
    if averages(study.trace.kinds):
        with stages("Averaging z over the pairs") as advance:
            means = average(judged, vlm, entries, said, slots, advance)
    with stages("Changing heads, token by token") as advance:
        names = _measure(judged, vlm, entries, said, means, store, advance)
    found, total = list[SlotMean](), sum(map(len, slots))
    with stages("Averaging over the pairs") as advance:
        for slot in chain.from_iterable(slots):
            tokens = list(_read(store, slot, said, names, slots))
            pairs = [entries[pair].name for pair in slot.answers]
            found.append(mean_of(study, slot, tokens, pairs))
            advance(len(found), total)
    return TracedPairs(study, survey, tuple(found))


def _answers(study: Study, vlm: VLM, entries: Sequence[Entry], on_progress: OnProgress) -> Said:
    found = []
    for session in sessions(study, vlm, entries):
        found.append(spoken(session, own_answers(session, study.trace.tokens)))
        on_progress(len(found), len(entries))
        del session  # its caches go before the next pair's are made
    return found


def _measure(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    said: Said,
    means: SlotReference | None,
    store: Store,
    on_progress: OnProgress,
) -> list[list[list[str]]]:
    """Measure every token that is not finished.

    Returns
    -------
    By pair and answer, the name under which each token is kept.
    """
    total = sum(len(answer.ids) for answers in said for answer in answers)
    runner = TokenRunner(study, vlm, store, total, on_progress)
    reference = None if means is None else means.name
    names = [
        [runner.names(entry.pair(), answer, reference) for answer in answers]
        for entry, answers in zip(entries, said, strict=True)
    ]
    left = [
        entry
        for entry, own in zip(entries, names, strict=True)
        if any(store.get(name) is None for name in chain.from_iterable(own))
    ]
    opened = sessions(study, vlm, left, "answer")
    for pair, answers in enumerate(said):
        session = cache(partial(next, opened))  # asked of those that are left alone
        for source, answer in enumerate(answers):
            known = None if means is None else means.of(pair, source)
            for _ in runner.measured(session, answer, known, names[pair][source]):
                pass  # it is kept in the store
    return names


def _read(
    store: Store,
    slot: Slot,
    said: Said,
    names: Sequence[Sequence[Sequence[str]]],
    slots: Slots,
) -> Iterator[Token]:
    """Read back the tokens of a slot."""
    source = next(place for place, own in enumerate(slots) if slot in own)
    for pair in slot.answers:
        token = slot.tokens[pair]
        assert token is not None
        saved = store.get(names[pair][source][token])
        if saved is None:
            raise RunError(f"--out: a finished token has gone from {store.folder}")
        yield Token.from_saved(said[pair][source], token, saved)

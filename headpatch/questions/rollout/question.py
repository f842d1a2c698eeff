"""Rolling attention back from a token of the answer, over one pair or over many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Unpack, overload

import pandas as pd

from headpatch.core.aggregate import aggregate
from headpatch.core.ask import ask, origin
from headpatch.core.cost import asked_of
from headpatch.core.dataset import Pairs
from headpatch.core.outlook import Stage
from headpatch.core.over_pairs import each_pair
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.session import Session
from headpatch.core.study.keywords import RolloutKeywords
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.rollout import VERB
from headpatch.questions.rollout.columns import (
    AREA_MEANS,
    AREAS,
    MEANS,
    PERTURBATION,
    REGIONS,
    ROLLOUT,
)
from headpatch.questions.rollout.maps import METHODS, STAGES, TokenMaps, checked, mapped, roll_out
from headpatch.questions.rollout.perturbation import pictures_to_come
from headpatch.questions.rollout.view import pairs_summary, summary
from headpatch.stats.attention_mass import region_mask

_REPLACING = "Replacing patches"  # the stage
_COUNTED = 8  # pairs: it hangs on how large the object is


@dataclass(frozen=True, eq=False, repr=False)
class Rolled(TokenMaps, Result):
    """What `headpatch.rollout` found of one pair."""

    @property
    def summary(self) -> str:
        """Whether the with-run's maps beat random orders of the patches, in a sentence."""
        rows: list[Any] = [] if self.check is None else self.check.areas.to_dict("records")
        return summary(rows, self.unchecked, self.origin.context)

    def files(self) -> Files:
        """Return the tables and tensors."""
        curves = {} if self.check is None else {PERTURBATION.file: self.check.curves}
        return {ROLLOUT.file: self.table(), **curves, "rollout.pt": self.saved()}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the maps and their check."""
        return {
            "answer": self.answer.text,
            "token": self.token,
            "rival": self.rival,
            "noise_floor": self.noise_floor,
            "maps": self.regions(),
            "check": [] if self.check is None else self.check.areas,
            "summary": self.summary,
        }


@dataclass(frozen=True, eq=False, repr=False)
class RolledPairs(Result):
    """What `headpatch.rollout` found over pairs.

    Attributes
    ----------
    patches
        The columns of ``rollout.csv``.
    curves
        The columns of ``perturbation.csv``; None where no pair's maps are checked.
    means
        The columns of ``rollout_mean.csv``.
    area_means
        The columns of ``perturbation_mean.csv``; None as above.
    unchecked
        Why there is no check, by the pair's name.
    """

    patches: pd.DataFrame
    curves: pd.DataFrame | None
    means: pd.DataFrame
    area_means: pd.DataFrame | None
    unchecked: Mapping[str, str]

    @property
    def summary(self) -> str:
        """How far the with-run's maps lie above random orders of the patches, in a sentence."""
        return pairs_summary(self.area_means, self.origin.context)

    def table(self) -> pd.DataFrame:
        """One row for each pair × map × run × patch: the columns of ``rollout.csv``."""
        return self.patches

    def files(self) -> Files:
        """Return the tables that there are."""
        tables = {
            ROLLOUT.file: self.patches,
            PERTURBATION.file: self.curves,
            MEANS.file: self.means,
            AREA_MEANS.file: self.area_means,
        }
        return {name: table for name, table in tables.items() if table is not None}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the maps and their check."""
        return {
            "noise_floor": self.noise_floor,
            "level": self.origin.context.level,
            "maps": self.means,
            "check": [] if self.area_means is None else self.area_means,
            "unchecked": self.unchecked,
            "summary": self.summary,
        }


class Rollout(Question[Rolled | RolledPairs]):
    """Rolls attention back from a token of the answer."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Both runs are followed back as one batch."""
        return Needs(one_length=True)

    def price(self, study: Study, vlm: VLM, pairs: Pair | Sequence[Entry]) -> list[Stage]:
        """Count the pictures of the check, a whole pass each: of several pairs by the first ones.

        None of a model whose maps are not checked, or refused.
        """
        names = [f"{method}_{stage}" for method in METHODS for stage in STAGES]
        counts = []
        for pair, prompt in islice(asked_of(study, vlm, pairs), _COUNTED):
            if prompt.spans.crossed or prompt.patches.unknown is not None:
                return []
            try:
                inside = region_mask(prompt.patches.boxes, pair.region.box)
                counts.append(pictures_to_come(study, vlm, prompt, inside, names))
            except InputError:
                return []
        if not counts:
            return []
        rows = sum(counts) * (1 if isinstance(pairs, Pair) else len(pairs)) // len(counts)
        return [Stage(_REPLACING, rows, float(rows))]

    def answer(self, opened: Opened, call: Call) -> Rolled | RolledPairs:
        """Map where the token comes from, and check the maps."""
        if isinstance(opened, Session):
            with call.stages("Following attention back"):
                maps = mapped(opened)
            with call.stages(_REPLACING) as advance:
                maps = checked(maps, advance)
            floor = None if maps.check is None else maps.check.noise_floor
            return Rolled(**vars(maps), origin=origin(VERB, opened, floor))
        assert isinstance(opened, Pairs)
        return _over_pairs(opened, call)


QUESTION = Rollout()


@dataclass(frozen=True, eq=False)
class RolledPair:
    """The tables of one pair; not the pair itself, which holds the runs' caches."""

    patches: pd.DataFrame
    regions: pd.DataFrame
    unchecked: str
    curves: pd.DataFrame | None = None  # None, as what follows, if the maps are not checked
    areas: pd.DataFrame | None = None
    noise_floor: float | None = None


def _over_pairs(pairs: Pairs, call: Call) -> RolledPairs:
    def measure(session: Session, _: OnProgress) -> RolledPair:
        maps = roll_out(session)
        tables = maps.table(), pd.DataFrame(maps.regions()), maps.unchecked
        if maps.check is None:
            return RolledPair(*tables)
        areas = maps.check.areas
        curves = maps.check.curves.assign(pair=session.pair.name)
        areas = areas.assign(difference=areas["area"] - areas["random_mean"])
        return RolledPair(*tables, curves, areas, maps.check.noise_floor)

    with call.stages(_REPLACING) as advance:
        by_pair = each_pair(pairs, call, _REPLACING, measure, advance, sections=("rollout",))
        measured = list(by_pair)
    curves = [one.curves for one in measured if one.curves is not None]
    areas = [one.areas for one in measured if one.areas is not None]
    checked = [place for place, one in enumerate(measured) if one.areas is not None]
    floors = [one.noise_floor for one in measured if one.noise_floor is not None]
    scenes, names = pairs.survey.scenes, [entry.name for entry in pairs.entries]
    return RolledPairs(
        pd.concat([one.patches for one in measured], ignore_index=True),
        PERTURBATION.ordered(pd.concat(curves, ignore_index=True)) if curves else None,
        aggregate([one.regions for one in measured], REGIONS, pairs.study, scenes),
        aggregate(areas, AREAS, pairs.study, scenes[checked]) if areas else None,
        {name: one.unchecked for name, one in zip(names, measured, strict=True) if one.unchecked},
        origin=origin(VERB, pairs, max(floors, default=None)),
    )


@overload
def rollout(
    session: Session, on_progress: Progress = None, **options: Unpack[RolloutKeywords]
) -> Rolled: ...
@overload
def rollout(
    session: Pairs, on_progress: Progress = None, **options: Unpack[RolloutKeywords]
) -> RolledPairs: ...
def rollout(
    session: Session | Pairs, on_progress: Progress = None, **options: Unpack[RolloutKeywords]
) -> Rolled | RolledPairs:
    """Roll attention back from a token of the answer to the patches, and check the map.

    Attention rollout (S. Abnar and W. Zuidema, Quantifying Attention Flow in Transformers, ACL
    2020, arXiv:2005.00928) and gradient-weighted relevance (H. Chefer, S. Gur and L. Wolf, Generic
    Attention-model Explainability, ICCV 2021, arXiv:2103.15679), checked by deleting patches
    (V. Petsiuk, A. Das and K. Saenko, RISE, BMVC 2018, arXiv:1806.07421).

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`. Over many, each says its own answer.
    options
        Override `headpatch.Study.rollout`: ``forced``, ``answer``, ``token``, ``draws``, ``fill``.

    Returns
    -------
    Rolled or RolledPairs
        ``table()`` has the columns of ``rollout.csv``, ``check.curves`` those of
        ``perturbation.csv``. Over many pairs ``means`` has the columns of ``rollout_mean.csv``,
        ``area_means`` those of ``perturbation_mean.csv``.

    Raises
    ------
    InputError
        If an option is wrong, an answer has no such token, the region no patch, or the image is
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
    return ask(QUESTION, session, options, on_progress)

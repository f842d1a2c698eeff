"""Changing named heads, over one pair or over many."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Unpack

import numpy as np
import pandas as pd

from headpatch.core.aggregate import aggregate, answer_changed
from headpatch.core.ask import ask, origin, refuse_means, with_options
from headpatch.core.baseline_runs import Survey
from headpatch.core.cost import in_all, inexact
from headpatch.core.dataset import Pairs
from headpatch.core.donors import refuse_one_pair
from headpatch.core.effects import Unread, both, has, refuse_reweighting, resolve
from headpatch.core.head_selection import Heads, named
from headpatch.core.mean_activations import mean_z
from headpatch.core.over_pairs import Sources, each_pair, hangs_on_all
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.ranking import order
from headpatch.core.session import Session, towers_of
from headpatch.core.study.keywords import AblateKeywords
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.heads import Selection
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.questions.ablate import VERB, vision_scope
from headpatch.questions.ablate.columns import DOSES, DOSES_MEAN, EFFECTS, MEANS
from headpatch.questions.ablate.doses import dose_means, doses_of
from headpatch.questions.ablate.measure import Ablated, Plan, beside_means, named_rows, plan, run
from headpatch.questions.ablate.view import summary


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(Result):
    """What `headpatch.ablate` found.

    Attributes
    ----------
    effects
        One row for each set × kind × direction of every pair: the columns of ``effects.csv``.
    means
        Over many pairs, one row for each named set × kind × direction: the columns of
        ``effects_mean.csv``; None of one.
    unread
        The free control, if vision heads were changed that never reach the language model.
    doses
        Of several alphas, what each set does as alpha grows: the columns of ``doses.csv``, over
        many pairs those of ``doses_mean.csv``; None of one alpha.
    """

    effects: pd.DataFrame
    means: pd.DataFrame | None
    unread: Unread | None = None
    doses: pd.DataFrame | None = None

    @property
    def named(self) -> pd.DataFrame:
        """The named heads and their joint set, without controls."""
        return named_rows(self.effects)

    @property
    def summary(self) -> str:
        """One line of plain words about one pair; empty over many."""
        return "" if self.means is not None else summary(self.named, self.origin.context)

    def files(self) -> Files:
        """Return the tables."""
        more = {} if self.means is None else {MEANS.file: self.means}
        if self.doses is not None:
            more[(DOSES if self.means is None else DOSES_MEAN).file] = self.doses
        return {EFFECTS.file: self.effects, **more}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the effects."""
        unread = {} if self.unread is None else {"unread": asdict(self.unread)}
        doses = {} if self.doses is None else {"doses": self.doses}
        facts = {"noise_floor": self.noise_floor, **unread, **doses}
        if self.means is not None:
            return {**facts, "effects_mean": self.means}
        return {**facts, "effects": self.named, "summary": self.summary}


AblatedPairs = Ablation


class Ablate(Question[Ablation]):
    """Changes named heads, alone and together."""

    verb = VERB

    def check_one(self, study: Study) -> None:
        """Refuse kinds that take z of another pair."""
        refuse_one_pair(study.ablate.kinds)

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse heads that the model does not have, and attention to no image tokens."""
        refuse_reweighting(vlm, study.ablate.kinds)
        selection = Selection.parse(study.ablate.heads)
        if not selection.needs_ranking:
            resolve(selection, vlm)

    def needs(self, study: Study) -> Needs:
        """Say where heads are changed, and whether vision heads are."""
        options = study.ablate
        vision = Selection.parse(options.heads).names_vision
        return Needs(options.positions, vision, means=averages(options.kinds))

    def answer(self, opened: Opened, call: Call) -> Ablation:
        """Change each head alone, then all of them together, on every pair."""
        if isinstance(opened, Session):
            return _one_pair(opened, call)
        assert isinstance(opened, Pairs)
        return _over_pairs(opened, call)


QUESTION = Ablate()


def ablate(
    session: Session | Pairs,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    vision_positions: str | None = None,
    **options: Unpack[AblateKeywords],
) -> Ablation:
    """Change each of some heads alone, then all together, beside random heads of their layers.

    Kind ``resample`` is activation patching (J. Vig et al., Investigating Gender Bias in Language
    Models Using Causal Mediation Analysis, NeurIPS 2020, arXiv:2004.12265); F. Zhang and N. Nanda,
    Towards Best Practices of Activation Patching (ICLR 2024, arXiv:2309.16042), compare the kinds.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    heads
        None takes the study's.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out. Not for many pairs: theirs is
        their own mean.
    vision_positions
        Override `headpatch.Study.vision`, where vision heads (``v8.3``) change.
    options
        Override `headpatch.Study.ablate`: ``kinds``, ``alpha``, ``toward``, ``directions``,
        ``positions``, ``controls``, ``reference``. Several ``alpha`` make a dose-response curve.

    Returns
    -------
    Ablation
        Its ``named`` and ``effects`` are tables with the columns of ``effects.csv``; effects in
        logits, ``normalized`` as a share of LD_with - LD_without. Over many pairs ``effects`` has
        every pair's rows and ``means`` the columns of ``effects_mean.csv``.

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
    >>> found = hp.ablate(pairs, "20.18,21.14", kinds=["resample"], controls=2)
    >>> found.means[["heads", "direction", "pairs"]].values.tolist()[0]
    ['20.18', 'noising', 2]
    """
    refuse_means(session, means)
    asked = {**options, **named(heads)}
    opened = with_options(session, {f"ablate.{name}": value for name, value in asked.items()})
    opened = with_options(
        opened, vision_scope({"vision_positions": vision_positions}, opened.study)
    )
    return ask(QUESTION, opened, {}, on_progress, means=means)


def _one_pair(session: Session, call: Call) -> Ablation:
    options = session.study.ablate
    _say(call, inexact(session))
    session.check_region()
    selection = Selection.parse(options.heads)
    job = plan(session, resolve(selection, session.vlm, lambda: order(session)))
    _announce(session, job, None, call)
    means = call.given.get("means")
    if means is None and averages(options.kinds):
        with call.stages("Averaging reference pairs") as advance:
            towers = towers_of(options.positions, selection.names_vision)
            means = mean_z(session, advance, towers=towers)
    with call.stages("Changing heads") as advance:
        found = run(session, job, means, advance)
    return _found(session, [found], None, _doses([found], None))


def _over_pairs(pairs: Pairs, call: Call) -> Ablation:
    survey, options = pairs.survey, pairs.study.ablate
    by, selection = pairs.study.rank.by, Selection.parse(options.heads)
    heads = resolve(selection, pairs.vlm, lambda: survey.order(by))
    sources = Sources(pairs, options, options.positions, has("vision", heads))
    announced = False

    def measure(session: Session, advance: OnProgress) -> Ablated:
        nonlocal announced
        session, means = sources.of(session)
        job = plan(session, heads)
        if not announced:
            announced = True
            _announce(session, job, survey, call)
        return run(session, job, means, advance)

    with call.stages("Changing heads") as advance:
        measured = list(
            each_pair(
                pairs, call, "Changing heads", measure, advance, sections=("ablate", "vision"),
                asked=list(map(str, heads)), whole=hangs_on_all(options),
            )
        )  # fmt: skip
    means = _means([one.named for one in measured], pairs)
    means = pd.DataFrame(MEANS.ordered(means.assign(**beside_means(means, measured, pairs, heads))))
    return _found(pairs, measured, means, _doses(measured, pairs))


def _doses(measured: Sequence[Ablated], pairs: Pairs | None) -> pd.DataFrame | None:
    found = [doses_of(one) for one in measured]
    if not found[0][1]:
        return None
    return found[0][0] if pairs is None else dose_means(found, pairs)


def _found(
    opened: Opened,
    measured: Sequence[Ablated],
    means: pd.DataFrame | None,
    doses: pd.DataFrame | None,
) -> Ablation:
    """Put together what was measured of each pair, and what ``run.yaml`` says of it."""
    unread = reduce(both, [one.unread for one in measured])
    facts = {} if unread is None else {"unread": asdict(unread) | {"layers": list(unread.layers)}}
    effects = pd.concat([one.table for one in measured], ignore_index=True)
    floor = max(one.noise_floor for one in measured)
    return Ablation(effects, means, unread, doses, origin=origin(VERB, opened, floor, **facts))


def _means(tables: Sequence[pd.DataFrame], pairs: Pairs) -> pd.DataFrame:
    means = aggregate(tables, EFFECTS, pairs.study, pairs.survey.scenes, gaps="pair")
    # a share is not defined for a pair without a difference in LD
    defined = sum(bool(np.isfinite(table["normalized"]).all()) for table in tables)
    means = means.assign(answer_changed=answer_changed(tables, EFFECTS), pairs=defined)
    return means


def _announce(session: Session, job: Plan, survey: Survey | None, call: Call) -> None:
    """Say what a run costs that changes vision heads; one that does not is cheap."""
    if not job.vision_rows:
        return
    _say(call, inexact(session, "vision"))
    pairs = 1 if survey is None else len(survey.entries)
    rows, others = job.vision_rows * pairs, (len(job.interventions) - job.vision_rows) * pairs
    included = f" with the {others:,} other rows" if others else ""
    price = in_all(job.passes * pairs, included, job.beside, survey)
    where = f"({session.study.vision.positions} tokens of the tower)"
    call.say(f"{rows:,} rows change vision heads {where}: {price}")


def _say(call: Call, words: str) -> None:
    if words:
        call.say(words)

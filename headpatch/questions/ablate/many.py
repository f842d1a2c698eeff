"""What named heads do to the Yes/No logits, over a dataset of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from headpatch.core.aggregate import Gathered
from headpatch.core.baseline_runs import Survey
from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.core.towers import Unread, has
from headpatch.core.walk import walk
from headpatch.engine.patching import OnProgress
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from headpatch.questions.ablate import one as one_pair


@dataclass(frozen=True, eq=False)
class Ablations:
    """What `ablate` found.

    Attributes
    ----------
    effects
        The rows of every pair, as `headpatch.questions.ablate.one.Ablation` has them.
    means
        One row for each named set × kind × direction: the columns of ``effects_mean.csv``.
    noise_floor
        The largest effect, in logits, of patching a named set with its own z, over all pairs.
    unread
        The free control over all pairs, if vision heads were changed that are never read.
    """

    effects: pd.DataFrame
    means: pd.DataFrame
    noise_floor: float
    unread: Unread | None = None


def ablate(
    study: Study,
    vlm: VLM,
    survey: Survey,
    heads: Sequence[Head],
    on_progress: OnProgress | None = None,
    on_plan: Callable[[Session, one_pair.Plan], None] | None = None,
) -> Ablations:
    """Change each head alone, then all of them together, on every pair.

    Parameters
    ----------
    survey
        Of the positions of the study's ``ablate``, and of vision heads if there are some.
    on_plan
        Called with each pair before its heads are changed, and with what is planned.
    """
    options = study.ablate
    tables: list[pd.DataFrame] = []
    gathered, floor, control = Gathered("effect", "normalized", "control_mean"), 0.0, None
    vision = has("vision", heads)
    opened = walk(study, vlm, survey, options, options.positions, vision, on_progress)
    for session, means, advance in opened:
        job = one_pair.plan(session, heads)
        if on_plan:
            on_plan(session, job)
        found = one_pair.run(session, job, means, advance)
        tables.append(found.effects)
        gathered.add(found.named)
        floor = max(floor, found.noise_floor)
        control = both(control, found.unread)
        del session
    effects = pd.concat(tables, ignore_index=True)
    return Ablations(effects, gathered.means(study), floor, control)


def both(one: Unread | None, other: Unread | None) -> Unread | None:
    """Return the free control of several pairs."""
    return one + other if one and other else one or other

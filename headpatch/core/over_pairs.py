"""What a question does to each pair of a dataset that is run: one loop, and what it is given."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from headpatch.core.dataset import Pairs
from headpatch.core.donors import donors_of
from headpatch.core.mean_activations import mean_z
from headpatch.core.pair_units import Keys, Measure, each_unit
from headpatch.core.question import Call
from headpatch.core.session import Session, towers_of
from headpatch.core.study.options import Changes, Kinds
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.kinds import averages, donated
from headpatch.models.spans import Positions
from headpatch.pairs.manifest import Entry

Found = TypeVar("Found")


def each_pair(
    pairs: Pairs,
    call: Call,
    name: str,
    measure: Measure[Found],
    on_progress: OnProgress | None = None,
    *,
    sections: Collection[str] = (),
    asked: Any = None,
    each: Sequence[Any] | None = None,
    whole: bool = False,
    entries: Sequence[Entry] | None = None,
    count: Literal[0, 1] = 1,
) -> Iterator[Found]:
    """Measure every pair that is run, or some of them; yield what came of each, in order.

    Beside the pair, and how it was opened, numbers hang on `sections` of the study, on what is
    `asked`, of all pairs or of `each`; and on all pairs that are run where `whole` is true. The
    rest is as in `headpatch.core.pair_units.each_unit`.
    """
    survey, study = pairs.survey, pairs.study
    entries = survey.entries if entries is None else entries
    keys = survey.keys or Keys(pairs.vlm)

    def named() -> list[str]:
        own = study.model_dump(include=set(sections), mode="json")
        own |= {"done": name, "positions": pairs.positions, "vision heads": pairs.vision}
        own |= {"asked": asked, "pairs": survey.digest if whole else ""}
        return keys.of(study, entries, own, each)

    opened = survey.open(study, pairs.vlm, pairs.positions, pairs.vision)
    return each_unit(
        entries, opened, name, named, measure, on_progress,
        store=call.store, share=pairs.share, near=survey.held, count=count,
    )  # fmt: skip


def hangs_on_all(options: Kinds) -> bool:
    """Whether what a pair is given may come from the others: their mean z, or that of one."""
    return averages(options.kinds) or donated(options.kinds)


class Sources:
    """Gives a pair what its kinds put in a head's place: mean z, and the runs of another pair."""

    def __init__(
        self, pairs: Pairs, options: Changes, positions: Positions | None, vision: bool
    ) -> None:
        self._pairs, self._options, self._where = pairs, options, (positions, vision)
        survey, kinds = pairs.survey, options.kinds
        more = survey.entries, survey.layouts
        self._donors = donors_of(pairs.study, *more) if donated(kinds) else {}

    def of(self, session: Session) -> tuple[Session, ZMeans | None]:
        """Return the session with such another pair, and mean z if a kind takes it."""
        means, survey, base = None, self._pairs.survey, session.base
        if averages(self._options.kinds):
            known, towers = survey.reference, towers_of(*self._where)
            drawn = self._options.reference
            means = known.of(session) if known else mean_z(session, None, drawn, towers)
        if self._donors:
            entry = self._donors[session.pair.name]
            donor = survey.donor(self._pairs.study, self._pairs.vlm, entry, *self._where)
            base = replace(base, donor=donor)
        return replace(session, base=base), means

"""What a run of several stages is going to take: said before it is paid, and how much is left."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

UNTOUCHED = "Running the pairs"
"""The stage in which both pictures of every pair are run as they are."""


@dataclass(frozen=True)
class Stage:
    """A stage that is to come, by the name that progress shows."""

    name: str
    rows: int  # runs with something changed, over all pairs; at most
    passes: float  # about what they cost, in forward passes of the prompt


def price_words(stages: Iterable[Stage], pairs: int) -> str:
    """Say what stages take over so many pairs, in runs and about in forward passes."""
    stages = tuple(stages)
    listed = "; ".join(f"{one.name.lower()}: {one.rows:,}" for one in stages)
    passes = sum(one.passes for one in stages)
    of = "1 pair" if pairs == 1 else f"{pairs:,} pairs, if all pass"
    return (
        f"{of}: about {sum(one.rows for one in stages):,} changed runs are to come ({listed}), "
        f"at about {passes:,.0f} forward passes where the fast paths are exact"
    )


@dataclass
class Outlook:
    """How long a run is still to take, from what its stages cost and how long some of it took.

    Stages that nobody has announced count for nothing: their time is not known. The price of those
    that were is said when the first of them begins: a refusal before that stays one line.
    """

    clock: Callable[[], float] = monotonic
    say: Callable[[str], None] = lambda _: None
    _costs: dict[str, float] = field(default_factory=dict)  # of announced stages still to come
    _paid: float = 0.0  # forward passes, and seconds, of announced stages that have ended
    _took: float = 0.0
    _stage: str = ""
    _began: float = 0.0
    _price: str = ""  # still to be said

    def announce(self, stages: Iterable[Stage], pairs: int) -> None:
        """Take note of what is to come, the untouched runs of so many pairs among it."""
        self._costs = {UNTOUCHED: 2.0 * pairs}
        self.add(stages, pairs)

    def add(self, stages: Iterable[Stage], pairs: int) -> None:
        """Take note of stages whose price is known only now."""
        stages = tuple(stages)
        self._costs |= {one.name: one.passes for one in stages}
        self._price = price_words(stages, pairs) if stages else ""

    def begin(self, stage: str) -> None:
        """Take note that a stage begins."""
        if self._price and stage in self._costs:
            self.say(self._price)
            self._price = ""
        self._stage, self._began = stage, self.clock()

    def end(self) -> float:
        """Take note that the stage has ended; return the seconds that it took."""
        took = self.clock() - self._began
        cost = self._costs.pop(self._stage, 0.0)
        self._paid, self._took = self._paid + cost, self._took + took * (cost > 0)
        self._stage = ""
        return took

    def left(self, done: int, total: int) -> float | None:
        """Return about how many seconds are left of all stages, so much of this one being done."""
        took, share = self.clock() - self._began, done / total if total else 0.0
        own = self._costs.get(self._stage, 0.0)
        later = sum(self._costs.values()) - own
        paid, seconds = self._paid + own * share, self._took + took * (own > 0)
        rate = seconds / paid if paid else None
        if share:
            rest = took * (1 - share) / share
        elif rate is not None and own:
            rest = own * rate
        else:
            return None
        if not later:
            return rest
        return None if rate is None else rest + later * rate

"""Judging after every batch of pairs, until enough is decided.

The looks are planned before the first pair is measured, and each may use the share of α that
`headpatch.stats.sequential` gives it. Pairs come in an order that the seed draws, those of one
scene together, whatever the order of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from headpatch.core.saved_verdict import need_pairs, rule
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid, Selection
from headpatch.stats.sequential import spent_alpha
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, judge

Places = Int[np.ndarray, "_"]
MOST = 10
"""Looks at a study: with more of them each has next to no α."""


@dataclass(frozen=True, eq=False)
class Look:
    """The pairs that are judged at one look, and by what."""

    number: int  # from 1
    of: int
    places: Places  # among all pairs, in their order
    rule: Rule

    @property
    def facts(self) -> dict[str, object]:
        """What ``run.yaml`` says of it; nothing if it is the only one."""
        if self.of == 1:
            return {}
        return {"look": self.number, "looks": self.of, "judged": len(self.places),
                "level": round(self.rule.level, 12)}  # fmt: skip


def looks(study: Study, scenes: Int[np.ndarray, " pairs"]) -> tuple[Look, ...]:
    """Plan the looks at pairs of these scenes; one, at all pairs, where none were asked for."""
    own, batch, total = rule(study), study.verdict.until_decided, len(scenes)
    if batch is None or batch >= total:
        return (Look(1, 1, np.arange(total), own),)
    rng = np.random.default_rng([study.seed % 2**64, 8])
    drawn = rng.permutation(int(scenes.max()) + 1)[scenes]  # each scene's turn
    order = np.argsort(drawn, kind="stable")
    counts = [*range(batch, total, batch), total]
    alphas = spent_alpha(own.alpha, counts)
    return tuple(
        Look(number, len(counts), np.sort(order[:count]), replace(own, level=1 - alpha))
        for number, (count, alpha) in enumerate(zip(counts, alphas, strict=True), start=1)
    )


def check(study: Study, count: int) -> None:
    """Refuse batches of pairs that cannot judge, or too many of them."""
    options = study.verdict
    if options.decide is not None and options.until_decided is None:
        expected = "--until-decided N beside it: pairs are added until these heads are decided"
        raise InputError("--decide", options.decide, expected)
    if options.decide is not None:
        named = Selection.parse(options.decide, "--decide")
        if named.needs_ranking or named.names_vision:
            expected = "heads of the language model by name, such as 24.17 or layer:24"
            raise InputError("--decide", options.decide, expected)
    if options.until_decided is None:
        return
    need_pairs(study, options.until_decided, "--until-decided")
    if count > MOST * options.until_decided:
        asked = -(-count // options.until_decided)
        found = f"{options.until_decided}: {asked} looks at {count} pairs"
        expected = f"at most {MOST} looks, so batches of {-(-count // MOST)} pairs or more"
        raise InputError("--until-decided", found, expected)


def open_heads(
    study: Study,
    grid: Grid,
    look: Look,
    effects: Sequence[Float[np.ndarray, "pairs layers heads"]],
    attention: Float[np.ndarray, "pairs layers heads"],
    scenes: Int[np.ndarray, " pairs"],
) -> int:
    """Count the heads that a look leaves undecided, of those that are to be decided.

    `effects` are the necessity and the sufficiency of the look's pairs, as `attention` and `scenes`
    are theirs. Sets of heads are not judged before the last look.
    """
    necessity, sufficiency = effects
    looks, needs, suffices = map(grid.there, (attention, necessity, sufficiency))
    observed = Observed(looks, needs, suffices, scenes=scenes, layers=grid.with_heads)
    found = judge(observed, look.rule).heads
    undecided = (found["verdict"] == "undecided").to_numpy()
    if study.verdict.decide is None:
        return int(undecided.sum())
    heads = {*Selection.parse(study.verdict.decide, "--decide").resolve(grid)}
    return sum(bool(open_) for head, open_ in zip(grid, undecided, strict=True) if head in heads)

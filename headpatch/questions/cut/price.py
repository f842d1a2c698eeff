"""What cuts cost, in forward passes of the prompt."""

from collections.abc import Sequence

from headpatch.core.session import Session
from headpatch.engine.knockout import Knockout
from headpatch.engine.memory import split
from headpatch.engine.patching import WITH, Baseline
from headpatch.engine.resumed import PLAIN_ROWS
from headpatch.engine.sweep import rows_that_fit


def cost(session: Session, base: Baseline, knockouts: Sequence[Knockout], resumed: bool) -> float:
    """Return what `headpatch.engine.knockout.resume`, or `knock_out`, takes for `knockouts`.

    What the layers' weights are multiplied with, untouched rows included, over what a pass of the
    prompt multiplies them with: a resumed row runs through the layers from the first of its batch
    that is cut, at the positions that `base` keeps.
    """
    vlm, size, share = session.vlm, PLAIN_ROWS, 1.0
    if resumed:
        prefill = base.trace.prefills[WITH]
        size = rows_that_fit(vlm, prefill)
        share = (prefill.tokens - prefill.start) / prefill.tokens
    layers, total = vlm.lm.grid.layers, 0.0
    for run in {one.run for one in knockouts}:
        entries = sorted(one.entry for one in knockouts if one.run == run)
        for batch in split(entries, size):
            skipped = batch[0] if resumed else 0
            total += (len(batch) + 1) * share * (1 - skipped / layers)
    return total

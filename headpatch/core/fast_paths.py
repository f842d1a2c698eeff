"""Whether the fast paths may be used for pairs that no survey has opened for such changes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeAlias

from headpatch.core.session import run_both
from headpatch.core.study.study import Study
from headpatch.engine.selfcheck import MOST, Checks
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.models.wording import ids_of, prompt_text
from headpatch.pairs.pair import Pair

_Likeness: TypeAlias = tuple[int, tuple[int, int], tuple[int, int]]


def decide(
    study: Study,
    vlm: VLM,
    pairs: Iterable[Pair],
    positions: Positions | None,
    vision: bool = False,
    known: Checks | None = None,
) -> Checks:
    """Compare the fast paths on the first pair of each shape; on the next, too, if one is refused.

    What comes of it is a function of the pairs in their order, whichever of them are measured
    later, by whom and when. `positions` and `vision` are as for `headpatch.open_session`; shapes
    that are `known` are not compared again.
    """
    checks, tried, settled = (known or Checks()).opened(), Counter[_Likeness](), set[_Likeness]()
    for pair in pairs:
        alike = _likeness(study, vlm, pair)
        if alike in settled:
            continue
        base, found = run_both(study, vlm, pair, positions, vision).base, []
        if positions is not None:
            found.append(checks.lm(vlm, base, positions, pair.name))
        if vision:
            found.append(checks.vision(vlm, base, pair.name))
        tried[alike] += 1
        if all(one.exact for one in found) or tried[alike] == MOST:
            settled.add(alike)
        del base  # its caches go before the next pair's are made
    return checks.decided()


def refusals(checks: Checks, said: Checks | None = None) -> list[str]:
    """Say of which pairs a fast path was refused, but for what is `said` already."""
    known, path = {} if said is None else said.refused, {"lm": "widening", "vision": "resumed"}
    return [
        f"pair {pair}: the {path[tower]} pass is not exact where it is asked otherwise or in its "
        f"vision tower ({one.why}): every row gets a forward pass of its own there"
        for (tower, pair), one in checks.refused.items()
        if (tower, pair) not in known
    ]


def _likeness(study: Study, vlm: VLM, pair: Pair) -> _Likeness:
    """Return what pairs of one shape have in common, without running them."""
    tokenizer: Any = vlm.processor.tokenizer
    text = prompt_text(vlm, pair.question, study.of_pair(pair).framing)
    return len(ids_of(tokenizer, text)), pair.with_image.size, pair.without_image.size

"""The first screen: the question, both pictures and answers, and what was found, in a sentence."""

from collections.abc import Sequence
from typing import Any

from headpatch.core.output.folder import Results
from headpatch.present.canvas import signed
from headpatch.present.section import Section
from headpatch.report.html.example import Side, example_of
from headpatch.report.html.headline import headline
from headpatch.report.html.heads import heads_of


def section(results: Results) -> Section:
    """Make the first screen; what is not known is left out."""
    example = example_of(results)
    return Section(
        "first",
        "The finding",
        {
            "question": example.question,
            "region": example.region,
            "words": example.words,
            "sides": example.sides,
            "scale": _scale(example.sides),
            "likely": {side.name: side.likely for side in example.sides},
            "because": _because(results),
            "model": str(results.main.run.get("model", "")),
            "valid": results.valid,
            "changed": results.changed,
            "said": headline(results, heads_of(results)),
        },
    )


def _because(results: Results) -> str:
    """Why the study is not valid, as its first invalid run says."""
    found = (part.run.get("invalid_because") for part in results.parts)
    return next(("; ".join(map(str, why)) for why in found if isinstance(why, list) and why), "")


def _scale(sides: Sequence[Side]) -> dict[str, Any] | None:
    """Both LDs on one axis, in percent of its width."""
    known = {side.name: side.ld for side in sides if side.ld is not None}
    if len(known) < 2:
        return None
    most = 1.15 * max(map(abs, known.values())) or 1.0
    return {name: {"at": 50 + 50 * ld / most, "ld": signed(ld, 2)} for name, ld in known.items()}

"""Attention difference against causal effect: every head a point."""

from headpatch.core.output.folder import Results
from headpatch.present.section import Section
from headpatch.report.html.heads import heads_of


def section(results: Results) -> Section | None:
    """Make the scatter; None unless both are known of every head."""
    heads = heads_of(results)
    if heads is None or not heads.looks or not heads.effects:
        return None
    return Section(
        "scatter",
        "Does looking go with deciding?",
        {"judged": heads.verdict is not None, "top": heads.top},
        {},
        {"scatter": {"top": heads.top}},
    )

"""By what a study judges heads over many pairs."""

from headpatch.core.study import Study
from headpatch.stats.verdict_labels import Rule


def rule(study: Study) -> Rule:
    """Return by what heads are judged."""
    options = study.pairs
    return Rule(study.verdict.delta, options.level, options.resamples, study.seed)

"""What `headpatch verdict` writes."""

from collections.abc import Iterator

from headpatch.present.column import Column, Schema

_SHARE = "normalized"


def _interval(name: str, meaning: str, unit: str = _SHARE, form: str = "+.3f") -> Iterator[Column]:
    yield Column(name, meaning, unit, form=form)
    yield Column(f"{name}_low", "lower end of its interval over pairs", unit, form=form)
    yield Column(f"{name}_high", "upper end", unit, form=form)


def _later(name: str, meaning: str, unit: str = "–", form: str = "") -> Column:
    """Return a column that tables of earlier versions may lack."""
    return Column(name, meaning, unit, form=form, optional=True)


def _mean_kind(name: str) -> Iterator[Column]:
    whole = f"{name}_mean_kind"
    yield _later(whole, f"`{name}` for kind `mean`", _SHARE)
    yield _later(f"{whole}_low", "lower end of its interval over pairs", _SHARE)
    yield _later(f"{whole}_high", "upper end", _SHARE)


_Q = "q of a mean unlike 0, over all heads and both directions"
_BEYOND = "q of a mean beyond ±δ: the stricter test, for whom δ itself should be corrected for"
_FAILED = Column(
    "failed_nulls",
    "names of nulls that failed, with semicolons; then nothing here should be relied on",
    "–",
    "text",
    optional=True,
)

HEADS = Schema(
    "verdicts.csv",
    "a head of the language model, judged on the pairs on which heads were *not* chosen. Effects "
    "are of resampling z at the study's positions, in shares of each pair's LD difference",
    (
        Column("layer", "of the language model", "–", "whole", key=True),
        Column("head", "of the layer", "–", "whole", key=True),
        Column(
            "verdict",
            "`necessary`, `sufficient`, `necessary+sufficient`, `redundant`, `inhibitory`, "
            "`watches`, `inert`, `undecided`; `headpatch/stats/verdicts.py` states the rule",
            "–",
            "text",
        ),
        Column(
            "attention_diff",
            "mean over pairs of the region's share, with − without",
            "share",
            form="+.3f",
        ),
        Column(
            "attention_diff_q",
            "its q: t-test over pairs, Benjamini-Hochberg over all heads",
            form=".1g",
        ),
        *_interval("necessity", "mean effect of noising"),
        Column("necessity_q", _Q, form=".1g"),
        *_interval("sufficiency", "mean effect of denoising"),
        Column("sufficiency_q", _Q, form=".1g"),
        Column("attention_diff_low", "lower end of its interval over pairs", "share"),
        Column("attention_diff_high", "upper end", "share"),
        _later("necessity_beyond_q", _BEYOND),
        _later("sufficiency_beyond_q", _BEYOND),
        _later("equivalence_q", "q of both means lying within ±δ (two one-sided tests)"),
        _later("necessity_layer_p", "p that a random head of the same layer has a mean as large"),
        _later("sufficiency_layer_p", "the same for sufficiency"),
        Column(
            "partners",
            "of a `redundant` head: with whom it is necessary",
            "–",
            "text",
            optional=True,
        ),
        Column("attention_rank", "1 = largest attention difference", "–", "whole"),
        *_mean_kind("necessity"),
        *_mean_kind("sufficiency"),
        _FAILED,
    ),
)
SETS = Schema(
    "partners.csv",
    "a set of heads changed together; `headpatch/stats/interactions.py` states the rule",
    (
        Column("heads", "`24.17+23.20`", "–", "text", key=True),
        *_interval("joint", "necessity of all of them together"),
        *_interval(
            "excess",
            "least that a member adds, once the others are gone, beyond what it does alone",
        ),
        Column("q", "that each of them adds more", form=".1g"),
        Column(
            "redundant",
            "whether they are shown to do more together than alone, each of them needed; a head is "
            "redundant only if its own verdict says so",
            "–",
            "truth",
        ),
        _FAILED,
    ),
)
NULLS = Schema(
    "nulls.csv",
    "a figure of a null: what must come out as nothing, or as the same again",
    (
        Column("null", "which", "–", "text", key=True),
        Column("figure", "what is measured", "–", "text", key=True),
        Column("value", "the figure; empty where it could not be measured", form=".3g"),
        Column("limit", "in words, what it must be", "–", "text"),
        Column("outcome", "`passed`, `failed` or `not tested`", "–", "text"),
        Column("pairs", "on which it was measured", "count", "whole"),
        Column(
            "note",
            "why it was not tested; which heads failed it; what the value cannot say",
            "–",
            "text",
        ),
    ),
)
CURVES = Schema(
    "faithfulness.csv",
    "a ranking of heads × way × number of its first heads",
    (
        Column(
            "ranking",
            "`attention`, `effect`, `attribution`, `random`, or `context`: by what a head adds "
            "once others are gone",
            "–",
            "text",
            key=True,
        ),
        Column(
            "way",
            "`keep`: all but the first k are resampled; `remove`: the first k are",
            "–",
            "text",
            key=True,
        ),
        Column("k", "how many", "heads", "whole", key=True),
        *_interval("share", "what is left of the LD difference", "share"),
        *_interval("area", "under the curve over log₂(k + 1), from 0 to 1", "–", ".3f"),
        Column("draws", "of a random ranking", "count", "whole"),
        Column("pairs", "that judge", "count", "whole"),
        _FAILED,
    ),
)
VISION = Schema(
    "vision.csv",
    "a layer of the vision tower, all heads of which were resampled together",
    (
        Column("layer", "of the vision tower", "–", "whole", key=True),
        *_interval("necessity", "mean effect of noising"),
        Column("necessity_q", "q of a mean unlike 0, over all layers"),
        Column("pairs", "on which it was measured", "count", "whole"),
        _FAILED,
    ),
)

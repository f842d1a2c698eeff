"""What `headpatch trace` writes."""

from headpatch.present.column import Column, Schema

_PAIR = Column("pair", "name of the pair of pictures", "–", "text", key=True)
_FORCED = Column(
    "forced", "whose answer is forced: `with`, `without`, or a given `text`", "–", "text", key=True
)
_SLOT = Column(
    "slot",
    "place in the answers, laid beside the one most like all of them",
    "–",
    "whole",
    key=True,
)
_INDEX = Column("index", "place of the token in the answer, from 0", "–", "whole", key=True)
_TOKEN = Column("token", "the token as text", "–", "text")
_RIVAL = Column("rival", "what a run would say in its place; empty if both say it", "–", "text")
_CHANGE = (
    Column("kind", "what z becomes, as in `effects.csv`", "–", "text", key=True),
    Column("alpha", "what `scale` multiplies z by", "–", optional=True),
    Column("direction", "`noising` or `denoising`", "–", "text", key=True),
    Column("run", "the run that is changed: `with` or `without`", "–", "text"),
    Column("layer", "layer of the head", "layer", "whole", key=True),
    Column("head", "number of the head", "–", "whole", key=True),
)
_DIFF = Column("diff", "`with` − `without`", "share", form="+.4f")
_ATTENTION = (
    Column("with", "region's share of the image attention, with the object", "share"),
    Column("without", "the same without it", "share"),
    Column("diff_raw", "`with_raw` − `without_raw`", "share"),
    Column("with_raw", "attention to the region, with the object", "share"),
    Column("without_raw", "the same without it", "share"),
)
_MEASURE = Column(
    "measure",
    "`contrast`: logit(token) − logit(rival); `logit`: logit(token), where both runs say it",
    "–",
    "text",
)
_BASE = (
    Column("base_with", "the measure in the untouched run with the object", "logits"),
    Column("base_without", "the same without it", "logits"),
)
_EFFECT = Column("effect", "on the measure", "logits", form="+.4f")
_MORE_EFFECTS = (
    Column("effect_logit", "on the token's own logit", "logits"),
    Column("effect_logprob", "on its log-probability", "nats"),
)
_BELOW = Column("below_floor", "whether |effect| is within the noise floor", "–", "truth")


def _ends(name: str, unit: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_low", "lower end of its interval", unit),
        Column(f"{name}_high", "upper end", unit),
    )


TRACE = Schema(
    "trace.csv",
    "a token × kind × direction × head. The same answer is forced on both runs; each token is "
    "looked at from the position before it",
    (
        _PAIR,
        _FORCED,
        _INDEX,
        _TOKEN,
        _RIVAL,
        *_CHANGE,
        _DIFF,
        *_ATTENTION,
        _MEASURE,
        *_BASE,
        _EFFECT,
        *_MORE_EFFECTS,
        Column(
            "normalized",
            "effect on the contrast as a share of the difference between the runs, as in "
            "`effects.csv`; empty without a rival",
            "share",
        ),
        Column("layer_mean", "mean effect of the layer's other heads", "logits"),
        Column("layer_sd", "their standard deviation (n − 1)", "logits"),
        _BELOW,
    ),
)
MEANS = Schema(
    "trace_mean.csv",
    "a slot × kind × direction × head; means over the pairs that have a token there",
    (
        _FORCED,
        _SLOT,
        Column("tokens", "tokens there, and how many pairs have each", "–", "text"),
        Column("rivals", "rivals there, likewise", "–", "text"),
        Column("pairs", "pairs that have a token there", "count", "whole"),
        *_CHANGE,
        _DIFF,
        *_ends("diff", "share"),
        *_ATTENTION,
        Column("measure", "`contrast` where most pairs have a rival, else `logit`", "–", "text"),
        Column("measure_pairs", "pairs over which it is averaged", "count", "whole"),
        *_BASE,
        _EFFECT,
        *_ends("effect", "logits"),
        *_MORE_EFFECTS,
        _BELOW,
    ),
)
TOKENS = Schema(
    "trace_tokens.csv",
    "a pair × token of its answer",
    (
        _PAIR,
        _FORCED,
        _SLOT,
        _INDEX,
        _TOKEN,
        _RIVAL,
        Column("says_with", "what the run with the object would say there", "–", "text"),
        Column("says_without", "the same without it", "–", "text"),
        Column("averaged", "whether the slot's measure is averaged over this pair", "–", "truth"),
        *(
            Column(f"{name}_{run}", f"{words} in the untouched run {run} the object", unit)
            for name, words, unit in (
                ("contrast", "logit(token) − logit(rival)", "logits"),
                ("logit", "logit(token)", "logits"),
                ("logprob", "log-probability of the token", "nats"),
            )
            for run in ("with", "without")
        ),
    ),
)

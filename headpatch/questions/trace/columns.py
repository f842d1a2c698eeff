"""What `headpatch trace` writes."""

from functools import partial

from headpatch.present.column import Column, Schema

_text, _key = partial(Column, sort="text"), partial(Column, key=True)
_PAIR = _key("pair", "name of the pair of pictures", sort="text")
_FORCED = _key(
    "forced", "whose answer is forced: `with`, `without`, or a given `text`", sort="text"
)
_SLOT = _key(
    "slot", "place in the answers, laid beside the one most like all of them", sort="whole"
)
_INDEX = _key("index", "place of the token in the answer, from 0", sort="whole")
_TOKEN = _text("token", "the token as text")
_RIVAL = _text("rival", "what a run would say in its place; empty if both say it")
_CHANGE = (
    _key("kind", "what z becomes, as in `effects.csv`", sort="text"),
    Column("alpha", "what `scale` multiplies z by", optional=True),
    _key("direction", "`noising` or `denoising`", sort="text"),
    _text("run", "the run that is changed: `with` or `without`"),
    _key("layer", "layer of the head", "layer", "whole"),
    _key("head", "number of the head", sort="whole"),
)
_DIFF = Column("diff", "`with` − `without`", "share", form="+.4f")
_ATTENTION = (
    Column("with", "region's share of the image attention, with the object", "share"),
    Column("without", "the same without it", "share"),
    Column("diff_raw", "`with_raw` − `without_raw`", "share"),
    Column("with_raw", "attention to the region, with the object", "share"),
    Column("without_raw", "the same without it", "share"),
)
_MEASURE = _text(
    "measure",
    "`contrast`: logit(token) − logit(rival); `logit`: logit(token), where both runs say it",
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
_BELOW = Column("below_floor", "whether |effect| is within the noise floor", sort="truth")


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
        _text("tokens", "tokens there, and how many pairs have each"),
        _text("rivals", "rivals there, likewise"),
        Column("pairs", "pairs that have a token there", "count", "whole"),
        *_CHANGE,
        _DIFF,
        *_ends("diff", "share"),
        *_ATTENTION,
        _text("measure", "`contrast` where most pairs have a rival, else `logit`"),
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
        _text("says_with", "what the run with the object would say there"),
        _text("says_without", "the same without it"),
        Column("averaged", "whether the slot's measure is averaged over this pair", sort="truth"),
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

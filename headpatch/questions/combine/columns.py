"""What `headpatch combine` writes."""

from headpatch.present.column import Column, Schema
from headpatch.present.effects_view import ALPHA

_HEAD = "as in `effects.csv`"
_HEADS = (
    Column("heads", "the heads that are changed together. Read it as text", "–", "text", key=True),
    Column("layer", _HEAD, "layer", "whole", optional=True, follows=True),
    Column("head", _HEAD, "–", "whole", optional=True, follows=True),
)
_KIND = Column("kind", "what z becomes: `zero`, `mean`, `resample`, `scale`", "–", "text", key=True)
_DIRECTION = Column("direction", "`noising` or `denoising`", "–", "text", key=True)
_WHERE = Column("positions", "where z is changed", "–", "text", optional=True)
_PAIRS = Column("pairs", "pairs of pictures that figures are means of", "count", "whole")
_POINTS = "+.3f"


def _share(name: str, meaning: str, optional: bool = False) -> Column:
    return Column(name, meaning, "share", form=_POINTS, optional=optional)


COMBINATIONS = Schema(
    "combinations.csv",
    "a set of heads × kind × direction. On one pair of pictures an interval is the noise floor of "
    "what was added up",
    (
        *_HEADS,
        Column("role", "`head`, `pair`, or `all` of them together", "–", "text", key=True),
        _KIND,
        ALPHA,
        _DIRECTION,
        _WHERE,
        Column("effect", "shift of LD", "logits", form="+.4f", optional=True),
        _share("normalized", "share of the difference in LD, towards the other run"),
        _share("low", "lower end of its interval", optional=True),
        _share("high", "upper end", optional=True),
        _share("sum", "the normalized effects of each of its heads alone, added up"),
        _share("interaction", "`normalized` − `sum`"),
        _share("interaction_low", "lower end of its interval"),
        _share("interaction_high", "upper end"),
        Column("interaction_logits", "the interaction of effects", "logits", optional=True),
        Column("q", "of its difference from 0, over pairs", "–", optional=True),
        Column(
            "word",
            "`synergy`, `redundancy`, `opposed`, `independence` or `undecided`",
            "–",
            "text",
        ),
        _PAIRS,
    ),
)
REPAIR = Schema(
    "selfrepair.csv",
    "a set of heads × kind × direction; shares of the difference in LD",
    (
        *_HEADS,
        _KIND,
        ALPHA,
        _DIRECTION,
        _WHERE,
        _share(
            "direct",
            "what the changed heads no longer write straight into LD, with the final norm's scale "
            "as it was",
        ),
        _share("direct_low", "lower end of its interval over pairs", optional=True),
        _share("direct_high", "upper end", optional=True),
        _share("renormed", "`direct` with the norm computed anew"),
        _share("total", "what LD loses"),
        _share("total_low", "lower end of its interval over pairs", optional=True),
        _share("total_high", "upper end", optional=True),
        _share("repair", "`direct` − `total`"),
        _share("repair_low", "lower end of its interval over pairs", optional=True),
        _share("repair_high", "upper end", optional=True),
        _share("other_heads", "change in what other heads write: a part of `total` − `direct`"),
        _share("mlps", "the same of MLPs"),
        _share("biases", "the same of biases", optional=True),
        _share("norm", "what the final norm's changed scale does"),
        Column("pairs", _PAIRS.meaning, "count", "whole", optional=True),
    ),
)
PARTS = Schema(
    "selfrepair_parts.csv",
    "a later part whose direct attribution changes most, for a set of heads × kind × direction",
    (
        *_HEADS,
        _KIND,
        ALPHA,
        _DIRECTION,
        Column("rank", "by the size of the change", "–", "whole"),
        Column("part", "a head (`24.17`) or an MLP (`mlp 31`)", "–", "text"),
        _share("change", "towards the other run's LD"),
    ),
)

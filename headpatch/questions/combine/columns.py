"""What `headpatch combine` writes."""

from headpatch.present.column import Column, Schema, ratio_companions
from headpatch.present.effects_view import ALPHA

_HEAD = "as in `effects.csv`"
_HEADS = (
    Column("heads", "the heads that are changed together. Read it as text", "–", "text", key=True),
    Column("layer", _HEAD, "layer", "whole", optional=True, follows=True),
    Column("head", _HEAD, "–", "whole", optional=True, follows=True),
)
_WAY = (
    Column("kind", "what z becomes: `zero`, `mean`, `resample`, `scale`", "–", "text", key=True),
    ALPHA,
    Column("direction", "`noising` or `denoising`", "–", "text", key=True),
)
_WHERE = Column("positions", "where z is changed", "–", "text", optional=True)
_PAIRS = "pairs of pictures that figures are means of"


def _share(name: str, meaning: str, optional: bool = False) -> Column:
    return Column(name, meaning, "share", form="+.3f", optional=optional)


_NORMALIZED = _share("normalized", "share of the difference in LD, towards the other run")


def _ends(prefix: str, over: str = "", optional: bool = True) -> tuple[Column, Column]:
    lower = _share(f"{prefix}low", f"lower end of its interval{over}", optional)
    return lower, _share(f"{prefix}high", "upper end", optional)


COMBINATIONS = Schema(
    "combinations.csv",
    "a set of heads × kind × direction. On one pair of pictures an interval is the noise floor of "
    "what was added up",
    (
        *_HEADS,
        Column("role", "`head`, `pair`, or `all` of them together", "–", "text", key=True),
        *_WAY,
        _WHERE,
        Column("effect", "shift of LD", "logits", form="+.4f", optional=True),
        _NORMALIZED,
        *_ends(""),
        *ratio_companions(_NORMALIZED),
        _share("sum", "the normalized effects of each of its heads alone, added up"),
        _share("interaction", "`normalized` − `sum`"),
        *_ends("interaction_", optional=False),
        Column("interaction_logits", "the interaction of effects", "logits", optional=True),
        Column("q", "of its difference from 0, over pairs", "–", optional=True),
        Column(
            "word",
            "what this direction alone shows: `synergy`, `redundancy`, `opposed`, `independence` "
            "or `undecided`",
            "–",
            "text",
        ),
        Column(
            "both",
            "what both directions show of two heads: `either would do`, `both are needed`, `a "
            "threshold: …`, `in series, or the same thing twice`, `independent`, `opposed`, "
            "`undecided`, or `the directions differ`; empty if only one was run",
            "–",
            "text",
            optional=True,
        ),
        Column("pairs", _PAIRS, "count", "whole"),
    ),
)
REPAIR = Schema(
    "selfrepair.csv",
    "a set of heads × kind × direction; shares of the difference in LD",
    (
        *_HEADS,
        *_WAY,
        _WHERE,
        _share(
            "direct",
            "what the changed heads no longer write straight into LD, with the final norm's scale "
            "as it was",
        ),
        *_ends("direct_", " over pairs"),
        _share("renormed", "`direct` with the norm computed anew"),
        _share("total", "what LD loses"),
        *_ends("total_", " over pairs"),
        _share("repair", "`direct` − `total`"),
        *_ends("repair_", " over pairs"),
        _share("other_heads", "change in what other heads write: a part of `total` − `direct`"),
        _share("mlps", "the same of MLPs"),
        _share("biases", "the same of biases", optional=True),
        _share("norm", "what the final norm's changed scale does"),
        Column("pairs", _PAIRS, "count", "whole", optional=True),
    ),
)
PARTS = Schema(
    "selfrepair_parts.csv",
    "a later part whose direct attribution changes most, for a set of heads × kind × direction",
    (
        *_HEADS,
        *_WAY,
        Column("rank", "by the size of the change", "–", "whole"),
        Column("part", "a head (`24.17`) or an MLP (`mlp 31`)", "–", "text"),
        _share("change", "towards the other run's LD"),
    ),
)

"""What `headpatch path` writes."""

from headpatch.present.column import Column, Schema

_HEAD = "as `layer` and `head` in `effects.csv`; empty where a row is of no head or of several"

PATH = Schema(
    "path.csv",
    "a figure of a view",
    (
        Column("pair", "name of the pair of pictures", "–", "text"),
        Column("view", "`stream`, `edge`, `direct` or `head path`", "–", "text", key=True),
        Column("tower", "`vision` or `lm`", "–", "text", key=True),
        Column(
            "layer",
            "the layer that the stream enters (`vision`: leaves); the centre of a window that is "
            "cut; the layer that writes. Empty where there is none",
            "layer",
            key=True,
        ),
        Column(
            "where",
            "`stream`: class of tokens; `edge`: the edge that is cut; `direct`: `head`, `mlp` or "
            "`rest`; `head path`: which input from which tokens",
            "–",
            "text",
            key=True,
        ),
        Column("heads", "the heads that write or hear. Read it as text", "–", "text", key=True),
        Column("head_layer", _HEAD, "layer", "whole", optional=True, follows=True),
        Column("head", _HEAD, "–", "whole", optional=True, follows=True),
        Column(
            "direction", "`noising`, `denoising`; empty for `direct`", "–", "text", key=True
        ),
        Column("effect", "shift of LD; `direct`: part of its difference", "logits",
               form="+.4f", interval=True, optional=True),
        Column("normalized", "share of the difference in LD between the pair's runs", "share",
               form="+.4f", interval=True, ratio=True),
    ),
)  # fmt: skip
_MEANS = PATH.over_pairs("path_mean.csv")
_HALF = Column("half", "pairs with a share of at least one half", "count", "whole")
MEANS = Schema(_MEANS.file, _MEANS.row, (*_MEANS, _HALF))

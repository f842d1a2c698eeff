"""What `headpatch cut` writes."""

from headpatch.present.column import Column, Schema

_HEAD = "as in `effects.csv`; empty where whole layers are cut"
_CONTROL = (
    "the same cut with as many random image tokens in the region's place, from outside it, or in "
    "that of the sinks, which are none"
)


def _key(name: str, meaning: str) -> Column:
    return Column(name, meaning, "–", "text", key=True)


CUTS = Schema(
    "cuts.csv",
    "a cut: an edge (queries that lose keys) × heads or layers × run. What a query has left of its "
    "attention is renormalised; a query that keeps no key gets z = 0",
    (
        _key("pair", "name of the pair of pictures"),
        _key(
            "edge",
            "`from-to`: the tokens that no longer look, and those they no longer see. `answer`; "
            "`question` (every token after the image, the answer position included); `words` (the "
            "question without the answer position); `image` (every image token); `region` (those "
            "of the study's region); `other` (image tokens outside it); `sinks` (the run's image "
            "tokens whose stream is massive at the sink dimensions, which `run.yaml` names); "
            "`all`. A query keeps its own position unless the study says `itself: true`",
        ),
        _key(
            "heads",
            "where single heads are cut: `24.17`, or `24.17+23.20` together. Read it as text",
        ),
        Column("layer", _HEAD, "layer", "whole", optional=True, follows=True),
        Column("head", _HEAD, "–", "whole", optional=True, follows=True),
        _key("layers", "where all heads of whole layers are cut: `10-14`, or `10`"),
        Column(
            "centre",
            "the layer that a window is centred on; windows are clipped at both ends of the model",
            "layer",
            key=True,
        ),
        _key("run", "the run that is cut: `with` or `without`"),
        Column("ld_with", "LD of the untouched run with the object", "logits", form="+.3f"),
        Column("ld_without", "LD of the untouched run without it", "logits", form="+.3f"),
        Column("ld", "LD after the cut", "logits", form="+.3f"),
        Column("effect", "`ld` − LD of the untouched run", "logits", form="+.4f", interval=True),
        Column(
            "normalized",
            "run `with`: (`ld_with` − `ld`) / (`ld_with` − `ld_without`); run `without`: (`ld` − "
            "`ld_without`) / (the same). 0 = nothing, 1 = the other run's LD, negative = away from "
            "it; empty if the two runs' LD are equal",
            "share",
            form="+.4f",
            interval=True,
            ratio=True,
        ),
        _key(
            "role",
            "`window`: one of the sweep over layers; `layers`: the span that was named; `head`: "
            "one named head; `joint`: all named heads together; `control`: random image tokens in "
            "the region's or the sinks' place; `noise floor`: nothing was cut",
        ),
        Column("answer_before", "first token of the run's answer", "–", "text"),
        Column("answer_after", "first token of the answer after the cut", "–", "text"),
        Column(
            "control_mean",
            f"mean of {_CONTROL}; empty for edges that name neither",
            "share",
            form="+.4f",
        ),
        Column("control_sd", "their standard deviation (n − 1)", "share", form=".4f"),
        Column(
            "control_n",
            "how many random sets were drawn; 0 where fewer tokens lie outside the region than "
            "inside, or fewer are no sinks than are",
            "sets",
            "whole",
        ),
        Column(
            "sinks",
            "how many of the run's image tokens are sinks; there only where an edge names them",
            "tokens",
            "whole",
            optional=True,
        ),
    ),
)
MEANS = CUTS.over_pairs(
    "cuts_mean.csv",
    Column("answer_changed", "pairs whose first answer token changed", "share", form=".0%"),
    Column("control_mean", f"mean of {_CONTROL}", "share", form="+.4f"),
)

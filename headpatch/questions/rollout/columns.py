"""What `headpatch rollout` writes."""

from headpatch.present.column import Column, Schema

_PAIR = Column("pair", "name of the pair of pictures", "–", "text", key=True)
_RUN = Column("run", "the run: `with` or `without`", "–", "text", key=True)
_METHOD = Column("method", "`rollout` or `relevance`", "–", "text", key=True)
_STAGE = Column(
    "stage",
    "where it is read: `tokens` (through the language model alone), `patches` (on through the "
    "vision tower)",
    "–",
    "text",
    key=True,
)
_WAY = Column(
    "way",
    "`delete`: the first k patches are deleted; `insert`: only they are shown",
    "–",
    "text",
    key=True,
)
_SIDES = ("left", "top", "right", "bottom")

ROLLOUT = Schema(
    "rollout.csv",
    "a pair × map × run × patch",
    (
        _PAIR,
        Column("token", "the token of the answer that is followed back", "–", "text"),
        _RUN,
        _METHOD,
        _STAGE,
        Column("patch", "number of the patch, row by row", "–", "whole"),
        *(Column(side, f"the patch's {side} edge", "fraction of the picture") for side in _SIDES),
        Column("in_region", "whether the patch counts as the region", "–", "truth"),
        Column("value", "what the map gives to the patch, not negative"),
        Column("share", "the same as a share of what all patches get", "share"),
    ),
)
PERTURBATION = Schema(
    "perturbation.csv",
    "a pair × picture that was tried",
    (
        Column("pair", "name of the pair; only over pairs", "–", "text", key=True, optional=True),
        _RUN,
        _WAY,
        Column(
            "order",
            "whose order: a map's (`rollout_patches`), `random`, or `region` (its own patches)",
            "–",
            "text",
            key=True,
        ),
        Column("draw", "number of the random order", "–", "whole", key=True),
        Column("k", "how many patches", "patches", "whole", key=True),
        Column("ld", "LD; of a later token its contrast", "logits", form="+.3f"),
        Column(
            "share",
            "share of LD_with − LD_without by which LD moved (`delete`) or was regained (`insert`)",
            "share",
        ),
    ),
)
REGIONS = Schema(
    "",
    "a map × run",
    (
        _METHOD,
        _STAGE,
        _RUN,
        Column("region", "share of the map on the region", "share", form=".1%", interval=True),
        Column("even", "what an even map has there", "share", form=".1%", interval=True),
        Column(
            "elsewhere",
            "share on no patch, and not drawn: at the image tokens, on text; at the patches, of "
            "what the image tokens hand on, on the vision tower's class token",
            "share",
            form=".1%",
            interval=True,
        ),
    ),
)
AREAS = Schema(
    "",
    "a run × way × map",
    (
        _RUN,
        _WAY,
        Column("map", "`rollout_patches` and such", "–", "text", key=True),
        Column(
            "area",
            "area under the curve of shares over log2(k + 1), scaled to 0 to 1",
            "share",
            form="+.3f",
            interval=True,
        ),
        Column(
            "random_mean", "mean of the random orders' areas", "share", form="+.3f", interval=True
        ),
        Column(
            "difference",
            "`area` − `random_mean`, pair by pair",
            "share",
            form="+.3f",
            interval=True,
        ),
    ),
)
MEANS = REGIONS.over_pairs("rollout_mean.csv")
AREA_MEANS = AREAS.over_pairs("perturbation_mean.csv")

"""What `headpatch rollout` writes."""

from headpatch.present.column import Column, Schema


def _key(name: str, meaning: str) -> Column:
    return Column(name, meaning, "–", "text", key=True)


def _mean(name: str, meaning: str, form: str) -> Column:
    return Column(name, meaning, "share", form=form, interval=True)


_RUN = _key("run", "the run: `with` or `without`")
_METHOD = _key("method", "`rollout` or `relevance`")
_STAGE = _key(
    "stage",
    "where it is read: `tokens` (through the language model alone), `patches` (on through the "
    "vision tower)",
)
_WAY = _key("way", "`delete`: the first k patches are deleted; `insert`: only they are shown")
_ORDER = "whose order: a map's (`rollout_patches`), `random`, or `region` (its own patches)"
_SHARE = "share of LD_with − LD_without by which LD moved (`delete`) or was regained (`insert`)"
_SIDES = ("left", "top", "right", "bottom")

ROLLOUT = Schema(
    "rollout.csv",
    "a pair × map × run × patch",
    (
        _key("pair", "name of the pair of pictures"),
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
        _key("order", _ORDER),
        Column("draw", "number of the random order", "–", "whole", key=True),
        Column("k", "how many patches", "patches", "whole", key=True),
        Column("ld", "LD; of a later token its contrast", "logits", form="+.3f"),
        Column("share", _SHARE, "share"),
    ),
)
REGIONS = Schema(
    "",
    "a map × run",
    (
        _METHOD,
        _STAGE,
        _RUN,
        _mean("region", "share of the map on the region", ".1%"),
        _mean("even", "what an even map has there", ".1%"),
        _mean(
            "elsewhere",
            "share on no patch, and not drawn: at the image tokens, on text; at the patches, of "
            "what the image tokens hand on, on the vision tower's class token",
            ".1%",
        ),
    ),
)
AREAS = Schema(
    "",
    "a run × way × map",
    (
        _RUN,
        _WAY,
        _key("map", "`rollout_patches` and such"),
        _mean("area", "area under the curve of shares over log2(k + 1), scaled to 0 to 1", "+.3f"),
        _mean("random_mean", "mean of the random orders' areas", "+.3f"),
        _mean("difference", "`area` − `random_mean`, pair by pair", "+.3f"),
    ),
)
MEANS = REGIONS.over_pairs("rollout_mean.csv")
AREA_MEANS = AREAS.over_pairs("perturbation_mean.csv")

"""What `headpatch rank` writes."""

from headpatch.present.column import Column, Schema

_SHARE = "the region's part of the head's image attention"
_RAW = "the region's part of all the head's attention"
_OVER_PAIRS = "; over pairs alone"


def _ends(name: str, unit: str, form: str = "+.4f") -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{name}_{end}",
            f"{words} end of the interval of `{name}` over pairs{_OVER_PAIRS}",
            unit,
            form=form,
            optional=True,
        )
        for end, words in (("low", "lower"), ("high", "upper"))
    )


def _ranked(name: str, meaning: str, unit: str, form: str = ".4f") -> tuple[Column, ...]:
    """Declare what heads are ranked by in place of `diff`."""
    return Column(name, meaning, unit, form=form, optional=True), *_ends(name, unit, form)


_ENTROPY = "spatial entropy of its image attention in the run with the object: 0 is one place"
_RANKED_BY = (
    *_ranked("entropy", f"`--by entropy`, `localization`: {_ENTROPY}", "nats"),
    *_ranked("selected", "`--by localization`: whether the criterion selects the head (1 or 0); "
             "over pairs, in which share of them", "–", ".3f"),
    *_ranked("enough", "likewise: whether its image attention reaches τ", "–", ".3f"),
    *_ranked("image_share", "`--by text-image`: of its attention to patches and text, the part on "
             "patches, in the run with the object", "share"),
    *_ranked("score", "`--by FILE.csv`: its score there; empty if it has none", "–", ".4g"),
)  # fmt: skip

HEADS = Schema(
    "heads.csv",
    "a head, all heads, the first of the ranking first; of one pair, or means over pairs",
    (
        Column(
            "rank",
            "1 = largest `diff`, or the first by another `--by`; ties in layer-head order",
            "–",
            "whole",
        ),
        Column("layer", "of the language model, from 0", "layer", "whole", key=True),
        Column("head", "its number in that layer, from 0", "–", "whole", key=True),
        Column(
            "diff",
            "`with` − `without`: what heads are ranked by, if by nothing else",
            "share",
            form="+.4f",
        ),
        Column("with", f"{_SHARE}, in the run with the object", "share", form=".4f"),
        Column("without", f"{_SHARE}, in the run without it", "share", form=".4f"),
        Column("diff_raw", "`with_raw` − `without_raw`", "raw", form="+.4f"),
        Column("with_raw", f"{_RAW}, in the run with the object", "raw", form=".4f"),
        Column("without_raw", f"{_RAW}, in the run without it", "raw", form=".4f"),
        *_ends("diff", "share"),
        *_ends("diff_raw", "raw"),
        *_ends("with_raw", "raw", ".4f"),
        *_RANKED_BY,
        Column("pairs", f"how many{_OVER_PAIRS}", "pairs", "whole", optional=True),
        Column(
            "compared_by",
            "what `diff` to `without` are shares of: `region`, attention to the region that is "
            "named; `difference`, to the box where the two pictures differ; `region and "
            "difference`, each pair its own; `image`, raw image mass, of all pairs alike",
            "–",
            "text",
            optional=True,
        ),
    ),
)
PER_HEAD, SPATIAL = "per_head_analysis.pt", "spatial_vision_analysis.pt"
WITH_RUN, WITHOUT_RUN = "attention_with_triangle.pt", "attention_without_triangle.pt"

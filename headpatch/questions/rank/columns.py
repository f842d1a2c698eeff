"""What `headpatch rank` writes."""

from headpatch.present.column import Column, Schema

_SHARE = "the region's part of the head's image attention"
_RAW = "the region's part of all the head's attention"
_OVER_PAIRS = "; over pairs alone"


def _ends(name: str, unit: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{name}_{end}",
            f"{words} end of the interval of `{name}` over pairs{_OVER_PAIRS}",
            unit,
            form="+.4f",
            optional=True,
        )
        for end, words in (("low", "lower"), ("high", "upper"))
    )


HEADS = Schema(
    "heads.csv",
    "a head, all heads, the largest `diff` first; of one pair, or means over pairs",
    (
        Column("rank", "1 = largest `diff`; ties in layer-head order", "–", "whole"),
        Column("layer", "of the language model, from 0", "layer", "whole", key=True),
        Column("head", "its number in that layer, from 0", "–", "whole", key=True),
        Column("diff", "`with` − `without`: what heads are ranked by", "share", form="+.4f"),
        Column("with", f"{_SHARE}, in the run with the object", "share", form=".4f"),
        Column("without", f"{_SHARE}, in the run without it", "share", form=".4f"),
        Column("diff_raw", "`with_raw` − `without_raw`", "raw", form="+.4f"),
        Column("with_raw", f"{_RAW}, in the run with the object", "raw", form=".4f"),
        Column("without_raw", f"{_RAW}, in the run without it", "raw", form=".4f"),
        *_ends("diff", "share"),
        *_ends("diff_raw", "raw"),
        Column("pairs", f"how many{_OVER_PAIRS}", "pairs", "whole", optional=True),
    ),
)
PER_HEAD, SPATIAL = "per_head_analysis.pt", "spatial_vision_analysis.pt"
WITH_RUN, WITHOUT_RUN = "attention_with_triangle.pt", "attention_without_triangle.pt"

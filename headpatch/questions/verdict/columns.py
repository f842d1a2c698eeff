"""What `headpatch verdict` writes."""

from collections.abc import Iterator
from typing import Any

from headpatch.present.column import Column, Schema, ratio_companions


def _interval(
    name: str, meaning: str, unit: str = "normalized", form: str = "+.3f", optional: bool = False
) -> Iterator[Column]:
    ends = {"": meaning, "_low": "lower end of its interval over pairs", "_high": "upper end"}
    for end, words in ends.items():
        yield Column(f"{name}{end}", words, unit, form=form, optional=optional)


def _text(name: str, meaning: str, **more: Any) -> Column:
    return Column(name, meaning, "–", "text", **more)


def _on_pairs(name: str, run: str) -> Iterator[Column]:
    """What an effect does on single pairs."""
    more: dict[str, Any] = {"optional": True}
    yield Column(f"{name}_sd", "standard deviation over pairs", form=".3f", **more)
    yield Column(f"{name}_carried", "how many pairs the mean rests on: (Σ|x|)² / Σx²", "pairs",
                 form=".1f", **more)  # fmt: skip
    yield Column(f"{name}_above", "share of pairs beyond +δ", "share", form=".3f", **more)
    yield Column(f"{name}_below", "share of pairs beyond −δ", "share", form=".3f", **more)
    yield Column(f"{name}_mixed_q", "q of pairs beyond δ both ways, or beyond it though the mean "
                 "is within", form=".1g", **more)  # fmt: skip
    yield Column(f"{name}_turned", f"pairs on which the {run}'s answer turns", "count", "whole",
                 **more)  # fmt: skip


_Q = ("q of a mean unlike 0, over all heads and both directions: the larger of a t-test's and the "
      "resampled one, which knows of skewed effects")  # fmt: skip
_BEYOND = "q of a mean beyond ±δ: the stricter test, for whom δ itself should be corrected for"
_FAILED = _text("failed_nulls", "names of nulls that failed, with semicolons; then nothing here "
                "should be relied on", optional=True)  # fmt: skip

_NECESSITY = Column("necessity", "", "normalized", form="+.3f")
_SUFFICIENCY = Column("sufficiency", "", "normalized", form="+.3f")

HEADS = Schema(
    "verdicts.csv",
    "a head of the language model, judged on all pairs. Effects are of resampling z at the study's "
    "positions, in shares of each pair's LD difference",
    (
        Column("layer", "of the language model", "–", "whole", key=True),
        Column("head", "of the layer", "–", "whole", key=True),
        _text("verdict", "`necessary`, `sufficient`, `necessary+sufficient`, `redundant`, "
              "`inhibitory`, `mixed`, `watches`, `looks away`, `inert`, `undecided`; "
              "`headpatch/stats/verdicts.py` states the rule"),
        Column("attention_diff", "mean over pairs of the region's share, with − without",
               "share", form="+.3f"),
        Column("attention_diff_q", "its q: t-test over pairs, Benjamini-Hochberg over all heads",
               form=".1g"),
        *_interval("necessity", "mean effect of noising"),
        Column("necessity_q", _Q, form=".1g"),
        *_interval("sufficiency", "mean effect of denoising"),
        Column("sufficiency_q", _Q, form=".1g"),
        Column("attention_diff_low", "lower end of its interval over pairs", "share"),
        Column("attention_diff_high", "upper end", "share"),
        Column("attention_equivalence_q", "q of the mean difference lying within ±δ_a", form=".1g",
               optional=True),
        *_interval("attention_raw_diff", "the difference as a share of *all* attention", "share",
                   "+.4f", optional=True),
        Column("necessity_beyond_q", _BEYOND, optional=True),
        Column("sufficiency_beyond_q", _BEYOND, optional=True),
        Column("equivalence_q", "q of both means lying within ±δ (two one-sided tests)",
               optional=True),
        Column("tolerance_q", "q of 95% of pairs lying within ±δ in both directions (tolerance "
               "interval)", optional=True),
        *_on_pairs("necessity", "with-run"),
        *_on_pairs("sufficiency", "without-run"),
        Column("necessity_layer_p", "share of the layer's heads, itself included, with a mean at "
               "least as large in size: the p that the layer's heads are exchangeable, never below "
               "1 over their number", optional=True),
        Column("sufficiency_layer_p", "the same for sufficiency", optional=True),
        _text("partners", "of a `redundant` head: with whom it is necessary; sets of heads, a "
              "semicolon after each", optional=True),
        Column("attention_rank", "1 = largest attention difference, or the first by the study's "
               "`rank.by`", "–", "whole"),
        *_interval("necessity_mean_kind", "`necessity` for kind `mean`", form="", optional=True),
        *ratio_companions(_NECESSITY),
        *_interval("sufficiency_mean_kind", "`sufficiency` for kind `mean`", form="",
                   optional=True),
        *ratio_companions(_SUFFICIENCY),
        _FAILED
    )
)  # fmt: skip
TOGETHER = Schema(
    "together.csv",
    "the first heads of a ranking changed as one set × direction, on pairs that did not choose "
    "them",
    (
        _text("ranking", "`attention` (by difference) or another that was asked for: `raw`, "
              "`entropy`, `localization`, `text-image`, the name of a table; `effect`: heads whose "
              "effect alone reaches δ", key=True),
        _text("direction", "`noising` or `denoising`", key=True),
        _text("heads", "the set; with a semicolon, that of each part of the pairs"),
        Column("k", "how many, at most", "heads", "whole"),
        *_interval("effect", "mean effect of all of them together"),
        *_interval("alone", "mean sum of what each does alone"),
        Column("random", "mean effect of random sets with as many heads of each layer",
               form="+.3f"),
        Column("random_low", "the least of them", form="+.3f"),
        Column("random_high", "the largest of them", form="+.3f"),
        Column("p", "that a random set has as large an effect, two-sided", form=".2g"),
        Column("draws", "random sets; p is at least 2 / (draws + 1)", "count", "whole"),
        Column("pairs", "that judge", "count", "whole"),
        _FAILED
    )
)  # fmt: skip
FACTORS = Schema(
    "factors.csv",
    "a head × direction × factor on which its effect is shown to depend × level of the factor; the "
    "region and the question are factors, too",
    (
        Column("layer", "of the language model", "–", "whole", key=True),
        Column("head", "of the layer", "–", "whole", key=True),
        _text("direction", "`necessity` (noising) or `sufficiency` (denoising)", key=True),
        _text("factor", "a column of the table of pairs", key=True),
        _text("level", "its value", key=True),
        Column("pairs", "of this level", "count", "whole"),
        *_interval("effect", "mean effect on them; intervals are corrected for the number "
                   "of levels"),
        Column("q", "of the levels being alike (Kruskal-Wallis), over all heads, directions and "
               "factors", form=".1g"),
        _FAILED
    )
)  # fmt: skip
SETS = Schema(
    "partners.csv",
    "a set of heads changed together; `headpatch/stats/interactions.py` states the rule",
    (
        _text("heads", "`24.17+23.20`", key=True),
        *_interval("joint", "necessity of all of them together"),
        *_interval("excess", "least that a member adds, once the others are gone, beyond what it "
                   "does alone"),
        Column("q", "that each of them adds more", form=".1g"),
        Column("redundant", "whether they are shown to do more together than alone, each of them "
               "needed; a head is redundant only if its own verdict says so", "–", "truth"),
        Column("part", "1 or 2: the part of the pairs that chose the set; the other judged it. 0: "
               "named by a claim, and judged on both", "–", "whole", key=True, optional=True),
        Column("pairs", "that judged it", "count", "whole", optional=True),
        _FAILED
    )
)  # fmt: skip
NULLS = Schema(
    "nulls.csv",
    "a figure of a null: what must come out as nothing, or as the same again",
    (
        _text("null", "which", key=True),
        _text("figure", "what is measured", key=True),
        Column("value", "the figure; empty where it could not be measured", form=".3g"),
        Column("low", "lower end of its interval: Clopper and Pearson's of a rate, Fieller's of a "
               "share; empty where it has none", form=".3g", optional=True),
        Column("high", "upper end", form=".3g", optional=True),
        _text("limit", "in words, what it must be; a figure with an interval fails only if all of "
              "that lies beyond"),
        _text("outcome", "`passed`, `failed` or `not tested`"),
        Column("pairs", "on which it was measured", "count", "whole"),
        _text("note", "why it was not tested; which heads failed it; when it would fail"),
    ),
)  # fmt: skip
CURVES = Schema(
    "faithfulness.csv",
    "a ranking of heads × way × number of its first heads",
    (
        _text("ranking", "`attention` or another that was asked for, as in `together.csv`; "
              "`effect`, `attribution`, `random`, or `context`: by what a head adds once others "
              "are gone", key=True),
        _text("way", "`keep`: all but the first k are resampled; `remove`: the first k are",
              key=True),
        Column("k", "how many", "heads", "whole", key=True),
        *_interval("share", "what is left of the LD difference", "share"),
        *_interval("area", "under the curve over log₂(k + 1), from 0 to 1", "–", ".3f"),
        *_interval("cpr", "where heads are kept: MIB's integrated circuit performance ratio, of "
                   "circuits of heads (`headpatch/stats/circuit_areas.py`)", "–", ".3f", True),
        *_interval("cmd", "likewise: MIB's integrated circuit-model distance", "–", ".3f", True),
        Column("draws", "of a random ranking", "count", "whole"),
        Column("pairs", "that judge", "count", "whole"),
        _FAILED
    )
)  # fmt: skip
VISION = Schema(
    "vision.csv",
    "a layer of the vision tower, all heads of which were resampled together",
    (
        Column("layer", "of the vision tower", "–", "whole", key=True),
        *_interval("necessity", "mean effect of noising"),
        Column("necessity_q", "q of a mean unlike 0, over all layers"),
        Column("pairs", "on which it was measured", "count", "whole"),
        _FAILED,
    ),
)

"""What `headpatch ablate` writes."""

from dataclasses import replace

from headpatch.present.column import Column, Schema
from headpatch.present.effects_view import ANSWER_CHANGED, ANSWERS, CHANGED

_CHANCE = (
    Column("control_sd", "their standard deviation (n − 1)", "share", form=".4f"),
    Column("control_n", "how many random sets were drawn", "sets", form=".0f"),
    Column(
        "control_p",
        "two-sided p of `normalized` among these sets, with the +1 correction; never below "
        "2 / (`control_n` + 1)",
        form=".2f",
        optional=True,
    ),
)
EFFECTS = Schema(
    "effects.csv",
    "an intervention: a set of heads × kind × direction (and pair)",
    (
        *CHANGED,
        Column(
            "role",
            "`head`: one named head; `joint`: all named heads together; `control`: random heads of "
            "the same layers; `noise floor`: patched with their own z",
            "–",
            "text",
            key=True,
        ),
        *ANSWERS,
        Column(
            "control_mean",
            "mean of `normalized` of the same intervention on random sets with as many heads in "
            "the same layers; on rows `head` and `joint`",
            "share",
            form="+.4f",
            interval=True,
        ),
        *_CHANCE,
    ),
)
_OVER_PAIRS = tuple(
    replace(column, meaning=f"{column.meaning}; each set's mean over the pairs", optional=True)
    for column in _CHANCE
)
MEANS = EFFECTS.over_pairs("effects_mean.csv", ANSWER_CHANGED, *_OVER_PAIRS)
_WHERE = ("pair", "heads", "layer", "head", "kind", "toward", "direction", "positions")
DOSES = Schema(
    "doses.csv",
    "a set of heads × kind × direction (and pair), where several doses (`alpha`) of the kind ran",
    (
        *(column for column in CHANGED if column.name in _WHERE),
        Column(
            "doses",
            "the alphas of its curve, the neutral one (1 of `scale`, 0 of `reweight`), at which "
            "the effect is 0, among them",
            "–",
            "text",
            key=True,
        ),
        Column(
            "slope",
            "`normalized` for one unit of alpha: least squares through the neutral point",
            "share",
            form="+.4f",
            interval=True,
        ),
        Column(
            "straightness",
            "1 where `normalized` is in proportion to alpha less the neutral one, 0 where no line "
            "through that point says anything of it; empty where nothing moves",
            form=".3f",
            interval=True,
        ),
        Column(
            "spearman",
            "Spearman's ρ of alpha and `normalized`; effects that may be rounding count as 0",
            form="+.3f",
            interval=True,
        ),
    ),
)
_Q = "by Benjamini-Hochberg over the rows of this table"
DOSES_MEAN = DOSES.over_pairs(
    "doses_mean.csv",
    Column(
        "trend_p",
        "two-sided p of Page's test over scenes: `normalized` goes the way of alpha, or against it",
        form=".2g",
    ),
    Column("trend_q", f"the same, {_Q}", form=".2g"),
    Column(
        "turn_p",
        "p that the mean curve only rises, or only falls (one step is shown to rise and another to "
        "fall)",
        form=".2g",
    ),
    Column("turn_q", f"the same, {_Q}", form=".2g"),
    Column(
        "shape",
        "`rises` or `falls` with alpha (`trend_q` below 1 − the level), `turns` (`turn_q` "
        "likewise: not monotonic), or `undecided`",
        "–",
        "text",
    ),
)

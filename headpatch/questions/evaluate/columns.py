"""What `headpatch evaluate` writes."""

from headpatch.present.column import Column, Schema
from headpatch.present.effects_view import ALPHA, TOWARD

_WHAT = (
    Column(
        "set",
        "the changed heads in short: their names, how many they are, or the verdict's class",
        "–",
        "text",
    ),
    Column("heads", "all of them, as `24.17+23.20`; read it as text", "–", "text", key=True),
    Column(
        "kind",
        "what the heads' z becomes: `zero`; `mean` (over the rows of the evaluation); `scale` "
        "(alpha times itself); `reweight` (what attention gives with that to the image or the "
        "region times 1 + alpha); `resample` (of the pair's other run)",
        "–",
        "text",
        key=True,
    ),
    ALPHA,
    TOWARD,
)
_SCORING = Column(
    "scoring",
    "`word`: the likeliest first token of all, case and space aside; `choice`: the likeliest of "
    "the row's choices; of generated text `exact`, `contains`, `pope`, `chair`, or your function",
    "–",
    "text",
    key=True,
)
EVALUATION = Schema(
    "evaluate.csv",
    "a metric × a set of heads × kind × scoring (and value of `--factor`)",
    (
        *_WHAT,
        _SCORING,
        Column("subset", "rows with this value of `--factor`; empty: all", "–", "text", key=True),
        Column(
            "metric",
            "`accuracy`, `yes_rate`, `precision`, `recall`, `f1` (as POPE's); `question_accuracy`, "
            "`image_accuracy`, `group_accuracy` (all rows right, NaturalBench's), "
            "`paired_accuracy` (both runs of a pair right); `chair_i`, `chair_s`; `score`",
            "–",
            "text",
            key=True,
        ),
        Column("rows", "rows, or groups of rows, that it is of", "count", "whole"),
        Column("scenes", "scenes that they show: the unit of the interval", "count", "whole"),
        Column("base", "the metric with nothing changed", "share", form=".1%"),
        Column("value", "the metric with the heads changed", "share", form=".1%"),
        Column("difference", "`value` − `base`", "share", form="+.1%"),
        Column("difference_low", "lower end of its interval over scenes", "share", form="+.1%"),
        Column("difference_high", "upper end", "share", form="+.1%"),
        Column("lost", "rows right at first and wrong with the change; of accuracies", "rows",
               form=".0f"),
        Column("gained", "rows wrong at first and right with the change", "rows", form=".0f"),
        Column("mcnemar_p", "McNemar's exact two-sided p of `lost` against `gained`, rows taken "
               "for independent", form=".2g"),
        Column("p", "the same test by scene (signs of the scenes' sums are flipped): equal to "
               "`mcnemar_p` where each row shows a scene of its own", form=".2g"),
        Column("q", "Benjamini-Hochberg q of `p` over the sets and kinds of this metric, scoring "
               "and `subset`", form=".2g"),
        Column("control_mean", "mean difference of as many random heads of the same layers",
               "share", form="+.1%"),
        Column("control_sd", "their standard deviation (n − 1)", "share", form=".1%"),
        Column("control_n", "how many random sets were drawn", "sets", form=".0f"),
        Column("control_p", "two-sided p of `difference` among these sets; never below 2 / "
               "(`control_n` + 1)", form=".2g"),
    ),
)  # fmt: skip
ROWS = Schema(
    "rows.csv",
    "a row of the dataset × set of heads × kind; without heads: nothing changed",
    (
        Column("row", "its name, or number in the table; `…/with` and `…/without` of a pair", "–",
               "text", key=True),
        Column("scene", "the scene that it shows", "–", "text"),
        Column("group", "its group, if the table has one; of a pair its name", "–", "text"),
        Column("question", "as asked", "–", "text"),
        Column("answer", "the right answer", "–", "text"),
        *_WHAT[1:],
        Column("said", "the likeliest first token, or the generated text", "–", "text"),
        Column("right", "whether that is right by the first `scoring` of evaluate.csv; a number "
               "where scores are", "–", form="g"),
        Column("choice", "the likeliest of the row's choices; empty where there are none", "–",
               "text"),
        Column("margin", "by how much the likeliest token lies before the next; empty of "
               "generated text", "logits", form=".3f"),
    ),
)  # fmt: skip
REFUSED = Schema(
    "refused.csv",
    "a row of the dataset that could not be asked; there only if one was",
    (
        Column("row", "its name, or number in the table", "–", "text"),
        Column("line", "its line in the table; a number from 1 where rows have no lines", "–",
               "whole"),
        Column("reason", "what is wrong with it", "–", "text"),
    ),
)  # fmt: skip

"""What `headpatch ablate` writes."""

from headpatch.present.column import Column, Schema
from headpatch.present.effects_view import ANSWER_CHANGED, ANSWERS, CHANGED

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
        Column("control_sd", "their standard deviation (n − 1)", "share", form=".4f"),
        Column("control_n", "how many random sets were drawn", "sets", form=".0f"),
        Column(
            "control_p",
            "two-sided p of `normalized` among these sets, with the +1 correction; never below "
            "2 / (`control_n` + 1)",
            form=".2f",
            optional=True,
        ),
    ),
)
MEANS = EFFECTS.over_pairs("effects_mean.csv", ANSWER_CHANGED)

"""Judge over many pairs which heads decide, and whether those that look are among them.

Draws pairs (or takes a dataset), keeps those that the model answers rightly, of which it needs 40
(with another --split more), and changes every head of the language model on each: resample and
mean, noising (is it necessary?) and denoising (is it sufficient?). Every head is judged on all
pairs.

Each head gets a verdict: necessary, sufficient, both, redundant (not necessary alone, but together
with named partners, of which none can be left out), inhibitory, mixed (the mean hides what it does
on pairs), watches or looks away (attends more, or less, when the object is there, by more than
--attention-delta, and is shown to do next to nothing), inert, or undecided (more pairs are needed).
An effect counts if its interval lies beyond ±--delta and it survives a correction over all heads;
"next to nothing" takes an equivalence test of the mean, and a tolerance interval of single pairs.
Where effects depend on a column of the table of pairs, each level is told.

Redundant heads do little alone. So random sets of half and a quarter of all heads are changed,
which shows what each head adds once others are gone; from the heads that add most, those leave that
are not needed, until a set is left of which every head is. Such sets, and the heads that attention
picks, are chosen on one part of the pairs and judged together on the other, and the other way
round; the latter beside random sets of the same layers.

Nulls are run every time: a question about a wrong place, mirrored pictures, patching a head with
itself, vision layers that the language model does not read, random heads. One that fails marks
every output.

Writes verdicts.csv (a row for each head), partners.csv and together.csv (sets of heads),
factors.csv, nulls.csv, faithfulness.csv, vision.csv (whole layers of the vision tower), gate.csv,
verdict.pt (the effects on every pair), verdict.png, faithfulness.png and run.yaml.

With --until-decided N heads are judged after every N pairs, at levels that keep the error rates,
and no pair is added once none of them, or of those of --decide, is undecided.

200 drawn pairs take the bundled model some minutes; how many heads and sets are changed is printed
first. Ctrl-C keeps finished pairs; the same command with `--resume` goes on and gives the same
result.

Examples
--------
`headpatch verdict --n 100 --out verdict_output`

`headpatch verdict --pairs pairs --out verdict_output` (after `headpatch pairs --n 100`)

`headpatch verdict --n 100 --by entropy --rankings diff,raw --out verdict_output`
"""

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import VerdictOptions
from headpatch.questions.verdict.columns import (
    CURVES,
    FACTORS,
    HEADS,
    NULLS,
    SETS,
    TOGETHER,
    VISION,
)

VERB = Verb(
    "verdict",
    "Which heads decide, over many pairs, and are those that look among them?",
    VerdictOptions,
    __doc__ or "",
    (HEADS, SETS, TOGETHER, FACTORS, NULLS, CURVES, VISION),
    ("verdict.pt", "verdict.png", "faithfulness.png"),
    draws=True,
    flags=(
        Flag(
            "by",
            "--by",
            "The ranking that picks heads: that of `headpatch rank`, of the same names or a table "
            "FILE.csv.",
            "RANKING",
        ),
    ),
    keys=lambda given, _study: {"rank.by": given["by"]},
    hidden=("groups", "search", "controls", "noise", "nulls", "vision", "followed", "attribution",
            "random"),
    finished="parts",
    kept_as=".verdict-pairs"
)  # fmt: skip

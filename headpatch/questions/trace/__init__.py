"""Trace an answer token by token: which heads look at the region, which move the token.

Both runs are made to say the same answer, by default that of the with-run. For every token, from
the position before it: each head's attention to the region in both runs, and the effect of giving
that head the other run's z there, for every head, exactly (a sweep a token).

An effect is measured on logit(token) - logit(rival), the rival being the token that a run would say
instead after the same words; on logit(token) where both runs would say it. Such a token, a comma
for instance, is a control: where its log-probability does not move, its heads decide nothing.
trace.csv has all three measures.

A head acts here through one position. What it has written into the earlier tokens of the answer or
the question is left as it was.

Kind `mean` puts the mean of z there: over drawn pairs asked the same question and made to say the
same words up to the token, so that the picture is averaged away and the words stay.

Prints each token with its first heads by attention and by effect. Writes trace.csv (a row for every
token, kind, direction and head; beside each effect the mean and deviation of the other heads of its
layer), trace.pt (the same as tensors, tokens x layers x heads), trace.png and run.yaml.

With `--pairs`: every pair of a dataset that passes the gate (both answers right), each saying its
own answer; means with intervals over pairs. Tokens of different answers are averaged where they
stand in the same slot: the answers are laid side by side as sequences of tokens, and in a stretch
where they differ (a shape, a place) the first token stands for the first. A contrast is averaged
over those pairs that have a rival; a slot that one pair alone has gets no interval. Kind `mean` is
the mean over the dataset's pairs at the slot, each asked its own question and having said its own
words. Writes trace_mean.csv (a row for every slot, kind, direction and head), trace_tokens.csv
(every pair's tokens: what was averaged), gate.csv, trace.pt (with each pair's effects), trace.png
and run.yaml.

Ctrl-C keeps finished tokens; the same command with `--resume` goes on and gives the same result.

Examples
--------
`headpatch trace --tokens 3 --out trace_output`

`headpatch trace --answer "Yes, there is a triangle" --directions denoising`

`headpatch trace --pairs pairs --limit 3 --tokens 3` (after `headpatch pairs --n 20`)
"""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.question import Verb
from headpatch.core.study.options import Count, ForcedAnswer, Kinds, KindsOfOnePair, Positive
from headpatch.questions.trace.columns import MEANS, TOKENS, TRACE


class TraceOptions(ForcedAnswer, Kinds):
    """Which answer is traced token by token, and how heads are changed."""

    forced: Annotated[
        Literal["with", "without", "both"], Field(json_schema_extra={"metavar": "RUN"})
    ] = "with"
    """Whose own answer both runs are made to say: with, without, or both in turn."""
    kinds: KindsOfOnePair = ("resample",)
    top: Positive = 3
    """Heads listed for each token."""
    noise: Positive = 8
    """Heads a token (drawn by the seed) that are patched with their own z, for the noise floor."""
    reference: Count | None = None
    """Drawn pairs over which kind `mean` averages z, made to say the same words; 0: this pair
    alone. 16 of the bundled pictures and 0 of your own, if left out. Not used with --pairs: `mean`
    is then the mean over the dataset."""


VERB = Verb(
    "trace",
    "Which heads look, and which decide, at each token of the answer?",
    TraceOptions,
    __doc__ or "",
    (TRACE, MEANS, TOKENS),
    ("trace.pt", "trace.png"),
    mark="trace.pt",
    finished="tokens",
    keeps_one=True,
)

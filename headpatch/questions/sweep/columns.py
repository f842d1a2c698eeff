"""What `headpatch sweep` writes."""

from headpatch.present.column import Column, Schema
from headpatch.present.effects_view import ANSWER_CHANGED, ANSWERS, CHANGED

IG = "-ig"
"""Marks estimates by integrated gradients, after the kind: ``resample-ig_noising``."""
_RANK = Column(
    "attention_rank",
    "place of the head in `rank`'s order (`rank.by`), 1 = largest attention difference; empty for "
    "sets and for vision heads",
    "–",
    "whole",
    optional=True,
)

EFFECTS = Schema(
    "effects.csv",
    "an intervention: a head, set or layer × kind × direction (and pair)",
    (
        *CHANGED,
        Column(
            "role",
            "`head`: one head; `set`: heads of one line of `--sets`; `layer`: all heads of a layer "
            "(`--layers`); `noise floor`: patched with their own z (a sample drawn by the seed)",
            "–",
            "text",
            key=True,
        ),
        _RANK,
        *ANSWERS,
        Column(
            "approx",
            "the first-order estimate of `effect` from gradients (`--approx` alone; empty on rows "
            "`noise floor`)",
            "logits",
            form="+.4f",
            interval=True,
            optional=True,
        ),
        Column(
            "approx_ig",
            "the estimate by integrated gradients (`--ig` alone; likewise)",
            "logits",
            form="+.4f",
            interval=True,
            optional=True,
        ),
    ),
)
_MEANS = EFFECTS.over_pairs("effects_mean.csv", ANSWER_CHANGED)
MEANS = Schema(_MEANS.file, _MEANS.row, (*_MEANS.columns, _RANK))
EDGES = Schema(
    "edges.csv",
    "an edge between two heads × direction (`--edges` alone)",
    (
        Column("pair", "which pair", "–", "text", key=True),
        Column("direction", "as in effects.csv", "–", "text", key=True),
        Column(
            "role",
            "why it was patched: `largest`, for its estimate (either of them); `random`, drawn by "
            "the seed from all edges",
            "–",
            "text",
        ),
        Column("sender", "the head whose writes the other hears as in the other run, at all "
               "tokens", "–", "text", key=True),
        Column("receiver", "the later head that hears them, at the answer position", "–", "text",
               key=True),
        Column("effect", "of the edge on LD, exact", "logits", form="+.4f"),
        Column("normalized", "as a share of the difference between the two runs", form="+.4f"),
        Column("approx", "the first-order estimate of `effect` from gradients", "logits",
               form="+.4f"),
        Column("approx_ig", "the estimate by integrated gradients (`--ig` alone)", "logits",
               form="+.4f", optional=True),
    ),
)  # fmt: skip

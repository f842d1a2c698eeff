"""What `headpatch claims` writes."""

from typing import Any

from headpatch.present.column import Column, Schema


def _text(name: str, meaning: str, **more: Any) -> Column:
    return Column(name, meaning, "–", "text", **more)


CLAIMS = Schema(
    "claims.csv",
    "a claim that the study lists",
    (
        _text("claim", "the sentence", key=True),
        _text("outcome", "`supported`, `contradicted`, `undecided` or `not testable`"),
        _text("figure", "behind it, in words"),
        _text("failed_nulls", "nulls of the verdict that failed, with semicolons; then no outcome "
              "can be taken at its word", optional=True)
    )
)  # fmt: skip
MEASURED = ("what", "figure", "pair", "value", "why_not")
"""Columns of ``followed.csv``, but for those that say of what its rows are."""
FOLLOWED = Schema(
    "followed.csv",
    "a figure of an experiment × pair, where claims needed more than the verdict",
    (
        _text("what", "was measured", key=True),
        _text("figure", "its name", key=True),
        _text("pair", "name of the pair of pictures", key=True),
        Column("value", "the figure", "normalized"),
        _text("why_not", "where nothing came of it"),
        _text("verdict", "hash of the verdict that it is beside, with these rows: rows of another "
              "verdict and rows that were changed are not reused", optional=True),
        _text("pictures", "hash of the pictures: rows of others are not reused", optional=True)
    )
)  # fmt: skip

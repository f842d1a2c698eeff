"""What `headpatch claims` writes."""

from headpatch.present.column import Column, Schema

CLAIMS = Schema(
    "claims.csv",
    "a claim that the study lists",
    (
        Column("claim", "the sentence", "–", "text", key=True),
        Column("outcome", "`supported`, `contradicted` or `not testable`", "–", "text"),
        Column("figure", "behind it, in words", "–", "text"),
        Column(
            "failed_nulls",
            "nulls of the verdict that failed, with semicolons; then no outcome can be taken at "
            "its word",
            "–",
            "text",
            optional=True,
        ),
    ),
)
MEASURED = ("what", "figure", "pair", "value", "why_not")
"""Columns of ``followed.csv``, but for those that say of what its rows are."""
FOLLOWED = Schema(
    "followed.csv",
    "a figure of an experiment × pair, where claims needed more than the verdict",
    (
        Column("what", "was measured", "–", "text", key=True),
        Column("figure", "its name", "–", "text", key=True),
        Column("pair", "name of the pair of pictures", "–", "text", key=True),
        Column("value", "the figure", "normalized"),
        Column("why_not", "where nothing came of it", "–", "text"),
        Column(
            "verdict",
            "hash of the verdict that it is beside, with these rows: rows of another verdict and "
            "rows that were changed are not reused",
            "–",
            "text",
            optional=True,
        ),
        Column(
            "pictures",
            "hash of the pictures: rows of others are not reused",
            "–",
            "text",
            optional=True,
        ),
    ),
)

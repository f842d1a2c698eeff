"""Which heads `combine` and `path` look into: named ones, or the first of rankings."""

from typing import Annotated

import typer

from headpatch.cli.options import Several, number, several

Heads = Annotated[
    str | None,
    typer.Option(
        "--heads",
        help="Named heads instead of --top and --by: 24.17,23.20 or 24.0-24.5 or layer:24 or top:5 "
        "(of the attention ranking).",
        metavar="HEADS",
    ),
]
Top = Annotated[int | None, number("--top", "Take the first N heads of each ranking.")]
By = Annotated[
    Several | None,
    several(
        "--by",
        "Rankings that --top takes heads of, comma-separated: effect (the largest exact "
        "effects of one head alone, of each direction), attention.",
        "RANKINGS",
    ),
]

"""Which heads `combine` and `path` look into: named ones, or the first of rankings."""

from typing import Annotated

import typer

from headpatch.cli.options import Several, number, several
from headpatch.errors import InputError

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


def one_choice(heads: str | None, top: int | None, by: Several | None) -> None:
    """Refuse heads that are both named and taken from rankings.

    Raises
    ------
    InputError
        If so.
    """
    for name, given in (("top", top), ("by", by)):
        if heads is not None and given is not None:
            raise InputError(f"--heads, --{name}", "both of them", "named heads, or rankings")

"""`headpatch pairs`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from headpatch.cli.options import Several, number, several
from headpatch.cli.show import Terminal, print_object, show
from headpatch.cli.verb import PRINT, Request, verb
from headpatch.pairs.manifest import NAME


@verb(
    "draw",
    PRINT | {"config", "seed"},
    {"out": "draw.folder", "picture_format": "draw.format"},
)
def pairs(
    request: Request,
    n: Annotated[
        int | None,
        number("--n", "Pairs to draw."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the pairs.", metavar="DIR")
    ] = None,
    size: Annotated[
        int | None,
        number("--size", "Width and height of a picture, in pixels."),
    ] = None,
    regions: Annotated[
        Several | None,
        several(
            "--regions",
            "Places that are asked about, comma-separated: top-left-corner, top-right-corner, "
            "bottom-left-corner, bottom-right-corner (or top-left and so on), center.",
            "NAMES",
        ),
    ] = None,
    wording: Annotated[
        list[str] | None,
        typer.Option(
            "--wording",
            help="How the question is put; {at} becomes 'in the top left corner', {shape} and "
            "{colour} the object's. Give it several times for several wordings.",
            metavar="TEXT",
        ),
    ] = None,
    picture_format: Annotated[
        str | None, typer.Option("--format", help="Of the pictures: png, jpg.", metavar="NAME")
    ] = None,
) -> None:
    r"""Draw a dataset of counterbalanced pairs, for every verb that takes --pairs.

    Two pictures a pair: with an object at the place that is asked about, and without it; all else
    is the same. The region is that place, a ninth of the picture: no other object reaches into it.
    So the right answer is Yes once and No once in each pair, and whoever always says
    Yes scores 50%. Asked place, shape, colour, size, number of other objects, background and
    wording come up equally often, and so do every two of them together, as far as --n divides:
    multiples of 100 fit well.

    Writes the pictures, manifest.csv (a row for each pair: name, with, without, question, region
    and the factors), pairs.png (the first twelve, to look at) and draw.yaml (how they were drawn).
    The same options and seed give the same pairs, byte for byte. A folder that holds another
    dataset is left alone.

    Your own pictures serve as well: write such a manifest.csv (with, without, question, region;
    further columns are kept as factors) beside them.

    Examples
    --------
    `headpatch pairs --n 20 --out pairs`

    `headpatch rank --pairs pairs --limit 8 --out rank_output`

    `headpatch pairs --n 100 --out worded --wording "Is there anything {at}?"
    --wording "Do you see a {shape} {at}?"`
    """
    study = request.study
    folder = Path(study.draw.folder)
    from headpatch.core.drawing import DRAW, SHEET, draw_dataset
    from headpatch.report import dataset_tables

    with request.stage("Drawing") as advance:
        drawn = draw_dataset(study, folder, advance).entries
    rows = [{"region": one.region.name, **one.factors} for one in drawn]
    counts = {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in rows[0]}
    written = [str(folder / name) for name in (NAME, DRAW, SHEET)]
    if request.as_json:
        print_object({"pairs": len(drawn), "factors": counts, "files": written})
        return
    console = Terminal()
    show(console, dataset_tables.design(counts))
    console.print(
        f"Wrote {len(drawn):,} pairs to {folder}: {2 * len(drawn):,} pictures, {NAME}, {DRAW}, "
        f"{SHEET}",
        soft_wrap=True,
    )

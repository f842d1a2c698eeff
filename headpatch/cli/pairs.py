"""`headpatch pairs`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headpatch.cli.app import app
from headpatch.cli.options import Config, Context, Debug, Json, Seed, study_from, whole
from headpatch.cli.show import print_object, progress, show
from headpatch.errors import InputError
from headpatch.pairs import generate
from headpatch.pairs.manifest import NAME, Manifest

_DRAW, _SHEET = "draw.yaml", "pairs.png"


@app.command()
def pairs(
    context: Context,
    n: Annotated[
        int | None,
        typer.Option("--n", parser=whole, help="Pairs to draw.", metavar="N"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the pairs.", metavar="DIR")
    ] = None,
    seed: Seed = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", parser=whole, help="Width and height of a picture, in pixels.", metavar="N"
        ),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions",
            help="What is asked about, comma-separated: top-left, top-right, bottom-left, "
            "bottom-right, center.",
            metavar="NAMES",
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
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Draw a dataset of counterbalanced pairs, for every verb that takes --pairs.

    Two pictures a pair: with an object at the place that is asked about, and without it; all else
    is the same. So the right answer is Yes once and No once in each pair, and whoever always says
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

    `headpatch rank --pairs pairs --out rank_output`

    `headpatch pairs --n 100 --out worded --wording "Is there anything {at}?"
    --wording "Do you see a {shape} {at}?"`
    """
    study = study_from(
        context,
        {
            "n": "draw.n",
            "out": "draw.folder",
            "size": "draw.size",
            "wording": "draw.wording",
            "picture_format": "draw.format",
        },
        regions="draw.regions",
    )
    options, folder = study.draw, Path(study.draw.folder)
    planned = generate.plan(options.n, study.seed, options.regions, options.wording)
    from headpatch import results
    from headpatch.report import contact, dataset_tables

    results.check_folder(folder)
    with results.staged(folder) as stage, progress("Drawing", as_json) as advance:
        rows = results.write_manifest(stage, planned, options.format)
        results.write_draw(stage / _DRAW, study)
        _refuse_another(folder, stage)
        generate.write_pictures(stage, planned, options.size, options.format, advance)
        contact.contact_sheet(Manifest.read(stage).entries, stage / _SHEET)
    factors = ("region", *planned[0].factors)
    counts = {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in factors}
    written = [str(folder / name) for name in (NAME, _DRAW, _SHEET)]
    if as_json:
        print_object({"pairs": len(planned), "factors": counts, "files": written})
        return
    console = Console()
    show(console, dataset_tables.design(counts))
    console.print(
        f"Wrote {len(planned):,} pairs to {folder}: {2 * len(planned):,} pictures, {NAME}, "
        f"{_DRAW}, {_SHEET}",
        soft_wrap=True,
        markup=False,
    )


def _refuse_another(folder: Path, stage: Path) -> None:
    """Refuse a folder that holds a dataset other than the one that is being drawn."""
    there = folder / NAME
    if not there.exists():
        return
    for name in (NAME, _DRAW):
        old = folder / name
        if not old.is_file() or old.read_bytes() != (stage / name).read_bytes():
            raise InputError(
                "--out",
                f"{there} is there, and {name} is not what these options and seed give",
                "a folder without a dataset",
                "Choose another --out, or delete the old dataset.",
            )

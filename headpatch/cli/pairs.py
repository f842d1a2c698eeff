"""`headpatch pairs`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headpatch.cli.options import Several, flag, parameter
from headpatch.cli.show import Terminal, print_object, show
from headpatch.cli.verb import Request, command
from headpatch.pairs.manifest import NAME

_REGIONS = (
    "Places that are asked about, comma-separated: top-left-corner, top-right-corner, "
    "bottom-left-corner, bottom-right-corner (or top-left and so on), center."
)
_WORDING = (
    "How the question is put; {at} becomes 'in the top left corner', {shape} and "
    "{colour} the object's. Give it several times for several wordings."
)
_FLAGS = {
    "n": flag(int, "--n", "Pairs to draw.", "N"),
    "out": flag(Path, "--out", "Folder for the pairs.", "DIR"),
    "size": flag(int, "--size", "Width and height of a picture, in pixels.", "N"),
    "regions": flag(Several, "--regions", _REGIONS, "NAMES"),
    "wording": flag(list[str], "--wording", _WORDING, "TEXT"),
    "picture_format": flag(str, "--format", "Of the pictures: png, jpg.", "NAME"),
}


def _pairs(request: Request, _: Mapping[str, Any]) -> None:
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
    further columns are kept as factors) beside them. Pairs that share pictures count as one; a
    column scene says which pairs show one scene, if you know better.

    Examples
    --------
    `headpatch pairs --n 20 --out pairs`

    `headpatch rank --pairs pairs --limit 8 --out rank_output`

    `headpatch pairs --n 100 --out worded --wording "Is there anything {at}?"
    --wording "Do you see a {shape} {at}?"`
    """
    study = request.study
    folder = Path(study.draw.folder)
    from headpatch.core.drawn_pairs import DRAW, SHEET, draw_dataset
    from headpatch.present.tables import plain_table

    with request.stage("Drawing") as advance:
        drawn = draw_dataset(study, folder, advance).entries
    rows = [{"region": one.region.name, **one.factors} for one in drawn]
    counts = {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in rows[0]}
    written = [str(folder / name) for name in (NAME, DRAW, SHEET)]
    if request.as_json:
        print_object({"pairs": len(drawn), "factors": counts, "files": written})
        return
    console = Terminal()
    table = plain_table("factor", "levels (pairs)", title="Design", wrapped=["levels (pairs)"])
    for factor, levels in counts.items():
        table.add_row(factor, ", ".join(f"{level} ({count})" for level, count in levels.items()))
    show(console, table)
    files = f"{2 * len(drawn):,} pictures, {NAME}, {DRAW}, {SHEET}"
    console.print(f"Wrote {len(drawn):,} pairs to {folder}: {files}", soft_wrap=True)


_KEYS = {name: f"draw.{name}" for name in _FLAGS} | {"out": "draw.folder"}
_KEYS["picture_format"] = "draw.format"
command(
    "pairs",
    str(_pairs.__doc__),
    [parameter(name, one) for name, one in _FLAGS.items()],
    _KEYS,
    ("config", "seed", "as_json", "debug"),
    _pairs,
)

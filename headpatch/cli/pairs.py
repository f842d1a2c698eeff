"""`headpatch pairs`: draws a dataset, or makes a table of one that is published."""

from collections import Counter
from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from headpatch.cli.options import Several, flag, parameter
from headpatch.cli.show import Terminal, print_object, show
from headpatch.cli.verb import Request, command
from headpatch.errors import InputError
from headpatch.pairs.converters import CONVERTERS
from headpatch.pairs.manifest import NAME

_REGIONS = (
    "Places that are asked about, comma-separated: corners (top-left-corner, or top-left), halves "
    "(left-half), center, image; or one box as for --region, with a --wording that names it."
)
_WORDING = (
    "How the question is put; {at} becomes 'in the top left corner', {shape} and "
    "{colour} the object's. Give it several times for several wordings."
)
_FLAGS = {
    "n": flag(int, "--n", "Pairs to draw.", "N"),
    "out": flag(Path, "--out", "Folder for the pairs.", "DIR"),
    "size": flag(int, "--size", "Width and height of a picture, in pixels.", "N"),
    "regions": flag(Several, "--regions", _REGIONS, "NAMES|BOX"),
    "wording": flag(list[str], "--wording", _WORDING, "TEXT"),
    "picture_format": flag(str, "--format", "Of the pictures: png, jpg.", "NAME"),
    "corrupt": flag(
        Several, "--corrupt", "Draw nothing: make pairs of pictures by corrupting the region of "
        "each, comma-separated: gaussian, blur, mean, inpaint.", "NAMES"
    ),
    "with_image": flag(Path, "--with", "With --corrupt: the picture.", "IMG"),
    "question": flag(str, "--question", "With --corrupt: asked of both pictures.", "TEXT"),
    "region": flag(str, "--region", "With --corrupt: where the object is.", "NAME|BOX"),
    "table": flag(
        Path, "--pairs", "With --corrupt: a table of pictures instead of one, with the columns "
        "with, question and region.", "FILE|DIR"
    ),
}  # fmt: skip
_TYPED = {"with_image": "--with", "question": "--question", "region": "--region",
          "table": "--pairs"}  # fmt: skip
"""Flags of --corrupt alone, as typed."""
_FOLDER = typer.Argument(help="With --from: the data set as it is published.", metavar="FOLDER")
_FROM = f"Make the table of a published data set in FOLDER: {', '.join(CONVERTERS)}."
_AS = (
    "With --from: pairs (manifest.csv), or rows (rows.csv: each picture with its question and "
    "right answer)."
)
_OF_PUBLISHED = {
    "published": flag(str, "--from", _FROM, "NAME"),
    "sort": flag(str, "--as", _AS, "pairs|rows"),
    "images": flag(Several, "--images", "With --from: more folders with pictures.", "DIRS"),
    "instances": flag(Path, "--instances", "With --from: COCO's file of boxes.", "FILE"),
}


def _pairs(request: Request, given: Mapping[str, Any]) -> None:
    r"""Draw a dataset of counterbalanced pairs, for every verb that takes --pairs.

    Two pictures a pair: with an object at the place that is asked about, and without it; all else
    is the same. The region is that place, as a rule a ninth of the picture: no other object reaches
    into it.
    So the right answer is Yes once and No once in each pair, and whoever always says
    Yes scores 50%. Asked place, shape, colour, size, number of other objects, background and
    wording come up equally often, and so do every two of them together, as far as --n divides:
    multiples of 100 fit well.

    Writes the pictures, manifest.csv (a row for each pair: name, with, without, question, region
    and the factors), pairs.png (the first twelve, to look at) and draw.yaml (how they were drawn).
    The same options and seed give the same pairs, byte for byte. A folder that holds another
    dataset is left alone.

    `--corrupt` makes pairs of your own pictures with the object: of one (`--with`, `--question`,
    `--region`) or of a table of them (`--pairs`). The without-picture is the same with its region
    replaced: by noise (gaussian), by a blur of itself, by the mean colour of the rest, or by its
    surroundings grown inwards (inpaint); all else stays. Each way makes a pair of its own, with its
    name in the column corruption; of one picture also a study file, such as blur.yaml, by which
    `--config` runs that pair. Look at pairs.png before you believe them.

    Your own pictures serve as well: write such a manifest.csv (with, without, question, region;
    further columns are kept as factors) beside them. Pairs that share pictures count as one; a
    column scene says which pairs show one scene, if you know better.

    With --from, nothing is drawn: a data set that you have (POPEv2, MERLIM, NaturalBench, MMVP,
    What'sUp, POPE, VSR, COCO-Counterfactuals) becomes such a table, with the pictures where they
    are; rows that make no pair are listed with their reason in skipped.csv. Nothing is downloaded.

    Examples
    --------
    `headpatch pairs --n 20 --out pairs`

    `headpatch rank --pairs pairs --limit 8 --out rank_output`

    `headpatch pairs --corrupt blur,inpaint --region 0.05,0.05,0.45,0.45 --out corrupted`

    `headpatch pairs --n 100 --out worded --wording "Is there anything {at}?"
    --wording "Do you see a {shape} {at}?"`
    """
    study = request.study
    folder = Path(study.draw.folder)
    if given["corrupt"] is not None:
        _corrupt(request, given, folder)
        return
    if extra := [typed for name, typed in _TYPED.items() if given[name] is not None]:
        raise InputError(extra[0], "of no use where pairs are drawn", "--corrupt beside it")
    if given["published"] is not None:
        _published(request, given, folder)
        return
    for name, typed in {"folder": "FOLDER", "sort": "--as", "images": "--images"}.items():
        if given[name] is not None:
            raise InputError(typed, "no data set that it belongs to", "--from as well")
    from headpatch.core.drawn_pairs import DRAW, draw_dataset, sheets
    from headpatch.present.tables import plain_table

    with request.stage("Drawing") as advance:
        drawn = draw_dataset(study, folder, advance).entries
    rows = [{"region": one.region.name, **one.factors} for one in drawn]
    counts = {name: dict(sorted(Counter(row[name] for row in rows).items())) for name in rows[0]}
    written = [str(folder / name) for name in (NAME, DRAW, *sheets(study))]
    if request.as_json:
        print_object({"pairs": len(drawn), "factors": counts, "files": written})
        return
    console = Terminal()
    table = plain_table("factor", "levels (pairs)", title="Design", wrapped=["levels (pairs)"])
    for factor, levels in counts.items():
        table.add_row(factor, ", ".join(f"{level} ({count})" for level, count in levels.items()))
    show(console, table)
    files = ", ".join((f"{2 * len(drawn):,} pictures", NAME, DRAW, *sheets(study)))
    console.print(f"Wrote {len(drawn):,} pairs to {folder}: {files}", soft_wrap=True)


def _corrupt(request: Request, given: Mapping[str, Any], folder: Path) -> None:
    """Make pairs of the study's picture, or of those of a table."""
    drawn = ("n", "size", "regions", "wording", "picture_format")
    if extra := [name for name in drawn if given[name] is not None]:
        found = f"--{extra[0].removeprefix('picture_')}"
        raise InputError(f"--corrupt, {found}", "both of them", "one of them")
    of_one = [typed for name, typed in _TYPED.items() if given[name] is not None]
    if given["table"] is not None and len(of_one) > 1:
        hint = "A table names the picture, question and region of each row itself."
        raise InputError(f"--pairs, {of_one[0]}", "both of them", "one of them", hint)
    from headpatch.core.corrupted_pairs import CORRUPT, corrupt_dataset
    from headpatch.core.drawn_pairs import sheets

    sources = given["with_image"], given["table"]
    with request.stage("Corrupting pictures") as advance:
        made = corrupt_dataset(request.study, given["corrupt"], folder, *sources, advance)
    count = len(made.entries)
    written = [str(folder / name) for name in (NAME, CORRUPT, *sheets(request.study))]
    if request.as_json:
        print_object({"pairs": count, "corruption": list(given["corrupt"]), "files": written})
        return
    words = "1 pair" if count == 1 else f"{count:,} pairs"
    files = ", ".join(("their pictures", NAME, CORRUPT, *sheets(request.study)))
    Terminal().print(f"Wrote {words} to {folder}: {files}", soft_wrap=True)
    if given["table"] is None:
        how = list(given["corrupt"])
        named = f"one of {', '.join(f'{one}.yaml' for one in how)}" if how[1:] else "it"
        Terminal().print(
            f"They are of one picture, over which no interval can be given: run {named} by itself, "
            f"with --config {folder / how[0]}.yaml",
            soft_wrap=True,
        )


_KEYS = {name: f"draw.{name}" for name in _FLAGS if name not in (*_TYPED, "corrupt")}
_KEYS |= {"out": "draw.folder", "picture_format": "draw.format"}
_KEYS |= {"question": "question", "region": "region"}


def _published(request: Request, given: Mapping[str, Any], out: Path) -> None:
    """Make the table of a published data set, and say what was skipped."""
    for name in _FLAGS.keys() - {"out"}:
        if given[name] is not None:
            named = _TYPED | {"picture_format": "--format"}
            typed = named.get(name, f"--{name}")
            raise InputError(f"--from, {typed}", "both of them", "one of them: nothing is drawn")
    if given["folder"] is None:
        raise InputError("FOLDER", "none", "the folder of the data set")
    from headpatch.core.converted_pairs import SKIPPED, convert_pairs
    from headpatch.present.tables import plain_table

    sort, images = given["sort"] or "pairs", given["images"] or ()
    place = given["folder"], out, sort, images, given["instances"]
    done = convert_pairs(given["published"], *place)
    files = [str(done.table), str(out / SKIPPED)]
    if request.as_json:
        print_object({sort: done.count, "skipped": done.skipped,
                      "factors": list(done.factors), "files": files})  # fmt: skip
        return
    console, left = Terminal(), sum(done.skipped.values())
    table = plain_table("rows", "count", title=given["published"], wrapped=["rows"])
    for what, count in {f"accepted, as {sort}": done.count, **done.skipped}.items():
        table.add_row(what, f"{count:,}")
    show(console, table)
    more = f"; {left:,} skipped, as {out / SKIPPED} says row by row" if left else ""
    console.print(f"Wrote {done.count:,} {sort} to {done.table}{more}", soft_wrap=True)


command(
    "pairs",
    str(_pairs.__doc__),
    [
        Parameter(
            "folder",
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, _FOLDER],
        ),
        *(parameter(name, one) for name, one in {**_OF_PUBLISHED, **_FLAGS}.items()),
    ],
    _KEYS,
    ("config", "width", "style", "seed", "as_json", "debug"),
    _pairs,
)

"""Pairs made of single pictures: the picture, and the same with the object's region corrupted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple, Unpack

from headpatch.core.drawn_pairs import draw_sheet
from headpatch.core.output.files import write_columns, write_yaml
from headpatch.core.output.provenance import write_corrupt
from headpatch.core.output.staging import check_folder, staged
from headpatch.core.progress import Progress, stages_of
from headpatch.core.study.keywords import CorruptKeywords
from headpatch.core.study.reading import picture
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.corrupt import CORRUPTIONS, corrupted
from headpatch.pairs.manifest import NAME, Manifest
from headpatch.pairs.pair import Picture, read_image
from headpatch.pairs.region import Region
from headpatch.pairs.rows import CONTEXT, StoredPictures, place_of, table_of, text_of
from headpatch.text import user_path

FACTOR: Final = "corruption"
"""The column that says how a pair's region was corrupted."""
CORRUPT: Final = "corrupt.yaml"  # how the pairs of a folder were made
_NEEDED: Final = ("with", "question", "region")


class _Source(NamedTuple):
    """A picture that pairs are made of."""

    picture: Picture
    cells: Mapping[str, str]  # of the manifest, by column
    region: Region
    where: str  # as messages name it


def corrupt(
    how: str | Sequence[str],
    folder: str | Path,
    image: Picture | None = None,
    study: Study | None = None,
    pairs: Any = None,
    on_progress: Progress = None,
    **options: Unpack[CorruptKeywords],
) -> Manifest:
    """Make pairs of single pictures, as ``headpatch pairs --corrupt`` does.

    Writes into a folder every picture, once for each way the same with its region corrupted, their
    table (the factor ``corruption`` says how), a sheet to look at, and how they were made. Pixels
    outside of the region stay as they are; the same arguments give the same bytes.

    Parameters
    ----------
    how
        One or several of ``gaussian``, ``blur``, ``mean`` and ``inpaint``:
        `headpatch.pairs.corrupt` says what they are.
    image
        The picture with the object, as `headpatch.make_pair` takes it; None takes the study's.
    study
        Whose picture, question, region and seed are taken; None is the default study.
    pairs
        A table of pictures in the place of the study's: its file, or rows in memory, with the
        columns ``with``, ``question`` and ``region``. Every further column is kept; ``without`` is
        of no use.
    options
        Override the study's ``question``, ``region`` and ``seed``.

    Raises
    ------
    InputError
        If an option is wrong, a region is the whole picture, or the folder holds another dataset or
        cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     made = hp.corrupt(["blur", "inpaint"], folder, region="0.1,0.1,0.4,0.4")
    ...     [(one.name, one.factors["corruption"]) for one in made.entries]
    [('1-blur', 'blur'), ('1-inpaint', 'inpaint')]
    """
    study = (study or Study()).override(options)
    ways = (how,) if isinstance(how, str) else tuple(how)
    with stages_of(on_progress)("Corrupting pictures") as advance:
        return corrupt_dataset(study, ways, user_path(folder, "folder"), image, pairs, advance)


def corrupt_dataset(
    study: Study,
    how: Sequence[str],
    folder: Path,
    image: Picture | None = None,
    pairs: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Do what `corrupt` does; never beside another dataset."""
    for one in how:
        if one not in CORRUPTIONS:
            raise InputError("--corrupt", repr(one), f"one of {', '.join(CORRUPTIONS)}")
    if not how or len({*how}) < len(how):
        found = "one of them twice" if how else "nothing"
        raise InputError("--corrupt", found, f"each once of {', '.join(CORRUPTIONS)}")
    check_folder(folder)
    study.figures.given()
    stored = StoredPictures()  # keeps pictures that were no files until all is written
    if image is not None and pairs is not None:
        raise InputError("image, pairs", "both of them", "one of them")
    sources = list(_of_one(study, image) if pairs is None else _of_table(pairs, stored))
    if not sources:
        raise InputError("--pairs", "no row", "one picture a row")
    with staged(folder, "pairs") as stage:
        rows = list[dict[str, str]]()
        for done, source in enumerate(sources, start=1):
            rows += _write(stage, f"{done:04d}", source, how, study.seed)
            if on_progress:
                on_progress(done, len(sources))
        columns = dict.fromkeys(name for row in rows for name in row)
        write_columns(stage / NAME, {name: [row.get(name, "") for row in rows] for name in columns})
        if pairs is None:
            for row in rows:
                asked = {key: row[key] for key in ("with", "without", "question", "region")}
                write_yaml(stage / f"{row[FACTOR]}.yaml", asked)
        write_corrupt(stage / CORRUPT, study.seed, how)
        _refuse_another(folder, stage)
        draw_sheet(stage, study)
    return Manifest.read(folder)


def _of_one(study: Study, image: Picture | None) -> Iterator[_Source]:
    shown = picture(study.with_) if image is None else image
    name = Path(shown).stem if isinstance(shown, str | Path) else "picture"
    cells = {"name": name, "question": study.question, "region": study.region}
    yield _Source(shown, cells, Region.parse(study.region), "--with")


def _of_table(pairs: Any, stored: StoredPictures) -> Iterator[_Source]:
    path, base, rows = table_of(
        pairs, _NEEDED, found=lambda path: path / NAME if path.is_dir() else path
    )
    for number, row in enumerate(rows, start=1):
        where = place_of(path, row.line)
        cells = {
            name: text_of(cell)
            for name, cell in row.cells.items()
            if name not in ("with", "without")
        }
        if FACTOR in cells:
            raise InputError(where, f"a column {FACTOR}", "another name: this one is written")
        if cells.get(CONTEXT):
            raise InputError(where, f"pictures in {CONTEXT}", "one picture a row")
        cells = {"name": f"{number:04d}"} | cells
        file = stored.file_of(row.cells["with"], base, f"{where}, with")
        yield _Source(file, cells, Region.parse(cells["region"], f"{where}, region"), where)


def _write(
    stage: Path, number: str, source: _Source, how: Sequence[str], seed: int
) -> Iterator[dict[str, str]]:
    """Write one picture and its corrupted twins; yield their rows of the manifest."""
    argument = source.where if source.where == "--with" else f"{source.where}, with"
    image = read_image(source.picture, argument)
    shown = f"{number}-with.png"
    _save(image, stage / shown)
    for way in how:
        region_at = "--region" if source.where == "--with" else f"{source.where}, region"
        twin, file = corrupted(image, source.region, way, seed, region_at), f"{number}-{way}.png"
        if twin.tobytes() == image.tobytes():
            found = f"{way} leaves the region {source.region.name} as it is"
            raise InputError(region_at, found, "a region that differs from what is around it")
        _save(twin, stage / file)
        name = f"{source.cells['name']}-{way}"
        yield {**source.cells, "name": name, "with": shown, "without": file, FACTOR: way}


def _save(image: Any, path: Path) -> None:
    drawn = BytesIO()  # Pillow, given a file, hides why it cannot be written
    image.save(drawn, "png")
    path.write_bytes(drawn.getvalue())


def _refuse_another(folder: Path, stage: Path) -> None:
    there = folder / NAME
    if there.exists() and there.read_bytes() != (stage / NAME).read_bytes():
        found = f"{there} is there, and is not what these pictures and options give"
        hint = "Choose another --out, or delete the old dataset."
        raise InputError("--out", found, "a folder without a dataset", hint)

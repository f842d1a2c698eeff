"""Pairs drawn into a folder: to stay, or for as long as a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Unpack

from headpatch.core.output.files import write_columns
from headpatch.core.output.provenance import write_draw
from headpatch.core.output.staging import check_folder, staged
from headpatch.core.progress import Progress, stages_of
from headpatch.core.study.keywords import DrawPairsKeywords
from headpatch.core.study.study import Study
from headpatch.disk import reporting_failure
from headpatch.errors import InputError
from headpatch.pairs import generate
from headpatch.pairs.manifest import NAME, Manifest
from headpatch.present.overlays import contact_sheet
from headpatch.text import user_path

DRAW: Final = "draw.yaml"  # how the pairs of a folder were drawn
SHEET: Final = "pairs.png"  # the first of them, to look at


def draw_pairs(
    n: int,
    folder: str | Path,
    study: Study | None = None,
    on_progress: Progress = None,
    **options: Unpack[DrawPairsKeywords],
) -> Manifest:
    """Draw `n` counterbalanced pairs into a folder, as `headpatch pairs` does.

    Writes the pictures, their table, a sheet of the first to look at, and how they were drawn. The
    same arguments give the same pairs; `headpatch.pairs.generate` says what is balanced.

    Parameters
    ----------
    study
        Whose seed and ``draw`` section are taken; None is the default study.
    options
        Override `headpatch.Study.draw`: ``regions``, ``wording``, ``size``, ``format``; and
        ``seed``.

    Raises
    ------
    InputError
        If an option is wrong, or the folder holds another dataset or cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     drawn = hp.draw_pairs(4, folder, size=64)
    ...     [(one.name, one.region.name) for one in drawn.entries][:2]
    ...     drawn.entries[0].pair().with_image.size
    [('0001', 'bottom-left-corner'), ('0002', 'top-right-corner')]
    (64, 64)
    """
    flags = {f"draw.{name}": value for name, value in options.items() if name != "seed"}
    study = (study or Study()).override({**flags, "draw.n": n, "seed": options.get("seed")})
    with stages_of(on_progress)("Drawing pairs") as advance:
        return draw_dataset(study, user_path(folder, "folder"), advance)


def draw_dataset(
    study: Study, folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Draw the study's pairs (pictures, table, `DRAW`, `SHEET`); never beside another dataset."""
    planned = _planned(study)
    check_folder(folder)
    study.figures.given()
    with staged(folder, "pairs") as stage:
        _write_table(stage, planned, study.draw.format)
        write_draw(stage / DRAW, study)
        _refuse_another(folder, stage)
        generate.write_pictures(stage, planned, study.draw.size, study.draw.format, on_progress)
        draw_sheet(stage, study)
    return Manifest.read(folder)


def draw_sheet(stage: Path, study: Study) -> None:
    """Draw the first pairs of a folder, to look at, as the study's figures are drawn."""
    entries = Manifest.read(stage).entries
    for name in sheets(study):
        contact_sheet(entries, stage / name, **study.figures.look)


def sheets(study: Study) -> tuple[str, ...]:
    """Return the names of the files of `SHEET`; pictures of pairs are no data for a table."""
    endings = [one for one in study.figures.format if one != "csv"] or ["png"]
    return tuple(f"{Path(SHEET).stem}.{one}" for one in endings)


def draw_for_once(
    study: Study, folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Draw the study's pairs into an empty folder that will not last: pictures and their table."""
    planned = _planned(study)
    with reporting_failure(folder, "TMPDIR"):
        _write_table(folder, planned, study.draw.format)
        generate.write_pictures(folder, planned, study.draw.size, study.draw.format, on_progress)
    return Manifest.read(folder)


def _planned(study: Study) -> tuple[generate.Drawn, ...]:
    options = study.draw
    asked = options.regions, options.wording, options.size
    return generate.plan(options.n, study.seed, *asked)


def _write_table(folder: Path, planned: tuple[generate.Drawn, ...], extension: str) -> None:
    rows = [pair.row(extension) for pair in planned]
    write_columns(folder / NAME, {column: [row[column] for row in rows] for column in rows[0]})


def _refuse_another(folder: Path, stage: Path) -> None:
    there = folder / NAME
    if not there.exists():
        return
    for name in (NAME, DRAW):
        old = folder / name
        if not old.is_file() or old.read_bytes() != (stage / name).read_bytes():
            found = f"{there} is there, and {name} is not what these options and seed give"
            hint = "Choose another --out, or delete the old dataset."
            raise InputError("--out", found, "a folder without a dataset", hint)

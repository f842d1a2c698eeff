"""Many pairs: drawn into a folder, and opened, each run untouched once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headpatch.core.baseline_runs import LEAST, Survey, survey
from headpatch.core.gate_view import gate
from headpatch.core.output.files import write_columns
from headpatch.core.output.provenance import write_draw
from headpatch.core.output.staging import check_folder, staged
from headpatch.core.progress import Progress, Stages, stages_of
from headpatch.core.session import model_of
from headpatch.core.share import ALONE, Share
from headpatch.core.store import Scratch
from headpatch.core.study.study import Study
from headpatch.disk import reporting_failure
from headpatch.errors import InputError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs import generate
from headpatch.pairs.manifest import NAME, Entry, Manifest
from headpatch.pairs.same_scene import need_scenes, with_scenes
from headpatch.present.overlays import contact_sheet
from headpatch.present.parts import Words
from headpatch.text import user_path

if TYPE_CHECKING:
    import pandas

DRAW: Final = "draw.yaml"  # how the pairs of a folder were drawn
SHEET: Final = "pairs.png"  # the first of them, to look at


def draw_pairs(
    n: int,
    folder: str | Path,
    study: Study | None = None,
    on_progress: Progress = None,
    **options: Any,
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
    with staged(folder, "pairs") as stage:
        _write_table(stage, planned, study.draw.format)
        write_draw(stage / DRAW, study)
        _refuse_another(folder, stage)
        generate.write_pictures(stage, planned, study.draw.size, study.draw.format, on_progress)
        contact_sheet(Manifest.read(stage).entries, stage / SHEET)
    return Manifest.read(folder)


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
    return generate.plan(options.n, study.seed, options.regions, options.wording)


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


Dataset: TypeAlias = Manifest | Iterable[object] | str | Path
"""A dataset of `headpatch.draw_pairs`, a table of pairs or its folder, or some of its entries; or
rows in memory: a table of pandas, a list of dicts, a dataset of Hugging Face's."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """A study's model, and many pairs, both pictures of each run untouched.

    What `headpatch.Session` is to one pair: `headpatch.rank`, `headpatch.ablate`,
    `headpatch.sweep`, `headpatch.combine`, `headpatch.path`, `headpatch.cut`, `headpatch.trace`,
    `headpatch.rollout` and `headpatch.verdict` take it, and answer with means and their intervals
    over the pairs.

    `survey` says how every pair did at the gate, and where heads look in those that are run;
    `positions` and `vision` where heads can be changed: what was kept of the runs hangs on it.
    """

    study: Study
    vlm: VLM
    survey: Survey
    positions: Positions | None = None
    vision: bool = False
    drawn: Scratch | None = None  # folder of pairs that were drawn for this object
    share: Share = ALONE  # which of what is done to the pairs this process does

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The pairs that are run: those that pass the gate, or all of a forced study."""
        return self.survey.entries

    @property
    def valid(self) -> bool:
        """Whether all that are run pass."""
        return self.survey.valid

    @cached_property
    def gate(self) -> "pandas.DataFrame":
        """A row for each pair, run or not: the columns of ``gate.csv``."""
        import pandas

        return pandas.DataFrame(self.survey.gate_columns())

    @property
    def summary(self) -> str:
        """How many pairs pass the gate; a forced study says so."""
        first, *_ = gate(self.survey.gate_columns(), self.study.pairs.margin)
        words = first.text if isinstance(first, Words) else ""  # a table of those that fail follows
        invalid = " INVALID STUDY: pairs that failed the gate are run."
        return words if self.valid else words + invalid


def open_pairs(
    study: Study | None = None,
    pairs: Dataset | None = None,
    n: int | None = None,
    vlm: VLM | None = None,
    positions: Positions | None = "answer",
    vision: bool = False,
    on_progress: Progress = None,
    **options: Any,
) -> Pairs:
    """Load the model (unless given), and run both pictures of every pair.

    Pairs whose two answers are not both right do not pass the gate and are left out.

    Parameters
    ----------
    pairs
        A dataset of `headpatch.draw_pairs`, your own (a table of pairs, or its folder: see
        `headpatch.Manifest`), or some of its entries. Or rows in memory, see `Manifest.of`. None
        takes the study's, or draws `n`, which last as long as what is returned. What is returned
        names the dataset in its study, ``pairs.manifest``: rows in memory by a hash, from which
        nothing can be run again.
    n
        How many pairs are drawn, where none are given.
    vlm
        Of `headpatch.load`; None loads the study's.
    positions, vision
        Where heads are to be changed, as for `headpatch.open_session`. A question that changes them
        elsewhere runs the pictures again. Pairs stay open, as many as a quarter of the free memory
        holds.
    on_progress
        Called with (done, total), in pairs: for drawn ones, if they are, then for those that run.
        None shows a bar on a terminal or in a notebook; False nothing.
    options
        Override `headpatch.Study.pairs`: ``margin``, ``level``, ``resamples``, ``limit``.

    Raises
    ------
    InputError
        If an option is wrong, a pair cannot be read or run, or fewer than two pass the gate.

    Examples
    --------
    >>> opened = hp.open_pairs(n=2, vlm=vlm)
    >>> opened.gate[["pair", "passed"]].values.tolist()[0]
    ['0001', True]
    >>> opened.summary
    'Gate: 2 of 2 pairs pass (100.0%): both answers right, LD at least 1 logits apart.'
    """
    flags = {f"pairs.{name}": value for name, value in options.items()}
    study = (study or Study()).override({**flags, "draw.n": n})
    stages = stages_of(on_progress)
    found = found_pairs(study, pairs, n, _need_two, stages)
    return run_pairs(study, found, vlm, positions, vision, stages=stages)


def ready(
    pairs: Pairs, positions: Positions | None, vision: bool = False, *, stages: Stages
) -> Pairs:
    """Return pairs in which such heads can be changed: these if they are, else run again.

    Those that pass the gate stay the same.
    """
    if (pairs.positions, pairs.vision) == (positions, vision):
        return pairs
    known = pairs.survey
    judged = pairs.study.model_copy(update={"force": True})  # the first survey was the gate
    seen = _survey(judged, pairs.vlm, known.entries, positions, vision, stages)
    seen = replace(seen, gated=known.gated, valid=known.valid, cautions=known.cautions)
    return replace(pairs, survey=seen, positions=positions, vision=vision)


def closed(seen: Survey) -> Survey:
    """Return a survey without the pairs that it holds open: what a result may keep."""
    return replace(seen, held={})


@dataclass(frozen=True)
class Found:
    """Pairs that are to be run, the folder of those that were drawn, and what others are of."""

    entries: tuple[Entry, ...]
    drawn: Scratch | None = None
    manifest: str | None = None


def found_pairs(
    study: Study,
    pairs: Dataset | None,
    n: int | None,
    need: Callable[[int, str], None],
    stages: Stages,
) -> Found:
    """Read the pairs that are given, or those of the study, or draw the study's number of them.

    `n` is how many were asked for; the study knows it already. `need` is called with a number of
    pairs (or scenes), and the argument that gave it, before they are drawn or run.
    """
    known = study.pairs.manifest if pairs is None else pairs
    if known is None:
        need(study.draw.n, "--n")
        drawn = Scratch()
        with stages("Drawing pairs") as advance:
            return Found(draw_for_once(study, drawn.path, advance).entries, drawn)
    if n is not None:
        raise InputError("n, pairs", "both of them", "one of them", "limit takes fewer of them.")
    if isinstance(known, str | Path):
        known = Manifest.read(Path(known))
    given = known if isinstance(known, Manifest) else Manifest.of(known)
    entries = with_scenes(given.take(study.pairs.limit, study.seed).entries)
    need_scenes(entries, lambda count: need(count, "--pairs"))
    return Found(entries, manifest=str(given.path))


def run_pairs(
    study: Study,
    found: Found,
    vlm: VLM | None,
    positions: Positions | None,
    vision: bool = False,
    *,
    stages: Stages,
) -> Pairs:
    """Load the model, unless it is given, and run the pairs."""
    study = study.override({"pairs.manifest": found.manifest})
    vlm = vlm or model_of(study)
    seen = _survey(study, vlm, found.entries, positions, vision, stages)
    return Pairs(study, vlm, seen, positions, vision, found.drawn)


def _need_two(count: int, argument: str) -> None:
    if count < LEAST:
        expected = f"at least {LEAST} pairs, which an interval over pairs needs"
        raise InputError(argument, str(count), expected)


def _survey(
    study: Study,
    vlm: VLM,
    entries: tuple[Entry, ...],
    positions: Positions | None,
    vision: bool,
    stages: Stages,
) -> Survey:
    hold = positions is not None or vision
    with stages("Running the pairs") as advance:
        return survey(study, vlm, entries, positions, advance, vision, hold)

"""One call for each question about many pairs of pictures."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from headpatch.analyses import verdict as verdicts
from headpatch.analyses.finished import Finished
from headpatch.analyses.halves import need_pairs
from headpatch.analyses.headline import Headline
from headpatch.analyses.nulls import failed
from headpatch.analyses.nulls import table as table_of_nulls
from headpatch.analyses.session import model_of
from headpatch.analyses.survey import Survey, survey
from headpatch.api.drawing import draw_dataset, draw_for_once
from headpatch.api.progress import Progress, stages_of
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.report.verdict_tables import headline
from headpatch.study import Study

if TYPE_CHECKING:
    import pandas


def draw_pairs(
    n: int,
    folder: str | Path,
    study: Study | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> Manifest:
    """Draw a dataset of counterbalanced pairs, as `headpatch pairs` does.

    Writes the pictures, their table, a sheet of the first to look at, and how they were drawn.

    The same arguments give the same pairs. What is balanced, and what is left to chance, says
    `headpatch.pairs.generate`.

    Parameters
    ----------
    n
        How many pairs.
    folder
        Where they are written; made if it is not there.
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
    [('0001', 'bottom-left'), ('0002', 'top-right')]
    (64, 64)
    """
    flags = {f"draw.{name}": value for name, value in options.items() if name != "seed"}
    study = (study or Study()).override({**flags, "draw.n": n, "seed": options.get("seed")})
    with stages_of(on_progress)("Drawing pairs") as advance:
        return draw_dataset(study, Path(folder), advance)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `verdict` found: every head of the language model, judged over pairs.

    Attributes
    ----------
    judgement
        Everything, with each pair's effects under ``saved``.
    survey
        How the pairs did at the gate.
    study
        As run.
    """

    judgement: verdicts.Judgement
    survey: Survey
    study: Study

    @property
    def heads(self) -> "pandas.DataFrame":
        """A row for each head: the columns of ``verdicts.csv``."""
        return self.judgement.verdicts.heads

    @property
    def partners(self) -> "pandas.DataFrame":
        """A row for each two heads that were changed together: the columns of ``partners.csv``."""
        return self.judgement.verdicts.sets

    @cached_property
    def nulls(self) -> "pandas.DataFrame":
        """A row for each figure of a null: the columns of ``nulls.csv``."""
        return table_of_nulls(self.judgement.nulls)

    @property
    def faithfulness(self) -> "pandas.DataFrame":
        """Curves of how much the first k heads of a ranking carry."""
        return self.judgement.faithfulness

    @cached_property
    def gate(self) -> "pandas.DataFrame":
        """A row for each pair: its LDs, and whether it was run."""
        import pandas

        return pandas.DataFrame(self.survey.gate_columns())

    @property
    def failed_nulls(self) -> tuple[str, ...]:
        """Nulls that failed; then nothing here can be taken at its word."""
        return tuple(failed(self.judgement.nulls))

    @property
    def headline(self) -> Headline:
        """Whether the heads that look decide, in numbers."""
        return self.judgement.headline

    @property
    def summary(self) -> str:
        """The same in words."""
        said: Any = headline(
            asdict(self.headline), self.study.verdict.delta, self.study.pairs.level
        )
        return "\n".join(str(line) for line in said.renderables)


def verdict(
    study: Study | None = None,
    pairs: Manifest | Sequence[Entry] | str | Path | None = None,
    n: int | None = None,
    vlm: VLM | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> Verdict:
    """Judge over many pairs which heads decide, and whether those that look are among them.

    Heads are chosen on one part of the pairs and judged on the other; effects carry
    intervals over pairs (B. Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987, or
    Student's t: the wider) and q-values (Y. Benjamini and Y. Hochberg, JRSS B 57, 1995); "next to
    nothing" is said only after an equivalence test (D. Schuirmann, J. Pharmacokinet. Biopharm. 15,
    1987).

    Parameters
    ----------
    study
        None is the default study.
    pairs
        A dataset of `draw_pairs`, your own (a table of pairs, or its folder: see
        `headpatch.Manifest`), or some of its entries. None takes the study's, or draws `n`.
    n
        How many pairs are drawn, where none are given.
    vlm
        Loaded by `headpatch.load`; None loads the study's.
    keep
        A folder for finished pairs, so that an interrupted verdict goes on from there; it is empty
        at the end. None keeps them only as long as the call lasts.
    on_progress
        Called with (done, total): for drawn pairs, if they are; then for the untouched runs, in
        pairs; then for the heads. None shows a bar on a terminal or in a notebook; False nothing.
    options
        Override `headpatch.Study.verdict`: ``split``, ``delta``, ``positions``, ``top``,
        ``partners``, ``controls``, ``nulls``, ``vision``, ``attribution``, …

    Raises
    ------
    InputError
        If an option is wrong, a pair cannot be read, or too few pairs pass the gate: at least 20
        judge heads.

    Examples
    --------
    >>> hp.verdict(n=10)
    Traceback (most recent call last):
        ...
    headpatch.errors.InputError: --n: 10 pairs, of which 5 would judge heads; expected at least ...
    """
    flags = {f"verdict.{name}": value for name, value in options.items()}
    study = (study or Study()).override({**flags, "draw.n": n})
    stages = stages_of(on_progress)
    with ExitStack() as stack:

        def folder(prefix: str) -> Path:
            return Path(stack.enter_context(TemporaryDirectory(prefix=f"headpatch-{prefix}-")))

        known = study.pairs.manifest if pairs is None else pairs
        if known is None:
            need_pairs(study, study.draw.n, "--n")
            with stages("Drawing pairs") as advance:
                known = draw_for_once(study, folder("pairs"), advance)
        entries = _entries(known, study)
        need_pairs(study, len(entries), "--pairs")
        finished = Finished(Path(keep) if keep is not None else folder("finished"))
        vlm = vlm or model_of(study)
        with stages("Running the pairs") as advance:
            seen = survey(study, vlm, entries, study.verdict.positions, advance, hold=True)
        need_pairs(study, len(seen.entries), "--pairs")
        with stages("Changing heads") as advance:
            found = verdicts.run(study, vlm, seen, finished, advance)
        finished.remove()
    return Verdict(found, seen, study)


def _entries(pairs: Manifest | Sequence[Entry] | str | Path, study: Study) -> tuple[Entry, ...]:
    if isinstance(pairs, str | Path):
        pairs = Manifest.read(Path(pairs))
    if isinstance(pairs, Manifest):
        return pairs.take(study.pairs.limit, study.seed).entries
    return tuple(pairs)

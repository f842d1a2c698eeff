"""One call for each question that takes many pairs of pictures."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headpatch.core.baseline_runs import Survey
from headpatch.core.dataset import Dataset, Pairs, closed, found_pairs, ready, run_pairs
from headpatch.core.drawing import draw_dataset
from headpatch.core.keeping import store_in
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.split import need_pairs
from headpatch.core.study import Study
from headpatch.errors import InputError
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Manifest
from headpatch.questions.verdict import whole as verdicts
from headpatch.questions.verdict.headline import Headline
from headpatch.questions.verdict.nulls import failed
from headpatch.questions.verdict.nulls import table as table_of_nulls
from headpatch.report.verdict_tables import headline
from headpatch.text import user_path

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
    [('0001', 'bottom-left-corner'), ('0002', 'top-right-corner')]
    (64, 64)
    """
    flags = {f"draw.{name}": value for name, value in options.items() if name != "seed"}
    study = (study or Study()).override({**flags, "draw.n": n, "seed": options.get("seed")})
    with stages_of(on_progress)("Drawing pairs") as advance:
        return draw_dataset(study, user_path(folder, "folder"), advance)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `verdict` found: every head of the language model, judged over pairs.

    Attributes
    ----------
    judgement
        Everything, with each pair's effects under ``saved``.
    pairs
        On which: how they did at the gate, and the model. None of them is kept open.
    """

    judgement: verdicts.Judgement
    pairs: Pairs

    @property
    def study(self) -> Study:
        """As run."""
        return self.pairs.study

    @property
    def survey(self) -> Survey:
        """How the pairs did at the gate."""
        return self.pairs.survey

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

    @property
    def gate(self) -> "pandas.DataFrame":
        """A row for each pair: its LDs, and whether it was run."""
        return self.pairs.gate

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


@overload
def verdict(
    study: Pairs,
    *,
    keep: str | Path | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> Verdict: ...
@overload
def verdict(
    study: Study | None = None,
    pairs: Pairs | Dataset | None = None,
    n: int | None = None,
    vlm: VLM | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
    **options: Any,
) -> Verdict: ...
def verdict(
    study: Study | Pairs | None = None,
    pairs: Pairs | Dataset | None = None,
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
        None is the default study. Pairs that are open stand for both study and pairs:
        ``hp.verdict(opened)`` is ``hp.verdict(pairs=opened)``.
    pairs
        Of `headpatch.open_pairs`, with their study and model: what was run of them is not run
        again, if they were opened for the verdict's positions. Or a dataset of `draw_pairs`, your
        own (a table of pairs, or its folder: see `headpatch.Manifest`), or some of its entries.
        None takes the study's, or draws `n`.
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
        If an option is wrong, a pair cannot be read, too few pairs pass the gate (at least 20
        judge heads), or pairs that are open come with another study, model or number.

    Examples
    --------
    >>> hp.verdict(n=10)
    Traceback (most recent call last):
        ...
    headpatch.errors.InputError: --n: 10 pairs, of which 5 would judge heads; expected at least ...
    """
    flags = {f"verdict.{name}": value for name, value in options.items()}
    stages = stages_of(on_progress)
    if isinstance(study, Pairs):
        _refuse_more(pairs=pairs)
        study, pairs = None, study
    if isinstance(pairs, Pairs):
        _refuse_more(study=study, n=n, vlm=vlm)
        opened = replace(pairs, study=pairs.study.override(flags))
        need_pairs(opened.study, len(opened.survey.gated), "--pairs")
        opened = ready(opened, opened.study.verdict.positions, stages=stages)
    else:
        study = (study or Study()).override({**flags, "draw.n": n})
        found = found_pairs(study, pairs, n, partial(need_pairs, study), stages)
        opened = run_pairs(study, found, vlm, study.verdict.positions, stages=stages)
    need_pairs(opened.study, len(opened.entries), "--pairs")
    with store_in(keep, "parts", "verdict") as store, stages("Changing heads") as advance:
        judged = verdicts.run(opened.study, opened.vlm, opened.survey, store, advance)
    return Verdict(judged, replace(opened, survey=closed(opened.survey)))


def _refuse_more(**given: object) -> None:
    """Refuse what pairs that are open bring along."""
    if more := [name for name, one in given.items() if one is not None]:
        raise InputError(
            ", ".join(more), "given beside pairs that are open", "none: they have their own"
        )

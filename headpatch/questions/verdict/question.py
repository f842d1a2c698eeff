"""The verdict of every head over many pairs, as a question."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from headpatch.core.ask import ask, origin, with_options
from headpatch.core.baseline_runs import Survey
from headpatch.core.claims_grammar import Claim, check_claims
from headpatch.core.cost import widened
from headpatch.core.dataset import Dataset, Pairs, closed, found_pairs, run_pairs
from headpatch.core.measures import check_table, ranking_name
from headpatch.core.outlook import Stage
from headpatch.core.progress import Progress, stages_of
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result, rows_of
from headpatch.core.saved_verdict import need_pairs
from headpatch.core.study.keywords import VerdictKeywords
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry, usable
from headpatch.pairs.pair import Pair
from headpatch.pairs.same_scene import need_scenes
from headpatch.questions.verdict import VERB, columns
from headpatch.questions.verdict.charts import head_names
from headpatch.questions.verdict.headline import Headline, headline_words, summarize
from headpatch.questions.verdict.judgement import Judgement, cost, run
from headpatch.questions.verdict.looks import check as check_looks
from headpatch.questions.verdict.nulls import failed
from headpatch.questions.verdict.sentences import Setting, sentence


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Result):
    """What `verdict` found: every head of the language model, judged over pairs.

    Attributes
    ----------
    judgement
        Everything, with each pair's effects under ``saved``.
    pairs
        On which: how they did at the gate, and the model. None of them is kept open.
    """

    judgement: Judgement
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
    def heads(self) -> pd.DataFrame:
        """A row for each head: the columns of ``verdicts.csv``."""
        return self.judgement.verdicts.heads

    @property
    def partners(self) -> pd.DataFrame:
        """A row for each set of heads changed together: the columns of ``partners.csv``."""
        return self.judgement.verdicts.sets

    @property
    def together(self) -> pd.DataFrame:
        """The first heads of a ranking as one set: the columns of ``together.csv``."""
        return self.judgement.together

    @property
    def factors(self) -> pd.DataFrame:
        """Effects that depend on a factor of the pairs: the columns of ``factors.csv``."""
        return self.judgement.verdicts.factors

    def sentence(self, head: str) -> str:
        """Say what is shown of a head, such as ``24.17``: size, interval, pairs, place."""
        row = self.heads[head_names(self.heads) == head]
        if row.empty:
            raise InputError("head", head, "a head of the language model, such as 24.17")
        saved = self.judgement.saved
        study = Setting.of(self.origin.context, len(saved["pairs"]))
        (only,) = rows_of(row)
        return sentence(only, study, self.factors)

    @cached_property
    def nulls(self) -> pd.DataFrame:
        """A row for each figure of a null: the columns of ``nulls.csv``."""
        return pd.DataFrame(self.judgement.nulls)

    @property
    def faithfulness(self) -> pd.DataFrame:
        """Curves of how much the first k heads of a ranking carry."""
        return self.judgement.faithfulness

    @property
    def gate(self) -> pd.DataFrame:
        """A row for each pair: its LDs, and whether it was run."""
        return self.pairs.gate

    @property
    def failed_nulls(self) -> tuple[str, ...]:
        """Nulls that failed; then nothing here can be taken at its word."""
        return tuple(failed(self.judgement.nulls))

    @cached_property
    def headline(self) -> Headline:
        """Whether the heads that look decide, in numbers."""
        saved, top = self.judgement.saved, self.study.verdict.top
        picks = ranking_name(self.study.rank.by)
        return summarize(self.heads, saved, top, len(saved["pairs"]), self.together, picks)

    @property
    def summary(self) -> str:
        """The same in words."""
        return "\n".join(headline_words(self.headline, self.origin.context))

    def files(self) -> Files:
        """Return the tables, and every pair's effects."""
        vision = self.judgement.vision
        return {
            columns.HEADS.file: self.heads,
            columns.SETS.file: self.partners,
            columns.TOGETHER.file: self.together,
            columns.FACTORS.file: self.factors,
            columns.NULLS.file: self.nulls,
            columns.CURVES.file: self.faithfulness,
            **({} if vision is None else {columns.VISION.file: vision}),
            "verdict.pt": self.judgement.saved,
        }

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the verdict."""
        return {
            "delta": self.study.verdict.delta,
            "level": self.judgement.look.rule.level,
            **self.judgement.look.facts,
            "noise_floor": self.noise_floor,
            "nulls_passed": not self.failed_nulls,
            "failed_nulls": list(self.failed_nulls),
            "nulls": self.nulls,
            "attention_delta": self.study.verdict.attention_delta,
            "headline": asdict(self.headline),
            "sentences": {
                name: self.sentence(name) for name in (*self.headline.causal, *self.headline.picked)
            },
            "redundant_sets": self.partners[self.partners["redundant"]],
        }


class Judge(Question[Verdict]):
    """Judges heads."""

    verb = VERB

    def need(self, study: Study, count: int, argument: str) -> None:
        """Refuse too few pairs to judge heads on, and looks at them that cannot be."""
        need_pairs(study, count, argument)
        check_looks(study, count)

    def check(self, study: Study) -> None:
        """Refuse a table of scores that cannot be read."""
        check_table(study.rank.by)

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse claims, whose heads are tested together, of what the model does not have."""
        check_claims(map(Claim.parse, study.claims), vlm)
        check_table(study.rank.by, vlm.lm.grid)
        if study.verdict.decide is not None:
            Selection.parse(study.verdict.decide, "--decide").resolve(vlm.lm.grid)

    def needs(self, study: Study) -> Needs:
        """Change heads at the study's positions."""
        where = study.verdict.positions
        return Needs(where, means=True, lean=where == "answer")

    def price(self, study: Study, vlm: VLM, pairs: Pair | Sequence[Entry]) -> list[Stage]:
        """Count the heads and sets that are changed if all pairs pass the gate."""
        assert not isinstance(pairs, Pair)
        rows = cost(study, vlm.lm.grid, pairs)
        passes = widened(study, vlm, pairs, rows, study.verdict.positions)
        return [Stage("Changing heads", rows, passes)]

    def answer(self, opened: Opened, call: Call) -> Verdict:
        """Judge every head on all pairs, and what each part of them chooses on the other."""
        assert isinstance(opened, Pairs)
        study, vlm = opened.study, opened.vlm
        need_pairs(study, len(opened.entries), "--pairs")
        with call.stages("Changing heads") as advance:
            judgement = run(study, vlm, opened.survey, call.store, advance, call.say, opened.share)
        facts = {"failed_nulls": failed(judgement.nulls), **judgement.look.facts}
        where = origin(VERB, opened, judgement.noise_floor, **facts)
        return Verdict(judgement, replace(opened, survey=closed(opened.survey)), origin=where)


QUESTION = Judge()


def verdict(
    study: Study | Pairs | None = None,
    pairs: Pairs | Dataset | None = None,
    n: int | None = None,
    vlm: VLM | None = None,
    keep: str | Path | None = None,
    on_progress: Progress = None,
    **options: Unpack[VerdictKeywords],
) -> Verdict:
    """Judge over many pairs which heads decide, and whether those that look are among them.

    Every head is judged on all pairs; sets of heads and rankings are chosen on one part of the
    pairs and judged on the other. Effects carry intervals over pairs (B. Efron, Better Bootstrap
    Confidence Intervals, JASA 82, 1987, or Student's t: the wider) and q-values (Y. Benjamini and
    Y. Hochberg, JRSS B 57, 1995); "small" is said only after an equivalence test of the mean (D.
    Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987) and a tolerance interval of pairs.

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
        A folder for finished pairs, from which an interrupted verdict goes on; it is empty at the
        end. None keeps them only as long as the call lasts.
    on_progress
        Called with (done, total): for pairs drawn, for the untouched runs, in pairs, then for the
        heads. None shows a bar on a terminal or in a notebook; False nothing.
    options
        Override `headpatch.Study.verdict`: ``split``, ``delta``, ``positions``, ``top``,
        ``rankings``, …; ``by`` is that of `headpatch.Study.rank`.

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
    if isinstance(study, Pairs):
        _refuse_more(pairs=pairs)
        study, pairs = None, study
    if not isinstance(study, Study | None):
        raise InputError("study", f"a {type(study).__name__}", "a study, or pairs that are open")
    flags = {f"verdict.{name}": value for name, value in options.items() if name != "by"}
    flags["rank.by"] = options.get("by")
    if isinstance(pairs, Pairs):
        _refuse_more(study=study, n=n, vlm=vlm)
        opened = with_options(pairs, flags)
        need_scenes(
            usable([one.entry for one in pairs.survey.gated]),
            lambda count: need_pairs(opened.study, count, "--pairs"),
        )
    else:
        stages = stages_of(on_progress)
        study = (study or Study()).override({**flags, "draw.n": n})
        entries = found_pairs(study, pairs, n, partial(need_pairs, study), stages)
        opened = run_pairs(study, entries, vlm, study.verdict.positions, stages=stages)
    return ask(QUESTION, opened, {}, on_progress, keep)


def _refuse_more(**given: object) -> None:
    """Refuse what pairs that are open bring along."""
    if more := [name for name, one in given.items() if one is not None]:
        beside = "given beside pairs that are open"
        raise InputError(", ".join(more), beside, "none: they have their own")

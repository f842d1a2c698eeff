"""Many pairs, opened: each run untouched once."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack

from headpatch.core.baseline_runs import LEAST, Survey, survey
from headpatch.core.drawn_pairs import draw_for_once
from headpatch.core.gate_view import gate
from headpatch.core.output.shards import Number, digest_of, joined, left_by_shards
from headpatch.core.output.staging import taken
from headpatch.core.progress import Progress, Stages, stages_of
from headpatch.core.session import model_of
from headpatch.core.share import ALONE, Shard, Share
from headpatch.core.store import Scratch, Store
from headpatch.core.study.keywords import OpenPairsKeywords
from headpatch.core.study.study import Study
from headpatch.engine.replay import recorded
from headpatch.errors import InputError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry, Manifest, usable
from headpatch.pairs.same_scene import need_scenes, with_scenes
from headpatch.present.parts import Words
from headpatch.text import html_of, user_path

if TYPE_CHECKING:
    import pandas

    from headpatch.core.workers.crew import Crew

_KEPT: Final = ".pairs"  # folder of what is kept of pairs that are opened


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
    keep: Path | None = None  # folder of what is finished of them; None: nothing is kept
    crew: "Crew | None" = None  # workers that hold the model and do all that is done to the pairs

    def __repr__(self) -> str:
        """Return a line: the model, and how many pairs are run of those that were asked."""
        asked, run = len(self.survey.gated), len(self.entries)
        return (
            f"<Pairs of {self.vlm.name}: {run:,} of {asked:,}{'' if self.valid else ', INVALID'}>"
        )

    def _repr_html_(self) -> str:
        """Return that line and the first rows of the gate, for notebooks."""
        return html_of(repr(self), self.gate.head(10))

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
    workers: int | None = None,
    ray: str | None = None,
    keep: str | Path | None = None,
    shard: str | None = None,
    **options: Unpack[OpenPairsKeywords],
) -> Pairs:
    """Load the model (unless given), and run both pictures of every pair.

    Pairs whose two answers are not both right do not pass the gate and are left out.

    Parameters
    ----------
    pairs
        A dataset of `headpatch.draw_pairs`, your own (a table of pairs, or its folder: see
        `headpatch.Manifest`), or some of its entries. Or rows in memory, see `Manifest.of`: the
        study of what is returned names them by a hash, from which nothing can be run again. None
        takes the study's, or draws `n`, which last as long as what is returned.
    n, vlm
        How many pairs are drawn, where none are given. Of `headpatch.load`, or the study's.
    positions, vision
        Where heads are to be changed, as for `headpatch.open_session`. A question that changes them
        elsewhere runs the pictures again. Pairs stay open as `headpatch.Study.pairs` says.
    on_progress
        Called with (done, total), in pairs: for drawn ones, if they are, then for those that run.
        None shows a bar on a terminal or in a notebook; False nothing.
    workers, ray
        How many processes run the pairs, and all questions of what is returned; the address of the
        Ray cluster on which they do, ``auto`` or host:port (the extra ``ray``). Each loads the
        model, onto a GPU of its own if there are any; what is returned has none of its weights. A
        cluster's machines must share ``TMPDIR``.
    keep
        A folder for what is finished of each pair, from which an interrupted call goes on; that of
        every question that is asked of what is returned, too. None keeps nothing.
    shard
        ``1/4``: every fourth pair alone is run here, and in every question; other processes run the
        others over the same `keep`. Without it, what all of them have finished is gathered.
    options
        Override `headpatch.Study.pairs`: ``margin``, ``level``, ``resamples``, ``limit``, ``hold``,
        ``record``.

    Raises
    ------
    InputError
        If an option is wrong, a pair cannot be read or run, or fewer than two pass the gate.
    Unfinished
        If other shards have pairs to run first, and do not run now.

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
    place = None if keep is None else user_path(keep, "keep")
    if workers is not None or ray is not None:
        from headpatch.core.workers.crew import opened_by_workers

        _refuse_beside_workers(vlm=vlm, shard=shard)
        kept = None if place is None else place / _KEPT
        return opened_by_workers(study, found, positions, vision, stages, workers, ray, kept)
    how = study, found, vlm, positions, vision
    if place is not None:
        return _kept_in(place, shard, *how, stages=stages)
    if shard is not None:
        raise InputError("shard", repr(shard), "keep as well: a folder that all shards share")
    return run_pairs(*how, stages=stages)


def _kept_in(
    place: Path, shard: str | None, study: Study, found: "Found", *rest: Any, stages: Stages
) -> Pairs:
    """Run pairs, or a shard of them, and keep what is finished of each."""
    digest = digest_of(study, "pairs", [entry.name for entry in found.entries])
    store, how = Store(place / _KEPT, "pairs", "keep"), (study, found, *rest)
    if shard is not None:
        which = Number.parse(shard, "shard")
        share = Shard(which, store.folder, joined(place, store.folder, which, "pairs", digest))
        return run_pairs(*how, stages=stages, store=store, share=share, keep=place)
    with taken(place, "call"):
        left_by_shards(store.folder, digest)
        opened = run_pairs(*how, stages=stages, store=store, keep=place)
        store.remove()
    return opened


def ready(
    pairs: Pairs,
    positions: Positions | None,
    vision: bool = False,
    *,
    stages: Stages,
    store: Store | None = None,
) -> Pairs:
    """Return pairs in which such heads can be changed, ranked as the study asks: these, or anew.

    Those that pass the gate stay the same.
    """
    known = pairs.survey
    if (pairs.positions, pairs.vision) == (positions, vision) and known.knows(pairs.study.rankings):
        return pairs
    judged = pairs.study.model_copy(update={"force": True})  # the first survey was the gate
    how = positions, vision, stages, store, pairs.share
    seen = _survey(judged, pairs.vlm, known.entries, *how)
    seen = replace(seen, gated=known.gated, valid=known.valid, cautions=known.cautions)
    return replace(pairs, survey=seen, positions=positions, vision=vision)


def of_one_length(pairs: Pairs) -> Pairs:
    """Return pairs without those whose two prompts are of several lengths, which gate.csv names."""
    expected = "expected two questions of as many tokens"
    lengths = {
        name: " and ".join(str(len(one)) for one in layout.partners)
        for name, layout in pairs.survey.layouts.items()
        if layout.partners
    }
    reasons = {
        name: f"question_without: prompts of {one} tokens; {expected}"
        for name, one in lengths.items()
    }
    return replace(pairs, survey=pairs.survey.without(reasons))


def closed(seen: Survey) -> Survey:
    """Return a survey without the pairs that it holds open: what a result may keep."""
    return replace(seen, open_pairs=None)


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
    need_scenes(usable(entries), lambda count: need(count, "--pairs"))
    return Found(entries, manifest=str(given.path))


def run_pairs(
    study: Study,
    found: Found,
    vlm: VLM | None,
    positions: Positions | None,
    vision: bool = False,
    *,
    stages: Stages,
    store: Store | None = None,
    share: Share = ALONE,
    keep: Path | None = None,
) -> Pairs:
    """Load the model, unless it is given, and run the pairs."""
    study = study.override({"pairs.manifest": found.manifest})
    vlm = vlm or model_of(study)
    seen = _survey(study, vlm, found.entries, positions, vision, stages, store, share)
    return Pairs(study, vlm, seen, positions, vision, found.drawn, share, keep)


def _refuse_beside_workers(**given: object) -> None:
    """Refuse what workers bring along, or have no use for."""
    for name, one in given.items():
        if one is not None:
            hint = "Workers load the model, and take all pairs."
            raise InputError(f"workers, {name}", "both of them", "one of them", hint)


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
    store: Store | None,
    share: Share,
) -> Survey:
    hold = positions is not None or vision
    with stages("Running the pairs") as advance:
        more = positions, advance, vision, hold
        with recorded(vlm, study.pairs.record):
            found = survey(study, vlm, entries, *more, store=store, share=share)
    for words in found.slow:
        warnings.warn(words, stacklevel=2)
    return found

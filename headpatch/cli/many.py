"""What long runs share: a dataset is read, every pair is run, what is finished is kept."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.cli.show import warn
from headpatch.cli.verb import Request
from headpatch.core.question import Verb
from headpatch.core.study.study import Study
from headpatch.errors import HeadpatchError, InputError, Unfinished
from headpatch.pairs.manifest import Entry, Manifest, usable

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.output.shards import Number
    from headpatch.core.share import Share
    from headpatch.core.store import Store, Unit
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM


class _Interrupted(HeadpatchError):
    exit_code = 130


def dataset(study: Study) -> tuple[Entry, ...]:
    """Read the pairs that a study runs, before any model loads."""
    from headpatch.pairs.same_scene import need_scenes, with_scenes

    assert study.pairs.manifest is not None
    found = Manifest.read(Path(study.pairs.manifest)).take(study.pairs.limit, study.seed)
    entries = with_scenes(found.entries)

    fine, refused = usable(entries), [one for one in entries if one.problem is not None]

    def need_two(count: int) -> None:
        some = Manifest(found.path, (*fine[:count], *refused))
        some.need(2, "which an interval over pairs needs")

    need_scenes(fine, need_two)
    return entries


def loaded(request: Request) -> "VLM":
    """Load the study's model."""
    from headpatch.core.session import model_of

    with request.stage("Loading the model"):
        return model_of(request.study)


def surveyed(
    request: Request,
    entries: tuple[Entry, ...],
    positions: "Positions | None",
    vlm: "VLM",
    vision: bool,
    **more: Any,
) -> "Survey":
    """Run every pair untouched, as `headpatch.core.baseline_runs.survey` does."""
    from headpatch.core.baseline_runs import survey

    with request.stage("Running the pairs") as advance:
        found = survey(request.study, vlm, entries, positions, advance, vision, **more)
    caution(found)
    return found


def caution(found: "Survey") -> None:
    """Say what is odd about pairs that were run."""
    for one in (*found.cautions, *found.slow):
        warn(one)


def opened(
    folder: Path, what: str, resume: bool | None, run: str, keys: Collection[str] | None = None
) -> "Store":
    """Open the store in a folder, as `Store.open` does, and say what an earlier run has left there.

    `what` is counted: rows, pairs.
    """
    from headpatch.core.store import Store

    store = Store(folder, what)
    store.open(resume, run, keys)
    if store.unfit:
        warn(store.unfit_words)
    if store.count and keys is None:  # who knows the keys says how much they are of all
        warn(f"{store.count:,} finished {what} were found; going on")
    return store


def divided(
    request: Request, verb: Verb, kept_in: Path, entries: "Iterable[Unit]", resume: bool | None
) -> "tuple[Share, bool | None]":
    """Return which pairs are run here, and whether what is there is gone on from.

    A shard always goes on; so does a run that gathers what shards have left.
    """
    from headpatch.core.output.shards import digest_of, joined, left_by_shards
    from headpatch.core.output.staging import check_folder
    from headpatch.core.share import ALONE, Shard

    digest = digest_of(request.study, verb.name, [entry.name for entry in entries])
    if request.shard is None:
        gathers = resume is not False and left_by_shards(kept_in, digest)
        return ALONE, gathers or resume
    check_folder(kept_in.parent)
    how = kept_in.parent, kept_in, request.shard, verb.name, digest
    request.until_the_end.enter_context(joined(*how))
    return Shard(request.shard, kept_in), True


def all_measured(which: "Number") -> Unfinished:
    """Say that a shard has nothing left to do."""
    return Unfinished(
        f"shard {which}: all pairs are measured. The same command without --shard gathers"
    )


@contextmanager
def kept(store: "Store", alone: bool = True) -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept.

    Of input that is refused before anything that counts is finished, nothing stays.
    """

    def words() -> str:
        return (
            f"{store.count:,} finished {store.what} are kept in {store.folder}: the same command "
            "with --resume goes on from there"
        )

    try:
        yield
    except Unfinished:
        raise
    except KeyboardInterrupt:
        if not store.count and not store.used:
            raise
        if not store.count:  # what costs little is gone on from without a word
            untouched = f"{len(store.used):,} untouched runs of pairs are kept in {store.folder}"
            raise _Interrupted(f"interrupted; {untouched}: the same command uses them") from None
        raise _Interrupted(f"interrupted; {words()}") from None
    except InputError as error:
        if not store.count:
            if alone:
                store.remove()
            raise
        raise error.adding(words()) from error
    except Exception:
        if store.count:
            warn(words())
        raise

"""What long runs share: a dataset is read, every pair is run, what is finished is kept."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.cli.show import warn
from headpatch.cli.verb import Request
from headpatch.core.study.study import Study
from headpatch.errors import HeadpatchError, InputError
from headpatch.pairs.manifest import Entry, Manifest

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.store import Store
    from headpatch.models.spans import Positions
    from headpatch.models.vlm import VLM


class _Interrupted(HeadpatchError):
    exit_code = 130


def dataset(study: Study, compared: bool) -> tuple[Entry, ...]:
    """Read the pairs that a study runs, before any model loads.

    Heads may be `compared` by their attention to each pair's region, which must then allow it.
    """
    from headpatch.pairs.same_scene import need_scenes, with_scenes

    assert study.pairs.manifest is not None
    found = Manifest.read(Path(study.pairs.manifest)).take(study.pairs.limit, study.seed)
    for entry in found.entries if compared else ():
        entry.region.compare(f"{entry.where}, region")
    entries = with_scenes(found.entries)

    def need_two(count: int) -> None:
        Manifest(found.path, entries[:count]).need(2, "which an interval over pairs needs")

    need_scenes(entries, need_two)
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
    for caution in found.cautions:
        warn(caution)
    if positions is not None and not found.widens:
        warn(
            f"the widening pass is not exact for {vlm.name} at positions {positions}: "
            "every row gets a forward pass of its own"
        )
    return found


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


@contextmanager
def kept(store: "Store") -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept."""

    def words() -> str:
        return (
            f"{store.count:,} finished {store.what} are kept in {store.folder}: the same command "
            "with --resume goes on from there"
        )

    try:
        yield
    except KeyboardInterrupt:
        if not store.count:
            raise
        raise _Interrupted(f"interrupted; {words()}") from None
    except InputError as error:
        if not store.count:
            raise
        raise error.adding(words()) from error
    except Exception:
        if store.count:
            warn(words())
        raise

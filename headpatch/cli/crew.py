"""A verb over pairs, answered by several workers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.cli import show
from headpatch.cli.many import caution, kept, opened
from headpatch.cli.verb import Request
from headpatch.core.question import Verb
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.core.dataset import Pairs
    from headpatch.core.labelled_rows import Rows
    from headpatch.core.question import Result
    from headpatch.core.store import Store
    from headpatch.pairs.labelled import Listed
    from headpatch.pairs.manifest import Entry


def answered_by_workers(
    request: Request,
    verb: Verb,
    folder: Path,
    entries: "Sequence[Entry] | Listed | None",
    resume: bool | None,
) -> "tuple[Pairs | Rows, Result, list[str]]":
    """Have workers open pairs, or rows, and answer a question of them; write what they found.

    Returns what `headpatch.cli.derive.answered` does; this process loads no model.
    """
    argument = "--workers" if request.ray is None else "--ray"
    if entries is None:
        raise InputError(argument, "one pair of pictures", "--pairs as well")
    from headpatch.cli.derive import written
    from headpatch.core.dataset import Found
    from headpatch.core.workers.crew import Crew
    from headpatch.pairs.labelled import Listed

    study, what = request.study, verb.finished or "pairs"
    needs = verb.question().needs(study)
    if needs.forced:
        study = study.model_copy(update={"force": True})
    where = needs.of_pairs or needs
    hold = needs.hold and (where.positions is not None or where.vision)
    with ExitStack() as stack:
        store = opened((folder / verb.kept_in).resolve(), what, resume, verb.name)
        crew = Crew(study, request.workers, request.ray)
        stack.callback(crew.close)
        stack.enter_context(kept(store))
        stack.enter_context(_counted(store))
        target: Pairs | Rows
        found: Result
        if isinstance(entries, Listed):
            asked = study, entries, store, request.stage, _say
            target, found = crew.ask_rows(verb.name, *asked)
        else:
            how = where.positions, where.vision, store, request.stage, _say
            more: dict[str, Any] = {"means": needs.means, "hold": hold, "count": needs.count}
            target = pairs = crew.open(study, Found(tuple(entries)), *how, **more)
            caution(pairs.survey)
            found = crew.ask(verb.name, pairs, store, request.stage, _say)
        crew.dismiss()
        names = written(request, verb, found, folder)
    store.remove()
    show.warn(crew.words)
    return target, found, names


@contextmanager
def _counted(store: "Store") -> Iterator[None]:
    """Count what workers have finished, if the run ends early."""
    try:
        yield
    except BaseException:
        store.recount()
        raise


def _say(text: str, _warns: bool) -> None:
    show.warn(text)

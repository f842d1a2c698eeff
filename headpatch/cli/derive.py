"""Verbs of the command line, derived from questions: flags from options, help from their words."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from headpatch.cli.options import COMMON, PICTURES, RESUME, Several, flag, parameter, with_default
from headpatch.cli.verb import Request, command
from headpatch.core.question import Verb
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.core.labelled_rows import Rows
    from headpatch.core.question import Needs, Opened, Result
    from headpatch.core.share import Share
    from headpatch.core.store import Store
    from headpatch.models.vlm import VLM
    from headpatch.pairs.labelled import Listed
    from headpatch.pairs.manifest import Entry

_OVER_PAIRS: Final = frozenset({"pairs", "limit", "hold", "shard", "workers", "ray"})
_SORTS: Final = {"text": str, "several": Several, "file": Path}
_ROOM: Final = 18  # of what a flag takes, on a help page of 80 columns
_N: Final = flag(int, "--n", "Pairs to draw, without --pairs.", "N")


def add(verb: Verb) -> None:
    """Add a question to the command line."""
    fields = {} if verb.options is None else verb.options.model_fields
    own = {name: _option(name, field) for name, field in fields.items() if name not in verb.hidden}
    extra = {one.name: flag(_SORTS[one.sort], one.flag, one.help, one.metavar)
             for one in verb.flags}  # fmt: skip
    keys = {name: f"{verb.name}.{name}" for name in own}
    if verb.draws:
        extra["n"], keys["n"] = _N, "draw.n"
    resume = RESUME if verb.finished else {}
    without = {*verb.without, *(() if verb.pairs else _OVER_PAIRS)}
    without |= PICTURES if verb.draws else set()

    def act(request: Request, given: Mapping[str, Any]) -> None:
        refuse_drawing(request, given.get("n"))
        flags = {name: given[name] for name in (*extra, *own)}
        _run(request.override(verb.keys(flags, request.study)), verb, given.get("resume"))

    flags = [parameter(name, one) for name, one in (extra | own | resume).items()]
    command(verb.name, verb.help, flags, keys, COMMON.keys() - without, act)


def _run(request: Request, verb: Verb, resume: bool | None) -> None:
    """Open the pictures, answer the question, write and show what was found."""
    verb.question().check(request.study)
    folder = request.folder() if verb.files and request.shard is None else Path(request.study.out)
    entries = entries_of(request, verb)
    target, found, names = answered(request, verb, folder, entries, resume)
    shown(request, target, found, names)


def refuse_drawing(request: Request, n: int | None) -> None:
    """Refuse pairs that are to be drawn, and to be read as well."""
    if n is not None and request.study.pairs.manifest is not None:
        hint = "--limit takes fewer of a dataset."
        raise InputError("--n, --pairs", "both of them", "one of them", hint)


def entries_of(request: Request, verb: Verb) -> "tuple[Entry, ...] | Listed | None":
    """Read the study's dataset, or draw pairs that last as long as the verb; None of one pair."""
    question, study = verb.question(), request.study
    if (listed := question.listed(study)) is not None:
        return listed
    if verb.pairs and study.pairs.manifest is not None:
        from headpatch.cli.many import dataset
        from headpatch.pairs.manifest import usable
        from headpatch.pairs.same_scene import need_scenes

        entries = dataset(study)
        need_scenes(usable(entries), lambda count: question.need(study, count, "--pairs"))
        return entries
    if not verb.draws:
        return None
    question.need(study, study.draw.n, "--n")
    from headpatch.core.drawn_pairs import draw_for_once
    from headpatch.core.output.lock import scratch_folder

    within = Path(study.out) if request.ray else None  # where all machines see them
    place = request.until_the_end.enter_context(scratch_folder(within))
    with request.stage("Drawing pairs") as advance:
        return draw_for_once(study, place, advance).entries


def answered(
    request: Request,
    verb: Verb,
    folder: Path,
    entries: "tuple[Entry, ...] | Listed | None",
    resume: bool | None,
    vlm: "VLM | None" = None,
) -> "tuple[Opened | Rows, Result, list[str]]":
    """Open the study's own pair or many, answer the question and write what was found.

    Returns what was opened, what was found, and the names of the files.
    """
    from headpatch.cli import show
    from headpatch.cli.many import all_measured, divided, kept, loaded, opened
    from headpatch.core.question import Call
    from headpatch.core.share import ALONE
    from headpatch.core.store import Store
    from headpatch.engine.replay import recorded
    from headpatch.pairs.labelled import Listed
    from headpatch.pairs.manifest import usable

    question, study, many = verb.question(), request.study, entries is not None
    if request.workers is not None or request.ray is not None:
        from headpatch.cli.crew import answered_by_workers

        return answered_by_workers(request, verb, folder, entries, resume)
    needs = question.needs(study)
    if not many:
        question.check_one(study)
    pairs = study.pair() if entries is None else entries  # refused before the model loads
    keeps = verb.finished != "" and (many or verb.keeps_one)
    kept_in = folder / verb.kept_in
    share: Share = ALONE
    if request.shard is not None and not many:
        raise InputError("--shard", "one pair of pictures", "--pairs as well")
    if entries is not None and keeps:
        share, resume = divided(request, verb, kept_in, entries, resume)
    if resume is not None and not keeps:
        raise InputError("--resume, --no-resume", "one pair of pictures", "--pairs as well")
    with ExitStack() as stack:
        call = Call(request.stage, show.warn, request.outlook.add)
        if keeps and not verb.keyed:
            store = opened(kept_in, verb.finished, resume, verb.name)
            call = replace(call, store=store)
        if keeps and verb.keyed and resume is None:
            Store(kept_in, verb.finished).open(None, verb.name)  # asks before the model loads
        vlm = vlm or loaded(request)
        if many:
            stack.enter_context(recorded(vlm, study.pairs.record))
        question.check_model(study, vlm)
        if keeps and verb.keyed and not isinstance(pairs, Listed):
            units = question.units(study, vlm, pairs, {})
            keys = units.values()
            store = opened(kept_in, verb.finished, resume, verb.name, keys)
            call = replace(call, store=store, units=units)
        if call.store is not None:
            stack.enter_context(kept(call.store, share.alone))
        if not isinstance(pairs, Listed):
            run = usable(entries) if isinstance(entries, tuple) else ()
            count = len(run) or 1
            request.outlook.announce(question.price(study, vlm, run or pairs), count)
        target = _open(request, verb, vlm, entries, needs, call.store, share)
        found = question.answer(target, call)
        if request.shard is not None:
            raise all_measured(request.shard)
        names = written(request, verb, found, folder)
    if call.store is not None:
        call.store.remove()
    return target, found, names


def written(request: Request, verb: Verb, found: "Result", folder: Path) -> list[str]:
    """Write what was found, if the verb writes anything; return the names of the files."""
    from headpatch.cli import show
    from headpatch.core.output.writing import write

    if not verb.files:
        return []
    if "effects.csv" in verb.files:
        show.say_replaced(folder, verb.name)
    with request.stage("Writing and drawing"):
        return write(found, folder)


def _open(
    request: Request,
    verb: Verb,
    vlm: "VLM",
    entries: Any,
    needs: "Needs",
    store: "Store | None",
    share: "Share",
) -> "Any":
    """Run both pictures of the study's pair, or of every pair of its dataset."""
    from headpatch.cli.many import surveyed
    from headpatch.core.dataset import Pairs
    from headpatch.core.session import open_session
    from headpatch.pairs.labelled import Listed

    study, positions, vision = request.study, needs.positions, needs.vision
    if isinstance(entries, Listed):
        return verb.question().rows(study, vlm, entries, share)
    if needs.forced:
        study = study.model_copy(update={"force": True})
    if entries is None:
        with request.stage("Running both pictures"):
            return open_session(study, vlm, positions, vision=vision)
    if needs.of_pairs is not None:
        positions, vision = needs.of_pairs.positions, needs.of_pairs.vision
    hold = needs.hold and (positions is not None or vision)
    more = {
        "hold": hold,
        "lean": needs.lean,
        "means": needs.means,
        "store": store,
        "share": share,
        "count": needs.count,
    }
    survey = surveyed(request, entries, positions, vlm, vision, **more)
    return Pairs(study, vlm, survey, positions, vision, share=share)


def shown(request: Request, target: "Opened | Rows", found: "Result", names: list[str]) -> None:
    """Show what was found, on a terminal or as JSON."""
    from headpatch.cli import show
    from headpatch.core.labelled_rows import Rows
    from headpatch.core.session import Session
    from headpatch.present import tables
    from headpatch.present.tables import renderables

    folder, origin = Path(request.study.out), found.origin
    if request.as_json:
        facts = {
            key: show.records(value) if hasattr(value, "notna") else value
            for key, value in found.json().items()
        }
        if not names or isinstance(target, Rows):
            files = {"files": [str(folder / name) for name in names]} if names else {}
            show.print_object({**facts, **files})
        elif isinstance(target, Session):
            show.print_json(target, folder, names, **facts)
        else:
            show.print_pairs(target.vlm, target.survey, folder, names, **facts)
        return
    console, question = show.Terminal(), origin.verb.question()
    show.show(console, *renderables(question.view(found.files(), origin.context)))
    if not names:
        return
    if isinstance(target, Rows):
        console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole
    elif isinstance(target, Session):
        show.print_files(console, target, folder, names, found.in_full)
    else:
        show.print_pair_files(console, request.study, target.survey, folder, names)


def _option(name: str, field: FieldInfo) -> Any:
    """Return how typer reads the flag of an option."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    held = _bare(field.annotation)
    names: tuple[str, ...] = ()
    kind, metavar = {int: (int, "N"), float: (float, "X")}.get(held, (str, "TEXT"))
    if get_origin(held) is tuple:
        kind, metavar = Several, name.upper()
    elif get_origin(held) is Literal:
        names = get_args(held)
        metavar = "|".join(names) if len("|".join(names)) <= _ROOM else "NAME"
    words, typed = " ".join((field.description or "").split()), f"--{name.replace('_', '-')}"
    if metavar == "NAME" and not all(name in words for name in names):
        words += f" One of: {', '.join(names)}."
    if held is bool:
        return flag(bool, typed, words)
    return flag(kind, typed, with_default(words, field), str(extra.get("metavar", metavar)))


def _bare(annotation: Any) -> Any:
    """Return what an option holds where it is not None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (UnionType, Union):
        held = [_bare(one) for one in get_args(annotation) if one is not type(None)]
        return next((one for one in held if get_origin(one) is tuple), held[0])  # one, or several
    return annotation

"""Verbs of the command line, derived from questions: flags from options, help from their words."""

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from headpatch.cli.app import app
from headpatch.cli.options import COMMON, Context, Resume, Several, decimal, number, whole
from headpatch.cli.verb import PICTURES, Request, request_of
from headpatch.core.study.together import refuse_both
from headpatch.core.verb import Flag, Verb
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.core.question import Needs, Opened, Result
    from headpatch.core.store import Store
    from headpatch.models.vlm import VLM
    from headpatch.pairs.manifest import Entry

_OVER_PAIRS: Final = frozenset({"pairs", "limit"})
_N: Final = Annotated[int | None, number("--n", "Pairs to draw, without --pairs.")]


def add(verb: Verb) -> None:
    """Add a question to the command line."""
    own = {name: _option(name, field) for name, field in _fields(verb).items()}
    extra = {flag.name: _flag(flag) for flag in verb.flags}
    extra |= {"n": _N} if verb.draws else {}
    resume = {"resume": Resume} if verb.finished else {}
    without = {*verb.without, *(() if verb.pairs else _OVER_PAIRS)}
    without |= PICTURES if verb.draws else set()
    common = {name: flag for name, flag in COMMON.items() if name not in without}

    def command(context: Context, **given: Any) -> None:
        refuse_both(given)
        keys = {f"{verb.name}.{name}": given[name] for name in own}
        keys |= {flag.key: given[name] for name, flag in common.items() if flag.key is not None}
        keys |= {"draw.n": given["n"]} if verb.draws else {}
        with ExitStack() as until_the_end:
            request = request_of(verb.name, keys, given, until_the_end)
            refuse_drawing(request, given.get("n"))
            flags = {name: given[name] for name in (*extra, *own)}
            request = request.override(verb.keys(flags, request.study))
            run(request, verb, given.get("resume"))

    parameters = [
        Parameter("context", Parameter.KEYWORD_ONLY, annotation=Context),
        *(_parameter(name, made) for name, made in (extra | own | resume).items()),
        *(flag.parameter(name) for name, flag in common.items()),
    ]
    vars(command)["__signature__"] = inspect.Signature(parameters)  # typer reads flags here
    command.__doc__ = verb.help
    app.command(verb.name)(command)


def run(request: Request, verb: Verb, resume: bool | None) -> None:
    """Open the pictures, answer the question, write and show what was found."""
    verb.question().check(request.study)
    folder = request.folder if verb.files else Path()
    entries = entries_of(request, verb)
    target, found, names = answered(request, verb, folder, entries, resume)
    _show(request, target, found, names)


def refuse_drawing(request: Request, n: int | None) -> None:
    """Refuse pairs that are to be drawn, and to be read as well."""
    if n is not None and request.study.pairs.manifest is not None:
        raise InputError(
            "--n, --pairs", "both of them", "one of them", "--limit takes fewer of a dataset."
        )


def entries_of(request: Request, verb: Verb) -> "tuple[Entry, ...] | None":
    """Read the study's dataset, or draw pairs that last as long as the verb; None of one pair."""
    question, study = verb.question(), request.study
    if verb.pairs and study.pairs.manifest is not None:
        from headpatch.cli.many import dataset

        entries = dataset(study, question.needs(study).compared)
        question.need(study, len(entries), "--pairs")
        return entries
    if not verb.draws:
        return None
    question.need(study, study.draw.n, "--n")
    from headpatch.core.drawing import draw_for_once
    from headpatch.core.output import scratch_folder

    place = request.until_the_end.enter_context(scratch_folder())
    with request.stage("Drawing pairs") as advance:
        return draw_for_once(study, place, advance).entries


def answered(
    request: Request,
    verb: Verb,
    folder: Path,
    entries: "tuple[Entry, ...] | None",
    resume: bool | None,
    vlm: "VLM | None" = None,
) -> "tuple[Opened, Result, list[str]]":
    """Open the pictures, answer the question and write what was found.

    Parameters
    ----------
    entries
        Pairs of pictures; None is the study's own pair.
    vlm
        None loads the study's.

    Returns
    -------
    What was opened, what was found, and the names of the files.
    """
    from headpatch.cli import show
    from headpatch.cli.kept import kept
    from headpatch.cli.many import loaded
    from headpatch.core.output.writing import write
    from headpatch.core.question import Call
    from headpatch.pairs.region import Region

    question, study, many = verb.question(), request.study, entries is not None
    needs = question.needs(study)
    if needs.compared and not many:
        Region.parse(study.region).compare()
    pairs = study.pair() if entries is None else entries  # refused before the model loads
    keeps = verb.finished != "" and (many or verb.finished != "pairs")
    if resume is not None and not keeps:
        raise InputError("--resume, --no-resume", "one pair of pictures", "--pairs as well")
    with ExitStack() as stack:
        call = Call(request.stage, show.warn)
        if keeps and not verb.keyed:
            call = replace(call, store=_store(folder, verb, resume, None))
        vlm = vlm or loaded(request)
        question.check_model(study, vlm)
        if keeps and verb.keyed:
            units = question.units(study, vlm, pairs, {})
            store = _store(folder, verb, resume, units.values())
            call = replace(call, store=store, units=units)
        target = _open(request, vlm, entries, needs)
        if call.store is not None:
            stack.enter_context(kept(call.store))
        found = question.answer(target, call)
        names: list[str] = []
        if verb.files:
            if "effects.csv" in verb.files:
                show.say_replaced(folder, verb.name)
            with request.stage("Writing and drawing"):
                names = write(found, folder)
    if call.store is not None:
        call.store.remove()
    return target, found, names


def _store(
    folder: Path, verb: Verb, resume: bool | None, keys: "Collection[str] | None"
) -> "Store":
    from headpatch.cli.kept import opened

    return opened(folder / verb.kept_in, verb.finished, resume, verb.name, keys)


def _open(request: Request, vlm: "VLM", entries: Any, needs: "Needs") -> "Opened":
    """Run both pictures of the study's pair, or of every pair of its dataset."""
    from headpatch.cli.many import surveyed
    from headpatch.core.dataset import Pairs
    from headpatch.core.session import open_session

    study, positions, vision = request.study, needs.positions, needs.vision
    if needs.forced:
        study = study.model_copy(update={"force": True})
    if entries is None:
        with request.stage("Running both pictures"):
            return open_session(study, vlm, positions, vision=vision)
    if needs.of_pairs is not None:
        positions, vision = needs.of_pairs.positions, needs.of_pairs.vision
    hold = needs.hold and (positions is not None or vision)
    vlm, survey = surveyed(request, entries, positions, vlm, vision, hold)
    return Pairs(study, vlm, survey, positions, vision)


def _show(request: Request, target: "Opened", found: "Result", names: list[str]) -> None:
    from headpatch.cli import many, show
    from headpatch.core.session import Session
    from headpatch.present.terminal import renderables

    folder, origin = request.folder_path, found.origin
    if request.as_json:
        facts = {key: _rows(value) for key, value in found.json().items()}
        if not names:
            show.print_object(facts)
        elif isinstance(target, Session):
            show.print_json(target, folder, names, **facts)
        else:
            many.print_pairs(target.vlm, target.survey, folder, names, **facts)
        return
    console, question = show.Terminal(), origin.verb.question()
    show.show(console, *renderables(question.view(found.files(), origin.context)))
    if not names:
        return
    if isinstance(target, Session):
        show.print_files(console, target, folder, names, found.in_full)
    else:
        many.finish(console, request.study, target.survey, folder, names)


def _rows(value: Any) -> Any:
    from headpatch.cli.show import records

    return records(value) if hasattr(value, "notna") else value


def _fields(verb: Verb) -> dict[str, FieldInfo]:
    fields = {} if verb.options is None else verb.options.model_fields
    return {name: field for name, field in fields.items() if name not in verb.hidden}


def _option(name: str, field: FieldInfo) -> Any:
    """Return how typer reads the flag of an option."""
    flag, extra = f"--{name.replace('_', '-')}", field.json_schema_extra
    given: Mapping[str, Any] = extra if isinstance(extra, dict) else {}
    kind = _bare(field.annotation)
    help_text = " ".join((field.description or "").split())

    def made(read: Callable[[str], object] | None, metavar: str) -> OptionInfo:
        named = str(given.get("metavar", metavar))
        option: OptionInfo = typer.Option(flag, parser=read, help=help_text, metavar=named)
        return option

    if kind is bool:
        return Annotated[bool | None, typer.Option(flag, help=help_text)]
    if kind is int:
        return Annotated[int | None, made(whole, "N")]
    if kind is float:
        return Annotated[float | None, made(decimal, "X")]
    if get_origin(kind) is tuple:
        return Annotated[Several | None, made(Several.read, f"{name.upper()}")]
    if get_origin(kind) is Literal:
        return Annotated[str | None, made(None, "|".join(get_args(kind)))]
    return Annotated[str | None, made(None, "TEXT")]


def _bare(annotation: Any) -> Any:
    """Return what an option holds where it is not None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (UnionType, Union):
        held = [one for one in get_args(annotation) if one is not type(None)]
        return _bare(held[0])
    return annotation


def _flag(flag: Flag) -> Any:
    """Return how typer reads a flag that is no option."""
    if flag.sort == "several":
        option = typer.Option(flag.flag, parser=Several.read, help=flag.help, metavar=flag.metavar)
        return Annotated[Several | None, option]
    kind = Path if flag.sort == "file" else str
    return Annotated[kind | None, typer.Option(flag.flag, help=flag.help, metavar=flag.metavar)]


def _parameter(name: str, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

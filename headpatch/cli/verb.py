"""How a verb joins the command line: it lists its own flags, and is handed what all verbs share."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, TypeAlias, TypeVar

from headpatch.cli.app import app
from headpatch.cli.options import COMMON, Context
from headpatch.cli.show import output_folder, progress, warn
from headpatch.core.study import Study
from headpatch.core.study.record import said_of
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.engine.patching import OnProgress


@dataclass(frozen=True)
class Request:
    """What a verb is asked to do.

    Attributes
    ----------
    study
        The study file, or the default study, overridden by the flags that were given.
    as_json
        One JSON object is printed, and no progress is shown.
    verb
        What is run.
    until_the_end
        Closed when the verb has ended.
    """

    study: Study
    as_json: bool
    verb: str = ""
    until_the_end: ExitStack = field(default_factory=ExitStack)

    @property
    def folder(self) -> Path:
        """The study's output folder, which is this run's until the verb has ended.

        Raises
        ------
        InputError
            If it cannot be written, or another run holds it.
        """
        folder = output_folder(self.study)  # refused before anything heavy is imported
        from headpatch.core.output import taken

        self.until_the_end.enter_context(taken(folder, self.verb))
        return folder

    @property
    def folder_path(self) -> Path:
        """The study's output folder, by name."""
        return Path(self.study.out)

    def stage(self, what: str) -> "AbstractContextManager[OnProgress]":
        """Show a bar on a terminal's stderr while something long runs."""
        return progress(what, self.as_json)

    def override(self, flags: Mapping[str, object]) -> "Request":
        """Return the request with some keys of its study changed, as `Study.override` takes them.

        Raises
        ------
        InputError
            If a key or value is wrong.
        """
        return replace(
            self, study=self.study.override({key: _value(one) for key, one in flags.items()})
        )


EVERY = frozenset(COMMON)
ONE_PAIR = EVERY - {"pairs", "limit"}
PICTURES = frozenset({"with_image", "without_image", "question", "region"})
PRINT = frozenset({"as_json", "debug"})

Verb: TypeAlias = Callable[Concatenate[Request, ...], None]
_Verb = TypeVar("_Verb", bound=Verb)


def verb(
    section: str, takes: frozenset[str] = EVERY, keys: Mapping[str, str | None] | None = None
) -> Callable[[_Verb], _Verb]:
    """Add a verb to the command line: its own flags first, then the common ones that it takes.

    The function is called with a `Request`, and with its own flags as typer read them. Most have
    no use for these: each flag that was given has overridden a key of the study.

    Parameters
    ----------
    section
        Of the study: the flag of a parameter ``top`` overrides its key ``top``.
    takes
        Which of `headpatch.cli.options.COMMON` it has.
    keys
        Parameters that override another key, and which; None: no key, the verb sees to it itself.

    Examples
    --------
    ::

        @verb("rank")
        def rank(request: Request, top: Top = None) -> None:
            print(request.study.rank.top)
    """

    def add(function: _Verb) -> _Verb:
        _, *own = inspect.signature(function).parameters.values()
        places = {one.name: f"{section}.{one.name}" for one in own} | dict(keys or {})
        places |= {name: COMMON[name].key for name in takes}

        @wraps(function, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        def command(context: Context, **given: object) -> None:
            keys = {key: given[name] for name, key in places.items() if key is not None}
            with ExitStack() as until_the_end:
                request = request_of(str(context.info_name), keys, given, until_the_end)
                function(request, **{one.name: given[one.name] for one in own})

        common = [flag.parameter(name) for name, flag in COMMON.items() if name in takes]
        context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=Context)
        flags = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own]
        # typer reads a command's flags here
        vars(command)["__signature__"] = inspect.Signature([context, *flags, *common])
        app.command()(command)
        return function

    return add


def request_of(
    name: str, keys: Mapping[str, object], given: Mapping[str, object], until_the_end: ExitStack
) -> Request:
    """Return what a verb is asked to do.

    Parameters
    ----------
    keys
        Of the study, overridden by flags; None overrides nothing.
    given
        Every flag, by parameter.
    """
    config = given.get("config")
    config = config if isinstance(config, Path) else None
    study = Study.make(config, {key: _value(value) for key, value in keys.items()}, name)
    if config is not None and (changed := said_of(config, name)):
        warn(changed)
    _warn_of_prompt(study)
    _check_pairs(name, study, given)
    return Request(study, given["as_json"] is True, name, until_the_end)


def _value(given: object) -> object:
    """Return what a study takes for a flag's value."""
    if isinstance(given, Path):
        return str(given)
    if isinstance(given, list | tuple):  # several words, or a flag that was given several times
        return tuple(given) or None
    return given


def _warn_of_prompt(study: Study) -> None:
    r"""Say how a prompt's ``\n`` of two characters is read, as YAML's single quotes leave it."""
    if study.prompt is not None and r"\n" in study.prompt:
        warn(r"prompt: each \n of two characters is taken for a line end")


def _check_pairs(name: str, study: Study, given: Mapping[str, object]) -> None:
    """Refuse flags that a dataset leaves no room for; say so if the verb runs one pair only."""
    dataset = study.pairs.manifest
    if "pairs" not in given:
        if dataset is not None and "with_image" in given:
            warn(f"{name} runs one pair: the study's own, not the dataset {dataset}")
        return
    if dataset is None and given["limit"] is not None:
        raise InputError("--limit", "no dataset to take pairs from", "--pairs as well")
    for parameter, flag in (("with_image", "with"), ("question", "question"), ("region", "region")):
        if dataset is not None and given.get(parameter) is not None:
            raise InputError(
                f"--pairs, --{flag}",
                "both of them",
                "one of them",
                "A dataset names the pictures, question and region of each pair itself.",
            )

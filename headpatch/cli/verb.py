"""How a verb joins the command line: it lists its own flags, and is handed what all verbs share."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.cli.app import Command, app
from headpatch.cli.options import COMMON, PICTURES, parameter
from headpatch.cli.show import output_folder, progress, warn
from headpatch.core.outlook import Outlook
from headpatch.core.study.options import refuse_both
from headpatch.core.study.reading import study_file
from headpatch.core.study.record import said_of
from headpatch.core.study.study import Study
from headpatch.errors import InputError

if TYPE_CHECKING:
    from headpatch.core.output.shards import Number
    from headpatch.engine.patching import OnProgress


@dataclass(frozen=True)
class Request:
    """What a verb is asked to do."""

    study: Study  # the study file, or the default study, overridden by the flags that were given
    as_json: bool  # one JSON object is printed, and no progress is shown
    verb: str
    until_the_end: ExitStack = field(default_factory=ExitStack)  # closed when the verb has ended
    workers: int | None = None  # processes that measure pairs; None: this one, if `ray` is, too
    ray: str | None = None  # address of the cluster on which they run; None: this machine
    outlook: Outlook = field(default_factory=lambda: Outlook(say=warn))  # on all stages of the verb
    shard: "Number | None" = None  # which part of the pairs is run here; None: all

    def folder(self) -> Path:
        """Take the study's output folder, which is this run's until the verb has ended."""
        folder = output_folder(self.study)  # refused before anything heavy is imported
        from headpatch.core.output.staging import taken

        self.until_the_end.enter_context(taken(folder, self.verb))
        return folder

    def stage(self, what: str) -> "AbstractContextManager[OnProgress]":
        """Show a bar on a terminal's stderr while something long runs."""
        return progress(what, self.as_json, self.outlook)

    def override(self, flags: Mapping[str, object]) -> "Request":
        """Return the request with keys of its study changed, as `Study.override` takes them."""
        values = {key: _value(one) for key, one in flags.items()}
        return replace(self, study=self.study.override(values))


def command(
    name: str,
    words: str,
    flags: Sequence[Parameter],
    keys: Mapping[str, str],
    common: Collection[str],
    act: Callable[[Request, Mapping[str, Any]], None],
) -> None:
    """Add a verb to the command line: its own flags first, then those of `COMMON` that it takes.

    `words` are its help; `keys` say which flags override a key of the study. It acts on a request
    and on its flags as typer read them.
    """
    shared = {name: one for name, one in COMMON.items() if name in common}
    places = {**keys, **{name: one.key for name, one in shared.items() if one.key is not None}}

    def run(**given: Any) -> None:
        refuse_both(given)
        if given.pop("no_resume", None):
            if given["resume"]:
                raise InputError("--resume, --no-resume", "both of them", "one of them")
            given["resume"] = False
        config = given.get("config")
        config = study_file(config) if isinstance(config, Path) else None
        changed = "" if config is None else said_of(config, name)
        with ExitStack() as until_the_end, _noting(changed) as notes:
            flags = {key: _value(given[name]) for name, key in places.items()}
            study = Study.make(config, flags, name)
            notes.extend(_odd(name, study, given))
            act(
                Request(study, given["as_json"] is True, name, until_the_end, **_parts(given)),
                given,
            )

    behind = [parameter(name, one.annotation, one.default) for name, one in shared.items()]
    # typer reads a command's flags here
    vars(run)["__signature__"] = inspect.Signature([*flags, *behind])
    run.__doc__ = words
    app.command(name, cls=Command)(run)


def _parts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read which part of the pairs is run here, or by how many workers all are."""
    shard, crew = given.get("shard"), {key: given.get(key) for key in ("workers", "ray")}
    if shard is None:
        return crew
    for typed in (f"--{key}" for key, one in crew.items() if one is not None):
        raise InputError(f"--shard, {typed}", "both of them", "one of them")
    from headpatch.core.output.shards import Number

    if given.get("resume") is False:
        hint = "The same command without --shard discards what shards have left."
        raise InputError("--shard, --no-resume", "both of them", "one of them", hint)
    return {"shard": Number.parse(str(shard))}


@contextmanager
def _noting(changed: str) -> Iterator[list[str]]:
    """Collect what is odd about the input, and say it on stderr once a verb has ended.

    Not before: a refusal is one line. It says itself if the study's file was `changed`.
    """
    notes = [changed] if changed else []
    try:
        yield notes
    except InputError as error:
        if not changed:
            raise
        raise error.adding(changed) from error
    for note in notes:
        warn(note)


def _value(given: object) -> object:
    """Return what a study takes for a flag's value."""
    if isinstance(given, Path):
        return str(given)
    if isinstance(given, list | tuple):  # several words, or a flag that was given several times
        return tuple(given) or None
    return given


def _odd(name: str, study: Study, given: Mapping[str, object]) -> Iterator[str]:
    """Refuse flags that a dataset leaves no room for; say what is taken otherwise than written."""
    if study.prompt is not None and r"\n" in study.prompt:  # as YAML's single quotes leave it
        yield r"prompt: each \n of two characters is taken for a line end"
    dataset = study.pairs.manifest
    if "pairs" not in given:
        if dataset is not None and "with_image" in given:
            yield f"{name} runs one pair: the study's own, not the dataset {dataset}"
        return
    if dataset is None and given["limit"] is not None and given.get("rows") is None:
        raise InputError("--limit", "no dataset to take pairs from", "--pairs as well")
    for own in sorted(PICTURES - {"without_image"}):
        if dataset is not None and given.get(own) is not None:
            hint = "A dataset names the pictures, question and region of each pair itself."
            flag = own.removesuffix("_image").replace("_", "-")
            raise InputError(f"--pairs, --{flag}", "both of them", "one of them", hint)

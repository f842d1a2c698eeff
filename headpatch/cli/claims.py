"""`headpatch claims`: the one verb that takes a study file in place of pictures."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headpatch.cli import many
from headpatch.cli.derive import answered, entries_of, refuse_drawing
from headpatch.cli.options import COMMON, PICTURES, RESUME, flag, parameter
from headpatch.cli.show import Terminal, print_object, show, warn
from headpatch.cli.verb import Request, command
from headpatch.core.claims_grammar import Claim, check_claims
from headpatch.errors import InputError
from headpatch.questions.claims import VERB
from headpatch.questions.verdict import VERB as VERDICT
from headpatch.text import user_path

if TYPE_CHECKING:
    from headpatch.core.study.study import Study
    from headpatch.questions.claims.case import Case


def _claims(request: Request, given: Mapping[str, Any]) -> None:
    """Judge the claims of a study file, by a verdict that is there or is run first."""
    study, folder = request.study, request.folder()
    if not study.claims:
        raise InputError(
            f"{given['config']}: claims", "none", "claims such as 'head 24.17 is necessary'"
        )
    refuse_drawing(request, given["n"])
    _need_data(study)
    from headpatch.core.output.writing import write
    from headpatch.core.saved_verdict import SavedVerdict
    from headpatch.questions.claims.case import Case
    from headpatch.questions.claims.question import QUESTION, judged

    argument, place = "--out", folder
    if given["results"] is not None:
        argument, place = "--results", user_path(given["results"], "--results")
    case: Case | None = None
    if given["results"] is not None or SavedVerdict.lies_in(folder):
        case = Case.open(study, SavedVerdict.read(place, argument), argument, folder)
    names: list[str] = []
    if case is None or case.missing:
        case, names = _complete(request, folder, case, given["resume"])
    result = judged(case)
    names = sorted([*names, *write(result, folder)])
    if request.as_json:
        print_object({**result.json(), "files": [str(folder / name) for name in names]})
        return
    from headpatch.present import tables
    from headpatch.present.tables import renderables

    console = Terminal()
    show(console, *renderables(QUESTION.view(result.files(), result.origin.context)))
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


def _need_data(study: "Study") -> None:
    """Say, of a published study whose pairs are not there, how to get them."""
    manifest, expected = study.pairs.manifest, study.expected
    if manifest is None or expected is None or not expected.data or Path(manifest).exists():
        return
    found = f"{manifest} is not there"
    hint = f"Nothing is downloaded. Get the data and make them: {expected.data}"
    raise InputError("--pairs", found, f"the pairs of {expected.source}", hint)


def _complete(
    request: Request, folder: Path, case: "Case | None", resume: bool | None
) -> "tuple[Case, list[str]]":
    """Run a verdict if there is none, and what the claims need beside it.

    Returns the claims with what was measured, and the files of the verdict if it was run.
    """
    from headpatch.core.saved_verdict import SavedVerdict
    from headpatch.questions.claims.case import Case

    asked, names = request.study, list[str]()
    if case is not None:
        request = replace(request, study=case.study)
    entries = entries_of(request, VERDICT)
    assert isinstance(entries, tuple)
    vlm = many.loaded(request)
    if case is None:
        check_claims(map(Claim.parse, asked.claims), vlm)
        warn(f"{folder} holds no verdict: headpatch verdict is run first")
        _, _, names = answered(request, VERDICT, folder, entries, resume, vlm)
        case = Case.open(asked, SavedVerdict.read(folder, "--out"), "--out", folder)
    if not case.missing:
        return case, names
    case.check(vlm)
    store = many.opened(folder / VERB.kept_in, VERB.finished, resume, "run of claims")
    warn(
        f"the claims need more than the verdict: {'; '.join(one.name for one in case.missing)}:"
        f" on each of {len(case.pairs(entries)):,} pairs, at most {case.passes(vlm):,} forward "
        "passes"
    )
    with many.kept(store), request.stage("Following claims up") as advance:
        case = case.measured(vlm, entries, store, advance)
    store.remove()
    return case, names


_CONFIG = typer.Argument(help="Study file (YAML) that lists claims.", metavar="CONFIG")
_RESULTS = "Folder of a verdict to judge by, instead of --out."
_FLAGS = (
    Parameter("config", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, _CONFIG]),
    parameter("n", flag(int, "--n", "Pairs to draw for a verdict, without --pairs.", "N")),
    parameter("results", flag(Path, "--results", _RESULTS, "DIR")),
    *(parameter(name, one) for name, one in RESUME.items()),
)
command(
    "claims",
    VERB.help,
    _FLAGS,
    {"n": "draw.n"},
    COMMON.keys() - PICTURES - {"config", "shard"},
    _claims,
)

"""`headpatch claims`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headpatch.cli import many
from headpatch.cli.judging import check_source, judge, pairs_of
from headpatch.cli.kept import kept, opened
from headpatch.cli.options import Resume, number
from headpatch.cli.show import Terminal, print_object, show, warn
from headpatch.cli.verb import EVERY, PICTURES, Request, verb
from headpatch.core.claims_grammar import Claim, check_claims
from headpatch.errors import InputError
from headpatch.text import user_path

if TYPE_CHECKING:
    from headpatch.questions.claims.claims import Case

_FINISHED = ".claims-pairs"


@verb(
    "claims",
    EVERY - PICTURES - {"config"},
    {"config": None, "n": "draw.n", "results": None, "resume": None},
)
def claims(
    request: Request,
    config: Annotated[
        Path, typer.Argument(help="Study file (YAML) that lists claims.", metavar="CONFIG")
    ],
    n: Annotated[int | None, number("--n", "Pairs to draw for a verdict, without --pairs.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", help="Folder of a verdict to judge by, instead of --out.", metavar="DIR"
        ),
    ] = None,
    resume: Resume = None,
) -> None:
    r"""Judge a study's claims: supported, contradicted, or not testable.

    A study file lists claims, one sentence each:

        claims:
          - head 24.17 is necessary            (or sufficient, causal, redundant, inhibitory, inert)
          - head 24.17 looks at the region
          - the model looks at the region
          - heads 24.17 and 23.20 are redundant          (or: heads 24.17, 23.20 and 19.31)
          - heads 24.17 and 23.20 do more together than alone            (or three or more)
          - heads 24.17 and 23.20 work together          (or: are independent)
          - layers 17-26 hold the sensitive heads        (or: the causal heads)
          - the answer reads the region in layers 17-24  (or: the question)
          - the heads of vision layer 8 are necessary
          - the heads of vision layers 8-9 matter more than those of other layers
          - vision layer 8 carries the object

    What they mean: a causal head acts for the answer (it is necessary, sufficient or redundant);
    redundant heads are necessary together, and none of them alone; heads that work together are
    both needed; the question is its words, without the answer position; a layer carries the object
    if the region's patches bring the other run's answer as they leave it, and not as they enter it.

    They are judged by the verdict in the output folder (--out, or --results); where there is none,
    `headpatch verdict` is run first, with its files. What a claim needs beside it is measured on
    some of the pairs that judge: attention to the region is cut, the stream at the region's patches
    is swapped, heads and vision layers are changed together. What is run, and its price, is said
    first. Ctrl-C keeps what is finished; the same command with `--resume` goes on.

    An interval over pairs must lie beyond, or within, the smallest effect of interest. What that
    leaves open is not testable, and the figure says why, or what is missing. Writes claims.csv and,
    where something was measured for it, followed.csv: a later run takes from there, and from the
    verdict's folder, what it need not measure again. Figures of another verdict, or of pictures
    that have changed since, are measured anew; a model with other weights than the verdict's is
    not measured.

    Examples
    --------
    `printf 'claims:\n- head 9.31 looks at the region\n- head 9.31 is causal\n' > claims.yaml`

    `headpatch claims claims.yaml --n 40 --out claims_output`
    """
    study, folder = request.study, request.folder
    if not study.claims:
        raise InputError(f"{config}: claims", "none", "claims such as 'head 24.17 is necessary'")
    check_source(request, n)
    from headpatch.core.saved_verdict import SavedVerdict
    from headpatch.questions.claims.claims import Case

    argument, place = "--out", folder
    if results is not None:
        argument, place = "--results", user_path(results, "--results")
    case: Case | None = None
    if results is not None or SavedVerdict.lies_in(folder):
        case = Case.open(study, SavedVerdict.read(place, argument), argument, folder)
    names: list[str] = []
    if case is None or case.missing:
        case, names = _complete(request, folder, case, resume)
    judged = case.judged()
    names = sorted([*names, *judged.write(folder)])
    rows = [asdict(one) for one in judged.judged]
    if request.as_json:
        files = [str(folder / name) for name in names]
        failed = list(judged.failed_nulls)
        print_object({"claims": rows, "failed_nulls": failed, "files": files})
        return
    from headpatch.present import tables
    from headpatch.report import verdict_tables

    console = Terminal()
    show(console, verdict_tables.claims(rows, judged.failed_nulls))
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


def _complete(
    request: Request, folder: Path, case: "Case | None", resume: bool | None
) -> "tuple[Case, list[str]]":
    """Run what the claims need: a verdict if there is none, and what they need beside it.

    Returns
    -------
    The claims with what was measured, and the files of the verdict if it was run.
    """
    from headpatch.core.saved_verdict import SavedVerdict
    from headpatch.questions.claims.claims import Case
    from headpatch.questions.verdict.whole import cost

    asked, names = request.study, list[str]()
    if case is not None:
        request = replace(request, study=case.study)
    with pairs_of(request) as entries:
        vlm = many.loaded(request)
        if case is None:
            check_claims(map(Claim.parse, asked.claims), vlm)
            rows = cost(request.study, vlm.lm.grid, len(entries))
            warn(
                f"{folder} holds no verdict: heads of {vlm.name} are changed on "
                f"{len(entries):,} pairs, about {rows:,} times in all"
            )
            names = judge(request, folder, entries, resume, vlm).names
            case = Case.open(asked, SavedVerdict.read(folder, "--out"), "--out", folder)
        if not case.missing:
            return case, names
        case.check(vlm)
        store = opened(folder / _FINISHED, "pairs", resume, "run of claims")
        warn(
            f"the claims need more than the verdict: {'; '.join(one.name for one in case.missing)}:"
            f" on each of {len(case.pairs(entries)):,} pairs, at most {case.passes(vlm):,} forward "
            "passes"
        )
        with kept(store), request.stage("Following claims up") as advance:
            case = case.measured(vlm, entries, store, advance)
        store.remove()
        return case, names

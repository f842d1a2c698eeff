"""`headpatch verdict`."""

from dataclasses import asdict
from typing import Annotated

import typer

from headpatch.cli import many
from headpatch.cli.judging import check_source, judge, pairs_of
from headpatch.cli.options import Resume, number, share
from headpatch.cli.show import Terminal, records, show
from headpatch.cli.verb import EVERY, PICTURES, Request, verb


@verb("verdict", EVERY - PICTURES, {"n": "draw.n", "resume": None})
def verdict(
    request: Request,
    n: Annotated[
        int | None,
        number("--n", "Pairs to draw, without --pairs."),
    ] = None,
    split: Annotated[
        float | None,
        share("--split", "Share of the pairs on which heads are chosen; the others judge them."),
    ] = None,
    delta: Annotated[
        float | None,
        share(
            "--delta",
            "Smallest effect of interest, as a share of the LD difference between the runs.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        number("--top", "Heads that attention picks out."),
    ] = None,
    partners: Annotated[
        int | None,
        number(
            "--partners",
            "Heads among which redundant ones are sought: half add most once others are gone, half "
            "have the largest effects alone.",
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="Where z is changed: answer (cheap), question, image, all (dear).",
            metavar="SCOPE",
        ),
    ] = None,
    resume: Resume = None,
) -> None:
    r"""Judge over many pairs which heads decide, and whether those that look are among them.

    Draws pairs (or takes a dataset), keeps those that the model answers rightly, and changes every
    head of the language model on each: resample and mean, noising (is it necessary?) and denoising
    (is it sufficient?). Heads are chosen on one part of the pairs and judged on the other.

    Each head gets a verdict: necessary, sufficient, both, redundant (not necessary alone, but
    together with named partners, of which none can be left out), inhibitory, watches (attends more
    when the object is there, and is shown to do next to nothing), inert, or undecided (more pairs
    are needed). An effect counts if its interval lies beyond ±--delta and it survives a
    correction over all heads; "next to nothing" takes an equivalence test.

    Redundant heads do little alone. So random sets of half and a quarter of all heads are changed,
    which shows what each head adds once others are gone; from the heads that add most, those leave
    that are not needed, until a set is left of which every head is. It is then judged on the other
    pairs.

    Nulls are run every time: a question about a wrong place, mirrored pictures, patching a head
    with itself, vision layers that the language model does not read, random heads. One that fails
    marks every output.

    Writes verdicts.csv (a row for each head), partners.csv, nulls.csv, faithfulness.csv, vision.csv
    (whole layers of the vision tower), gate.csv, verdict.pt (the effects on every pair),
    verdict.png, faithfulness.png and run.yaml.

    200 drawn pairs take the bundled model some minutes. Ctrl-C keeps finished pairs; the same
    command with `--resume` goes on and gives the same result.

    Examples
    --------
    `headpatch verdict --n 100 --out verdict_output`

    `headpatch verdict --pairs pairs --out verdict_output` (after `headpatch pairs --n 100`)
    """
    study, folder = request.study, request.folder
    check_source(request, n)
    with pairs_of(request) as entries:
        ran = judge(request, folder, entries, resume)
    survey, found = ran.survey, ran.found
    headline = asdict(found.headline)
    if request.as_json:
        many.print_pairs(
            ran.vlm,
            survey,
            folder,
            ran.names,
            delta=study.verdict.delta,
            level=study.pairs.level,
            noise_floor=found.noise_floor,
            nulls_passed=not ran.failed,
            failed_nulls=ran.failed,
            nulls=ran.nulls.to_dict("records"),
            headline=headline,
            redundant_sets=records(found.verdicts.sets[found.verdicts.sets["redundant"]]),
        )
        return
    from headpatch.core.gate_view import gate
    from headpatch.present import tables
    from headpatch.present.terminal import renderables
    from headpatch.report import verdict_tables

    console = Terminal()
    named = dict.fromkeys([*found.headline.causal, *found.headline.picked])
    options, level = study.verdict, study.pairs.level
    show(console, *renderables(gate(survey.gate_columns(), study.pairs.margin)))
    if not survey.valid:
        console.print("INVALID STUDY: pairs that failed the gate were run.", style="bold red")
    many.say_cut_away(console, survey)
    show(
        console,
        verdict_tables.nulls(ran.nulls),
        verdict_tables.heads(found.verdicts.heads, list(named), level, options.delta),
        verdict_tables.together(found.verdicts.sets, found.verdicts.heads, level),
        verdict_tables.areas(found.faithfulness),
        verdict_tables.headline(headline, options.delta, level),
    )
    console.print(tables.files(str(folder), ran.names), soft_wrap=True)  # paths stay whole

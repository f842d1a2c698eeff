"""`headpatch trace`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headpatch.cli import many
from headpatch.cli.kept import kept, opened
from headpatch.cli.options import Alpha, Directions, Kinds, Resume, number
from headpatch.cli.price import announce_plain
from headpatch.cli.show import Terminal, print_files, print_json, show
from headpatch.cli.verb import Request, verb
from headpatch.core.study.together import refuse_both
from headpatch.pairs.manifest import Entry

if TYPE_CHECKING:
    from headpatch.core.store import Store

_TOKENS = ".trace-tokens"

Answer = Annotated[
    str | None,
    typer.Option(
        "--answer",
        help="What both runs are made to say, instead of a run's own answer.",
        metavar="TEXT",
    ),
]
Tokens = Annotated[
    int | None,
    number("--tokens", "At most so many tokens of it."),
]


@verb("trace", keys={"resume": None})
def trace(
    request: Request,
    answer: Answer = None,
    forced: Annotated[
        str | None,
        typer.Option(
            "--forced",
            help="Whose own answer both runs are made to say: with, without, or both in turn.",
            metavar="RUN",
        ),
    ] = None,
    tokens: Tokens = None,
    kinds: Kinds = None,
    alpha: Alpha = None,
    directions: Directions = None,
    top: Annotated[
        int | None,
        number("--top", "Heads listed for each token."),
    ] = None,
    noise: Annotated[
        int | None,
        number("--noise", "Heads a token that are patched with their own z, for the noise floor."),
    ] = None,
    reference: Annotated[
        int | None,
        number(
            "--reference",
            "Drawn pairs over which kind `mean` averages z, made to say the same words; 0: "
            "this pair alone. Not used with --pairs: `mean` is then the mean over the dataset.",
        ),
    ] = None,
    resume: Resume = None,
) -> None:
    """Trace an answer token by token: which heads look at the region, which move the token.

    Both runs are made to say the same answer, by default that of the with-run. For every token,
    from the position before it: each head's attention to the region in both runs, and the effect
    of giving that head the other run's z there, for every head, exactly (a sweep a token).

    An effect is measured on logit(token) - logit(rival), the rival being the token that a run
    would say instead after the same words; on logit(token) where both runs would say it. Such a
    token, a comma for instance, is a control: where its log-probability does not move, its heads
    decide nothing. trace.csv has all three measures.

    A head acts here through one position. What it has written into the earlier tokens of the
    answer or the question is left as it was.

    Kind `mean` puts the mean of z there: over drawn pairs asked the same question and made to say
    the same words up to the token, so that the picture is averaged away and the words stay.

    Prints each token with its first heads by attention and by effect. Writes trace.csv (a row for
    every token, kind, direction and head; beside each effect the mean and deviation of the other
    heads of its layer), trace.pt (the same as tensors, tokens x layers x heads), trace.png and
    run.yaml.

    With `--pairs`: every pair of a dataset that passes the gate (both answers right), each saying
    its own answer; means with intervals over pairs. Tokens of different answers are
    averaged where they stand in the same slot: the answers are laid side by side as sequences of
    tokens, and in a stretch where they differ (a shape, a place) the first token stands for the
    first. A contrast is averaged over those pairs that have a rival; a slot that one pair alone
    has gets no interval. Kind `mean` is the mean over the dataset's pairs at the slot, each asked
    its own question and having said its own words. Writes trace_mean.csv (a row for every slot,
    kind, direction and head), trace_tokens.csv (every pair's tokens: what was averaged), gate.csv,
    trace.pt (with each pair's effects), trace.png and run.yaml.

    Ctrl-C keeps finished tokens; the same command with `--resume` goes on and gives the same
    result.

    Examples
    --------
    `headpatch trace --tokens 3 --out trace_output`

    `headpatch trace --answer "Yes, there is a triangle" --directions denoising`

    `headpatch trace --pairs pairs --limit 3 --tokens 3` (after `headpatch pairs --n 20`)
    """
    refuse_both({"answer": answer, "forced": forced})
    study, folder = request.study, request.folder
    entries = None if study.pairs.manifest is None else many.dataset(study)
    store = opened(folder / _TOKENS, "tokens", resume, "trace")
    with kept(store):
        if entries is None:
            _one(request, folder, store)
        else:
            _many(request, folder, entries, store)


def _one(request: Request, folder: Path, store: "Store") -> None:
    from headpatch.core import output as results
    from headpatch.core.session import open_session
    from headpatch.questions.trace import one as analysis
    from headpatch.report import draw
    from headpatch.report.trace_tables import trace_summary, trace_tables

    with request.stage("Running both pictures"):
        session = open_session(request.study, positions="answer")
    announce_plain(session)
    traced = analysis.trace(session, request.stage, store)
    with results.staged(folder, "trace") as stage, request.stage("Writing and drawing"):
        results.write_trace(stage, session, traced)
        draw.draw_trace(stage)
        names = sorted(file.name for file in stage.iterdir())
    store.remove()
    summaries = traced.summaries()
    summary = trace_summary(summaries, session.valid)
    if request.as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=traced.noise_floor,
            answers={one.source: one.text for one in traced.own},
            tokens=summaries,
            summary=summary,
        )
        return
    console = Terminal()
    show(console, trace_tables(summaries), summary)
    print_files(console, session, folder, names)


def _many(request: Request, folder: Path, entries: tuple[Entry, ...], store: "Store") -> None:
    from headpatch.core import output as results
    from headpatch.questions.trace import many as analysis
    from headpatch.report import draw
    from headpatch.report.trace_tables import trace_summary, trace_tables

    study = request.study
    vlm, survey = many.surveyed(request, entries, "answer")
    traced = analysis.run(study, vlm, survey, store, request.stage)
    with results.staged(folder, "trace") as stage, request.stage("Writing and drawing"):
        tables = {"trace_mean.csv": traced.table(), "trace_tokens.csv": traced.said()}
        results.write_pairs(stage, study, vlm, survey, tables, traced.noise_floor)
        results.write_tensors(stage / "trace.pt", traced.saved())
        draw.draw_trace(stage)
        names = sorted(file.name for file in stage.iterdir())
    store.remove()
    summaries = traced.summaries()
    summary = trace_summary(summaries, survey.valid, len(survey.entries))
    if request.as_json:
        found = {"noise_floor": traced.noise_floor, "tokens": summaries, "summary": summary}
        many.print_pairs(vlm, survey, folder, names, level=study.pairs.level, **found)
        return
    console = Terminal()
    show(console, trace_tables(summaries, study.pairs.level), summary)
    many.finish(console, study, survey, folder, names)

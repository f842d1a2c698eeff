"""`headpatch cut`."""

from itertools import product
from typing import Annotated

import typer

from headpatch.cli.options import Several, Window, number, several
from headpatch.cli.price import announce_cuts
from headpatch.cli.show import Terminal, print_files, print_json, records, show
from headpatch.cli.verb import ONE_PAIR, Request, verb
from headpatch.errors import InputError


@verb("cut", ONE_PAIR, {"queries": None, "keys": None, "edges": None})
def cut(
    request: Request,
    queries: Annotated[
        Several | None,
        several(
            "--from",
            "Which tokens no longer look, comma-separated: answer, question (every token "
            "after the image), words (those but the answer), image, region, other (the image "
            "outside the region), all.",
            "NAMES",
        ),
    ] = None,
    keys: Annotated[
        Several | None,
        several("--to", "At which tokens; the same names.", "NAMES"),
    ] = None,
    edges: Annotated[
        Several | None,
        several(
            "--edges",
            "Several at once, from-to: answer-region,question-other. Instead of --from, --to.",
            "EDGES",
        ),
    ] = None,
    window: Window = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", help="One fixed span of layers instead: 10-14.", metavar="FIRST-LAST"
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads instead, one by one and jointly: 24.17,23.20 or 24.0-24.31 or layer:24 or "
            "top:5 (of the attention ranking).",
            metavar="HEADS",
        ),
    ] = None,
    controls: Annotated[
        int | None,
        number("--controls", "Random sets of image tokens outside the region to compare with."),
    ] = None,
    itself: Annotated[
        bool | None,
        typer.Option("--itself", help="Cut a token's view of its own position too."),
    ] = None,
) -> None:
    """Cut attention between named tokens and measure the shift of LD = logit(Yes) - logit(No).

    In both runs, for all heads of a window of layers that moves through the model (attention
    knockout, Geva et al. 2023), for fixed layers, or for single heads; beside the same cut of as
    many random image tokens, and the noise floor. A token keeps its own position unless --itself
    is given; one that loses every key gets z = 0. Writes cuts.csv, cuts.png and run.yaml.

    The cost is printed before the run. A pass starts at the first layer that is cut, where the
    model allows it; else every cut takes a whole one.

    Examples
    --------
    `headpatch cut --from answer --to region --layers 20-23 --out cut_output`

    `headpatch cut --from answer,question --to region --window 5`
    """
    request = request.override({"cut.edges": _edges(queries, keys, edges)})
    study, folder = request.study, request.folder
    from headpatch.core import output as results
    from headpatch.core.ranking import order
    from headpatch.core.session import open_session
    from headpatch.questions.cut import one as analysis
    from headpatch.report import draw
    from headpatch.report.cut_tables import cut_tables

    with request.stage("Running both pictures"):
        session = open_session(study, positions="question")
        job = analysis.prepare(session, lambda: order(session))
    price = job.passes(session)
    announce_cuts(session, job, price)
    with request.stage("Cutting edges") as advance:
        found = analysis.run(session, job, advance)
    with results.staged(folder, "cut") as stage, request.stage("Drawing"):
        results.write_cuts(stage, session, found)
        pair = session.pair
        draw.draw_cuts(stage, pair.question, pair.region.name, session.valid)
        names = sorted(file.name for file in stage.iterdir())
    if request.as_json:
        print_json(
            session,
            folder,
            names,
            noise_floor=found.noise_floor,
            forward_passes=price,
            resumed=found.resumed,
            cuts=records(found.named),
            summary=found.summary,
        )
        return
    console = Terminal()
    show(console, cut_tables(found.named, found.noise_floor), found.summary)
    print_files(console, session, folder, names)


def _edges(queries: Several | None, keys: Several | None, edges: Several | None) -> Several | None:
    """Join every ``--from`` with every ``--to``."""
    if queries is None and keys is None:
        return edges
    if edges is not None:
        raise InputError("--edges", "--from or --to beside it", "either --edges or both of them")
    if queries is None or keys is None:
        raise InputError("--from, --to", "only one of them", "both ends of the edge")
    return Several("-".join(ends) for ends in product(queries, keys))

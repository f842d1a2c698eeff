"""`headpatch rollout`."""

from typing import Annotated

import typer

from headpatch.cli.options import number
from headpatch.cli.show import Terminal, print_files, print_json, records, show
from headpatch.cli.trace import Answer, Tokens
from headpatch.cli.verb import ONE_PAIR, Request, verb
from headpatch.core.study.together import refuse_both


@verb("rollout", ONE_PAIR)
def rollout(
    request: Request,
    token: Annotated[
        int | None,
        number("--token", "Which token of the answer, counted from 0."),
    ] = None,
    answer: Answer = None,
    forced: Annotated[
        str | None,
        typer.Option(
            "--forced",
            help="Whose own answer both runs are made to say: with, without.",
            metavar="RUN",
        ),
    ] = None,
    tokens: Tokens = None,
    draws: Annotated[
        int | None,
        number("--draws", "Random orders of the patches to compare the maps with."),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(
            "--fill",
            help="What stands in a deleted patch: other (the other picture, at that place), mean "
            "(the picture's mean colour).",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Map where a token of the answer comes from, over both pictures, and check the maps.

    Two methods, each followed back from the answer position through the language model to the
    image tokens, and on through the vision tower to the patches: attention rollout (Abnar &
    Zuidema 2020) and relevance, attention weighted by its gradient (Chefer et al. 2021). With
    `--token 3`, both runs have been made to say the tokens before it.

    Maps persuade whether or not they are right, so they are tested: patches are deleted in a map's
    order, and shown alone in that order, and LD = logit(token) - logit(the token that a run would
    say instead) is watched, beside random orders and the region's own patches. In a deleted patch
    stands the other picture of the pair. That keeps every picture possible, and all patches
    together give the other run; a grey patch may itself be an object (`--fill mean` shows it).

    Rollout knows where attention goes, not what it carries: tokens without content that draw
    attention (attention sinks) get weight, and where tokens see only earlier ones the first tokens
    gather it layer by layer. So a rollout may point at the first patches, the top left corner,
    whatever is there. A vision tower's class token is followed, but has no
    place in the picture; what ends there is given beside the maps. For towers that see a picture
    in parts, maps stop at the image tokens.

    Writes rollout.csv (every patch's value), perturbation.csv (LD of every picture tried),
    rollout.pt, rollout.png, perturbation.png and run.yaml.

    Example: `headpatch rollout --token 0 --draws 5 --out rollout_output`
    """
    refuse_both({"answer": answer, "forced": forced})
    folder = request.folder
    from headpatch.core import output as results
    from headpatch.core.session import open_session
    from headpatch.questions.rollout.one import roll_out
    from headpatch.report import draw
    from headpatch.report.rollouts import rollout_summary, rollout_tables

    with request.stage("Running both pictures"):
        session = open_session(request.study)
    with request.stage("Replacing patches") as advance:
        found = roll_out(session, advance)
    check = found.check
    with results.staged(folder, "rollout") as stage, request.stage("Drawing"):
        results.write_rollout(stage, session, found)
        draw.draw_rollout(stage)
        written = sorted(file.name for file in stage.iterdir())
    areas = records(check.areas) if check is not None else []
    summary = rollout_summary(areas, found.unchecked, session.valid)
    if request.as_json:
        print_json(
            session,
            folder,
            written,
            answer=found.answer.text,
            token=found.token,
            rival=found.rival,
            noise_floor=None if check is None else check.noise_floor,
            maps=found.regions(),
            check=areas,
            summary=summary,
        )
        return
    console = Terminal()
    show(console, found.title, rollout_tables(found.regions(), areas), summary)
    print_files(console, session, folder, written)

"""`headpatch rank`."""

from typing import Annotated

from headpatch.cli import rank_many
from headpatch.cli.options import number
from headpatch.cli.show import Terminal, print_files, print_json, show, show_answers
from headpatch.cli.verb import Request, verb


@verb("rank")
def rank(
    request: Request,
    top: Annotated[
        int | None,
        number("--top", "Heads listed, drawn and counted by layer."),
    ] = None,
) -> None:
    """Rank heads by how much more they look at the region when the object is there.

    Correlational: it shows where heads look, not what they do (that is `headpatch ablate`).
    Writes heads.csv, four .pt files, five figures and run.yaml.

    With `--pairs`: means over a dataset of pairs, with intervals over pairs. Pairs whose
    two answers are not both right are listed and left out. Writes heads.csv, gate.csv (the LDs of
    every pair), a figure and run.yaml.

    Examples
    --------
    `headpatch rank --with bundled:1.jpg --without bundled:2.jpg --region top-left
    --question "Is there anything in the top left corner?"` (pictures that come with headpatch;
    yours are paths)

    `headpatch rank --pairs pairs --limit 8` (after `headpatch pairs --n 20`)
    """
    study, folder = request.study, request.folder
    if study.pairs.manifest is not None:
        rank_many.rank(request, folder)
        return
    from headpatch.core import output as results
    from headpatch.core import ranking as analysis
    from headpatch.core.session import open_session
    from headpatch.pairs.region import Region
    from headpatch.present import tables
    from headpatch.report import draw

    Region.parse(study.region).compare()
    with request.stage("Running both pictures"):
        session = open_session(study)
    ranking = analysis.rank(session)
    with results.staged(folder, "rank") as stage, request.stage("Drawing"):
        results.write_ranking(stage, session, ranking)
        draw.draw_ranking(stage, study.rank.overlays)
        names = sorted(file.name for file in stage.iterdir())
    shown = int(ranking.per_head["top"])
    if request.as_json:
        print_json(
            session,
            folder,
            names,
            answer_with=ranking.answers[0],
            answer_without=ranking.answers[1],
            heads=ranking.top(shown),
            spatial=ranking.spatial,
        )
        return
    console = Terminal()
    show_answers(console, session, ranking.answers)
    show(
        console,
        tables.top_heads(ranking.top(shown)),
        tables.layers(ranking.per_head["layer_counts"], shown),
        tables.quadrants(ranking.spatial),
    )
    if "vision_patch_diff" in ranking.spatial:
        show(console, tables.vision(ranking.spatial))
    show(console, tables.divergences(ranking.spatial))
    if study.expected is not None:
        every = ranking.top(ranking.per_head["rank"].numel())
        show(console, tables.expected(study.expected, every, ranking.spatial))
    print_files(console, session, folder, names, answers=False)

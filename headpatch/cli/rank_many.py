"""`headpatch rank --pairs`."""

from pathlib import Path

from headpatch.cli import many
from headpatch.cli.show import Terminal, show
from headpatch.cli.verb import Request


def rank(request: Request, folder: Path) -> None:
    """Rank heads by their mean attention difference over the dataset."""
    study = request.study
    entries = many.dataset(study, compared=True)
    from headpatch.core import output as results
    from headpatch.questions.rank import many as analysis
    from headpatch.report import dataset_tables, draw

    vlm, survey = many.surveyed(request, entries, None)
    columns = analysis.rank(study, survey)
    with results.staged(folder, "rank") as stage, request.stage("Drawing"):
        results.write_pairs(stage, study, vlm, survey, {"heads.csv": columns})
        draw.draw_ranked_pairs(stage, study.rank.top, study.pairs.level, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    rows = zip(*(values[: study.rank.top] for values in columns.values()), strict=True)
    top = [dict(zip(columns, row, strict=True)) for row in rows]
    if request.as_json:
        many.print_pairs(vlm, survey, folder, names, heads=top)
        return
    console = Terminal()
    show(console, dataset_tables.top_heads(top, study.pairs.level))
    many.finish(console, study, survey, folder, names)

"""`headpatch verdict`."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from headpatch.cli import many
from headpatch.cli.app import app
from headpatch.cli.kept import kept
from headpatch.cli.options import (
    Config,
    Context,
    Debug,
    Device,
    DeviceMap,
    Dtype,
    Force,
    Json,
    Limit,
    Model,
    Out,
    Pairs,
    Quantize,
    Seed,
    study_from,
    whole,
)
from headpatch.cli.show import output_folder, progress, show
from headpatch.errors import InputError
from headpatch.pairs import generate
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.study import Study

_PAIRS = ".verdict-pairs"


@app.command()
def verdict(
    context: Context,
    n: Annotated[
        int | None,
        typer.Option("--n", parser=whole, help="Pairs to draw, without --pairs.", metavar="N"),
    ] = None,
    pairs: Pairs = None,
    limit: Limit = None,
    split: Annotated[
        float | None,
        typer.Option(
            "--split",
            help="Share of the pairs on which heads are chosen; the others judge them.",
            metavar="SHARE",
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            help="Smallest effect of interest, as a share of the LD difference between the runs.",
            metavar="SHARE",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", parser=whole, help="Heads that attention picks out.", metavar="N"),
    ] = None,
    partners: Annotated[
        int | None,
        typer.Option(
            "--partners",
            parser=whole,
            help="Chosen heads of which every two are changed together, in search of redundant "
            "ones.",
            metavar="N",
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
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on from the pairs that an interrupted verdict has left in the output folder, "
            "or discard them.",
        ),
    ] = None,
    config: Config = None,
    model: Model = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    seed: Seed = None,
    force: Force = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Judge over many pairs which heads decide, and whether those that look are among them.

    Draws pairs (or takes a dataset), keeps those that the model answers rightly, and changes every
    head of the language model on each: resample and mean, noising (is it necessary?) and denoising
    (is it sufficient?). Heads are chosen on one part of the pairs and judged on the other.

    Each head gets a verdict: necessary, sufficient, both, redundant (not necessary alone, but
    together with named partners), inhibitory, watches (attends more when the object is there, and
    is shown to do next to nothing), inert, or undecided (more pairs are needed). An effect counts
    if its bootstrap interval lies beyond ±--delta and it survives a correction over all heads;
    "next to nothing" takes an equivalence test.

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
    study = study_from(
        context,
        {
            "n": "draw.n",
            "split": "verdict.split",
            "delta": "verdict.delta",
            "top": "verdict.top",
            "partners": "verdict.partners",
            "positions": "verdict.positions",
        },
    )
    folder = output_folder(study)
    if n is not None and study.pairs.manifest is not None:
        raise InputError(
            "--n, --pairs", "both of them", "one of them", "--limit takes fewer of a dataset."
        )
    with ExitStack() as stack:
        entries = stack.enter_context(_entries(study, as_json))
        _run(study, folder, entries, resume, as_json)


def _run(
    study: Study, folder: Path, entries: tuple[Entry, ...], resume: bool | None, as_json: bool
) -> None:
    from headpatch import results
    from headpatch.analyses import verdict as analysis
    from headpatch.analyses.finished import Finished
    from headpatch.analyses.halves import need_pairs
    from headpatch.analyses.nulls import failed, table
    from headpatch.report import dataset_tables, draw, tables, verdict_tables

    finished = Finished(folder / _PAIRS)
    finished.open(resume, "verdict")
    before = finished.count
    vlm, survey = many.surveyed(study, entries, study.verdict.positions, as_json)
    need_pairs(study, len(survey.entries), "--pairs")
    if before:
        print(f"headpatch: {before:,} finished pairs were found; going on", file=sys.stderr)
    with kept(finished, "pairs", finished.folder), progress("Changing heads", as_json) as advance:
        found = analysis.run(study, vlm, survey, finished, advance)
    nulls = table(found.nulls)
    written = {
        "verdicts.csv": found.verdicts.heads,
        "partners.csv": found.verdicts.sets,
        "nulls.csv": nulls,
        "faithfulness.csv": found.faithfulness,
    }
    if found.vision is not None:
        written["vision.csv"] = found.vision
    wrong = failed(found.nulls)
    with results.staged(folder, ("vision.csv",)) as stage, progress("Drawing", as_json):
        results.write_pairs(stage, study, vlm, survey, written, found.noise_floor)
        results.write_tensors(stage / "verdict.pt", found.saved)
        draw.draw_verdict(stage, study.verdict.delta, study.pairs.level, wrong, **survey.words)
        names = sorted(file.name for file in stage.iterdir())
    finished.remove()
    headline = asdict(found.headline)
    if as_json:
        many.print_pairs(
            vlm,
            survey,
            folder,
            names,
            delta=study.verdict.delta,
            level=study.pairs.level,
            noise_floor=found.noise_floor,
            nulls_passed=not wrong,
            failed_nulls=wrong,
            nulls=nulls.to_dict("records"),
            headline=headline,
        )
        return
    console = Console()
    named = dict.fromkeys([*found.headline.causal, *found.headline.picked])
    options, level = study.verdict, study.pairs.level
    show(console, dataset_tables.gate(survey.gate_columns(), study.pairs.margin))
    if not survey.valid:
        console.print("INVALID STUDY: pairs that failed the gate were run.", style="bold red")
    show(
        console,
        verdict_tables.nulls(nulls),
        verdict_tables.heads(found.verdicts.heads, list(named), level, options.delta),
        verdict_tables.areas(found.faithfulness),
        verdict_tables.headline(headline, options.delta, level),
    )
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


@contextmanager
def _entries(study: Study, as_json: bool) -> Iterator[tuple[Entry, ...]]:
    """Give the dataset's pairs, or draw them into a folder that lasts as long as the block."""
    from headpatch.analyses.halves import need_pairs

    if study.pairs.manifest is not None:
        entries = many.dataset(study)
        need_pairs(study, len(entries), "--pairs")
        yield entries
        return
    options = study.draw
    planned = generate.plan(options.n, study.seed, options.regions, options.wording)
    need_pairs(study, options.n, "--n")
    from headpatch import results

    with TemporaryDirectory(prefix="headpatch-pairs-") as place:
        folder = Path(place)
        results.write_manifest(folder, planned, options.format)
        with progress("Drawing pairs", as_json) as advance:
            generate.write_pictures(folder, planned, options.size, options.format, advance)
        yield Manifest.read(folder).entries

"""The command line: flags become a study, the study an analysis, the analysis tables and files.

Nothing heavy is imported before a verb runs, so ``--help`` comes up at once.
"""

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headpatch.errors import HeadpatchError, InputError
from headpatch.heads import Selection
from headpatch.study import Study

if TYPE_CHECKING:
    from headpatch.analyses.session import Session
    from headpatch.engine.patching import OnProgress

# typer brings its own copy of click from 0.17 on, so the class is reached through typer.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="headpatch",
    help="Test causally which attention heads of a vision-language model decide a Yes/No answer."
    "\n\n"
    "With no options, each verb runs the bundled study: a small LLaVA, two pictures that differ "
    "in one object, and a question about it. Start with `headpatch rank`, then "
    "`headpatch ablate --heads top:3`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Study file (YAML), or the run.yaml of an earlier run. Other flags override it.",
        metavar="FILE",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="`demo`, a model's folder, or a hub id such as llava-hf/llava-1.5-7b-hf.",
        metavar="demo|PATH|HUB-ID",
    ),
]
With = Annotated[
    Path | None, typer.Option("--with", help="Picture with the object.", metavar="IMG")
]
Without = Annotated[
    Path | None, typer.Option("--without", help="Picture without the object.", metavar="IMG")
]
Question = Annotated[
    str | None,
    typer.Option(
        "--question", help="Asked of both pictures; the answer must flip.", metavar="TEXT"
    ),
]
RegionName = Annotated[
    str | None,
    typer.Option(
        "--region",
        help="Where the object is: a quadrant (top-left), a corner "
        "(top-left-corner), a half (left-half), center, or left,top,right,bottom in "
        "fractions of the image.",
        metavar="NAME|BOX",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.", metavar="DIR")]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="auto, float32, bfloat16, float16.", metavar="NAME"),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random draw.")]
Force = Annotated[
    bool | None,
    typer.Option(
        "--force", help="Run even if the answers do not flip; outputs are marked invalid."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def _version(wanted: bool) -> None:
    if wanted:
        from headpatch import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def rank(
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    region: RegionName = None,
    top: Annotated[
        int | None, typer.Option("--top", help="Heads listed, drawn and counted by layer.")
    ] = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    force: Force = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Rank heads by how much more they look at the region when the object is there.

    Correlational: it shows where heads look, not what they do (that is `headpatch ablate`).
    Writes heads.csv, four .pt files, five figures and run.yaml.

    Example: `headpatch rank --with 1.jpg --without 2.jpg --region top-left
    --question "Is there anything in the top left corner?"`
    """
    study = Study.make(
        config,
        _flags(model, with_image, without_image, question, region, out, device, dtype, seed, force)
        | {"rank.top": top},
    )
    folder = _folder(study)
    from headpatch import results
    from headpatch.analyses import rank as analysis
    from headpatch.analyses.session import open_session
    from headpatch.report import draw, tables

    with _progress("Running both pictures", as_json):
        session = open_session(study)
    ranking = analysis.rank(session)
    with results.staged(folder) as stage, _progress("Drawing", as_json):
        results.write_ranking(stage, session, ranking)
        draw.draw_ranking(stage, study.rank.overlays)
        names = sorted(file.name for file in stage.iterdir())
    top = int(ranking.per_head["top"])
    if as_json:
        _print_json(
            session,
            folder,
            names,
            answer_with=ranking.answers[0],
            answer_without=ranking.answers[1],
            heads=ranking.top(top),
            spatial=_plain(ranking.spatial),
        )
        return
    console = Console()
    console.print(
        tables.answers(
            session.pair.question,
            {
                "with": (ranking.answers[0], session.base.ld_with),
                "without": (ranking.answers[1], session.base.ld_without),
            },
        )
    )
    console.print(tables.top_heads(ranking.top(top)))
    console.print(tables.layers(ranking.per_head["layer_counts"], top))
    console.print(tables.quadrants(ranking.spatial))
    if "vision_patch_diff" in ranking.spatial:
        console.print(tables.vision(ranking.spatial))
    console.print(tables.divergences(ranking.spatial))
    if study.expected is not None:
        console.print(
            tables.expected(
                study.expected, ranking.top(ranking.per_head["rank"].numel()), ranking.spatial
            )
        )
    _print_files(console, session, folder, names)


@app.command()
def ablate(
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads to change: 24.17,23.20 or 24.0-24.31 or layer:24 or "
            "top:5 (of the attention ranking).",
            metavar="HEADS",
        ),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds",
            help="What z becomes, comma-separated: zero, mean, resample.",
            metavar="KINDS",
        ),
    ] = None,
    directions: Annotated[
        str | None,
        typer.Option(
            "--directions",
            help="noising (change the with-run: necessary?), denoising "
            "(change the without-run: sufficient?).",
            metavar="DIRECTIONS",
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions", help="Where z is changed: answer, question, image, all.", metavar="SCOPE"
        ),
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option("--controls", help="Random sets of heads of the same layers to compare with."),
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option(
            "--reference", help="Drawn pairs over which kind `mean` averages z; 0: this pair alone."
        ),
    ] = None,
    config: Config = None,
    model: Model = None,
    with_image: With = None,
    without_image: Without = None,
    question: Question = None,
    region: RegionName = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    force: Force = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Change heads and measure the shift of LD = logit(Yes) - logit(No).

    Each head alone, then all together: zero, mean and resample; noising (is the head necessary?)
    and denoising (is it sufficient?); beside random heads of the same layers and the noise
    floor. Writes effects.csv, head_effects.png and run.yaml.

    Example: `headpatch ablate --heads 24.17,23.20`
    """
    study = Study.make(
        config,
        _flags(model, with_image, without_image, question, region, out, device, dtype, seed, force)
        | {
            "ablate.heads": heads,
            "ablate.kinds": _listed(kinds),
            "ablate.directions": _listed(directions),
            "ablate.positions": positions,
            "ablate.controls": controls,
            "ablate.reference": reference,
        },
    )
    selection = Selection.parse(study.ablate.heads)
    folder = _folder(study)
    from headpatch import results
    from headpatch.analyses import ablate as analysis
    from headpatch.analyses.rank import order
    from headpatch.analyses.reference import mean_z
    from headpatch.analyses.session import open_session
    from headpatch.report import draw, tables

    with _progress("Running both pictures", as_json):
        session = open_session(study, positions=study.ablate.positions)
    if session.fast is not None and not session.fast.exact:
        print(
            f"headpatch: the widening pass is not exact for {session.vlm.name} "
            f"(off by {session.fast.worst:.1e} logits): every head gets a forward pass of its own",
            file=sys.stderr,
        )
    ranking = order(session) if selection.needs_ranking else ()
    chosen = selection.resolve(session.vlm.lm.grid, ranking)
    means = None
    if "mean" in study.ablate.kinds:
        with _progress("Averaging reference pairs", as_json) as advance:
            means = mean_z(session, advance)
    with _progress("Changing heads", as_json) as advance:
        ablation = analysis.ablate(session, chosen, means, advance)
    with results.staged(folder) as stage, _progress("Drawing", as_json):
        results.write_ablation(stage, session, ablation)
        draw.draw_ablation(stage, session.pair.question, session.pair.region.name)
        names = sorted(file.name for file in stage.iterdir())
    if as_json:
        _print_json(
            session,
            folder,
            names,
            noise_floor=ablation.noise_floor,
            effects=json.loads(ablation.named.to_json(orient="records")),
            summary=ablation.summary,
        )
        return
    console = Console()
    console.print(tables.effects(ablation.named, ablation.noise_floor))
    console.print(ablation.summary, markup=False)
    _print_files(console, session, folder, names)


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False)
    except HeadpatchError as error:
        _fail(str(error), error.exit_code, debug)
    except _UsageError as error:
        _fail(f"{error.format_message()} (see headpatch --help)", 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written", 130, debug)
    except Exception as error:  # a bug, or a fault of the machine
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1, debug)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"headpatch: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _flags(
    model: str | None,
    with_image: Path | None,
    without_image: Path | None,
    question: str | None,
    region: str | None,
    out: Path | None,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    force: bool | None,
) -> dict[str, Any]:
    return {
        "model": model,
        "with": with_image and str(with_image),
        "without": without_image and str(without_image),
        "question": question,
        "region": region,
        "out": out and str(out),
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "force": force,
    }


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _folder(study: Study) -> Path:
    from headpatch.results import check_folder

    folder = Path(study.out)
    check_folder(folder)
    return folder


@contextmanager
def _progress(what: str, quiet: bool) -> "Iterator[OnProgress | None]":
    """Show a bar on a terminal's stderr while something long runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(session: "Session", folder: Path, names: list[str], **more: Any) -> None:
    content = {
        "question": session.pair.question,
        "region": session.pair.region.name,
        "model": session.vlm.name,
        "valid": session.valid,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        **more,
        "files": [str(folder / name) for name in names],
    }
    print(json.dumps(content, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _print_files(console: Console, session: "Session", folder: Path, names: list[str]) -> None:
    from headpatch.report import tables

    if not session.valid:
        console.print("INVALID STUDY: the two answers do not flip; see LD above.", style="bold red")
    console.print(tables.files(str(folder), names))


__all__ = ["InputError", "app", "main"]

"""`headpatch claims`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headpatch.cli.app import app
from headpatch.cli.options import Debug, Json, Model, Out
from headpatch.cli.show import print_object, show
from headpatch.errors import InputError
from headpatch.measures.claims import Claim, Evidence, judge_claim
from headpatch.study import Study

if TYPE_CHECKING:
    from headpatch.measures.claims import Judged

_NEEDED = ("verdicts.csv", "partners.csv", "run.yaml")


@app.command()
def claims(
    config: Annotated[
        Path, typer.Argument(help="Study file (YAML) that lists claims.", metavar="CONFIG")
    ],
    model: Model = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Hold a study's claims against a verdict: supported, contradicted, or not testable.

    A study file lists claims, one sentence each:

        claims:
          - head 24.17 is necessary            (or sufficient, causal, redundant, inhibitory, inert)
          - head 24.17 looks at the region
          - heads 24.17 and 23.20 are redundant
          - layers 17-26 hold the sensitive heads        (or: the causal heads)
          - the heads of vision layer 8 are necessary
          - vision layer 8 carries the object

    They are judged by what `headpatch verdict` has written to the output folder (--out): its
    intervals must lie beyond, or within, the smallest effect of interest. What they leave open is
    not testable, and the figure shows why. No model is run. Writes claims.csv to that folder.

    Examples
    --------
    `printf 'claims:\n- head 9.31 looks at the region\n- head 9.31 is causal\n' > claims.yaml`

    `headpatch verdict --n 100 --out verdict_output`

    `headpatch claims claims.yaml --out verdict_output`
    """
    study = Study.make(config, {"model": model, "out": None if out is None else str(out)})
    if not study.claims:
        raise InputError(f"{config}: claims", "none", "claims such as 'head 24.17 is necessary'")
    folder = Path(study.out)
    seen, failed = _evidence(study, folder)
    judged = [judge_claim(Claim.parse(text), seen) for text in study.claims]
    from headpatch import results
    from headpatch.report import verdict_tables

    with results.staged(folder) as stage:
        columns = {name: [asdict(one)[name] for one in judged] for name in asdict(judged[0])}
        columns["failed_nulls"] = [";".join(failed)] * len(judged)
        results.write_columns(stage / "claims.csv", columns)
    if as_json:
        print_object({"claims": _rows(judged), "failed_nulls": failed,
                      "files": [str(folder / "claims.csv")]})  # fmt: skip
        return
    console = Console()
    show(console, verdict_tables.claims(_rows(judged), failed))
    console.print(f"Wrote {folder / 'claims.csv'}", soft_wrap=True, markup=False)


def _rows(judged: "list[Judged]") -> list[dict[str, Any]]:
    return [asdict(one) for one in judged]


def _evidence(study: Study, folder: Path) -> tuple[Evidence, list[str]]:
    """Read a verdict's tables, and which of its nulls failed."""
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise InputError(
            "--out",
            f"{folder} holds no {' nor '.join(missing)}",
            "the folder of a verdict",
            "Run headpatch verdict with the same --config and --out first.",
        )
    from headpatch.results import read_table

    judged = Study.make(folder / "run.yaml")
    if judged.model != study.model:
        raise InputError(
            "--out",
            f"{folder} holds a verdict of model {judged.model}",
            f"one of the claims' model, {study.model}",
        )
    heads = read_table(folder / "verdicts.csv")
    vision = folder / "vision.csv"
    seen = Evidence(
        heads=heads.fillna({"partners": "", "failed_nulls": ""}),
        sets=read_table(folder / "partners.csv"),
        delta=judged.verdict.delta,
        level=judged.pairs.level,
        top=judged.verdict.top,
        vision=read_table(vision) if vision.is_file() else None,
    )
    failed = str(seen.heads["failed_nulls"].iloc[0])
    return seen, failed.split(";") if failed else []

"""`headpatch report`."""

from pathlib import Path
from typing import Annotated

import typer

from headpatch.cli.app import Command, app
from headpatch.cli.options import Debug, Json
from headpatch.cli.show import print_object, say, warn
from headpatch.text import user_path

_FOLDER = typer.Argument(metavar="DIR", help="Folder with the results of one or several verbs.")
_OUT_HELP = "The file to write; report.html in DIR if left out."
_OUT = typer.Option("--out", help=_OUT_HELP, metavar="FILE")


@app.command(cls=Command)
def report(
    folder: Annotated[Path, _FOLDER],
    out: Annotated[Path | None, _OUT] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn the results in a folder into one HTML page.

    Reads what `rank`, `ablate`, `sweep`, `cut` and the other verbs saved in DIR and in the folders
    directly in it; runs no model. The page begins with the question, both pictures and answers,
    and the finding in a sentence; then come linked maps of where heads look and what changing
    them does, a table of all heads, and a section for each kind of result that is there: verdict,
    named heads, pairs of heads, faithfulness, quadrants, the vision encoder and its heads, path,
    cuts, trace, maps of a token with their check, estimates beside the exact effects, claims,
    nulls. It needs nothing else: one file, no network, any browser of 2023 or later.

    Results of another model, pair or question than DIR's own are left out, and named.

    Examples
    --------
    `headpatch rank --out demo_output`

    `headpatch sweep --kinds resample --out demo_output/sweep`

    `headpatch report demo_output`
    """
    from headpatch.reports import write

    folder = user_path(folder, "DIR")
    page = folder / "report.html" if out is None else user_path(out, "--out")
    written = write(folder, page)
    if written.changed:
        warn(f"changed after the run, as the page says: {', '.join(written.changed)}")
    left_out = {one.name: one.why for one in written.left_out}
    if as_json:
        print_object({"file": str(written.path), "bytes": written.size,
                      "sections": list(written.sections),
                      "folders": [str(one) for one in written.folders], "left_out": left_out,
                      "valid": written.valid, "changed": list(written.changed)})  # fmt: skip
        return
    for name, why in left_out.items():
        say(f"left out {name}: {why}")
    if not written.valid:
        say("INVALID STUDY: its answers are not Yes and No; the page says so.")
    say(f"Wrote {written.path} ({written.size / 1e6:.1f} MB, {len(written.sections)} sections)")

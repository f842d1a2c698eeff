"""How it was run: commands that run it again, the full study, versions, weights, noise floors."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from headpatch.core.output.folder import Part, Results
from headpatch.core.study.record import RUN
from headpatch.present.section import Section

_SHOWN_ELSEWHERE = ("prompt", "answer_probabilities", "invalid_because", "files", "checksum")


def section(results: Results) -> Section:
    """Make the list of runs; equal studies are shown once."""
    runs = [_run(part) for part in results.parts]
    seen: dict[str, str] = {}
    for run in runs:
        run["same"] = seen.get(run["study"], "")
        seen.setdefault(run["study"], run["name"])
    return Section("how", "How it was run", {"runs": runs, "left_out": results.left_out})


def _run(part: Part) -> dict[str, Any]:
    facts = {
        key: value
        for key, value in part.run.items()
        if value is not None and key not in _SHOWN_ELSEWHERE
    }
    study = yaml.safe_dump(dict(part.study), sort_keys=False, allow_unicode=True, width=100)
    return {
        "name": part.name or "this folder",
        "files": part.files(),
        "commands": [_command(part, verb) for verb in part.verbs],
        "prompt": repr(part.run["prompt"]) if "prompt" in part.run else "",
        "facts": facts,
        "study": study,
    }


def _command(part: Part, verb: str) -> str:
    """Return the command that runs a verb again; its study is the one that it has in the file."""
    config, out = shlex.quote(str(part.folder / RUN)), shlex.quote(str(part.folder))
    if verb != "claims":
        return f"headpatch {verb} --config {config} --out {out}"
    verdict = part.run.get("verdict")
    elsewhere = isinstance(verdict, str) and Path(verdict) != part.folder.resolve()
    by = f" --results {shlex.quote(str(verdict))}" if elsewhere else ""
    return f"headpatch claims {config}{by} --out {out}"


def noise(results: Results) -> Section | None:
    """List the noise floors; None if no run measured one."""
    floors = []
    for part in results.parts:
        run = part.run
        if isinstance(floor := run.get("noise_floor"), int | float):
            gap = abs(run.get("ld_with", 0) - run.get("ld_without", 0))
            where = part.name or "this folder"
            share = f"{floor / gap:.1e}" if gap else ""
            precision = f"{run.get('dtype', '')}, {run.get('device', '')}"
            floors.append(
                {"where": where, "logits": f"{floor:.1e}", "share": share, "dtype": precision}
            )
    return Section("noise", "Noise floor", {"floors": floors}) if floors else None

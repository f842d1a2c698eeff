"""How it was run: commands that run it again, the full study, versions, weights, commit."""

import shlex
from typing import Any

import yaml

from headpatch.report.html.folder import Results
from headpatch.report.html.part import Part
from headpatch.report.html.section import Section

_VERBS = (
    ("verdict", ("verdicts.csv",)),
    ("rank", ("heads.csv",)),
    ("sweep", ("sweep.pt",)),
    ("cut", ("cuts.csv",)),
    ("trace", ("trace.pt",)),
    ("path", ("path.csv",)),
    ("rollout", ("rollout.pt",)),
    ("combine", ("combinations.csv",)),
)


def section(results: Results) -> Section:
    """Make the list of runs."""
    runs = [_run(part) for part in results.parts]
    # Equal studies are shown once
    seen: dict[str, str] = {}
    for run in runs:
        run["same"] = seen.get(run["study"], "")
        seen.setdefault(run["study"], run["name"])
    return Section(
        "how",
        "How it was run",
        {"runs": runs, "left_out": results.left_out, "root": str(results.root)},
    )


def _run(part: Part) -> dict[str, Any]:
    config, out = shlex.quote(str(part.folder / "run.yaml")), shlex.quote(str(part.folder))
    commands = [f"headpatch {verb} --config {config} --out {out}" for verb in verbs(part)]
    if part.has("claims.csv") and part.study.get("claims"):
        commands.append(f"headpatch claims {config} --out {out}")
    study = yaml.safe_dump(dict(part.study), sort_keys=False, allow_unicode=True, width=100)
    return {
        "name": part.name or "this folder",
        "files": part.files(),
        "commands": commands,
        "facts": {key: value for key, value in part.run.items() if value is not None},
        "study": study,
    }


def verbs(part: Part) -> list[str]:
    """Name the verbs whose files a run's folder holds."""
    found = [verb for verb, files in _VERBS if all(map(part.has, files))]
    if part.has("effects.csv"):
        with (part.folder / "effects.csv").open(encoding="utf-8", errors="replace") as stream:
            if "control_mean" in stream.readline():
                found.append("ablate")
    return found

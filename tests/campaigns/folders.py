"""Folders of results under runs that are killed, disks that are full and files that were changed.

    python -m tests.campaigns.folders kills|disks|mutations [--n 40] [--seed 0] [--unsigned]

*kills*: a run into a folder that holds another's results is killed at a random moment; whatever is
run next finds or makes a folder that is consistent with its ``run.yaml``. A row for what the kill
left.

*disks*: a run onto a disk that is too small, or under a limit on the size of files, fails in one
line and leaves nothing, or is complete. A row a command. Small disks are file systems in memory;
where mounting them is not permitted (mostly it takes root), all runs are under a limit.

*mutations*: a file of saved results is changed. Who reads it says so, refuses it in one line, or
finds what it found before. A row for what reads. With ``--unsigned`` as for folders of versions
that saved no checksums: there a change may go unnoticed, and counts as silent but as no fault.

Exit 1 if there is a fault. POSIX only.
"""

import argparse
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from headpatch.core.output.records import Records
from headpatch.core.study.record import RUN
from tests.campaigns.forked import (
    HUNG,
    KILLED,
    Forks,
    faults_of,
    kill_at,
    limit_files,
    raw_lines,
    results,
)
from tests.campaigns.mutating import mutated
from tests.campaigns.table import Tally
from tests.command import Said

RESUMABLE = {"sweep", "verdict"}


def kills(forks: Forks, total: int, rng: random.Random) -> Tally:
    """Kill so many runs; runs that were faster than their kill come on top."""
    commands = forks.commands()
    light = [name for name in commands if name != "verdict"]
    tally, killed = Tally("left by the kill", ["runs", "report", "same", "other"]), 0
    folder = forks.root / "killed"
    while killed < total:
        shutil.rmtree(folder, ignore_errors=True)
        first = rng.choice(light)
        second = rng.choice([*light, "verdict"] if rng.random() < 0.15 else light)
        forks.must([*commands[first], "--out", folder])
        before = results(folder)
        how, said = run_and_kill(forks, [*commands[second], "--out", folder], rng)
        if said.code == KILLED:
            killed += 1
            left = left_by_kill(folder)
            then = rng.choice(["report", "same", "other"])
            name = {"report": "", "same": second, "other": rng.choice(light)}[then]
            found = after_kill(forks, folder, name)
            # A kill between the end of the plan and that of its stage leaves all of the second run,
            # whose run.yaml is moved last; `faults_of` has held its files against it.
            changed = left == "a stage" and results(folder) != before
            if not name and changed and verbs(folder)[:1] != second.split()[:1]:
                found.append("results changed though nothing was planned")
        else:
            left, then, name = "not killed", "", ""
            found = faults_of(folder)
            if said.code:
                found.append(f"exit {said.code}: {said.err}")
        tally.add(left, ["runs", then], found, f"{first}, then {second} ({how}), {then} {name}")
    return tally


def run_and_kill(forks: Forks, words: list[object], rng: random.Random) -> tuple[str, Said]:
    """Kill a run at a change of the file system, or after some time; say when."""
    if rng.random() < 0.7:
        number, after = rng.randrange(1, 40), rng.random() < 0.5
        how = f"killed {'after' if after else 'before'} change {number}"
        return how, forks.run(words, before=kill_at(number, after))
    seconds = rng.uniform(0.05, 4)
    return f"killed after {seconds:.2f} s", forks.run(words, kill_after=seconds)


def verbs(folder: Path) -> list[str]:
    """The verbs of a folder's record, the latest first."""
    return [one.verb for one in Records.read(folder).every]


def left_by_kill(folder: Path) -> str:
    """How far a killed run had come with moving its files."""
    stages = list(folder.glob(".headpatch-*"))
    if any((stage / ".plan.json").exists() for stage in stages):
        return "a stage with a plan"
    return "a stage" if stages else "nothing"


def after_kill(forks: Forks, folder: Path, name: str) -> list[str]:
    """Run a command, or a report if it has no name, on what a kill left; say what is wrong."""
    if name:
        words = [*forks.commands()[name], "--out", folder]
        said = forks.run([*words, "--resume"] if name in RESUMABLE else words)
        if said.code and "of another study" in said.err:
            said = forks.run([*words, "--no-resume"])
    else:
        said = forks.run(["report", folder])
    found = faults_of(folder)
    if said.code:
        found.append(f"exit {said.code}: {said.err}")
    if raw_lines(said.err):
        found.append(f"raw: {said.err}")
    return found


def disks(forks: Forks, total: int, rng: random.Random) -> Tally:
    """Run so many commands where there is too little room."""
    disk, limited, saved = (forks.root / name for name in ("disk", "limited", "saved"))
    disk.mkdir()
    mounts = can_mount(disk)
    if not mounts:
        print("mounting a small disk is not permitted here: only the size of files is limited")
    forks.must([*forks.commands()["rank"], "--out", saved])
    every = {**forks.commands(), "pairs": ["pairs", "--n", 20], "report": ["report", saved]}
    names = ["rank", "sweep", "ablate a head", "rank pairs", "ablate pairs", "cut", "pairs",
             "verdict", "report"]  # fmt: skip
    columns = ["runs", "small disk", "limit", "complete", "refused", "other"]
    tally = Tally("command", columns)
    for turn in range(total):
        name = names[turn % len(names)]
        size = 1024 * rng.choice(disk_sizes(name))
        # A third of the runs, of other commands each time round.
        if not mounts or (turn + turn // len(names)) % 3 == 2:
            how = "limit"
            shutil.rmtree(limited, ignore_errors=True)
            size //= 4  # of the largest file, not of all
            found, code = without_room(forks, name, every[name], limited, size)
        else:
            how = "small disk"
            with small_disk(disk, size):
                found, code = without_room(forks, name, every[name], disk / "out", None)
        ending = {0: "complete", 1: "refused"}.get(code, "other")
        tally.add(name, ["runs", how, ending], found, f"{how}, {size} bytes")
    return tally


def disk_sizes(name: str) -> list[int]:
    """Disks, in kB, of which some have too little room for what a command writes."""
    if name in ("rank", "pairs", "report"):
        return [8, 16, 40, 100, 200, 400, 800, 1500]
    return [8, 16, 24, 40, 60] if name == "verdict" else [8, 12, 16, 24, 40, 60]


def can_mount(place: Path) -> bool:
    try:
        with small_disk(place, 65536):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """Have a file system of so many bytes at a folder."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def without_room(
    forks: Forks, name: str, words: list[object], folder: Path, limit: int | None
) -> tuple[list[str], int]:
    """Run a command into a folder; return what is wrong, and its exit code.

    `limit` is how many bytes a file may have; None leaves it to the disk.
    """
    out = folder / "page.html" if name == "report" else folder
    said = forks.run(
        [*words, "--out", out], **({} if limit is None else {"before": limit_files(limit)})
    )
    if said.code == 0:
        return ([] if name in ("pairs", "report") else faults_of(folder)), said.code
    found = []
    last = ([line for line in said.err.splitlines() if line] or [""])[-1]
    wanted = last.startswith("headpatch: ") and str(folder) in last and "cannot be written" in last
    if said.code != 1 or not wanted or raw_lines(said.err):
        found.append(f"exit {said.code}: {said.err}")
    left = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    # Finished parts stay, so that the run can go on once there is room.
    left = [path for path in left if not path.startswith((".sweep-rows", ".verdict-pairs"))]
    if left:
        found.append(f"left {left}")
    return found, said.code


def mutations(forks: Forks, total: int, rng: random.Random, unsigned: bool) -> Tally:
    """Change a file of saved results so many times, and read them."""
    saved, work = forks.root / "saved", forks.root / "work"
    forks.must(["claims", forks.study, "--out", saved], limit=600)
    for name in ("rank", "sweep"):
        forks.must([*forks.commands()[name], "--out", saved / name])
    if unsigned:
        remove_checksums(saved)
    right = {}
    for reader in ("claims", "report", "config"):
        renew(saved, work)
        right[reader] = finding(forks, reader, forks.must(reading(forks, reader, work)))
    columns = ["changes", "refused", "told", "same", "silent", "failed", "hung"]
    tally = Tally("read by", columns)
    for turn in range(total):
        reader = ("claims", "report", "claims", "report", "config")[turn % 5]
        renew(saved, work)
        file = rng.choice(sorted(files_read(reader, work)))
        content = file.read_bytes()
        kind, changed = mutated(rng, content)
        if changed == content:
            continue
        file.write_bytes(changed)
        said = forks.run(reading(forks, reader, work))
        wrong = said.code == 0 and finding(forks, reader, said) != right[reader]
        ending = ending_of(said, wrong)
        found = faults_of_reading(said, file.name, unsigned)
        if ending == "silent" and not unsigned:
            found.append("wrong in silence")
        tally.add(reader, ["changes", ending], found, f"{kind} in {file.relative_to(work)}")
    return tally


def remove_checksums(folder: Path) -> None:
    """Make records look like those of a version that saved no checksums."""
    for path in folder.rglob(RUN):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for one in (content, *content.get("earlier", {}).values()):
            for name in ("files", "checksum"):
                one["run"].pop(name)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def renew(saved: Path, work: Path) -> None:
    """Copy the saved results anew, and forget what was made of the last copy."""
    for path in (work, work.with_name("again")):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(saved, work)


def reading(forks: Forks, reader: str, work: Path) -> list[object]:
    if reader == "claims":
        return ["claims", forks.study, "--out", work, "--json"]
    if reader == "report":
        return ["report", work, "--out", forks.root / "page.html"]
    return ["rank", "--config", work / "rank" / RUN, "--out", forks.root / "again"]


def files_read(reader: str, work: Path) -> list[Path]:
    """The files of saved results on which a reader's outcome hangs."""
    if reader == "config":
        return [work / "rank" / RUN]
    if reader == "claims":
        names = ["verdicts.csv", "partners.csv", "gate.csv", RUN, "vision.csv", "verdict.pt",
                 "followed.csv"]  # fmt: skip
        return [path for path in work.iterdir() if path.name in names]
    return [path for path in work.rglob("*") if path.suffix in (".csv", ".pt", ".yaml")]


def finding(forks: Forks, reader: str, said: Said) -> object:
    if reader == "claims":
        claims = json.loads(said.out)["claims"]
        return [(claim["claim"], claim["outcome"], claim["figure"]) for claim in claims]
    if reader == "report":
        page = (forks.root / "page.html").read_text(encoding="utf-8")
        timeless = re.sub(r"\d\d:\d\d", "", page)  # it says when it was made
        return hashlib.sha256(timeless.encode()).hexdigest()
    return results(forks.root / "again")


def ending_of(said: Said, wrong: bool) -> str:
    if said.code:
        return {HUNG: "hung", 2: "refused"}.get(said.code, "failed")
    noted = any("changed" in line or "--config" in line for line in said.err.splitlines())
    if noted or "changed after" in said.out:
        return "told"
    return "silent" if wrong else "same"


def faults_of_reading(said: Said, file: str, unsigned: bool) -> list[str]:
    """What is wrong with how a reader ended and with its words."""
    found = []
    lines = [line for line in said.err.splitlines() if line]
    if said.code not in (0, 2):
        found.append(f"exit {said.code}")
    if said.code == 2 and (len(lines) != 1 or said.out):
        found.append("more or less than one line")
    last = "".join(lines[-1:])
    # Without checksums nobody knows which is wrong, the record or the model and pairs beside it.
    if said.code == 2 and not unsigned and file not in last:
        found.append("the file is not named")
    if raw_lines(said.err):
        found.append("raw lines")
    library = r"KeyError|weights_only|pickle|Unpickl|PytorchStream|ParserError|tokeniz|codec"
    if re.search(library, said.err):
        found.append("a library's words")
    return [f"{fault}: {said.err[-400:]}" for fault in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("campaign", choices=["kills", "disks", "mutations"])
    parser.add_argument("--n", type=int, default=40, help="kills, commands or changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unsigned", action="store_true", help="mutations without checksums")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as root:
        forks = Forks(Path(root))
        campaigns = {"kills": kills, "disks": disks}
        campaigns["mutations"] = partial(mutations, unsigned=options.unsigned)
        tally = campaigns[options.campaign](forks, options.n, rng)
    tally.show()
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()

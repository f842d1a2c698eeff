"""Peak memory of a verb over more and more pairs: flat beyond what --hold lets stay open.

Each run is a process of its own, of whose peak (maximum resident set size) the operating system
keeps count. Prints a row for each verb, its peak at every number of pairs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERBS = {
    "ablate": ["ablate", "--heads", "23.9,21.14", "--kinds", "resample", "--controls", "2"],
    "sweep": ["sweep", "--kinds", "resample", "--directions", "noising"],
    "verdict": ["verdict"],
}


def peak(words: list[str]) -> float:
    """Run a command; return its peak in MiB."""
    command = [sys.executable, "-m", "headpatch", *words]
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=nowhere)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(words)}: failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Run every verb over every number of pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10, 40, 80])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=["ablate", "sweep"])
    parser.add_argument("--hold", type=float, help="GiB; left out: as the verbs do")
    asked = parser.parse_args()
    os.environ |= {"TQDM_DISABLE": "1"}
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}; MiB at the peak")
    print("verb     " + "".join(f"{count:>8} pairs" for count in asked.pairs))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw = ["pairs", "--n", str(max(asked.pairs)), "--out", str(place / "pairs"), "--json"]
        command = [sys.executable, "-m", "headpatch", *draw]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for verb in asked.verbs:
            peaks = []
            for count in asked.pairs:
                words = [*VERBS[verb], "--pairs", str(place / "pairs"), "--limit", str(count)]
                words += ["--out", str(place / f"{verb}-{count}"), "--json"]
                hold = [] if asked.hold is None else ["--hold", str(asked.hold)]
                peaks.append(peak([*words, *hold]))
            print(f"{verb:<9}" + "".join(f"{one:>14,.0f}" for one in peaks), flush=True)


if __name__ == "__main__":
    main()

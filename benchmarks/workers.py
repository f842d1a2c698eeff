"""What several workers save: the same command with one worker and with more, in turn.

Whole commands are timed, from the shell's side: Ray's start and the model's loading count, and are
what limits short runs. Beside it stands the time on pairs alone, from the first that a worker
began; and whether the tables are the same byte for byte. Without --serial nothing runs without
Ray.

    python benchmarks/workers.py [--workers 1,2] [--verbs verdict,sweep] [--pairs 40] [--runs 3]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

TOLD = re.compile(
    r"workers? measured ([\d, and]+) units in ([\d.]+) s, and waited ([\d.%, and]+) of it"
)
PEAK = re.compile(r"at most ([\d.]+) GB of a GPU")


@dataclass(frozen=True)
class Run:
    """One command: seconds in all and on pairs, shares waited, bytes of a GPU and of the driver."""

    wall: float
    on_pairs: float
    waited: tuple[float, ...]
    peak_gb: float
    driver: int
    files: Mapping[str, bytes]


def words_of(*verb: str, pairs: Path, more: Sequence[str]) -> list[str]:
    """Return the command, but for its folder and workers."""
    return [sys.executable, "-m", "headpatch", *verb, "--pairs", str(pairs), *more]


def timed(words: Sequence[str], out: Path | None, workers: int) -> Run:
    """Run a command, which writes to `out`, if anything; 0 workers: without Ray."""
    given = [*words, *(["--workers", str(workers)] if workers else [])]
    given += ["--out", str(out)] if out else []
    began = time.perf_counter()
    with subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        driver, told = 0, bytearray()
        os.set_blocking(process.stderr.fileno(), False)
        while process.poll() is None:
            driver = max(driver, held_by(process.pid))
            told += process.stderr.read() or b""
            time.sleep(0.05)
        wall = time.perf_counter() - began
        told += process.stderr.read() or b""
    text = told.decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(given)} failed:\n{text}")
    found, peak = TOLD.search(text), PEAK.search(text)
    waited = re.findall(r"([\d.]+)%", found[3]) if found else ()
    return Run(
        wall,
        float(found[2]) if found else wall,
        tuple(float(share) / 100 for share in waited),
        float(peak[1]) if peak else 0.0,
        driver,
        {path.name: path.read_bytes() for path in sorted(out.glob("*.csv") if out else ())},
    )


def held_by(pid: int) -> int:
    """Return the most memory that a process has held, where the system says."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def machine() -> str:
    """Say where this runs."""
    import torch

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return (
        f"{os.cpu_count()} cores, {len(gpus)} GPUs ({', '.join(sorted(set(gpus))) or 'none'}), "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"torch {version('torch')}, ray {version('ray')}"
    )


def drawn(folder: Path, count: int) -> Path:
    """Draw pairs."""
    words = [sys.executable, "-m", "headpatch", "pairs", "--n", str(count), "--out", str(folder)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,2", help="numbers of workers; the first is 1.0")
    parser.add_argument("--verbs", default="verdict,sweep")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serial", action="store_true", help="run it without Ray, too")
    options, more = parser.parse_known_args()  # the rest goes to the command: --model, --dtype
    counts = [*([0] if options.serial else []), *map(int, options.workers.split(","))]
    print(f"{machine()}; {options.pairs} pairs, {options.runs} runs in turn; {' '.join(more)}\n")
    heads = "verb", "workers", "s", "s on pairs", "as fast as with the first", "on pairs"
    print(f"| {' | '.join(heads)} | GB of a GPU, each worker | same |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as place:
        pairs = drawn(Path(place) / "pairs", options.pairs)
        for verb in options.verbs.split(","):
            runs: dict[int, list[Run]] = {count: [] for count in counts}
            for turn in range(options.runs):
                for count in counts:
                    out = Path(place) / f"{verb}-{turn}-{count}"
                    runs[count].append(timed(words_of(verb, pairs=pairs, more=more), out, count))
            first = runs[counts[0]]
            for count in counts:
                own = runs[count]
                walls = [one.wall / other.wall for one, other in zip(first, own, strict=True)]
                works = [a.on_pairs / b.on_pairs for a, b in zip(first, own, strict=True)]
                same = all(one.files == first[0].files for one in own)
                print(
                    f"| {verb} | {count or 'no Ray'} | "
                    f"{statistics.median(one.wall for one in own):.1f} | "
                    f"{statistics.median(one.on_pairs for one in own):.1f} | "
                    f"{statistics.median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}) | "
                    f"{statistics.median(works):.2f} | {max(one.peak_gb for one in own):.1f} | "
                    f"{'yes' if same else 'NO'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""The scaling curve: a verdict with 1, 2, 4, 8 workers, one GPU each; and a model over all GPUs.

Every run is the whole command in processes of its own, one after the other on the same machine; the
first number of workers is what the others are compared with, and their tables must be its tables
byte for byte. `--spread MODEL` also runs check, sweep and a verdict with ``--device-map auto``, on
one GPU less each time down to one, as long as the model fits.

Unchanged on a machine of 1 to 8 GPUs (numbers of workers beyond its GPUs are left out), and in a
small form on CPUs:

    python benchmarks/scaling.py --model /path/to/llava-7b --dtype bfloat16 [--pairs 200] [--force]
    python benchmarks/scaling.py --workers 1,2 --pairs 24
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.workers import Run, drawn, machine, timed, words_of


def gpus() -> int:
    import torch

    return torch.cuda.device_count()


def curve(pairs: Path, count: int, numbers: Sequence[int], more: Sequence[str], at: Path) -> None:
    """Run the verdict with each number of workers; print a row for each."""
    print("| workers | s | pairs/s | as fast | efficiency | on pairs | waited | GB of a GPU "
          "| MB of the driver | same |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    first: Run | None = None
    for number in numbers:
        words = words_of("verdict", pairs=pairs, more=more)
        run = timed(words, at / f"verdict-{number}", number)
        first = first or run
        speed, scale = first.wall / run.wall, number / numbers[0]
        waited = f"{min(run.waited):.1%} to {max(run.waited):.1%}" if run.waited else ""
        print(
            f"| {number} | {run.wall:.1f} | {count / run.wall:.2f} | {speed:.2f} | "
            f"{speed / scale:.0%} | {first.on_pairs / run.on_pairs:.2f} | {waited} | "
            f"{run.peak_gb:.1f} | {run.driver / 1e6:.0f} | "
            f"{'yes' if run.files == first.files else 'NO'} |",
            flush=True,
        )


def spread(model: str, pairs: Path, more: Sequence[str], at: Path) -> None:
    """Run verbs with a model over all GPUs, and over fewer."""
    print("\n| verb | GPUs | s | MB of the process |\n| --- | --- | --- | --- |")
    asked = {
        "check": ["check"],
        "sweep": ["sweep"],
        "verdict --n 40": ["verdict", "--pairs", str(pairs), "--limit", "40"],
    }
    for number in range(max(gpus(), 1), 0, -1):
        if gpus():
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(number)))
        for name, verb in asked.items():
            words = [sys.executable, "-m", "headpatch", *verb, "--model", model]
            out = None if name == "check" else at / f"{name}-{number}"
            try:
                run = timed([*words, "--device-map", "auto", *more], out, 0)
            except SystemExit as error:  # it does not fit
                print(f"| {name} | {number} | {str(error).splitlines()[-1][:120]} | |", flush=True)
                continue
            print(f"| {name} | {number} | {run.wall:.1f} | {run.driver / 1e6:.0f} |", flush=True)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--spread", metavar="MODEL", help="a model over all GPUs")
    options, more = parser.parse_known_args()  # the rest goes to the command: --model, --dtype
    numbers = [int(one) for one in options.workers.split(",")]
    numbers = [one for one in numbers if one <= (gpus() or os.cpu_count() or 1)]
    print(f"{machine()}; {options.pairs} pairs; {' '.join(more)}\n")
    with TemporaryDirectory() as folder:
        at = Path(folder)
        pairs = drawn(at / "pairs", options.pairs)
        if numbers:
            curve(pairs, options.pairs, numbers, more, at)
        if options.spread:
            place = more.index("--model") if "--model" in more else len(more)
            spread(options.spread, pairs, [*more[:place], *more[place + 2 :]], at)


if __name__ == "__main__":
    main()

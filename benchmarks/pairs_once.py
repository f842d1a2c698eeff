"""What it saves that each pair's pictures are run once, for the gate and for the work on heads.

`ablate` and `sweep` over a dataset walk over it twice: the first walk finds which pairs pass, where
heads look and their mean z; the second changes heads. Pairs stay open in between as memory allows.
Both ways in one process with a fixed number of threads, in turn; ratios carry further than seconds,
which with one thread are CPU seconds.

    python benchmarks/pairs_once.py [--model demo] [--threads 1] [--pairs 8] [--runs 3]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from tempfile import TemporaryDirectory

import torch

from headpatch.core.baseline_runs import Survey, survey
from headpatch.core.dataset import Pairs
from headpatch.core.drawn_pairs import draw_pairs
from headpatch.core.held import size_of
from headpatch.core.study.study import Study
from headpatch.heads import Head
from headpatch.models.load import load
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.ablate.question import ablate
from headpatch.questions.sweep.question import sweep

HEADS = tuple(map(Head.parse, ("20.18", "21.14", "23.9")))
ONE = {"sweep.kinds": ("resample",), "ablate.kinds": ("resample",)}


def _sweep(study: Study, vlm: VLM, found: Survey) -> object:
    return sweep(Pairs(study, vlm, found, "answer"), on_progress=False)


Work = Callable[[Study, VLM, Survey], object]
JOBS: dict[str, tuple[Study, Work]] = {
    "sweep, every head, all kinds": (Study(), _sweep),
    "sweep, every head, resample": (Study.make(None, ONE), _sweep),
    "ablate, 3 heads, 20 controls, all kinds": (
        Study(),
        lambda study, vlm, found: ablate(Pairs(study, vlm, found, "answer"), HEADS),
    ),
    "ablate, 3 heads, no controls, resample": (
        Study.make(None, ONE | {"ablate.controls": 0}),
        lambda study, vlm, found: ablate(Pairs(study, vlm, found, "answer"), HEADS),
    ),
}


def seconds(
    study: Study, vlm: VLM, entries: Sequence[Entry], work: Work, hold: bool
) -> tuple[float, Survey]:
    """Time both walks."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    found = survey(study, vlm, entries, "answer", hold=hold)
    work(study, vlm, found)
    return clock() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vlm = load(options.model, "auto", "auto")
    where = torch.cuda.get_device_name() if vlm.device.type == "cuda" else platform.processor()
    print(
        f"{options.model} on {vlm.device} ({where}), {vlm.dtype}, {options.threads} thread(s), "
        f"torch {version('torch')}, transformers {version('transformers')}; {options.pairs} pairs, "
        f"{options.runs} runs\n"
    )
    print("| job | once ÷ twice | s, twice | held |\n| --- | --- | --- | --- |")
    with TemporaryDirectory() as folder:
        entries = draw_pairs(options.pairs, folder).entries
        for name, (study, work) in JOBS.items():
            ratios, twice = [], []
            for _ in range(options.runs):
                before, _ = seconds(study, vlm, entries, work, hold=False)
                after, found = seconds(study, vlm, entries, work, hold=True)
                ratios.append(after / before)
                twice.append(before)
            held = list(found.held.values())
            size = sum(map(size_of, held)) / len(held) / 2**20 if held else 0
            print(
                f"| {name} | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                f"| {statistics.median(twice):.1f} | {len(held)} of {len(entries)} pairs, "
                f"{size:.0f} MiB each |",
                flush=True,
            )


if __name__ == "__main__":
    main()

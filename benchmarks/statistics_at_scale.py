"""What the driver of a verdict needs once every pair is measured: time and memory by stage.

No model runs: pairs are made up in the form in which they are measured, of heads that do nothing,
act, or stand in for others, and the verdict's own functions plan them, choose, judge and draw. Each
number of pairs has a process of its own, so that peaks (resident memory) are its own; a stage
within another is indented and counted in it. ``growth`` is the exponent between two numbers of
pairs: 1 is linear. Other work on the cores moves wall time; CPU time counts all threads.

    python benchmarks/statistics_at_scale.py [--pairs 1000 10000] [--heads 32,32] [--scenes 1]
                                             [--threads 2] [--resamples 5000] [--only plan verdict]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from math import isnan, log, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Stage = tuple[float, float, float]  # wall and CPU seconds, peak in MiB


class Meter:
    """Wall and CPU time and peak memory of stages, which may lie within one another."""

    def __init__(self) -> None:
        self.stages: dict[tuple[str, ...], Stage] = {}
        self._path: tuple[str, ...] = ()
        self._peaks = [0.0]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is done within; times of one name within the same stage are added."""
        self._mark()
        self._peaks.append(0.0)
        self._path = (*self._path, name)
        before = self.stages.setdefault(self._path, (0.0, 0.0, 0.0))
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self._mark()
        peak = self._peaks.pop()
        self._peaks[-1] = max(self._peaks[-1], peak)
        self.stages[self._path] = before[0] + wall, before[1] + cpu, max(before[2], peak)
        self._path = self._path[:-1]

    def watch(self, module: Any, *names: str) -> None:
        """Make functions of a module stages."""
        for name in names:
            setattr(module, name, self._watched(getattr(module, name), name))

    def _watched(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def _mark(self) -> None:
        """Note the peak since the last mark, and start anew."""
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        self._peaks[-1] = max(self._peaks[-1], int(status["VmHWM"].split()[0]) / 1024)
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak is now what is held


class MadeUp:
    """Pairs as a verdict has measured them; effects of a pair do not depend on how many there are.

    Heads act with the next power of 1/2 in turn, the first by 0.3 of the difference; every fourth
    is seen in one pair of eight only. Attention goes its own way.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        import numpy as np

        from headpatch.core.study.study import Study
        from headpatch.heads import Grid
        from headpatch.questions.verdict import judgement

        self.study = Study.make(None, {"pairs.resamples": options.resamples})
        layers, heads = map(int, options.heads.split(","))
        self.grid = Grid(layers, heads)
        self.count, self.shape = options.pairs[0], (self.grid.layers, self.grid.heads)
        self.scenes = np.arange(self.count) // options.scenes
        self.entries = [self._entry(place) for place in range(self.count)]
        every = layers * heads
        rng = np.random.default_rng(1)
        self.size = rng.permutation(0.3 * 0.5 ** (np.arange(every) / 2)).reshape(self.shape)
        self.rare = rng.random(self.shape) < 0.25
        self.looks = rng.normal(0, 0.02, self.shape)
        first, second = judgement._parts(self.study, self.entries, np.arange(self.count))
        self.parts = first, second
        self._choosing = {int(at): i for some in self.parts for i, at in enumerate(some)}
        self._judging = {int(at): i for i, at in enumerate(second)}

    def _entry(self, place: int) -> Any:
        from headpatch.pairs.manifest import Entry
        from headpatch.pairs.region import REGIONS

        region = list(REGIONS.values())[place % 4]
        factors = {"shape": ("circle", "square", "star")[place % 3], "id": f"n{place}"}
        picture = Path(f"{place}.png")
        question = f"Is there anything in the {region.name} corner?"
        scene = str(self.scenes[place])
        return Entry(f"p{place}", picture, picture, question, region, 1, factors, scene=scene)

    def attention(self, place: int) -> Any:
        """Return a pair's attention difference by head, as shares of the image attention."""
        import numpy as np

        return self.looks + np.random.default_rng([2, place]).normal(0, 0.03, self.shape)

    def survey(self) -> Any:
        """Return what the first walk over the pairs says."""
        import numpy as np

        from headpatch.core.baseline_runs import Survey
        from headpatch.heads import Grid

        attention = np.stack([self.attention(place) for place in range(self.count)])
        masses, grid = {"diff": attention, "diff_raw": attention / 10}, Grid(*self.shape)
        return Survey((), tuple(self.entries), masses, grid, None, valid=True, widens=True)

    def record(self, place: int) -> Any:
        """Return what was measured of a pair, but for what random sets do."""
        import numpy as np

        from headpatch.questions.verdict.pair_record import Other, PairRecord

        rng, options = np.random.default_rng([3, place]), self.study.verdict
        ld_with, ld_without = rng.normal(4, 0.7), rng.normal(-4, 0.7)
        own = np.where(self.rare & (rng.random(self.shape) > 0.125), 0, self.size)
        noise = 0.01 + self.size / 2

        def effect(share: float) -> Any:
            return share * own + rng.normal(0, noise, self.shape)

        def other() -> Any:
            logits = (rng.normal(0, 0.01, self.shape) for _ in range(2))
            return Other(-ld_with, ld_without, self.looks, *logits)

        kinds = ("resample_noising", "resample_denoising", "mean_noising", "mean_denoising")
        choosing, judging = self._choosing[place], self._judging.get(place, options.nulls)
        return PairRecord(
            f"p{place}", ld_with, ld_without,
            {kind: effect(share) for kind, share in zip(kinds, (1, 0.8, 0.6, 0.5), strict=True)},
            1e-5, 1e-6, rng.normal(0.5, 0.1, options.groups),
            {way: effect(1) for way in ("noising", "denoising")}
            if choosing < options.attribution else {},
            rng.normal(0.1, 0.1, 24) if judging < options.vision else np.zeros(0),
            wrong_place=other() if judging < options.nulls else None,
            mirrored=other() if judging < options.nulls else None,
        )  # fmt: skip

    def together(self, alone: Any, sets: Any) -> Any:
        """Return what sets of heads do on the pairs on which each head does `alone`."""
        import numpy as np

        members = np.zeros((len(sets), alone[0].size))
        for row, one in zip(members, sets, strict=True):
            row[one.places @ [self.grid.heads, 1]] = 1
        return np.tanh(alone.reshape(len(alone), -1) @ members.T)


def planned(meter: Meter, options: argparse.Namespace) -> None:
    """Plan what to do with every pair, as is done before the first forward pass."""
    from headpatch.questions.verdict import judgement

    made = MadeUp(options)
    with meter.stage("cost"):
        judgement.cost(made.study, made.grid, made.entries)
    with meter.stage("tasks"):
        judgement._tasks(made.study, made.parts, made.entries)


def judged(meter: Meter, options: argparse.Namespace) -> None:
    """Choose and judge, write the files and draw the figures of a verdict."""
    import numpy as np

    from headpatch.core.output.files import write_columns, write_tensors
    from headpatch.core.question import Context
    from headpatch.present.chart import Chart
    from headpatch.present.figure import draw
    from headpatch.questions.verdict import columns, judgement
    from headpatch.questions.verdict.discovery import choose
    from headpatch.questions.verdict.looks import looks
    from headpatch.questions.verdict.pair_record import DIRECTIONS
    from headpatch.questions.verdict.view import view
    from headpatch.stats import verdicts

    with meter.stage("(made up)"):
        made = MadeUp(options)
        records = [made.record(place) for place in range(made.count)]
        survey = made.survey()

    def part(choosing: Any, judges: Any) -> Any:
        def alone(places: Any) -> Any:
            return np.stack([records[i].effects["resample_noising"] for i in places])

        with meter.stage("choose"):
            seen = [records[i] for i in choosing]
            choice = choose(
                made.study, made.grid, survey, seen, choosing.tolist(),
                lambda some, sets: made.together(alone(choosing[list(some)]), sets),
            )  # fmt: skip
        effects = made.together(alone(judges), [one for one, _ in choice.changes])
        by: dict[Any, dict[Any, Any]] = {way: {} for way in DIRECTIONS}
        for (members, way), values in zip(choice.changes, effects.T, strict=True):
            by[way][members] = values
        return judgement.Part(choice, judges, by)

    parts = [part(*both) for both in (made.parts, made.parts[::-1])]
    attended = survey.masses["diff"], survey.masses["diff_raw"]
    seen = judgement.Measured(made.entries, records, *attended, made.scenes, parts)
    (look,) = looks(made.study, made.scenes)
    meter.watch(judgement, "judge", "interval_by", "ratio_columns", "joint_effects", "_nulls",
                "curves", "_vision", "correlation", "true_correlation")  # fmt: skip
    meter.watch(verdicts, "interval_by", "effect_q", "minimum_effect_test", "equivalence_test",
                "tolerance_test", "extremes", "hidden_test", "dependences", "judge_sets",
                "_on_pairs")  # fmt: skip
    orders = {"attention": survey.ranking("diff")}
    with meter.stage("conclude"):
        found = judgement._conclude(made.study, made.grid, seen, look, orders)
    with TemporaryDirectory() as folder:
        files = {columns.HEADS.file: found.verdicts.heads, columns.SETS.file: found.verdicts.sets,
                 columns.TOGETHER.file: found.together, columns.CURVES.file: found.faithfulness,
                 columns.FACTORS.file: found.verdicts.factors}  # fmt: skip
        with meter.stage("write"):
            for name, table in files.items():
                write_columns(Path(folder) / name, {str(key): table[key] for key in table})
            write_tensors(Path(folder) / "verdict.pt", found.saved)
        context = Context(pairs=made.count, options=made.study.verdict.model_dump())
        with meter.stage("view"):
            for one in view({**files, "verdict.pt": found.saved}, context):
                if isinstance(one, Chart):
                    draw(one, Path(folder) / one.file)


RUNS = {"plan": planned, "verdict": judged}


def child(name: str, options: argparse.Namespace) -> None:
    """Run one driver, and print its stages."""
    meter = Meter()
    with meter.stage(name):
        RUNS[name](meter, options)
    print(json.dumps([[path, stage] for path, stage in meter.stages.items()]))


def show(pairs: Sequence[int], runs: Sequence[dict[tuple[str, ...], Stage]]) -> None:
    """Print a row for each stage: its time and peak by the number of pairs, and how it grows."""
    heads = [f"{count:,} pairs: wall s | CPU s | peak MiB" for count in pairs]
    print(f"\n| stage | {' | '.join(heads)} | growth of CPU, MiB |")
    print("| --- " * (2 + 3 * len(pairs)) + "|")
    for path in runs[-1]:
        stages = [run.get(path, (0.0, 0.0, 0.0)) for run in runs]
        cells = [f"{wall:.2f} | {cpu:.2f} | {peak:,.0f}" for wall, cpu, peak in stages]
        grows = [
            log(last / first) / log(pairs[-1] / pairs[0]) if first > 0.05 and last > 0 else nan
            for first, last in list(zip(stages[0], stages[-1], strict=True))[1:]
            if len(pairs) > 1
        ]
        growth = ", ".join("" if isnan(one) else f"{one:.2f}" for one in grows)
        print(
            f"| {'. ' * (len(path) - 1)}{path[-1]} | {' | '.join(cells)} | {growth} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--heads", default="32,32")
    parser.add_argument("--scenes", type=int, default=1, help="pairs of a scene")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=5000)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    rows = options.heads.replace(",", " x ")
    print(f"{rows} heads, {options.resamples} resamples, {options.threads} thread(s)")
    threads = {f"{one}_NUM_THREADS": str(options.threads) for one in ("OMP", "OPENBLAS", "MKL")}
    for name in options.only:
        found = []
        for count in options.pairs:
            asked = [f"--{one}={getattr(options, one)}" for one in ("heads", "scenes", "resamples")]
            command = [sys.executable, __file__, *asked, f"--pairs={count}", f"--child={name}"]
            done = subprocess.run(
                command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True
            )
            stages = json.loads(done.stdout.splitlines()[-1])
            found.append({tuple(path): tuple(stage) for path, stage in stages})
        show(options.pairs, found)


if __name__ == "__main__":
    main()

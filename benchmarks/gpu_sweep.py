"""Every head at once on LLaVA-1.5-7B's exact dimensions, random weights: one table of ratios.

    python benchmarks/gpu_sweep.py                    # one CUDA device with 48 GiB or more
    python benchmarks/gpu_sweep.py --size tiny --device cpu   # tries the script itself
    python benchmarks/gpu_sweep.py --profile          # and which kernels a sweep spends its time in

All figures of one run are from one process on one device. Times are medians of device-side
intervals after warm-up. The divisor is a plain forward pass as transformers runs it (sdpa, one
prompt), which a GPU spends largely waiting for its kernels to be launched, on some hosts twice as
long as on others; so ratios are of runs in turn, and the time that its kernels take, and that of a
prompt in a batch of eight, are printed too. The naive loop is measured
on `--naive` heads and scaled to all of them, the scope `all` on every heads-over-`--deep`-th head.
"""

import argparse
import gc
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from headpatch.engine.forward import Keep, forward
from headpatch.engine.fused import kernels_on
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Baseline, patch, run_pair, z_edits
from headpatch.engine.prefill import sources
from headpatch.engine.walk_plan import Chunk, Row, plan
from headpatch.engine.widen import passes, rows_that_fit, suffix_start, widen
from headpatch.engine.widening import walk
from headpatch.heads import HeadSet
from headpatch.models.patches import Patches
from headpatch.models.prompt import Prompt
from headpatch.models.spans import find_spans
from headpatch.models.vlm import VLM
from headpatch.models.wording import AnswerTokens

IMAGE = 31999  # id of the image token
YES, NO = 3869, 1939


@dataclass(frozen=True)
class Size:
    """Dimensions of a LLaVA."""

    text: dict[str, int]
    vision: dict[str, int]
    question: int = 22  # tokens after the image
    spread: float = 0.02  # standard deviation of the weights


def _size(text: tuple[int, ...], vision: tuple[int, ...], **options: float) -> Size:
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    return Size(
        dict(zip([*names, "num_key_value_heads"], text, strict=True)),
        dict(zip([*names, "image_size", "patch_size"], vision, strict=True)),
        **options,  # type: ignore[arg-type]
    )


SIZES = {
    "7b": _size((4096, 11008, 32, 32, 32), (1024, 4096, 24, 16, 336, 14)),
    "tiny": _size((64, 96, 4, 4, 2), (32, 48, 3, 2, 56, 14), spread=0.15),
}


def build(size: Size, device: torch.device, dtype: torch.dtype) -> VLM:
    """Return a LLaVA with random weights, made where it will stay."""
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=32064, initializer_range=size.spread, **size.text),
        vision_config=CLIPVisionConfig(**size.vision),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        initializer_range=size.spread,
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    return VLM(model.eval().requires_grad_(False), None, "random", "")  # type: ignore[arg-type]


def make_prompt(size: Size, device: torch.device) -> Prompt:
    """Two random pictures and one random question."""
    side = size.vision["image_size"] // size.vision["patch_size"]
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(5, 30000, (4 + size.question,), generator=generator)
    image = torch.full((side * side,), IMAGE)
    ids = torch.cat([words[:4], image, words[4:]])
    pixels = torch.randn(2, 3, *[size.vision["image_size"]] * 2, generator=generator)
    spans = find_spans(ids, IMAGE)
    inputs = {
        "input_ids": ids.repeat(2, 1).to(device),
        "pixel_values": pixels.to(device),
        "attention_mask": torch.ones(2, len(ids), dtype=torch.long, device=device),
    }
    patches = Patches(np.zeros((side * side, 4)), (side, side))
    return Prompt(inputs, 2, spans, patches, spans.image, AnswerTokens(YES, NO), "")


class Clock:
    """Medians of repeated runs, on the device's own clock where it has one."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def __call__(self, run: Callable[[], object], repeats: int = 10, warm: int = 3) -> float:
        """Milliseconds."""
        for _ in range(warm):
            run()
        return statistics.median(self._once(run) for _ in range(repeats))

    def _once(self, run: Callable[[], object]) -> float:
        if not self.cuda:
            start = time.perf_counter()
            run()
            return 1000 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end))

    def beside(
        self, run: Callable[[], object], other: Callable[[], object], repeats: int = 15
    ) -> float:
        """Ratio of the two, timed in turn."""
        for _ in range(3):
            run(), other()
        return statistics.median(self._once(run) / self._once(other) for _ in range(repeats))

    def busy(self, run: Callable[[], object]) -> float:
        """Milliseconds that the device's kernels take, without what lies between them."""
        if not self.cuda:
            return float("nan")
        run()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            run()
            torch.cuda.synchronize()
        return sum(one.self_device_time_total for one in seen.key_averages()) / 1000

    def peak(self, run: Callable[[], object]) -> float:
        """MiB above what was held before."""
        if not self.cuda:
            return float("nan")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - held) / 2**20


def rows_of(vlm: VLM, kinds: Sequence[str]) -> list[Row]:
    return [Row(HeadSet.of(head), place) for place in range(len(kinds)) for head in vlm.lm.grid]


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Bench:
    """The measurements; each prints its lines."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.size, self.device = SIZES[options.size], torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        self.vlm = build(self.size, self.device, torch.bfloat16)
        self.prompt = make_prompt(self.size, self.device)
        self.clock = Clock(self.device)
        self.plain = self.batched = float("nan")

    @property
    def heads(self) -> int:
        return self.vlm.lm.grid.layers * self.vlm.lm.grid.heads

    def line(self, name: str, value: str, goal: str = "") -> None:
        print(f"| {name} | {value} | {goal} |", flush=True)

    def base(self, vlm: VLM, positions: str, prompt: Prompt | None = None) -> Baseline:
        prompt = prompt or self.prompt
        start = suffix_start(prompt.spans, positions)  # type: ignore[arg-type]
        return run_pair(vlm, prompt, Keep(z=("lm",), suffix=start), exact=True)

    def bare(self, runs: int = 1, **options: object) -> Callable[[], object]:
        """A forward pass as transformers runs it."""
        inputs = {
            key: value.to(self.vlm.dtype) if value.is_floating_point() else value
            for key, value in self.prompt.select(0).repeat(runs).inputs.items()
        }

        def run() -> object:
            with torch.no_grad():
                return self.vlm.model(**inputs, use_cache=False, logits_to_keep=1, **options).logits

        return run

    def forward(self) -> None:
        self.vlm.model.set_attn_implementation("sdpa")
        plain, one = self.bare(), self.prompt.select(0)
        self.plain = self.clock(plain)
        busy = self.clock.busy(plain)
        self.line("one plain forward (transformers, bf16, sdpa)", f"{self.plain:.2f} ms")
        self.line("its kernels alone", f"{busy:.2f} ms ({busy / self.plain:.2f} of it)")
        self.batched = self.clock(self.bare(8), repeats=5, warm=2) / 8
        self.line("one of a batch of 8 plain forwards", f"{self.batched:.2f} ms")
        ours = self.clock.beside(lambda: forward(self.vlm, one), plain)
        self.line("through headpatch, nothing recorded / plain", f"{ours:.3f}")

    def rows(self) -> None:
        one, plain = self.prompt.select(0), self.bare()

        def record(prompt: Prompt = one) -> object:
            return forward(self.vlm, prompt, keep=Keep(lm_rows=True))

        recorded, extra = self.clock.beside(record, plain, 45), self.clock.peak(record)
        least = self.clock.peak(plain)
        self.line("recording all rows / plain forward, time", f"{recorded:.3f}", "<= 1.05")
        both = self.clock.beside(lambda: record(self.prompt), self.bare(2), 25)
        self.line(
            "... of both pictures in one batch, as `rank` runs them", f"{both:.3f}", "<= 1.05"
        )
        recorded = self.clock.beside(record, torch.inference_mode()(plain), 25)
        self.line("... of one picture / plain forward without autograd's views", f"{recorded:.3f}")
        busy = self.clock.busy(record) / self.clock.busy(plain)
        self.line("... of one picture, kernels alone", f"{busy:.3f}")
        model = self.vlm.model
        model.set_attn_implementation("eager")
        try:
            eager = self.bare(output_attentions=True)
            slow, large = self.clock(eager, repeats=5), self.clock.peak(eager)
        finally:
            model.set_attn_implementation("sdpa")
        self.line(
            "extra memory of rows / of output_attentions=True",
            f"{(extra - least) / (large - least):.4f} ({extra - least:.1f} MiB)",
            "<= 0.02",
        )
        self.line("output_attentions=True (eager) / plain, time", f"{slow / self.plain:.2f}")

    def answer(self) -> None:
        base = self.base(self.vlm, "answer")
        prefill = self.clock(lambda: self.base(self.vlm, "answer"), repeats=3, warm=1)
        self.line(
            "prefill of both runs, raised to float32 / plain forward", f"{prefill / self.plain:.2f}"
        )
        kinds = ("zero", "mean", "resample", "self")
        one = [self.walker(base, ("resample",), 0)]
        five = [self.walker(base, kinds, 0), self.walker(base, ("resample",), 1)]
        names = (
            ("sweep, one kind and direction", one, "<= 0.7"),
            ("sweep, all five (zero, mean, resample both ways, self)", five, "<= 3.0"),
        )
        plain, swept = self.bare(), []
        for name, walks, goal in names:

            def run(walks: Sequence[tuple[Callable[[], object], object]] = walks) -> object:
                return [walk() for walk, _ in walks]

            swept.append(self.clock(run, repeats=5))
            self.line(f"{name} / plain forward", f"{self.clock.beside(run, plain):.3f}", goal)
            self.line(
                "... in ms; its kernels alone; by its products at this device's best rate",
                f"{swept[-1]:.1f}; {self.clock.busy(run):.1f}; {self.floor(walks):.1f}",
            )
        naive = self.naive(base)
        self.line(
            f"naive loop / sweep (naive: {self.options.naive} heads, scaled)",
            f"{naive / swept[0]:,.0f}",
            ">= 1,000",
        )
        asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in self.vlm.lm.grid]
        whole = self.clock.beside(lambda: widen(self.vlm, base, asked), plain)
        self.line("the sweep as a user calls it, outcomes listed / plain forward", f"{whole:.3f}")
        if self.options.profile and self.cuda:
            self.profile(one[0][0])

    def walker(
        self, base: Baseline, kinds: Sequence[str], run: int
    ) -> tuple[Callable[[], object], tuple[object, ...]]:
        """Return a walk of all heads, and what it is made of."""
        mine, other = base.trace.prefills[run], base.trace.prefills[1 - run]
        means = [z.mean(0) for z in base.trace.z["lm"]]
        source = sources(mine, other, means, [(kind, None, None) for kind in kinds])
        rows = rows_of(self.vlm, kinds)
        (chunk,) = plan(rows, self.vlm.lm.grid, len(rows), self.device, carried=mine.points is None)
        tokens = torch.tensor([YES, NO], device=self.device)
        return lambda: self.walk(mine, chunk, source, tokens), (mine, chunk, source, None, tokens)

    def walk(self, *parts: object) -> object:
        mine, chunk, source, tokens = parts
        assert isinstance(chunk, Chunk)
        return list(walk(self.vlm, mine, [chunk], source, None, tokens))  # type: ignore[arg-type]

    def floor(self, walks: Sequence[tuple[object, tuple[object, ...]]]) -> float:
        """Milliseconds that the products of walks take at the rate of one large product."""
        if not self.cuda:
            return float("nan")
        a, b = (torch.randn(8192, 8192, device=self.device).bfloat16() for _ in range(2))
        rate = 2 * 8192**3 / self.clock(lambda: a @ b)
        layers = self.vlm.lm.layers
        weights = sum(one.numel() for one in layers[0].parameters())
        rows = 0
        for _, (_, chunk, *_) in walks:
            assert isinstance(chunk, Chunk)
            rows += sum(count * (len(layers) - at) for at, count in enumerate(chunk.joining))
        return 2 * weights * rows / rate

    def profile(self, run: Callable[[], object]) -> None:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            run()
            torch.cuda.synchronize()
        table = seen.key_averages()
        kernels = sorted(table, key=lambda one: -one.self_device_time_total)[: self.options.profile]
        for one in kernels:
            print(f"    {one.self_device_time_total / 1000:8.3f} ms {one.count:6d}x {one.key[:90]}")
        for one in sorted(table, key=lambda one: -one.self_cpu_time_total)[:12]:
            print(
                f"    cpu {one.self_cpu_time_total / 1000:8.3f} ms {one.count:6d}x {one.key[:60]}"
            )

    def naive(self, base: Baseline) -> float:
        """Milliseconds of a loop with one forward pass a head, over all heads."""
        one = self.prompt.select(0)
        grid = list(self.vlm.lm.grid)
        step = max(len(grid) // self.options.naive, 1)

        asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in grid[::step]]
        edits = [list(z_edits(self.vlm, 0, what, base, None)) for what in asked]

        def loop() -> None:
            for change in edits:
                forward(self.vlm, one, change)

        return self.clock(loop, repeats=1, warm=1) * len(grid) / len(edits)

    def asked(self, scope: str, step: int = 1) -> list[Intervention]:
        grid = list(self.vlm.lm.grid)[::step]
        return [Intervention(HeadSet.of(head), "resample", "noising", scope) for head in grid]  # type: ignore[arg-type]

    def question(self) -> None:
        base, asked = self.base(self.vlm, "question"), self.asked("question")
        spent = self.clock(lambda: widen(self.vlm, base, asked), repeats=1, warm=1)
        count = len(self.prompt.spans.positions("question"))
        self.line(
            f"`question` scope, {count} tokens / plain forward",
            f"{spent / self.plain:.2f}",
            "<= 25",
        )

    def everywhere(self) -> None:
        base = self.base(self.vlm, "all")
        step = max(self.heads // self.options.deep, 1)
        asked, every = self.asked("all", step), self.asked("all")
        mine = base.trace.prefills[0]
        size, layers = rows_that_fit(self.vlm, mine), len(mine.layers)
        cost = passes(mine, [one.heads for one in every], layers, size)
        sampled = passes(mine, [one.heads for one in asked], layers, size)
        self.line(f"`all` scope, {self.heads:,} heads: forward passes", f"{cost:.0f}", "<= 500")
        spent = self.clock(lambda: widen(self.vlm, base, asked), repeats=1, warm=1)
        self.line(
            f"... wall / that many batched forwards ({len(asked)} heads timed)",
            f"{spent / sampled / self.batched:.2f}",
            "<= 1.3",
        )

    def memory(self) -> None:
        """A sweep in less memory than it asks for: chunks are halved, numbers stay."""
        if not self.cuda:
            return
        base, asked = self.base(self.vlm, "answer"), self.asked("answer")
        found = widen(self.vlm, base, asked)
        roomy = [one.effect for one in found]
        largest = sorted(found, key=lambda one: -abs(one.effect))[:7]
        again = patch(self.vlm, base, [one.intervention for one in largest])
        noise = max(abs(a.effect - b.effect) for a, b in zip(largest, again, strict=True))
        free()
        need = self.clock.peak(lambda: widen(self.vlm, base, asked)) * 2**20
        free()
        total = torch.cuda.get_device_properties(self.device).total_memory
        before = torch.cuda.memory_stats()["num_ooms"]
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved() + need / 4) / total
        )
        try:
            tight = [one.effect for one in widen(self.vlm, base, asked)]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        halved = torch.cuda.memory_stats()["num_ooms"] - before
        apart = max(abs(a - b) for a, b in zip(roomy, tight, strict=True))
        self.line(
            "a quarter of the memory it takes: times out of memory; largest change of an effect",
            f"{halved}; {apart:.1e} logits (largest effect {max(map(abs, roomy)):.2g}, "
            f"noise floor: the seven largest against float32 arithmetic {noise:.1e})",
        )

    def exactness(self) -> None:
        """Tiny models: every kind, direction and scope against whole passes, on this device."""
        size = SIZES["tiny"]
        prompt = make_prompt(size, self.device)
        kinds, directions = ("zero", "mean", "resample", "self"), ("noising", "denoising")
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            vlm, worst, largest = build(size, self.device, dtype), 0.0, 0.0
            for scope in ("answer", "question", "image", "all"):
                base = self.base(vlm, scope, prompt)
                means = {"lm": [z.mean(0) + 0.1 for z in base.trace.z["lm"]]}
                sets = [HeadSet.of(head) for head in vlm.lm.grid]
                sets += [HeadSet.parse("0.1+0.3"), HeadSet.parse("1.0+0.2+3.1")]
                asked = [
                    Intervention(heads, kind, direction, scope)  # type: ignore[arg-type]
                    for heads, kind, direction in product(sets, kinds, directions)
                ]
                fast = widen(vlm, base, asked, means)  # type: ignore[arg-type]
                slow = patch(vlm, base, asked, means, batch=64)  # type: ignore[arg-type]
                pairs = [(a.effect, b.effect) for a, b in zip(fast, slow, strict=True)]
                worst = max(worst, *(abs(a - b) for a, b in pairs))
                largest = max(largest, *(abs(b) for _, b in pairs))
            self.line(
                f"tiny model, {str(dtype).split('.')[1]}: sweep against whole passes, worst",
                f"{worst:.1e} logits (largest effect {largest:.2f})",
                "<= 1e-4" if dtype == torch.float32 else "",
            )

    def precision(self) -> None:
        """Against float32 weights and activations, every weight the same number."""
        asked = self.asked("answer")
        low = [one.effect for one in widen(self.vlm, self.base(self.vlm, "answer"), asked)]
        free()
        full = VLM(self.vlm.model.float(), None, "random", "")  # type: ignore[arg-type]
        base = self.base(full, "answer")
        exact = [one.effect for one in widen(full, base, asked)]
        both = torch.tensor([low, exact], dtype=torch.float64)
        worst = (both[0] - both[1]).abs().max() / both[1].abs().max()
        self.line(
            "bf16 sweep against float32 sweep, correlation of effects",
            f"{float(torch.corrcoef(both)[0, 1]):.6f}",
            ">= 0.99",
        )
        self.line(
            "largest difference / largest effect",
            f"{float(worst):.4f} (largest {float(both[1].abs().max()):.3f} logits)",
        )
        step = max(self.heads // self.options.deep, 1)
        slow = [one.effect for one in patch(full, base, asked[::step])]
        apart = max(abs(a - b) for a, b in zip(slow, exact[::step], strict=True))
        self.line(
            f"float32 sweep against whole passes, worst of {len(slow)} heads",
            f"{apart:.1e} logits",
            "<= 1e-4",
        )


SECTIONS = ["exactness", "forward", "rows", "answer", "question", "everywhere", "memory",
            "precision"]  # fmt: skip


def versions() -> str:
    found = []
    for name in ("torch", "transformers", "triton"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--naive", type=int, default=128, help="heads of the naive loop")
    parser.add_argument("--deep", type=int, default=64, help="heads of the `all` scope")
    parser.add_argument(
        "--profile", type=int, nargs="?", const=30, default=0, help="list a sweep's largest kernels"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="SECTION", help="of the table: forward, rows, answer, ..."
    )
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else options.device
    fused = "own kernels" if kernels_on(torch.device(options.device)) else "no kernels of its own"
    print(f"{name}; {versions()}; {fused}; size {options.size}; {torch.get_num_threads()} threads")
    print("| figure | measured | goal |\n|---|---|---|", flush=True)
    began = time.perf_counter()
    bench = Bench(options)
    for section in (one for one in SECTIONS if one in (options.only or SECTIONS)):
        try:
            getattr(bench, section)()
        except Exception as error:  # the other figures still count
            bench.line(section, f"failed: {str(error).splitlines()[:1]}")
            traceback.print_exc()
        free()
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""Every head at once on LLaVA-1.5-7B's exact dimensions, random weights: one table of ratios.

    python benchmarks/gpu_sweep.py                    # one CUDA device with 48 GiB or more
    python benchmarks/gpu_sweep.py --size tiny --device cpu   # tries the script itself

All figures of one run are from one process on one device. Times are medians of device-side
intervals after warm-up; the naive loop is measured on `--naive` heads and scaled to all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Baseline, run_pair, z_edits
from headpatch.engine.prefill import sources
from headpatch.engine.sweep import rows_that_fit, suffix_start, widen
from headpatch.engine.wavefront import Chunk, Row, plan, walk
from headpatch.heads import HeadSet
from headpatch.models.answers import AnswerTokens
from headpatch.models.patches import Patches
from headpatch.models.prompt import Prompt
from headpatch.models.spans import find_spans
from headpatch.models.vlm import VLM

IMAGE = 31999  # id of the image token
YES, NO = 3869, 1939


@dataclass(frozen=True)
class Size:
    """Dimensions of a LLaVA."""

    text: dict[str, int]
    vision: dict[str, int]
    question: int = 22  # tokens after the image


SIZES = {
    "7b": Size(
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
        },
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
    ),
    "tiny": Size(
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
    ),
}


def build(size: Size, device: torch.device, dtype: torch.dtype) -> VLM:
    """Return a LLaVA with random weights, made where it will stay."""
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=32064, **size.text),
        vision_config=CLIPVisionConfig(**size.vision),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
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
    return [Row(HeadSet.of(head), kind) for kind in kinds for head in vlm.lm.grid]


class Bench:
    """The measurements; each prints its line and keeps its figure."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.size, self.device = SIZES[options.size], torch.device(options.device)
        self.vlm = build(self.size, self.device, torch.bfloat16)
        self.prompt = make_prompt(self.size, self.device)
        self.clock = Clock(self.device)
        self.heads = self.vlm.lm.grid.layers * self.vlm.lm.grid.heads
        self.plain = 0.0

    def line(self, name: str, value: str, goal: str = "") -> None:
        print(f"| {name} | {value} | {goal} |", flush=True)

    def forward(self) -> None:
        one = self.prompt.select(0)
        self.plain = self.clock(lambda: forward(self.vlm, one))
        self.line("one plain forward (bf16, sdpa)", f"{self.plain:.2f} ms")

    def rows(self) -> None:
        one = self.prompt.select(0)
        keep = Keep(lm_rows=True)
        recorded = self.clock(lambda: forward(self.vlm, one, keep=keep))
        extra = self.clock.peak(lambda: forward(self.vlm, one, keep=keep))
        least = self.clock.peak(lambda: forward(self.vlm, one))
        model = self.vlm.model
        model.set_attn_implementation("eager")
        inputs = {
            key: value.to(self.vlm.dtype) if value.is_floating_point() else value
            for key, value in one.inputs.items()
        }

        def eager() -> object:
            with torch.no_grad():
                return model(
                    **inputs, output_attentions=True, use_cache=False, logits_to_keep=1
                ).logits

        slow, large = self.clock(eager, repeats=5), self.clock.peak(eager)
        model.set_attn_implementation("sdpa")
        self.line(
            "recording all rows / plain forward, time", f"{recorded / self.plain:.3f}", "1.05"
        )
        self.line(
            "extra memory of rows / of output_attentions=True",
            f"{(extra - least) / (large - least):.4f} ({extra - least:.1f} MiB)",
            "0.02",
        )
        self.line("output_attentions=True (eager) / plain, time", f"{slow / self.plain:.2f}")

    def base(self, vlm: VLM, positions: str) -> Baseline:
        start = suffix_start(self.prompt.spans, positions)  # type: ignore[arg-type]
        return run_pair(vlm, self.prompt, Keep(z=("lm",), suffix=start), exact=True)

    def answer(self) -> None:
        base = self.base(self.vlm, "answer")
        prefill = self.clock(lambda: self.base(self.vlm, "answer"), repeats=3, warm=1)
        self.line("raised prefill of both runs / plain forward", f"{prefill / self.plain:.2f}")
        single = [self.walker(base, ("resample",), 0)]
        sweep = self.clock(lambda: [run() for run in single])
        self.line(
            "sweep, one kind and direction / plain forward", f"{sweep / self.plain:.3f}", "0.7"
        )
        kinds = ("zero", "mean", "resample", "self")
        five = [self.walker(base, kinds, 0), self.walker(base, ("resample",), 1)]
        every = self.clock(lambda: [run() for run in five])
        self.line("sweep, all five / plain forward", f"{every / self.plain:.3f}", "3.0")
        naive = self.naive(base)
        self.line(
            f"naive loop / sweep (naive: {self.options.naive} heads, scaled)",
            f"{naive / sweep:.0f}",
            "1000",
        )

    def walker(self, base: Baseline, kinds: Sequence[str], run: int) -> Callable[[], object]:
        """Return a walk of all heads, as a CUDA graph where there is CUDA."""
        mine, other = base.trace.prefills[run], base.trace.prefills[1 - run]
        source = sources(mine, other, None, self.device)
        rows = rows_of(self.vlm, kinds)
        (chunk,) = plan(rows, len(source), len(rows), self.device, carried=mine.points is None)
        tokens = torch.tensor([YES, NO], device=self.device)
        if self.device.type == "cuda":
            from headpatch.engine.graphs import capture

            graphed = capture(self.vlm, mine, chunk, source, None, tokens)
            eager = self.clock(lambda: self.walk(mine, chunk, source, tokens), repeats=3)
            name = f"launched kernel by kernel: {'+'.join(kinds)} / plain forward"
            self.line(name, f"{eager / self.plain:.3f}")
            return graphed.replay
        return lambda: self.walk(mine, chunk, source, tokens)

    def walk(self, *parts: object) -> object:
        mine, chunk, source, tokens = parts
        assert isinstance(chunk, Chunk)
        return list(walk(self.vlm, mine, [chunk], source, None, tokens))  # type: ignore[arg-type]

    def naive(self, base: Baseline) -> float:
        """Milliseconds of a loop with one forward pass a head, over all heads."""
        one = self.prompt.select(0)
        grid = list(self.vlm.lm.grid)
        step = max(len(grid) // self.options.naive, 1)

        def loop(heads: Sequence[object]) -> None:
            for head in heads:
                what = Intervention(HeadSet.of(head), "resample", "noising")  # type: ignore[arg-type]
                forward(self.vlm, one, list(z_edits(0, what, base, None)))

        chosen = grid[::step]
        return self.clock(lambda: loop(chosen), repeats=1, warm=1) * len(grid) / len(chosen)

    def scopes(self) -> None:
        for scope, goal in (("question", "25"), ("all", "500 x 1.3")):
            base = self.base(self.vlm, scope)
            grid = list(self.vlm.lm.grid)
            step = 1 if scope == "question" else max(len(grid) // self.options.deep, 1)
            asked = [
                Intervention(HeadSet.of(head), "resample", "noising", scope)  # type: ignore[arg-type]
                for head in grid[::step]
            ]
            spent = self.clock(lambda a=asked, b=base: widen(self.vlm, b, a), repeats=1, warm=0)
            mine = base.trace.prefills[0]
            size = rows_that_fit(self.vlm, mine)
            chunks = plan(
                [Row(one.heads, one.kind) for one in asked],
                len(mine.layers),
                size,
                self.device,
                carried=mine.points is None,
            )
            share = (mine.tokens - mine.start) / mine.tokens / len(mine.layers)
            cost = sum(chunk.layer_rows for chunk in chunks) * share * step
            self.line(
                f"`{scope}` scope / plain forward"
                + (f" (every {step}th head, scaled)" * (step > 1)),
                f"{spent * step / self.plain:.1f}; {cost:.0f} forward-pass equivalents",
                goal,
            )

    def precision(self) -> None:
        """Correlation with float32 activations over the same weights."""
        asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in self.vlm.lm.grid]
        low = [one.effect for one in widen(self.vlm, self.base(self.vlm, "answer"), asked)]
        full = VLM(self.vlm.model.float(), None, "random", "")  # type: ignore[arg-type]
        exact = [one.effect for one in widen(full, self.base(full, "answer"), asked)]
        both = torch.tensor([low, exact], dtype=torch.float64)
        worst = (both[0] - both[1]).abs().max() / both[1].abs().max()
        self.line(
            "bf16 sweep against float32 sweep, correlation",
            f"{float(torch.corrcoef(both)[0, 1]):.5f}",
            "0.99",
        )
        self.line("largest difference / largest effect", f"{float(worst):.4f}")

    def sections(self) -> Iterator[Callable[[], None]]:
        yield from (self.forward, self.rows, self.answer, self.scopes, self.precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--naive", type=int, default=128, help="heads of the naive loop")
    parser.add_argument("--deep", type=int, default=64, help="heads of the `all` scope")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(
        f"{name}, torch {torch.__version__}, size {options.size}, {torch.get_num_threads()} threads"
    )
    print("| figure | measured | goal |\n|---|---|---|", flush=True)
    bench = Bench(options)
    for section in bench.sections():
        try:
            section()
        except (RuntimeError, torch.OutOfMemoryError) as error:  # the other figures still count
            bench.line(section.__name__, f"failed: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()

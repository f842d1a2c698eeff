"""How well attribution patching stands for the exact sweep, on the bundled model.

Effects of every head, estimated from one backward pass, beside the exact ones: of the language
model at the answer position by widening passes, of the vision tower at all its positions by resumed
passes. Pairs are the bundled one and drawn ones. Times are of one pair, of this run, one after the
other; the backward pass serves all kinds, directions, positions and both towers at once.

    python benchmarks/attribution.py [--pairs 2] [--threads 1] [--reference 16] [--batch 16]
                                     [--parts]
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import torch
import transformers
from PIL import Image

from headpatch.core.study.study import Study
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention, tower_of, vision_positions
from headpatch.engine.patching import Baseline, Outcome, ZMeans, run_pair
from headpatch.engine.vision import equivalents, patch_vision
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import HeadSet, Tower
from headpatch.models.load import load
from headpatch.models.prompt import Prompt, encode
from headpatch.models.vlm import VLM
from headpatch.pairs.scene import Style, draw, sample_pair
from headpatch.stats.agreement import Agreement, agreement

KINDS: tuple[str, ...] = ("zero", "mean", "resample")
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
TOWERS: tuple[Tower, ...] = get_args(Tower)
SCOPES = [("lm", "answer"), ("vision", "all")]
PARTS = [("vision", "class"), ("vision", "patches")]
Pictures = list[Image.Image]


def drawn(rng: np.random.Generator, size: tuple[int, int]) -> Pictures:
    return [draw(scene, Style(*size)) for scene in sample_pair(rng, "top left")]


def mean_z(vlm: VLM, prompts: list[Prompt]) -> ZMeans:
    traces = [forward(vlm, prompt, keep=Keep(z=TOWERS)).z for prompt in prompts]
    return {
        tower: [torch.cat(layer).mean(0) for layer in zip(*(z[tower] for z in traces), strict=True)]
        for tower in TOWERS
    }


def graph_bytes(vlm: VLM, prompt: Prompt) -> int:
    """What the backward pass needs kept, weights apart."""
    weights = {one.untyped_storage().data_ptr() for one in vlm.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gradients(vlm, prompt)
    return sum(kept.values())


def timed(times: dict[str, list[float]], name: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    found = call()
    times[name].append(time.perf_counter() - start)
    return found


def exact(
    vlm: VLM,
    base: Baseline,
    tower: str,
    scope: str,
    asked: list[Intervention],
    means: ZMeans,
    n: int,
) -> list[Outcome]:
    if tower == "lm":
        return widen(vlm, base, asked, means)
    asked = [replace(one, vision_positions=scope) for one in asked]  # type: ignore[arg-type]
    return patch_vision(vlm, base, asked, means, batch=n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reference", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parts", action="store_true", help="class and patch positions apart")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    study, rng = Study(), np.random.default_rng(0)
    vlm, bundled = load("demo", options.device), study.pair()
    size = bundled.with_image.size
    scopes = SCOPES + PARTS * options.parts

    def ask(pictures: Pictures) -> Prompt:
        return encode(vlm, pictures, study.question, study.answers, study.prompt)

    means = mean_z(vlm, [ask(drawn(rng, size)) for _ in range(options.reference)])
    prompts = [ask([bundled.with_image, bundled.without_image])]
    while len(prompts) < options.pairs:  # of the drawn pairs, those whose answer flips
        prompt = ask(drawn(rng, size))
        ld = forward(vlm, prompt).ld(prompt)
        if ld[0] > 0 > ld[1]:
            prompts.append(prompt)

    times: dict[str, list[float]] = defaultdict(list)
    found: dict[tuple[str, str, str, str], list[Agreement]] = defaultdict(list)
    for prompt in prompts:
        keep = Keep(z=TOWERS, suffix=suffix_start(prompt.spans, "answer"))
        base = run_pair(vlm, prompt, keep)
        timed(times, "plain", partial(forward, vlm, prompt))
        pair = timed(times, "approx", partial(gradients, vlm, prompt))
        for (tower, scope), kind, direction in product(scopes, KINDS, DIRECTIONS):
            sets = [HeadSet.of(head) for head in vlm.lm.grid]
            sets = sets if tower == "lm" else [HeadSet.of(head) for head in tower_of(vlm).grid]
            asked = [Intervention(one, kind, direction) for one in sets]
            outcomes = timed(
                times,
                f"{tower} {scope}",
                partial(exact, vlm, base, tower, scope, asked, means, options.batch),
            )
            estimate = timed(times, "estimate", partial(attribute, pair, kind, direction, means))
            where = (
                prompt.spans.positions("answer")
                if tower == "lm"
                else vision_positions(vlm, base, scope)
            )
            approx = estimate[tower][..., where.to(vlm.device)].sum(-1).flatten().cpu().numpy()
            effects = np.array([outcome.effect for outcome in outcomes])
            found[tower, scope, kind, direction].append(agreement(approx, effects))

    memory = graph_bytes(vlm, prompts[0])
    device = (
        torch.cuda.get_device_name(vlm.device) if vlm.device.type == "cuda" else vlm.device.type
    )
    print(f"{device}, {vlm.dtype}, {options.threads} threads, ", end="")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; ", end="")
    print(f"{len(prompts)} pairs, median (min to max)\n")
    print("| tower | positions | kind | direction | Pearson | Spearman | top-20 recall |")
    print("|---|---|---|---|---|---|---|")
    for key, all_pairs in found.items():
        cells = []
        for name in ("pearson", "spearman", "top_recall"):
            values = [getattr(one, name) for one in all_pairs]
            cells.append(
                f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            )
        print(f"| {' | '.join((*key, *cells))} |")

    plain = statistics.median(times["plain"])
    cost = equivalents(vlm, base, asked, options.batch)
    print("\n| what, of one pair | s | ÷ a plain pass of the pair |")
    print("|---|---|---|")
    for name, label in (
        ("plain", "plain pass"),
        ("approx", "all gradients, both runs and towers"),
        ("estimate", "one kind and direction from them"),
        ("lm answer", f"exact, {len(list(vlm.lm.grid))} heads at the answer"),
        ("vision all", f"exact, {len(asked)} vision heads ({cost:.0f} passes of one run)"),
    ):
        taken = statistics.median(times[name])
        print(f"| {label} | {taken:.4f} | {taken / plain:.2f} |")
    print(f"\nThe graph of the pair's batch holds {memory / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()

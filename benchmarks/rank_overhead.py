"""What `headpatch rank` costs beside the least that any script must do.

The bare script imports torch and transformers, loads the model and runs two forward passes. Both
run as whole processes, in turn, so that a machine whose speed drifts slows both; the ratio is
taken pair by pair.

    python benchmarks/rank_overhead.py [--runs 5] [--threads 2] [--model demo]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, images, question = sys.argv[1], sys.argv[2:4], sys.argv[4]
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
content = [{"type": "image"}, {"type": "text", "text": question}]
turns = [{"role": "user", "content": content}]
prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
for image in images:
    inputs = processor(images=Image.open(image), text=prompt, return_tensors="pt")
    with torch.no_grad():
        model(**inputs).logits[0, -1].argmax()
"""


def run(command: list[str], threads: int) -> tuple[float, float]:
    """Return a process's wall time in seconds and peak memory in MiB."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()

    from headpatch.core.study.study import Study
    from headpatch.models.weights import DEMO
    from headpatch.pairs.pair import BUNDLED

    study = Study()
    folder = str(DEMO) if options.model == "demo" else options.model
    images = [str(BUNDLED / name) for name in ("1.jpg", "2.jpg")]
    bare = [sys.executable, "-c", BARE, folder, *images, study.question]
    with tempfile.TemporaryDirectory() as out:
        ours = [sys.executable, "-m", "headpatch", "rank", "--model", options.model, "--force"]
        ours += ["--out", str(Path(out) / "rank")]
        pairs = [
            (run(bare, options.threads), run(ours, options.threads))
            for _ in range(options.runs + 1)
        ][1:]  # the first of each warms the disk cache

    print(f"{options.runs} runs in turn, {options.threads} threads, median (min-max)")
    print("| figure | bare script | headpatch rank | ratio | goal |")
    print("|---|---|---|---|---|")
    for index, (name, unit, goal) in enumerate(
        [("wall time", "s", "<= 2"), ("peak memory", "MiB", "<= 1.3")]
    ):
        base = [pair[0][index] for pair in pairs]
        mine = [pair[1][index] for pair in pairs]
        ratio = [m / b for m, b in zip(mine, base, strict=True)]
        cells = [
            f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
            for values in (base, mine, ratio)
        ]
        print(f"| {name} | {cells[0]} {unit} | {cells[1]} {unit} | {cells[2]} | {goal} |")


if __name__ == "__main__":
    main()

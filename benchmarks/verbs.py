"""What every verb costs on a model of any size, through the command line.

Each verb runs in a process of its own. Printed are its wall time, which part of it passed before
the first forward pass (imports, loading the model), the most memory that its tensors took, and how
many plain forward passes (one picture, one question, no cache) the rest would have paid for; the
pass is timed in the same run, in a process of its own.

    python benchmarks/verbs.py MODEL [--verbs check,rank,verdict] [--pairs 100] [--force]

docs/exactness-and-speed.md has the table of an H200 and a checkpoint of LLaVA-1.5-7B's dimensions.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

COMMANDS = {
    "check": [],
    "rank": [],
    "ablate": ["--heads", "top:5"],
    "sweep": [],
    "combine": ["--heads", "top:4"],
    "path": [],
    "cut": [],
    "trace": [],
    "rollout": [],
    "ablate --pairs": ["--heads", "top:5", "--pairs"],
    "sweep --pairs": ["--kinds", "resample", "--pairs"],
    "verdict": ["--pairs"],
}
"""Flags of each; ``--pairs`` at the end is followed by the folder."""


def child(told: Path, words: list[str]) -> int:
    """Run one command here; write what it took."""
    began = time.perf_counter()
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    first: list[float] = []

    def note(*_: object) -> None:
        first.append(time.perf_counter())
        hook.remove()

    hook = register_module_forward_pre_hook(note)
    from headpatch.cli import main

    sys.argv, code = ["headpatch", *words], 0
    try:
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_reserved() if cuda else 1024 * own_peak()
    found = {"startup": first[0] - began if first else None, "peak": peak, "cuda": cuda}
    told.write_text(json.dumps(found | {"device": torch.cuda.get_device_name() if cuda else "CPU"}))
    return code


def own_peak() -> int:
    """Return the most KiB of memory that this process took."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def plain(told: Path, model: str) -> int:
    """Time a plain forward pass of the default picture and question."""
    import torch

    import headpatch as hp
    from headpatch.models.prompt import encode
    from headpatch.pairs.pair import BUNDLED, read_image

    vlm, study = hp.load(model), hp.Study()
    image = read_image(BUNDLED / "1.jpg", "--with")
    prompt = encode(vlm, [image], study.question, study.answers)
    inputs = {
        name: one.to(vlm.dtype) if one.is_floating_point() else one
        for name, one in prompt.inputs.items()
    }
    seconds = []
    with torch.inference_mode():
        for _ in range(20):
            wait()
            began = time.perf_counter()
            vlm.model(**inputs, use_cache=False, logits_to_keep=1)
            wait()
            seconds.append(time.perf_counter() - began)
    found = {"seconds": statistics.median(seconds[5:]), "tokens": prompt.spans.length}
    told.write_text(json.dumps(found))
    return 0


def wait() -> None:
    """Wait until the device has done what was launched."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(own: str, told: Path, *words: str) -> tuple[float, int, str]:
    """Run this script in another process; return wall seconds, its exit code, its errors' end."""
    line = [sys.executable, __file__, own, str(told), *words]
    # As pip installs packages: compiled. Where that is forbidden, torch and transformers are
    # compiled anew by every process.
    compiled = {name: one for name, one in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=compiled)
    return time.perf_counter() - began, done.returncode, done.stderr.strip()[-200:]


def main() -> None:
    """Print the table."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("model")
    parser.add_argument("--verbs", default=",".join(COMMANDS))
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--force", action="store_true")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        pairs = str(place / "pairs")
        draw = [sys.executable, "-m", "headpatch", "pairs", "--n", str(asked.pairs), "--out", pairs]
        subprocess.run(draw, check=True, capture_output=True)
        _, code, error = run("--plain", place / "plain", asked.model)
        if code:
            sys.exit(f"a plain pass failed: {error}")
        one = json.loads((place / "plain").read_text())
        milliseconds, tokens = 1e3 * one["seconds"], one["tokens"]
        print(f"plain forward pass: {milliseconds:.1f} ms, {tokens} tokens", flush=True)
        print("| verb | wall (s) | before the first pass (s) | peak memory (GB) | plain passes |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for verb in asked.verbs.split(","):
            words = [verb.split()[0], *COMMANDS[verb], "--model", asked.model]
            if "--pairs" in words:
                words.insert(words.index("--pairs") + 1, pairs)
            words += ["--force"] * asked.force
            words += [] if verb == "check" else ["--out", str(place / verb.replace(" ", ""))]
            wall, code, error = run("--child", place / "told", *words)
            if code:
                print(f"| {verb} | failed ({code}): {error} |", flush=True)
                continue
            told = json.loads((place / "told").read_text())
            equal = (wall - told["startup"]) / one["seconds"]
            print(
                f"| `{verb}` | {wall:.1f} | {told['startup']:.1f} | {told['peak'] / 1e9:.1f} "
                f"| {equal:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(Path(sys.argv[2]), sys.argv[3:]))
    if sys.argv[1:2] == ["--plain"]:
        sys.exit(plain(Path(sys.argv[2]), sys.argv[3]))
    main()

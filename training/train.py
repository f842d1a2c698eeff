"""Train the demo model from nothing: `python -m training.train --out DIR`.

One GPU, under 15 minutes. Kill it at any time: the same command goes on from the last checkpoint in
DIR; without `--minutes` it takes the steps that it would have taken if it had never stopped. At the
end DIR holds the model as `from_pretrained` reads it, weights in float16.
The recipe and its reasons are in headpatch/models/demo/README.md.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.batches import ordered
from training.export import CHECKPOINT, export, log, save, write_pieces
from training.trainer import Settings, Trainer

STARTED = time.monotonic()
# Best first. On an H100 and this training's shapes: 1.34, 1.83 and 2.97 ms a layer and step.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def train(settings: Settings) -> Trainer:
    """Run, or go on with, the training in `settings.out`, and export the model there.

    Raises FloatingPointError if the loss is not finite, RuntimeError if Yes/No is still guessed at
    the step of `give_up`.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    saved = settings.out / CHECKPOINT
    state = torch.load(saved, map_location="cpu", weights_only=True) if saved.exists() else None
    step, before = (state["step"], state["elapsed"]) if state else (0, 0.0)
    batches = ordered(trainer.batcher, range(step, 10**9), settings.workers)
    batch = next(batches)  # forks the workers, before CUDA is touched
    fresh = [trainer.fresh(number) for number in range(2)]
    trainer.to_device()
    if state:
        trainer.load(state)
        del state
    count = sum(p.numel() for p in trainer.model.parameters())
    log(
        settings.out,
        f"step {step}: {count / 1e6:.2f} M parameters, {settings.workers} workers, "
        f"torch {torch.__version__} on {settings.device}",
    )

    def elapsed() -> float:
        return before + time.monotonic() - STARTED

    def done() -> float:
        by_clock = elapsed() / (60 * settings.minutes) if settings.minutes else 0.0
        return max(step / settings.steps, by_clock)

    marked_time, marked_step = time.monotonic(), step
    while (part := done()) < 1:
        if step == settings.stop_after:
            batches.close()
            return trainer
        losses = trainer.update(batch, step, part)
        step += 1
        batch = next(batches)
        if step % settings.log_every == 0 or step == 1:
            values = {name: value.item() for name, value in losses.items()}
            if not math.isfinite(values["total"]):
                raise FloatingPointError(
                    f"loss is {values['total']} at step {step}: lower the rate and start again"
                )
            speed = (step - marked_step) / (time.monotonic() - marked_time)
            marked_time, marked_step = time.monotonic(), step
            line = f"step {step:5d}  {100 * part:5.1f} %  " + "  ".join(
                f"{k} {v:.4f}" for k, v in values.items()
            )
            log(settings.out, f"{line}  {speed:.2f} step/s  {elapsed():.0f} s")
        if step % settings.test_every == 0:
            shares = trainer.test(fresh)
            if step >= settings.give_up[0] and shares["yes/no"] < settings.give_up[1]:
                raise RuntimeError(
                    f"Yes/No at {shares['yes/no']:.1%} by step {step}: still guessing"
                )
            log(settings.out, f"  fresh scenes: {percentages(shares)}")
        if step % settings.save_every == 0:
            save(trainer.state(step, elapsed()), saved)
    batches.close()
    save(trainer.state(step, elapsed()), saved)
    fresh = [trainer.fresh(10_000_000 + number) for number in range(4)]
    log(
        settings.out,
        f"done: {step} steps, {elapsed():.0f} s; {4 * settings.batch} fresh scenes: "
        f"{percentages(trainer.test(fresh))}",
    )
    export(trainer.model, trainer.processor, settings.out)
    return trainer


def percentages(shares: dict[str, float]) -> str:
    """As one line: yes/no 99.50 %  shape 98.00 % ..."""
    return "  ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()  # does not start CUDA in this process
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints and the finished model"
    )
    parser.add_argument(
        "--steps", type=int, default=Settings.steps, help="length of the schedule (%(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="end the schedule after so long, start-up included, if sooner (on a slower GPU)",
    )
    parser.add_argument(
        "--batch", type=int, default=Settings.batch, help="scenes a step (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, os.cpu_count() or 1),
        help="drawing processes (%(default)s)",
    )
    parser.add_argument(
        "--save-every", type=int, default=Settings.save_every, help="steps (%(default)s)"
    )
    parser.add_argument(
        "--no-graph", dest="graph", action="store_false", help="no CUDA graph: slower"
    )
    parser.add_argument(
        "--shape", default="", help="other model sizes, as layers=2,heads=4 (for trials)"
    )
    parser.add_argument(
        "--pieces", type=Path, help="also write the finished model there, in pieces of 15 MB"
    )
    given = vars(parser.parse_args(argv))
    pieces = given.pop("pieces")
    given["shape"] = {
        k: int(v) for k, v in (part.split("=") for part in given["shape"].split(",") if part)
    }
    settings = Settings(**given)
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
    with sdpa_kernel(ATTENTION, set_priority=True):
        train(settings)
    if pieces:
        write_pieces(settings.out, pieces)


if __name__ == "__main__":
    main()

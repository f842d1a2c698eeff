"""Train the demo model from nothing: `python -m headpatch.models.demo.train --out DIR --minutes 7`.

One GPU, under 15 minutes. Kill it at any time: the same command goes on from the last checkpoint in
DIR, and with `--steps` the result is the same as if it had never stopped. At the end DIR holds the
model as `from_pretrained` reads it, weights in float16.
The recipe and its reasons are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import shutil
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headpatch.models.demo.batches import IGNORED, Batch, Batcher, ordered
from headpatch.models.demo.forward import FastLlava
from headpatch.models.demo.questions import KIND_WEIGHTS
from headpatch.models.demo.text import build_config, build_processor
from headpatch.pairs.scene import COLOURS, SHAPES

STARTED = time.monotonic()
CHECKPOINT = "checkpoint.pt"
PIECE_BYTES = 15_000_000


@dataclass(frozen=True)
class Stage:
    """What one stage of the training stresses.

    `plain`: see `Batcher`; `kinds`: how often each kind of question is asked; `balanced`: whether
    in the patch loss the few patches that show a thing weigh as much as the background; `patches`:
    weight of the patch loss at the start, and from half-way on; `names`: weight of the loss on the
    names of shapes and colours in answers, beside that on all answer tokens.
    """

    plain: tuple[float, int]
    kinds: Mapping[str, float]
    balanced: bool
    patches: tuple[float, float]
    names: float = 0.0


STAGES = {
    # Where things are: from random weights.
    "places": Stage((0.8, 800), KIND_WEIGHTS, balanced=False, patches=(1.0, 0.05)),
    # What they are: from the weights of the first stage.
    "things": Stage(
        (0.0, 1),
        {
            "anything": 0.22,
            "shape": 0.24,
            "colour": 0.13,
            "both": 0.13,
            "what_shape": 0.17,
            "what_colour": 0.11,
        },
        balanced=True,
        patches=(1.0, 0.3),
    ),
    # Saying it: from the weights of the second stage.
    "words": Stage(
        (0.0, 1),
        {
            "anything": 0.20,
            "shape": 0.20,
            "colour": 0.18,
            "both": 0.12,
            "what_shape": 0.12,
            "what_colour": 0.18,
        },
        balanced=True,
        patches=(0.3, 0.1),
        names=1.0,
    ),
}


@dataclass(frozen=True)
class Settings:
    """The recipe. `shape` overrides the model's sizes (see `build_config`), for tests."""

    out: Path
    steps: int = 6000
    minutes: float | None = None  # end the schedule by the clock instead, start-up included
    batch: int = 128
    length: int = 352
    rate: float = 1e-3
    warm_up: int = 150
    decay: float = 0.05
    clip: float = 1.0
    verdict_weight: float = (
        1.0  # of the loss on the Yes/No tokens, beside that on all answer tokens
    )
    stage: str = "places"  # of STAGES
    init: Path | None = None  # a model folder to start from, instead of random weights
    seed: int = 0
    device: str = "cpu"
    workers: int = 0
    save_every: int = 400
    log_every: int = 50
    test_every: int = 200
    give_up: tuple[int, float] = (1600, 0.62)  # step, and the Yes/No accuracy to have by then
    stop_after: int | None = None  # leave at this step without saving, as a kill would; for tests
    shape: Mapping[str, int] = field(default_factory=dict)


class PatchHeads(nn.Module):
    """What a projected patch shows, read off linearly: `patch_classes`, row and column."""

    rows: Tensor
    columns: Tensor

    def __init__(self, width: int, patches: int, balanced: bool) -> None:
        super().__init__()
        self.balanced = balanced
        self.what = nn.Linear(width, 1 + len(SHAPES) * len(COLOURS))
        self.row, self.column = nn.Linear(width, 3), nn.Linear(width, 3)
        thirds = torch.arange(patches) * 3 // patches
        self.register_buffer("rows", thirds.repeat_interleave(patches), persistent=False)
        self.register_buffer("columns", thirds.repeat(patches), persistent=False)

    def forward(self, image: Tensor, classes: Tensor) -> Tensor:
        """Mean loss of projected patches [b, patches, width] with classes [b, patches]."""
        where = ((self.row, self.rows), (self.column, self.columns))
        logits, target = self.what(image).float().flatten(0, 1), classes.flatten()
        if self.balanced:
            each, shown = F.cross_entropy(logits, target, reduction="none"), target > 0
            on, off = (each * shown).sum() / shown.sum(), (each * ~shown).sum() / (~shown).sum()
            loss = (on + off) / 2
        else:
            loss = F.cross_entropy(logits, target)
        for head, third in where:
            loss = loss + F.cross_entropy(
                head(image).float().flatten(0, 1), third.repeat(len(image))
            )
        return loss


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels [b, 3, h, w] in 0..1, a little brighter or darker, blurred or sharpened, noisy."""

    def uniform(low: float, high: float, off: float = 0.0) -> Tensor:
        """[b, 1, 1, 1]; zero with chance `off`."""
        value, coin = torch.rand(2, len(pixels), 1, 1, 1, device=pixels.device, generator=generator)
        scaled: Tensor = (low + (high - low) * value) * (coin >= off)
        return scaled

    kernel = torch.tensor([1.0, 2.0, 1.0], device=pixels.device)
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    pixels = pixels + uniform(-0.5, 1.0, off=0.5) * (blurred - pixels)
    pixels = pixels * uniform(0.85, 1.1) + uniform(-0.04, 0.04)
    noise = torch.randn(pixels.shape, device=pixels.device, generator=generator)
    return (pixels + uniform(0.0, 0.04, off=0.5) * noise).clamp(0, 1)


class Trainer:
    """Model, optimiser and data of one run; `state` and `load` carry what a resumed run needs."""

    def __init__(self, settings: Settings) -> None:
        from transformers import LlavaForConditionalGeneration

        self.settings = settings
        self.device = torch.device(settings.device)
        self.processor = build_processor(settings.shape.get("image_size", 168))
        tokenizer = self.processor.tokenizer
        config = build_config(tokenizer, **settings.shape)
        side = config.vision_config.image_size
        text = tokenizer.backend_tokenizer.to_str()
        self.stage = STAGES[settings.stage]
        self.batcher = Batcher(
            text,
            settings.seed + list(STAGES).index(settings.stage),
            settings.batch,
            settings.length,
            side,
            self.stage.plain,
            self.stage.kinds,
        )
        self.fresh = Batcher(
            text, settings.seed + 1_000_000, settings.batch, settings.length, side
        )  # never trained on
        torch.manual_seed(settings.seed)
        self.model = LlavaForConditionalGeneration(config)
        if settings.init is not None:
            self.model.load_state_dict(
                LlavaForConditionalGeneration.from_pretrained(
                    settings.init, dtype=torch.float32
                ).state_dict()
            )
        self.heads = PatchHeads(config.text_config.hidden_size, side // 14, self.stage.balanced)
        self.image_start = tokenizer("USER: <image>").input_ids.index(config.image_token_id)
        images = self.processor.image_processor
        self.mean, self.std = (
            torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std)
        )

    def to_device(self) -> None:
        """Move everything and build what must live there. Data workers are forked before this."""
        device, settings = self.device, self.settings
        cuda = device.type == "cuda"
        self.model.to(device)
        self.heads.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.plain = FastLlava(self.model, self.image_start)
        self.fast = FastLlava(self.model, self.image_start, compiled=cuda)
        self.proven = False  # whether the compiled blocks have worked once
        parameters = [p for m in (self.model, self.heads) for p in m.parameters()]
        self.parameters = parameters
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.rate,
            betas=(0.9, 0.98),
            fused=cuda,
        )

    def send(self, batch: Batch) -> tuple[Tensor, ...]:
        """pixels in 0..1 [b, 3, side, side], then the batch's other arrays, on the device."""
        arrays = (
            batch.pixels,
            batch.tokens,
            batch.labels,
            batch.classes,
            batch.verdict,
            batch.names,
        )
        tensors = [torch.from_numpy(a) for a in arrays]
        if self.device.type == "cuda":  # pinned, so that the copy does not wait for the step before
            tensors = [t.pin_memory().to(self.device, non_blocking=True) for t in tensors]
        pixels, tokens, labels, classes, verdict, names = tensors
        return (
            pixels.permute(0, 3, 1, 2).float() / 255,
            tokens.long(),
            labels.long(),
            classes,
            verdict,
            names,
        )

    def autocast(self) -> torch.autocast:
        """bfloat16 on CUDA, nothing on the CPU."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"
        )

    def loss(
        self, model: FastLlava, batch: Batch, step: int, patch_weight: float
    ) -> dict[str, Tensor]:
        """The losses of a training batch, `total` among them."""
        pixels, tokens, labels, classes, verdict, names = self.send(batch)
        generator = torch.Generator(self.device).manual_seed(self.settings.seed * 1_000_003 + step)
        pixels = augment(pixels, generator)
        with self.autocast():
            image = model.see((pixels - self.mean) / self.std)
            logits = model.read(tokens, image)
            patches = self.heads(image, classes)
        each = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        answer = each.sum() / (labels != IGNORED).sum()
        decision = (each * verdict.flatten()).sum() / verdict.sum()
        named = (each * names.flatten()).sum() / names.sum()
        total = answer + self.settings.verdict_weight * decision + patch_weight * patches
        total = total + self.stage.names * named
        return {
            "total": total,
            "answer": answer,
            "verdict": decision,
            "names": named,
            "patches": patches,
        }

    @torch.no_grad()
    def test(self, number: int) -> tuple[float, float]:
        """(Yes/No accuracy, share of right answer tokens) on fresh scenes without augmentation."""
        pixels, tokens, labels, _, verdict, _ = self.send(self.fresh(number))
        with self.autocast():
            guess = self.plain.read(tokens, self.plain.see((pixels - self.mean) / self.std)).argmax(
                -1
            )
        right = guess == labels
        return right[verdict].float().mean().item(), right[labels != IGNORED].float().mean().item()

    def update(self, batch: Batch, step: int, done: float) -> dict[str, Tensor]:
        """One optimiser step; `done`: the part of the schedule that is behind us, 0 to 1."""
        settings = self.settings
        rate = (
            settings.rate
            * min(1.0, (step + 1) / settings.warm_up)
            * 0.5
            * (1 + math.cos(math.pi * min(done, 1.0)))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        start, end = self.stage.patches
        patch_weight = start + (end - start) * min(2 * done, 1.0)
        try:
            losses = self.loss(self.fast, batch, step, patch_weight)
            losses["total"].backward()
        except Exception as problem:
            if self.proven or self.fast is self.plain:
                raise
            log(
                settings.out,
                f"torch.compile failed, going on without it: {type(problem).__name__}: {problem}"[
                    :2000
                ],
            )
            self.fast = self.plain
            self.optimizer.zero_grad(set_to_none=True)
            losses = self.loss(self.fast, batch, step, patch_weight)
            losses["total"].backward()
        self.proven = True
        nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses

    def state(self, step: int, elapsed: float) -> dict[str, Any]:
        """What a checkpoint holds after `step` steps and `elapsed` seconds."""
        parts = {"model": self.model, "heads": self.heads, "optimizer": self.optimizer}
        return {
            "step": step,
            "elapsed": elapsed,
            **{name: part.state_dict() for name, part in parts.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's weights and optimiser state."""
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


def log(folder: Path, line: str) -> None:
    """One line to the terminal and to train.log."""
    print(line, flush=True)
    with open(folder / "train.log", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write under another name, then rename: a kill leaves the old file or the new one, whole."""
    temporary = path.with_name(path.name + ".part")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def train(settings: Settings) -> Trainer:
    """Run, or go on with, the training in `settings.out`, and export the model there."""
    settings.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    saved = settings.out / CHECKPOINT
    state = torch.load(saved, map_location="cpu", weights_only=True) if saved.exists() else None
    step, before = (state["step"], state["elapsed"]) if state else (0, 0.0)
    batches = ordered(trainer.batcher, range(step, 10**9), settings.workers)
    batch = next(batches)  # forks the workers, before CUDA is touched
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
            if step % settings.test_every == 0:
                verdicts, tokens = trainer.test(step)
                if step >= settings.give_up[0] and verdicts < settings.give_up[1]:
                    raise RuntimeError(f"Yes/No at {verdicts:.1%} by step {step}: still guessing")
                line += f"  fresh yes/no {100 * verdicts:.2f} %  tokens {100 * tokens:.2f} %"
            log(settings.out, f"{line}  {speed:.2f} step/s  {elapsed():.0f} s")
        if step % settings.save_every == 0:
            save(trainer.state(step, elapsed()), saved)
    batches.close()
    save(trainer.state(step, elapsed()), saved)
    results = [trainer.test(10_000_000 + i) for i in range(8)]
    log(
        settings.out,
        f"done: {step} steps, {elapsed():.0f} s; {8 * settings.batch} fresh scenes: "
        f"yes/no {100 * sum(v for v, _ in results) / 8:.3f} %, "
        f"tokens {100 * sum(t for _, t in results) / 8:.3f} %",
    )
    export(trainer, settings.out)
    return trainer


def export(trainer: Trainer, out: Path) -> None:
    """Write the model folder, weights rounded to float16; each file appears whole."""
    from transformers import GenerationConfig

    staging = out / "export.part"
    shutil.rmtree(staging, ignore_errors=True)
    tokenizer = trainer.processor.tokenizer
    model = trainer.model.half()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=32,
    )
    model.save_pretrained(staging, max_shard_size="1GB")
    trainer.processor.save_pretrained(staging)
    for file in staging.iterdir():
        os.replace(file, out / file.name)
    staging.rmdir()
    weights = out / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (out / "model.safetensors.sha256").write_text(
        f"{digest}  model.safetensors\n", encoding="utf-8"
    )
    log(out, f"wrote {weights}: {weights.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


def write_pieces(out: Path, pieces: Path) -> None:
    """The weights cut in pieces and the small files in one archive, where file size is limited."""
    pieces.mkdir(parents=True, exist_ok=True)
    data = (out / "model.safetensors").read_bytes()
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        (pieces / f"model.safetensors.{number:02d}").write_bytes(data[start : start + PIECE_BYTES])
    with tarfile.open(pieces / "files.tar.gz", "w:gz") as archive:
        for file in sorted(out.iterdir()):
            large = file.name.startswith(CHECKPOINT) or file.name == "model.safetensors"
            if file.is_file() and not large:
                archive.add(file, arcname=file.name)
    print(
        f"to join: cat {pieces}/model.safetensors.?? > DIR/model.safetensors && "
        f"tar xzf {pieces}/files.tar.gz -C DIR && cd DIR && sha256sum -c model.safetensors.sha256",
        flush=True,
    )


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
        "--minutes", type=float, help="end the schedule after so long, start-up included, if sooner"
    )
    parser.add_argument(
        "--batch", type=int, default=Settings.batch, help="scenes a step (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--stage", choices=STAGES, default=Settings.stage)
    parser.add_argument("--init", type=Path, help="model folder to start from")
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
        torch.backends.cuda.enable_cudnn_sdp(
            False
        )  # flash attention takes d_head = 8 and any length
    train(settings)
    if pieces:
        write_pieces(settings.out, pieces)


if __name__ == "__main__":
    main()

"""One training run's model, losses and optimiser; on CUDA a whole step is one CUDA graph.

A step reads everything from tensors that stay where they are (`Trainer.inputs`, `Trainer.knobs`),
so that the graph, once captured, needs only new contents in them. The CPU, and CUDA if the capture
fails, runs the same function plainly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.batches import IGNORED, Batch, Batcher
from training.export import log
from training.forward import FastLlava
from training.losses import Probes, augment, masked_mean
from training.questions import YES_NO_KINDS
from training.text import build_config, build_processor
from training.turns import KIND_WEIGHTS

PLAIN_STEPS = 3  # before the capture: they compile, and let the optimiser make its state
FRESH = 1_000_000  # added to the seed for scenes that are never trained on


@dataclass(frozen=True)
class Settings:
    """The recipe. `shape` overrides the model's sizes (see `build_config`), for tests."""

    out: Path
    steps: int = 7500
    minutes: float | None = None  # ends the schedule if sooner, start-up included
    batch: int = 128
    length: int = 352
    rate: float = 1e-3
    warm_up: int = 150
    decay: float = 0.05
    clip: float = 1.0
    plain: tuple[float, int] = (0.8, 800)  # see `Batcher`
    # Weights beside 1 for all answer tokens: the Yes/No tokens; names of shapes and colours; and
    # the probes' two losses at the start and from half-way on.
    verdict: float = 1.0
    names: float = 1.0
    patches: tuple[float, float] = (1.0, 0.1)
    asked: tuple[float, float] = (1.0, 0.2)
    seed: int = 0
    device: str = "cpu"
    graph: bool = True  # whether CUDA may run a step as a graph
    workers: int = 0
    save_every: int = 500
    log_every: int = 50
    test_every: int = 200
    give_up: tuple[int, float] = (2500, 0.62)  # step, and the Yes/No accuracy to have by then
    stop_after: int | None = None  # leave at this step without saving, as a kill would; for tests
    shape: Mapping[str, int] = field(default_factory=dict)


class Trainer:
    """Model, optimiser and data of one run; `state` and `load` carry what a resumed run needs."""

    def __init__(self, settings: Settings) -> None:
        from transformers import LlavaForConditionalGeneration

        self.settings, self.device = settings, torch.device(settings.device)
        self.processor = build_processor(settings.shape.get("image_size", 168))
        tokenizer = self.processor.tokenizer
        config = build_config(tokenizer, **settings.shape)
        side = config.vision_config.image_size
        rows = (settings.batch, settings.length, side)
        text = tokenizer.backend_tokenizer.to_str()
        self.batcher = Batcher(text, settings.seed, *rows, settings.plain)
        self.fresh = Batcher(text, settings.seed + FRESH, *rows)
        torch.manual_seed(settings.seed)
        self.model = LlavaForConditionalGeneration(config)
        self.probes = Probes(config.text_config.hidden_size, side // 14)
        self.image_start = tokenizer("USER: <image>").input_ids.index(config.image_token_id)
        images = self.processor.image_processor
        self.mean, self.std = (
            torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std)
        )

    def to_device(self) -> None:
        """Move everything and build what must live there. Data workers are forked before this."""
        device, settings = self.device, self.settings
        cuda = device.type == "cuda"
        if cuda:  # a capture, and the plain steps before it, must not run on the default stream
            torch.cuda.set_stream(torch.cuda.Stream())
        self.model.to(device)
        self.probes.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.plain = FastLlava(self.model, self.image_start)
        self.fast = FastLlava(self.model, self.image_start, compiled=cuda)
        self.knobs = {name: torch.zeros((), device=device) for name in ("rate", "patches", "asked")}
        self.inputs: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None
        self.plain_steps = 0
        self.capturing = cuda and settings.graph  # still to be tried
        parameters = [p for m in (self.model, self.probes) for p in m.parameters()]
        self.parameters = parameters
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.knobs["rate"],
            betas=(0.9, 0.98),
            fused=True,
            capturable=cuda,
        )

    # ------------------------------------------------------------ one step

    def update(self, batch: Batch, step: int, done: float) -> dict[str, Tensor]:
        """One optimiser step; `done`: the part of the schedule that is behind us, 0 to 1.

        Gives the step's losses; the next step may write over them.
        """
        settings = self.settings
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        self.knobs["rate"].fill_(settings.rate * min(1.0, (step + 1) / settings.warm_up) * cosine)
        for name, (start, end) in (("patches", settings.patches), ("asked", settings.asked)):
            self.knobs[name].fill_(start + (end - start) * min(2 * done, 1.0))
        self._fill(batch, step)
        if self.capturing and self.plain_steps >= PLAIN_STEPS:
            self._capture()
        if self.graph is None:
            self.losses = self._advance()
            self.plain_steps += 1
        else:
            self.graph.replay()
        return self.losses

    def send(self, batch: Batch) -> dict[str, Tensor]:
        """The batch on the device, integers as int64, pixels as [b, 3, side, side] in 0..1."""
        tensors = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
        if self.device.type == "cuda":  # pinned, so that the copy does not wait for the step before
            tensors = {
                name: t.pin_memory().to(self.device, non_blocking=True)
                for name, t in tensors.items()
            }
        pixels = tensors.pop("pixels").permute(0, 3, 1, 2).float() / 255
        others = {name: t if t.dtype == torch.bool else t.long() for name, t in tensors.items()}
        return {"pixels": pixels, **others}

    def _fill(self, batch: Batch, step: int) -> None:
        """Put the batch, augmented and normalised, where the step reads it."""
        sent = self.send(batch)
        generator = torch.Generator(self.device).manual_seed(self.settings.seed * 1_000_003 + step)
        sent["pixels"] = (augment(sent["pixels"], generator) - self.mean) / self.std
        if not self.inputs:
            self.inputs = {name: torch.empty_like(t) for name, t in sent.items()}
        for name, tensor in sent.items():
            self.inputs[name].copy_(tensor)

    def _advance(self) -> dict[str, Tensor]:
        """Losses, gradients, new weights from `inputs` and `knobs` alone: what a graph holds."""
        try:
            losses = self._backward()
        except Exception as problem:
            if self.plain_steps or self.fast is self.plain:
                raise
            self._note("torch.compile failed, going on without it", problem)
            self.fast = self.plain
            self.optimizer.zero_grad(set_to_none=True)
            losses = self._backward()
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses

    def _capture(self) -> None:
        """Record `_advance` as a graph, without running it; if that fails, go on plainly."""
        self.capturing = False
        try:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                losses = self._advance()
        except Exception as problem:
            self._note("no CUDA graph, going on without it", problem)
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.graph, self.losses = graph, losses

    def _note(self, what: str, problem: Exception) -> None:
        log(self.settings.out, f"{what}: {type(problem).__name__}: {problem}"[:2000])

    def autocast(self) -> torch.autocast:
        """bfloat16 on CUDA, nothing on the CPU. Uncached: a graph must hold its own casts."""
        cuda = self.device.type == "cuda"
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=cuda, cache_enabled=False
        )

    def _backward(self) -> dict[str, Tensor]:
        """Gradients of `total` from `inputs`; all the losses, detached."""
        at, settings = self.inputs, self.settings
        with self.autocast():
            image = self.fast.see(at["pixels"])
            logits, middle = self.fast.read(at["tokens"], image)
            patches = self.probes.patches(image, at["classes"])
            asked = self.probes.asked(middle, at["seen"])
        labels = at["labels"].flatten()
        each = F.cross_entropy(
            logits.float().flatten(0, 1), labels, ignore_index=IGNORED, reduction="none"
        )
        answer = masked_mean(each, labels != IGNORED)
        verdict = masked_mean(each, at["verdict"].flatten())
        names = masked_mean(each, at["names"].flatten())
        total = answer + settings.verdict * verdict + settings.names * names
        total = total + self.knobs["patches"] * patches + self.knobs["asked"] * asked
        total.backward()
        losses = {
            "total": total,
            "answer": answer,
            "verdict": verdict,
            "names": names,
            "patches": patches,
            "asked": asked,
        }
        return {name: loss.detach() for name, loss in losses.items()}

    # ------------------------------------------------------------ how good it is

    @torch.no_grad()
    def test(self, batches: list[Batch]) -> dict[str, float]:
        """Share of right tokens without augmentation: Yes/No in all and by kind; all of answers."""
        right, verdict, kind, taught = [], [], [], []
        for batch in batches:
            sent = self.send(batch)
            with self.autocast():
                image = self.plain.see((sent["pixels"] - self.mean) / self.std)
                guess = self.plain.read(sent["tokens"], image)[0].argmax(-1)
            right.append(guess == sent["labels"])
            verdict.append(sent["verdict"])
            kind.append(sent["kind"])
            taught.append(sent["labels"] != IGNORED)
        hits, verdicts, kinds = torch.cat(right), torch.cat(verdict), torch.cat(kind)
        numbers = [list(KIND_WEIGHTS).index(name) for name in YES_NO_KINDS]
        masks = {"yes/no": verdicts}
        masks |= {name: kinds == i for name, i in zip(YES_NO_KINDS, numbers, strict=True)}
        masks["tokens"] = torch.cat(taught)
        return {name: hits[mask].float().mean().item() for name, mask in masks.items()}

    # ------------------------------------------------------------ going on later

    def state(self, step: int, elapsed: float) -> dict[str, Any]:
        """What a checkpoint holds after `step` steps and `elapsed` seconds."""
        parts = {"model": self.model, "probes": self.probes, "optimizer": self.optimizer}
        return {
            "step": step,
            "elapsed": elapsed,
            **{name: part.state_dict() for name, part in parts.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's weights and optimiser state."""
        self.model.load_state_dict(state["model"])
        self.probes.load_state_dict(state["probes"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # loading put the saved number there
            group["lr"] = self.knobs["rate"]

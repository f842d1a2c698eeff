"""What is said of a verb's price, beside what the verb then takes.

Each priced verb runs through the command line, in this process, on one pair and over drawn pairs.
Of every stage whose price is said, the passes are printed that were said, those that were counted,
and their ratio; then the time that was said to be left when the first of them began (over pairs:
once they were run), and what it took.

A pass is counted by the multiplications of all linear layers, forwards: those of a plain pass of
one picture and the question are one. Time is wall time.

    python benchmarks/prices.py [--model demo] [--pairs 40] [--verbs combine,verdict]
"""

import argparse
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import headpatch as hp
from headpatch.cli import main as command
from headpatch.core.outlook import UNTOUCHED, Outlook, Stage
from headpatch.core.session import model_of
from headpatch.models.prompt import encode

VERBS = {
    "combine": ["--top", "4"],
    "combine --kinds": ["--kinds", "mean", "--heads", "top:4"],
    "path": [],
    "trace": ["--tokens", "4"],
    "rollout": [],
    "combine --pairs": ["--top", "4"],
    "path --pairs": ["--heads", "24.17,23.20"],
    "trace --pairs": ["--tokens", "4"],
    "rollout --pairs": ["--draws", "3"],
    "verdict --pairs": [],
}
"""Flags of each verb that says a price; those over pairs say so."""
FEWER = {"path --pairs": 4, "rollout --pairs": 4, "trace --pairs": 4}


class Counted(Outlook):
    """Takes note of what was said and what was done, stage by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.work, self.said, self.took = 0, dict[str, Stage](), dict[str, tuple[int, float]]()
        self.left_then: float | None = None
        self.since = 0.0

    def linear(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Count what a linear layer multiplies."""
        if isinstance(module, nn.Linear) and given and isinstance(given[0], torch.Tensor):
            self.work += given[0].numel() * module.out_features

    def add(self, stages: Any, pairs: int) -> None:
        """Take note of what is said."""
        stages = tuple(stages)
        self.said |= {one.name: one for one in stages}
        super().add(stages, pairs)

    def begin(self, stage: str) -> None:
        """Take note of where a stage begins."""
        super().begin(stage)
        self.before = self.work, self.clock()
        if self.took.get(UNTOUCHED) and stage in self.said and self.left_then is None:
            self.left_then = self.left(0, 1)
        if stage in self.said and not self.since:
            self.since = self.clock()

    def end(self) -> float:
        """Take note of what it took."""
        work, since = self.before
        done, seconds = self.took.get(self._stage, (0, 0.0))
        self.took[self._stage] = done + self.work - work, seconds + self.clock() - since
        return super().end()


def plain(model: str) -> int:
    """Return what a plain pass multiplies."""
    counted, study = Counted(), hp.Study(model=model)
    pair, vlm = study.pair(), model_of(study)
    prompt = encode(vlm, pair.images[:1], study.question, study.answers)
    hook = register_module_forward_pre_hook(counted.linear)
    with torch.inference_mode():
        vlm.model(**prompt.inputs, use_cache=False)
    hook.remove()
    return counted.work


def run(words: list[str]) -> Counted:
    """Run one command here."""
    counted = Counted()
    patched = "headpatch.cli.verb.Outlook"
    hook = register_module_forward_pre_hook(counted.linear)
    from unittest.mock import patch

    quiet = io.StringIO()
    try:
        with patch(patched, lambda **_: counted), redirect_stdout(quiet), redirect_stderr(quiet):
            sys.argv = ["headpatch", *words]
            command()
    except SystemExit as left:
        if left.code:
            sys.exit(f"{' '.join(words)}: {quiet.getvalue().strip()[-300:]}")
    finally:
        hook.remove()
    return counted


def main() -> None:
    """Print the table."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--verbs", default="")
    asked = parser.parse_args()
    one = plain(asked.model)
    print("| verb | stage | runs said | passes said | counted | ratio | s said | s taken |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with TemporaryDirectory() as folder:
        drawn = str(Path(folder) / "pairs")
        hp.draw_pairs(asked.pairs, drawn)
        for name, flags in VERBS.items():
            verb, many = name.split()[0], name.endswith("--pairs")
            if asked.verbs and verb not in asked.verbs.split(","):
                continue
            words = [verb, *flags, "--model", asked.model, "--out", str(Path(folder) / "out")]
            if many:
                limit = min(FEWER.get(name, asked.pairs), asked.pairs)
                words += ["--pairs", drawn, "--limit", str(limit)]
            told = run([*words, "--no-resume"] if many else words)
            show(name, told, one)


def show(name: str, told: Counted, one: int) -> None:
    """Print the rows of a verb."""
    for stage in told.said.values():
        work, seconds = told.took.get(stage.name, (0, 0.0))
        counted = work / one
        ratio = f"{stage.passes / counted:.2f}" if counted else "-"
        left = "" if told.left_then is None else f"{told.left_then:.1f}"
        print(
            f"| {name} | {stage.name} | {stage.rows:,} | {stage.passes:,.0f} | {counted:,.0f} "
            f"| {ratio} | {left} | {seconds:.1f} |",
            flush=True,
        )
    known = [told.took.get(stage, (0, 0.0)) for stage in told.said]
    said, counted = sum(one.passes for one in told.said.values()), sum(w for w, _ in known) / one
    left = "" if told.left_then is None else f"{told.left_then:.1f}"
    ratio = f"{said / counted:.2f}" if counted else "-"
    seconds = sum(s for _, s in known)
    print(f"| {name} | all | | {said:,.0f} | {counted:,.0f} | {ratio} | {left} | {seconds:.1f} |")


if __name__ == "__main__":
    main()

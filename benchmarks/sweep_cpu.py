"""What `headpatch sweep` costs on a CPU beside plain forward passes and beside TransformerLens.

All in one process with a fixed number of threads, the sides of a ratio in turn. The sweep is of
every head of the language model, kind resample, direction noising, from both runs' kept passes, as
it is after a session is opened. Seconds hold for the machine they were measured on, ratios carry
further. With one thread they are CPU seconds, which other work on the machine disturbs least.

    python benchmarks/sweep_cpu.py [--model demo] [--threads 1] [--runs 7] [--lens 24] [--skip-all]
"""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from headpatch.core.cost import cost
from headpatch.core.effects import intervene
from headpatch.core.session import Session, open_session
from headpatch.core.study.study import Study
from headpatch.engine.forward import forward
from headpatch.engine.interventions import Intervention, ZEdit
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.heads import HeadSet
from headpatch.interop.lens import hook_name, to_lens
from headpatch.models.load import load
from headpatch.models.spans import Positions


def clock() -> float:
    """CPU seconds of a single thread, else wall seconds."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


def beside(work: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of `work`, and of `other` as it ran just before and after."""
    before = seconds(other)
    took = seconds(work)
    return took, (before + seconds(other)) / 2


def every_head(session: Session, positions: Positions) -> list[Intervention]:
    heads = list(session.vlm.lm.grid)
    return [Intervention(HeadSet.of(head), "resample", "noising", positions) for head in heads]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def row(figure: str, found: str, goal: str = "", how: str = "") -> None:
    print(f"| {figure} | {found} | {goal} | {how} |", flush=True)


def naive(session: Session) -> tuple[float, list[float]]:
    """One plain forward pass for each head; seconds a head, and the effects."""
    prompt, base = session.prompt.select(WITH), session.base
    answer = torch.tensor([prompt.spans.answer])
    untouched = float(forward(session.vlm, prompt, exact=True).ld(prompt)[0])
    effects = []
    start = clock()
    for head in session.vlm.lm.grid:
        value = base.trace.z["lm"][head.layer][WITHOUT, answer, head.head]
        trace = forward(session.vlm, prompt, [ZEdit(0, head, answer, value)], exact=True)
        effects.append(float(trace.ld(prompt)[0]) - untouched)
    return (clock() - start) / len(effects), effects


def lens(session: Session, count: int) -> tuple[float, dict[str, float]]:
    """TransformerLens's loop over a sample of heads: seconds a head, and the effects by head."""
    bridge = to_lens(session.vlm)
    words = session.prompt.answers
    heads = random.Random(0).sample(list(session.vlm.lm.grid), count)

    def ask(run: int, hooks: list[tuple[str, Callable[..., object]]]) -> float:
        inputs = dict(session.prompt.select(run).inputs)
        with torch.no_grad():
            logits = bridge.run_with_hooks(
                inputs.pop("input_ids"), fwd_hooks=hooks, return_type="logits", **inputs
            )[0, -1]
        return float(logits[words.yes] - logits[words.no])

    kept: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = value[0, -1].clone()

    ask(WITHOUT, [(hook_name(head), keep) for head in heads])
    untouched = ask(WITH, [])

    def put(head: int) -> Callable[..., torch.Tensor]:
        def change(value: torch.Tensor, hook: Any) -> torch.Tensor:
            value[:, -1, head] = kept[hook.name][head]
            return value

        return change

    start = clock()
    effects = {
        str(head): ask(WITH, [(hook_name(head), put(head.head))]) - untouched for head in heads
    }
    return (clock() - start) / count, effects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7, help="of forward pass and sweep, in turn")
    parser.add_argument("--lens", type=int, default=24, help="heads in TransformerLens's loop")
    parser.add_argument("--skip-all", action="store_true", help="leave out positions `all`")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study, vlm = Study.make(None, {"force": True}), load(options.model, "cpu", "float32")
    session = open_session(study, vlm, "answer")
    asked, prompt = every_head(session, "answer"), session.prompt.select(WITH)
    heads = len(asked)

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"{options.model}: {vlm.lm.grid.layers} layers x {vlm.lm.grid.heads} heads, "
        f"{session.prompt.spans.length} tokens; float32, {options.threads} thread(s), "
        f"{'CPU' if options.threads == 1 else 'wall'} seconds; {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}"
    )
    print(f"median (min-max) of {options.runs} runs in turn\n")
    print("| figure | found | goal | how |")
    print("|---|---|---|---|")

    def plain() -> object:
        return forward(vlm, prompt, exact=True)

    def sweep() -> object:
        return intervene(session, asked)

    plain(), sweep()
    pairs = [(seconds(plain), seconds(sweep)) for _ in range(options.runs)]
    swept = statistics.median(pair[1] for pair in pairs)
    row("one plain forward pass", f"{spread([pair[0] for pair in pairs])} s")
    row(f"sweep of {heads:,} heads at `answer`", f"{spread([pair[1] for pair in pairs])} s")
    ratio = spread([pair[1] / pair[0] for pair in pairs])
    price = cost(session, asked, None)
    row("sweep / forward pass", ratio, "<= 4", f"{price:.1f} forward passes of decoder work")

    each, slow = naive(session)
    fast = [outcome.effect for outcome in intervene(session, asked)]
    row(
        "naive loop / sweep",
        f"{each * heads / swept:,.0f}",
        "",
        f"all {heads:,} heads, {each * heads:.0f} s",
    )
    worst = max(abs(a - b) for a, b in zip(slow, fast, strict=True))
    row(
        "largest disagreement with the plain path",
        f"{worst:.1e} logits",
        "<= 1e-4",
        f"all {heads:,} heads; largest effect {max(map(abs, slow)):.2f}",
    )
    if options.lens:
        lens_each, theirs = lens(session, options.lens)
        ours = {str(a.heads): effect for a, effect in zip(asked, fast, strict=True)}
        apart = max(abs(effect - ours[name]) for name, effect in theirs.items())
        row(
            f"TransformerLens {version('transformer-lens')} loop / sweep",
            f"{lens_each * heads / swept:,.0f}",
            ">= 300",
            f"{options.lens} heads timed, {lens_each:.3f} s each, extrapolated to {heads:,}; "
            f"effects {apart:.1e} logits apart (goal <= 1e-4)",
        )

    rng, every = random.Random(0), list(vlm.lm.grid)
    sets = [
        Intervention(HeadSet(tuple(rng.sample(every, rng.randint(1, 5)))), "resample", "noising")
        for _ in range(10_000)
    ]
    took, beat = beside(lambda: intervene(session, sets), sweep)
    row(
        "10,000 random sets of 1-5 heads",
        f"{took:.1f} s",
        "",
        f"{cost(session, sets, None):.0f} forward passes of decoder work; {took / beat:.1f} sweeps",
    )
    scopes: tuple[Positions, ...] = ("question",) if options.skip_all else ("question", "all")
    for positions in scopes:
        wider = open_session(study, vlm, positions)
        rows = every_head(wider, positions)
        took, one = beside(lambda: intervene(wider, rows), plain)  # noqa: B023
        price = cost(wider, rows, None)
        row(
            f"sweep at `{positions}` / forward pass",
            f"{took / one:.0f}",
            "",
            f"{len(wider.prompt.spans.positions(positions))} positions; {took:.1f} s, "
            f"{price:.0f} forward passes of decoder work",
        )


if __name__ == "__main__":
    main()

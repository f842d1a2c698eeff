"""How often the demo model is right, condition by condition, on fresh pictures.

    python -m training.accuracy --n 2000 --write-card headpatch/models/demo/README.md

Pictures are drawn through PIL and read by the model folder's own processor; the model is the
folder's own, as `from_pretrained` loads it, in float32. A condition is so many pairs, both pictures
of each counted. Per picture:

- LD = logit(Yes) - logit(No) at the answer position, right if its sign is; the lowest margin is the
  smallest LD x (+1 for Yes, -1 for No), not above zero if a picture was wrong;
- the first token by argmax over the whole vocabulary;
- the whole sentence: every argmax along the right answer, </s> included, which is what greedy
  decoding would say (`--generate` pictures a condition are also decoded for real, and a
  disagreement is reported).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from headpatch.pairs.scene import (
    CORNERS,
    MAIN_PLACES,
    PLACES,
    RANGES,
    SHAPES,
    Scene,
    Style,
    colours_on,
    draw,
    sample_pair,
    sample_thing,
)
from training.batches import ordered
from training.questions import LOCATIONS, YES_NO_KINDS, careless
from training.text import question_prompt
from training.turns import Turn, make_turn

GOAL = 0.995
CHUNK = 64  # pairs a batch
DEMO = Path(__file__).parents[1] / "headpatch" / "models" / "demo"
START, END = "<!-- accuracy:start -->", "<!-- accuracy:end -->"

Pair = tuple[tuple[Scene, Turn], tuple[Scene, Turn]]


@dataclass(frozen=True)
class Condition:
    """What is drawn and asked. `other`: what a pair's second picture has at the asked place."""

    name: str
    places: tuple[str, ...] = MAIN_PLACES
    kind: str = "anything"
    other: str = "nothing"  # nothing | shape | colour | fresh (anything else, for What questions)
    shapes: tuple[str, str] | None = None  # the two shapes of a pair, if they are fixed
    wording: str = "plain"  # plain | trained | unseen | careless
    styles: tuple[Style, ...] = (Style(),)
    jpeg: tuple[int, int] | None = None  # range of the quality
    scene: dict[str, Any] = field(default_factory=dict)  # fixed arguments of `sample_pair`
    goal: bool = True  # counts towards the goal

    def pair(self, rng: np.random.Generator) -> Pair:
        """Two scenes with their questions; a Yes/No pair is asked the same in both."""
        place = self.places[rng.integers(len(self.places))]
        fixed = dict(self.scene)
        if self.shapes:
            fixed["shape"] = self.shapes[0]
        full, empty = sample_pair(rng, place, **fixed)
        thing = full.at(place)
        assert thing is not None
        if self.other == "shape":
            shape = (
                self.shapes[1]
                if self.shapes
                else str(rng.choice([s for s in SHAPES if s != thing.shape]))
            )
            second = empty.plus(replace(thing, shape=shape))
        elif self.other == "colour":
            colour = str(rng.choice([c for c in colours_on(full.background) if c != thing.colour]))
            second = empty.plus(replace(thing, colour=colour))
        elif self.other == "fresh":
            second = empty.plus(sample_thing(rng, place, full.background))
        else:
            second = empty
        at = next(p for p in LOCATIONS[place] if p in (f"in the {place} corner", f"in the {place}"))
        plain = {
            "anything": "Is there anything {at}?",
            "shape": "Is there a {shape} {at}?",
            "what_shape": "What shape is {at}?",
            "what_colour": "What color is the object {at}?",
        }
        wording = (plain[self.kind], at) if self.wording == "plain" else None
        shape = thing.shape if self.kind in ("shape", "both") else ""
        colour = thing.colour if self.kind in ("colour", "both") else ""
        unseen = self.wording == "unseen"
        asked: Any = {"shape": shape, "colour": colour, "wording": wording, "unseen": unseen}
        first, again = (make_turn(rng, self.kind, place, s, **asked) for s in (full, second))
        if self.kind in YES_NO_KINDS:
            again = replace(again, question=first.question)
        if self.wording == "careless":
            first, again = (replace(t, question=careless(t.question)) for t in (first, again))
        return (full, first), (second, again)

    def style(self, rng: np.random.Generator) -> Style:
        """How this pair is drawn."""
        style = self.styles[rng.integers(len(self.styles))]
        if not self.jpeg:
            return style
        return replace(style, jpeg_quality=int(rng.integers(*self.jpeg, endpoint=True)))


LOW, HIGH = RANGES.size
CONDITIONS: tuple[Condition, ...] = (
    *(Condition(place, places=(place,)) for place in MAIN_PLACES),
    Condition(
        "edges (top center, middle left, ...)",
        places=tuple(p for p in PLACES if p not in MAIN_PLACES),
    ),
    Condition("336 px JPEG, quality 75-95", styles=(Style(336, 336),), jpeg=(75, 95)),
    Condition("resized: 200, 337 or 500 px", styles=tuple(Style(s, s) for s in (200, 337, 500))),
    Condition("antialiased", styles=(Style(antialias=True),)),
    Condition("antialiased 336 px JPEG", styles=(Style(336, 336, antialias=True),), jpeg=(75, 95)),
    *(
        Condition(f"{name} background", scene={"background": name})
        for name in ("black", "dark", "light", "coloured")
    ),
    *(
        Condition(f"{word} distractor{'s' * (number != 1)}", scene={"distractors": number})
        for number, word in ((0, "no"), (2, "exactly two"), (4, "four"))
    ),
    Condition(f"smallest size ({LOW})", scene={"size": LOW}),
    Condition(f"largest size ({HIGH})", scene={"size": HIGH}),
    Condition(
        "smallest size, light or coloured, 336 px JPEG",
        styles=(Style(336, 336),),
        jpeg=(75, 95),
        scene={"size": LOW, "ranges": replace(RANGES, backgrounds={"light": 0.5, "coloured": 0.5})},
    ),
    Condition("paraphrases, trained wordings", wording="trained"),
    Condition("paraphrases, wordings never trained", wording="unseen"),
    Condition("careless typing (small first letter, no ?)", wording="careless"),
    Condition(
        "is there a triangle: triangle / circle",
        kind="shape",
        other="shape",
        shapes=("triangle", "circle"),
    ),
    Condition("is there a SHAPE: it / another", kind="shape", other="shape", wording="trained"),
    Condition("is there a SHAPE: it / nothing", kind="shape", wording="trained"),
    Condition(
        "is there a COLOUR object: it / another", kind="colour", other="colour", wording="trained"
    ),
    Condition(
        "is there a COLOUR SHAPE: it / other shape", kind="both", other="shape", wording="trained"
    ),
    Condition(
        "is there a COLOUR SHAPE: it / other colour", kind="both", other="colour", wording="trained"
    ),
    Condition("what shape", kind="what_shape", other="fresh"),
    Condition("what color", kind="what_colour", other="fresh"),
    Condition("what shape, trained wordings", kind="what_shape", other="fresh", wording="trained"),
    Condition("what color, trained wordings", kind="what_colour", other="fresh", wording="trained"),
    Condition(
        "not square, corners: 224 x 168 px (CLIP crops the sides)",
        places=CORNERS,
        styles=(Style(224, 168),),
        goal=False,
    ),
)


def prepare(processor: Any, seed: int, job: tuple[int, int, int]) -> dict[str, Any]:
    """Worker: draw pairs `start` to `stop` of a condition, run the processor on prompt + answer.

    Gives the processor's arrays (2 rows a pair, padded on the left), how many tokens each right
    answer has, and whether it is Yes.
    """
    number, start, stop = job
    condition = CONDITIONS[number]
    images, texts, lengths, truths, prompts, answers = [], [], [], [], [], []
    for index in range(start, stop):
        rng = np.random.default_rng([seed, zlib.crc32(condition.name.encode()), index])
        style = condition.style(rng)
        for scene, turn in condition.pair(rng):
            prompt, answer = question_prompt(turn.question), f" {turn.answer}</s>"
            images.append(draw(scene, style))
            texts.append(prompt + answer)
            both, before = (len(processor.tokenizer(t).input_ids) for t in (texts[-1], prompt))
            lengths.append(both - before)
            truths.append(turn.yes)
            prompts.append(prompt)
            answers.append(turn.answer)
    arrays = dict(processor(images=images, text=texts, padding=True, return_tensors="np"))
    made = {"arrays": arrays, "lengths": lengths, "truths": truths}
    if start == 0:  # this chunk may be decoded for real
        made.update(prompts=prompts, answers=answers, images=images)
    return made


@dataclass
class Score:
    """Counts of one condition."""

    pictures: int = 0
    decided: int = 0  # pictures with a Yes/No answer
    by_sign: int = 0
    by_token: int = 0
    sentences: int = 0
    margin: float = float("inf")
    generated: int = 0
    disagree: int = 0


@torch.inference_mode()
def score(
    model: Any, processor: Any, ids: tuple[int, int], made: dict[str, Any], into: Score,
    generate: int,
) -> None:  # fmt: skip
    """Run one prepared chunk and add it up."""
    inputs = {
        name: torch.from_numpy(np.asarray(array)).to(model.device)
        for name, array in made["arrays"].items()
    }
    tokens = inputs["input_ids"]
    logits = model(**inputs).logits.float()
    guess = logits.argmax(-1).cpu()
    gap = (logits[..., ids[0]] - logits[..., ids[1]]).cpu()
    tokens = tokens.cpu()
    width = tokens.shape[1]
    says = []
    for row, (length, yes) in enumerate(zip(made["lengths"], made["truths"], strict=True)):
        first = width - length - 1  # answer position: the last prompt token
        says.append(bool((guess[row, first:-1] == tokens[row, first + 1 :]).all()))
        if yes is not None:
            margin = gap[row, first].item() * (1 if yes else -1)
            into.decided += 1
            into.by_sign += margin > 0
            into.by_token += guess[row, first].item() == ids[0 if yes else 1]
            into.margin = min(into.margin, margin)
    into.pictures += len(says)
    into.sentences += sum(says)
    if generate:
        images, text = (made[name][:generate] for name in ("images", "prompts"))
        inputs = processor(images=images, text=text, padding=True, return_tensors="pt")
        out = model.generate(**inputs.to(model.device), do_sample=False, max_new_tokens=32)
        answers = out[:, inputs["input_ids"].shape[1] :]
        spoken = processor.batch_decode(answers, skip_special_tokens=True)
        for said, answer, right in zip(spoken, made["answers"], says, strict=False):
            into.generated += 1
            into.disagree += (said.strip() == answer) != right


def _percent(part: int, of: int) -> str:
    return f"{100 * part / of:.2f} %" if of else "–"


def table(results: dict[str, Score]) -> str:
    """The results in Markdown."""
    lines = [
        "| condition | pictures | LD right | first token right | lowest LD margin "
        "| whole sentence right |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, s in results.items():
        margin = f"{s.margin:.2f}" if s.decided else "–"
        signs, tokens = _percent(s.by_sign, s.decided), _percent(s.by_token, s.decided)
        sentences = _percent(s.sentences, s.pictures)
        cells = [name, f"{s.pictures}", signs, tokens, margin, sentences]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def load(folder: Path, device: str) -> tuple[Any, Any]:
    """(model, processor); images are processed with PIL, as without torchvision."""
    from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPImageProcessorPil

    processor = AutoProcessor.from_pretrained(folder)
    if not isinstance(processor.image_processor, CLIPImageProcessorPil):
        processor.image_processor = CLIPImageProcessorPil.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--n", type=int, default=2000, help="pairs a condition (%(default)s)")
    parser.add_argument(
        "--others",
        type=int,
        help="pairs of the conditions that are not one corner or the centre (as --n)",
    )
    parser.add_argument("--only", default="", help="only conditions whose name holds this text")
    parser.add_argument(
        "--generate",
        type=int,
        default=16,
        help="pictures a condition to decode for real (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=20_000, help="(%(default)s; never a seed of training)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--threads", type=int, default=2, help="torch threads on a CPU (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 1) - 1, 0))
    parser.add_argument(
        "--write-card", type=Path, metavar="FILE", help="put the table between this file's markers"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the counts")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    began = time.monotonic()
    model, processor = load(given.model, given.device)
    numbers = [i for i, c in enumerate(CONDITIONS) if given.only in c.name]
    many = {
        i: given.n if CONDITIONS[i].name in MAIN_PLACES else given.others or given.n
        for i in numbers
    }
    jobs = [(i, a, min(a + CHUNK, many[i])) for i in numbers for a in range(0, many[i], CHUNK)]
    stream = ordered(partial(prepare, processor, given.seed), jobs, given.workers)
    made = next(stream)  # forks the workers, before CUDA is touched
    model.to(given.device)
    token = (
        processor.tokenizer("USER: ASSISTANT: Yes").input_ids[-1],
        processor.tokenizer("USER: ASSISTANT: No").input_ids[-1],
    )
    results = {CONDITIONS[i].name: Score() for i in numbers}
    for number, start, stop in jobs:
        name = CONDITIONS[number].name
        score(model, processor, token, made, results[name], given.generate if start == 0 else 0)
        made = next(stream, {})
        if stop == many[number]:
            print(table({name: results[name]}).splitlines()[-1], file=sys.stderr, flush=True)
    stream.close()
    head = (
        f"{given.n} pairs for each corner and the centre, {given.others or given.n} for each other "
        f"condition, seed {given.seed}; float32 on {given.device} "
        f"({torch.get_num_threads()} CPU threads), torch {torch.__version__}, "
        f"{time.monotonic() - began:.0f} s."
    )
    text = f"{head}\n\n{table(results)}"
    print(text, flush=True)
    disagree = sum(s.disagree for s in results.values())
    print(
        f"\ndecoded for real: {sum(s.generated for s in results.values())} pictures, "
        f"{disagree} unlike the forced check"
    )
    goals = {c.name for c in CONDITIONS if c.goal}
    short = [
        name
        for name, s in results.items()
        if name in goals
        and min(s.sentences / s.pictures, s.by_token / s.decided if s.decided else 1) < GOAL
    ]
    print("below the goal of 99.5 %: " + ("; ".join(short) or "none"), flush=True)
    if given.json:
        given.json.write_text(
            json.dumps({name: vars(s) for name, s in results.items()}, indent=1), encoding="utf-8"
        )
    if given.write_card:
        card = given.write_card.read_text(encoding="utf-8")
        before, _, rest = card.partition(START)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"--write-card: {given.write_card} lacks the lines {START} and {END}")
        given.write_card.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

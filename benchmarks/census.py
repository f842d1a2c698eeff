"""Every image-text-to-text class of transformers, tiny, and what headpatch can change in it.

Each class of transformers' own mapping is built from its default configuration, made tiny by the
names of its settings (`shrunk`), with random weights. Its parts are discovered in one run and
compared with hooks in the model's own pass. Inputs are drawn in the form that the class takes.

    python benchmarks/census.py [MODEL-TYPE ...] [--save FILE] [--also FILE]

`--save` writes what came out as JSON; `--also` adds what differs in such a file, of another release
of transformers.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny models live with the tests
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import CONFIG_MAPPING  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES,
)

from benchmarks.drawn import Tokenless, runs_at_all, shown  # noqa: E402
from benchmarks.shrunk import shrunk  # noqa: E402
from headpatch.engine.control import changed, observe, why_not  # noqa: E402
from headpatch.engine.forward import Keep  # noqa: E402
from headpatch.engine.interventions import Intervention  # noqa: E402
from headpatch.engine.patching import Baseline, patch, run_pair  # noqa: E402
from headpatch.errors import HeadpatchError  # noqa: E402
from headpatch.heads import Head, HeadSet, Tower  # noqa: E402
from headpatch.models.described import another_way  # noqa: E402
from headpatch.models.discovery import discover  # noqa: E402
from headpatch.models.measured import Measured, ramp  # noqa: E402
from headpatch.models.patches import Seen, locate  # noqa: E402
from headpatch.models.prompt import Prompt  # noqa: E402
from headpatch.models.reach import image_tokens, patch_behind  # noqa: E402
from headpatch.models.seen import pixel_name  # noqa: E402
from headpatch.models.vlm import VLM  # noqa: E402
from tests.families.builders import _draw  # noqa: E402

SCOPES = ("answer", "question", "image", "all")
MOST = 200_000_000  # parameters
SEEN, CLOSE = 1e-4, 1e-4  # logits; a share of the largest effect


class _Settings:
    """Those of an image processor, of which tracing reads none."""


def model_of(kind: str) -> Any:
    config = shrunk(kind)
    with torch.device("meta"):
        size = getattr(transformers, CLASSES[kind])(config).num_parameters()
    if size > MOST:
        raise ValueError(f"{size:,} parameters, though every setting by a known name is small")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = getattr(transformers, CLASSES[kind])(config)
        for one in model.parameters():
            one.data = one.data.nan_to_num(0.0).clamp(-3, 3)
        _draw(model)
    return model.eval().requires_grad_(False).float()


def errors(vlm: VLM, base: Baseline, tower: Tower, scope: Any) -> tuple[float, float]:
    """Effects of a head of each layer against hooks: the largest disagreement, and effect."""
    z: dict[Any, Tensor] = {}
    prompt = base.prompt.select(1)
    untouched, _ = observe(vlm, prompt, lambda _, linear, one: z.update({linear: one.clone()}))
    stack, worst, largest = vlm.stack(tower), 0.0, 0.0
    last = vlm.feature_layer if tower == "vision" else None
    for layer in [one for one in stack.grid.with_heads if last is None or one <= last]:
        for head in (0, stack.grid.heads - 1):
            places: dict[str, Any] = {"positions": scope} if tower == "lm" else {}
            asked = Intervention(
                HeadSet.of(Head(layer, head, tower)), "zero", "denoising", **places
            )
            (own,) = patch(vlm, base, [asked])
            output = stack.outputs[layer]
            where = torch.arange(len(z[output]))
            if tower == "lm":
                where = base.prompt.spans.positions(scope)
            value = z[output][where].clone().unflatten(-1, (stack.grid.heads, -1))
            value[:, head] = 0
            effect = changed(vlm, prompt, output, where, value.flatten(1)) - untouched
            worst, largest = max(worst, abs(effect - own.effect)), max(largest, abs(effect))
    return worst, largest


def places(vlm: VLM, prompt: Prompt) -> str:
    """Say how many image tokens are placed, of a picture that is squashed to what is taken."""
    inputs = dict(prompt.select(0).inputs)
    name = pixel_name(inputs)

    def process(picture: Image.Image) -> Tensor:
        return shown(vlm.model.config, inputs, picture)

    def features(changed: Tensor) -> Tensor:
        return image_tokens(vlm, {**inputs, name: changed}, prompt.spans.image)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    measured = Measured(process, picture.size)
    tokens = len(prompt.spans.image)
    try:
        given = vlm.model.config, {**inputs, name: process(picture)}
        stub = _Settings()
        found = locate("traced", Seen(picture, stub, *given, tokens, measured, features), stub)
    except Exception as error:  # a form that this script does not draw pictures in
        return f"not tried: {type(error).__name__}: {error}"[:100].replace("\n", " ")
    if found.unknown is not None:
        return f"no: {found.unknown.found}"
    unmix(vlm.model)
    right = confirmed(found.boxes, inputs[name], process, features)
    return f"{int(right.sum())} of {tokens} tokens"


def unmix(model: torch.nn.Module) -> None:
    """Leave of convolutions from patch to patch (LFM3-VL's) each patch itself, as of attention."""
    for one in model.modules():
        if isinstance(one, torch.nn.Conv2d) and one.stride == (1, 1) and one.kernel_size != (1, 1):
            centre = [size // 2 for size in one.kernel_size]
            kept = one.weight[..., centre[0], centre[1]].clone()
            one.weight.zero_()
            one.weight[..., centre[0], centre[1]] = kept


def confirmed(
    boxes: np.ndarray,
    pixels: Tensor,
    process: Callable[[Image.Image], Tensor],
    features: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Say which tokens have a box, and change with the loose patches that show it alone.

    Tokens of other pictures are found by changing pixels in the first place.
    """
    placed = ~np.isnan(boxes[:, 0])
    if pixels.ndim > 3:
        return placed
    light = [process(ramp(axis, (96, 96))).mean(-1, keepdim=True) for axis in ("x", "y")]
    x, y = ((one * 255 - 40) / 175 for one in light)  # brightness says the place
    number = torch.full(x.shape, -1)
    for index in np.flatnonzero(placed):
        left, top, right, bottom = boxes[index]
        number[(x > left) & (x < right) & (y > top) & (y < bottom)] = int(index)
    behind = patch_behind(pixels, features, number)
    return placed & (behind == np.arange(len(boxes)))


@dataclass
class Row:
    """What came of one class: why it is not in the table, or its largest disagreements."""

    kind: str
    grid: str = ""
    worst: dict[str, float] = field(default_factory=dict)  # by scope, or "vision"
    effects: dict[str, float] = field(default_factory=dict)  # the largest, by the same
    vision: str = ""
    places: str = ""
    refused: str = ""
    not_shown: str = ""

    @property
    def outcome(self) -> str:
        return "refused" if self.refused else "not shown" if self.not_shown else "exact"

    def judge(self) -> None:
        """Say that nothing is shown where heads do too little, or otherwise than the hook."""
        if self.worst and (why := self._too_little("lm")):
            self.not_shown = why
        if "vision" in self.worst and (why := self._too_little("vision")):
            del self.worst["vision"]
            self.vision = why

    def _too_little(self, tower: str) -> str:
        scopes = [one for one in self.worst if (one == "vision") == (tower == "vision")]
        worst, largest = (max(by[one] for one in scopes) for by in (self.worst, self.effects))
        if largest < SEEN:
            return f"the largest effect is {largest:.0e}"
        off = worst > CLOSE * max(1.0, largest)
        return f"effects of up to {largest:.2g} differ by {worst:.0e}" if off else ""

    def cells(self) -> list[str]:
        """The class, its heads, the answer position, elsewhere, vision, effects, places."""
        name = f"`{self.kind}`"
        if self.outcome != "exact":
            why = " ".join((self.refused or self.not_shown).split())[:200].replace("|", "/")
            return [name, "", self.outcome, why, "", "", ""]
        elsewhere = max(self.worst[one] for one in ("question", "image", "all"))
        largest = max(self.effects[one] for one in SCOPES)
        vision, effects = f"no: {self.vision}", f"{largest:.2g}"
        if "vision" in self.worst:
            vision = f"{self.worst['vision']:.0e}"
            effects += f", {self.effects['vision']:.2g}"
        figures = f"{self.worst['answer']:.0e}", f"{elsewhere:.0e}"
        return [name, self.grid, *figures, vision, effects, self.places]


def judged(kind: str) -> Row:
    """Build a class, discover its parts, and compare them with hooks."""
    row = Row(kind)
    torch.manual_seed(0)  # of pictures
    try:
        across = bool(getattr(CONFIG_MAPPING[kind], "is_encoder_decoder", False))
        if why := another_way(across, [CLASSES[kind]]):  # before it is built, which may fail
            row.refused = why
            return row
        model = model_of(kind)
        prompt = "" if model.config.is_encoder_decoder else runs_at_all(model)
    except Tokenless as error:
        row.refused = str(error)
        return row
    except Exception as error:  # whatever building raises
        row.not_shown = f"{type(error).__name__}: {error}"
        return row
    if isinstance(prompt, str) and prompt:
        row.not_shown = f"no inputs were found that it runs on ({prompt})"
        return row
    inputs, image = (prompt.inputs, prompt.spans.image.tolist()) if prompt else ({}, [])
    try:
        found = discover(model, inputs, image, kind)
        vlm = VLM(model, None, kind, "", found=found)  # type: ignore[arg-type]
        assert not isinstance(prompt, str)  # what answers another way is refused before
        towers: tuple[Tower, ...] = ("lm", "vision") if found.vision else ("lm",)
        base = run_pair(vlm, prompt, Keep(z=towers))
    except HeadpatchError as error:
        row.refused = getattr(error, "found", str(error)).removeprefix(f"{kind}: ")
        return row
    grid = vlm.lm.grid
    row.grid = f"{len(grid.with_heads)} of {grid.layers} × {grid.heads}"
    row.vision = found.why_no_vision
    for tower in towers:
        why = why_not(vlm, base, tower)
        if why.startswith("it does not run plainly"):  # drawn inputs that are no run's alone
            row.not_shown = f"the inputs drawn here cannot be told apart by run ({why})"
            return row
        if why and tower == "lm":
            row.refused = why
            return row
        row.vision = why or row.vision
        for scope in () if why else ("vision",) if tower == "vision" else SCOPES:
            row.worst[scope], row.effects[scope] = errors(vlm, base, tower, scope)
    row.places = places(vlm, prompt)
    row.judge()
    return row


HEADS = (
    "class",
    "layers with heads × heads",
    "answer",
    "elsewhere",
    "vision tower",
    "largest effects",
    "places",
)
NOTES = f"""\
Every class that transformers loads as an image-text-to-text model, tiny and with random weights.
Numbers: the largest disagreement, in logits, of a head's effect with a plain hook on its output
projection. *largest effects*: of a head of the language model, and of its vision tower. A class is
*exact* if no effect disagrees by more than {CLOSE:.0e} of the largest effect, or than {CLOSE:.0e}
if that is less than 1; and *not shown* if it is not, if no effect reaches {SEEN:.0e}, or if the
script does not build it. *refused* is headpatch's own answer, or that no token is the picture's.
*places*: how many image tokens are found to stand for a part of a picture that is squashed to the
size that the tower takes, and to change with the patches that show it. Inputs are drawn in the form
that a class takes; of these classes only those of the tests have been run with their own
processors. The towers of `fast_vlm`, `gemma3n` and `perception_lm` need the packages timm and
torchvision.
Made with transformers {{version}} by `python benchmarks/census.py --also lowest.json >
docs/model-census.md`; `lowest.json` by the same with `--save` and the lowest release allowed."""


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for cells in lines:
        print(f"| {' | '.join(cells)} |", flush=True)


def count(rows: Collection[Row]) -> str:
    shares = ("exact", "refused", "not shown")
    each = ", ".join(f"{sum(row.outcome == one for row in rows)} {one}" for one in shares)
    return f"{len(rows)} classes: {each}."


def compare(rows: Sequence[Row], path: Path) -> None:
    """Print what differs in a saved run of another release of transformers."""
    saved = json.loads(path.read_text("utf-8"))
    others = {one["kind"]: Row(**one) for one in saved["rows"]}
    mine = {row.kind: row for row in rows}
    print(f"\n## With transformers {saved['transformers']}\n\n{count(others.values())}")
    if lacking := [f"`{kind}`" for kind in mine if kind not in others]:
        print(f"It lacks {', '.join(lacking)}.")
    if dropped := [f"`{kind}`" for kind in others if kind not in mine]:
        print(f"It has {', '.join(dropped)}, too.")
    differing = [
        (f"`{kind}`", mine[kind].outcome, other.outcome, other.cells()[3])
        for kind, other in others.items()
        if kind in mine and other.outcome != mine[kind].outcome
    ]
    if differing:
        print("Other outcomes:\n")
        table(("class", transformers.__version__, saved["transformers"], "there"), differing)
    else:
        print("Every other class comes out alike.")


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="MODEL-TYPE")
    parser.add_argument("--save", type=Path, metavar="FILE")
    parser.add_argument("--also", type=Path, metavar="FILE")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    version, rows = transformers.__version__, list[Row]()
    print(f"# What can be changed in which class\n\n{NOTES.format(version=version)}\n")

    def lines() -> Iterator[list[str]]:
        for kind in asked.kinds or CLASSES:
            rows.append(judged(kind))
            yield rows[-1].cells()

    table(HEADS, lines())
    print(f"\n{count(rows)}")
    if asked.save:
        saved = {"transformers": version, "rows": [asdict(row) for row in rows]}
        asked.save.write_text(json.dumps(saved, indent=1), "utf-8")
    if asked.also:
        compare(rows, asked.also)


if __name__ == "__main__":
    main()

"""Every image-text-to-text class of transformers, tiny, and what headpatch can change in it.

Each class of transformers' own mapping is built from its default configuration, made tiny by the
names of its settings (`shrunk`), with random weights. Its parts are discovered in one run and
compared with hooks in the model's own pass. Inputs are drawn in the form that the class takes.

    python benchmarks/census.py [MODEL-TYPE ...]
"""

import os
import sys
import warnings
from dataclasses import dataclass, field
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
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES,
)

from benchmarks.drawn import Tokenless, runs_at_all, vision_config  # noqa: E402
from benchmarks.shrunk import PATCH, SIDE, shrunk  # noqa: E402
from headpatch.engine.control import changed, observe, why_not  # noqa: E402
from headpatch.engine.forward import Keep  # noqa: E402
from headpatch.engine.interventions import Intervention  # noqa: E402
from headpatch.engine.patching import Baseline, patch, run_pair  # noqa: E402
from headpatch.errors import HeadpatchError  # noqa: E402
from headpatch.heads import Head, HeadSet, Tower  # noqa: E402
from headpatch.models.discovery import discover  # noqa: E402
from headpatch.models.measured import Measured  # noqa: E402
from headpatch.models.patches import Patches, Seen, locate  # noqa: E402
from headpatch.models.prompt import Prompt  # noqa: E402
from headpatch.models.reach import image_tokens  # noqa: E402
from headpatch.models.spans import Spans  # noqa: E402
from headpatch.models.vlm import VLM  # noqa: E402
from headpatch.models.wording import AnswerTokens  # noqa: E402
from tests.families.builders import _draw  # noqa: E402

SCOPES = ("answer", "question", "image", "all")
MOST = 200_000_000


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
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return "not tried"
    side, merge = pixels.shape[-1], getattr(vision_config(vlm.model.config), "spatial_merge_size", 1)

    def process(picture: Image.Image) -> Tensor:
        whole = pixels.ndim > 3 and "image_grid_thw" not in inputs
        size = side if whole else 4 * PATCH
        shown = torch.from_numpy(np.asarray(picture.resize((size, size)), np.float32) / 255)
        shown = shown.permute(2, 0, 1)
        if whole:
            return shown.expand(pixels.shape).clone()
        blocks = shown.unflatten(2, (4 // merge, merge, -1)).unflatten(1, (4 // merge, merge, -1))
        patches = blocks.permute(1, 4, 2, 5, 0, 3, 6).reshape(16, 3, 1, PATCH, PATCH)
        frames = pixels[0].numel() // patches[0].numel()
        return patches.expand(-1, -1, frames, -1, -1).reshape(pixels.shape)

    def features(changed: Tensor) -> Tensor:
        return image_tokens(vlm, {**inputs, "pixel_values": changed}, prompt.spans.image)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    measured = Measured(process, picture.size)
    tokens = len(prompt.spans.image)
    try:
        given = vlm.model.config, {**inputs, "pixel_values": process(picture)}
        stub = _Settings()
        found = locate("traced", Seen(picture, stub, *given, tokens, measured, features), stub)
    except Exception as error:  # a form that this script does not draw pictures in
        return f"not tried ({type(error).__name__})"
    if found.unknown is not None:
        return f"no: {found.unknown.found}"
    return f"{int((~np.isnan(found.boxes[:, 0])).sum())} of {tokens} tokens"


@dataclass
class Row:
    """What came of one class: why it is not in the table, or its largest disagreements."""

    kind: str
    grid: str = ""
    worst: dict[str, float] = field(default_factory=dict)
    vision: str = ""
    places: str = ""
    refused: str = ""
    not_built: str = ""

    def cells(self) -> list[str]:
        """The class, its heads, the answer position, elsewhere, vision, places."""
        name = f"`{self.kind}`"
        if why := self.refused or self.not_built:
            said = "refused" if self.refused else "not built"
            return [name, "", said, " ".join(why.split())[:200].replace("|", "/"), "", ""]
        elsewhere = max(self.worst[one] for one in ("question", "image", "all"))
        vision = f"{self.worst['vision']:.0e}" if "vision" in self.worst else f"no: {self.vision}"
        figures = f"{self.worst['answer']:.0e}", f"{elsewhere:.0e}"
        return [name, self.grid, *figures, vision, self.places]


def judged(kind: str) -> Row:
    """Build a class, discover its parts, and compare them with hooks."""
    row = Row(kind)
    try:
        model = model_of(kind)
        prompt = "" if model.config.is_encoder_decoder else runs_at_all(model)
    except Tokenless as error:
        row.refused = str(error)
        return row
    except Exception as error:  # whatever building raises
        row.not_built = f"{type(error).__name__}: {error}"
        return row
    if isinstance(prompt, str) and prompt:
        row.not_built = f"no inputs were found that it runs on ({prompt})"
        return row
    inputs, image = (prompt.inputs, prompt.spans.image.tolist()) if prompt else ({}, [])
    try:
        found = discover(model, inputs, image, kind)
        vlm = VLM(model, None, kind, "", found=found)  # type: ignore[arg-type]
        assert not isinstance(prompt, str)  # an encoder-decoder is refused before
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
            row.not_built = f"the inputs drawn here cannot be told apart by run ({why})"
            return row
        if why and tower == "lm":
            row.refused = why
            return row
        row.vision = why or row.vision
        for scope in () if why else ("vision",) if tower == "vision" else SCOPES:
            row.worst[scope] = errors(vlm, base, tower, scope)[0]
    row.places = places(vlm, prompt)
    return row


HEADS = ("class", "layers with heads × heads", "answer", "elsewhere", "vision tower", "places")
NOTES = """\
Every class that transformers loads as an image-text-to-text model, tiny and with random weights.
Numbers: the largest disagreement, in logits, of a head's effect with a plain hook on its output
projection. *places*: how many image tokens are found to stand for a part of a picture that is
squashed to the size that the tower takes. Inputs are drawn in the form that a class takes; of
these classes only those of the tests have been run with their own processors.
Made by `python benchmarks/census.py > docs/model-census.md`, with"""


def main() -> None:
    """Print the table, in Markdown."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    title = "# What can be changed in which class"
    print(f"{title}\n\n{NOTES} transformers {transformers.__version__}.\n")
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    rows = []
    for kind in sys.argv[1:] or CLASSES:
        rows.append(judged(kind))
        print(f"| {' | '.join(rows[-1].cells())} |", flush=True)
    exact = sum(bool(row.worst) for row in rows)
    refused = sum(bool(row.refused) for row in rows)
    rest = len(rows) - exact - refused
    print(f"\n{len(rows)} classes: {exact} exact, {refused} refused, {rest} not built here.")


if __name__ == "__main__":
    main()

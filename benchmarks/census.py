"""Every image-text-to-text class of transformers, tiny, and what headpatch can change in it.

Each class of transformers' own mapping is built from its default configuration, made tiny by the
names of its settings (`shrunk`), with random weights. Its parts are discovered in one run and
compared with hooks in the model's own pass. Inputs are drawn in the form that the class takes.

    python benchmarks/census.py [MODEL-TYPE ...]
"""

import inspect
import os
import sys
import warnings
from collections.abc import Iterator
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
RUNS, BEFORE, AFTER, MOST = 2, 3, 6, 200_000_000
Inputs = dict[str, Tensor]


class _Settings:
    """Those of an image processor, of which tracing reads none."""


class _Tokenless(LookupError):
    """No token of the prompt stands for the picture."""


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


def _vision(config: Any) -> Any:
    names = ("vision_config", "vision_model_config", "vq_config", "vision_encoder_config")
    return next(
        (getattr(config, one) for one in names if getattr(config, one, None) is not None), config
    )


def forms(model: Any) -> Iterator[Inputs]:
    """Pictures in the forms that a class may take, of which its signature leaves few."""
    takes = set(inspect.signature(model.forward).parameters)
    tower = _vision(model.config)
    side = getattr(tower, "image_size", None) or SIDE
    side = side if isinstance(side, int) else side[0]
    patch = getattr(tower, "patch_size", None) or PATCH
    patch = patch if isinstance(patch, int) else patch[0]
    draw = lambda *shape: torch.randn(RUNS * shape[0], *shape[1:])  # noqa: E731
    rows = side // patch
    if "image_grid_thw" in takes:
        grid = torch.tensor([[1, 4, 4]] * RUNS)
        sizes = {"image_merge_sizes": torch.ones(RUNS, dtype=torch.long)}
        sizes = sizes if "image_merge_sizes" in takes else {}
        for frames in (getattr(tower, "temporal_patch_size", 1) or 1, 1, 2):
            for shape in (
                (3 * frames * patch * patch,),
                (3, patch, patch),
                (3, frames, patch, patch),
            ):
                yield {"pixel_values": draw(16, *shape), "image_grid_thw": grid, **sizes}
    if "image_grid_hw" in takes:
        yield {
            "pixel_values": draw(16, 3 * patch * patch),
            "image_grid_hw": torch.tensor([[4, 4]] * RUNS),
        }
    if "spatial_shapes" in takes:
        yield {
            "pixel_values": draw(1, 16, 3 * patch * patch),
            "spatial_shapes": torch.tensor([[4, 4]] * RUNS),
            "pixel_attention_mask": torch.ones(RUNS, 16, dtype=torch.long),
        }
    if "target_sizes" in takes:
        yield {
            "pixel_values": draw(1, 3, patch, patch * 16).reshape(1, 3, patch, -1),
            "target_sizes": torch.tensor([[4, 4]] * RUNS),
        }
    if "image_position_ids" in takes:
        places = torch.stack(
            torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"), -1
        ).reshape(1, 36, 2)
        yield {
            "pixel_values": draw(1, 36, 3 * patch * patch),
            "image_position_ids": places.repeat(RUNS, 1, 1),
        }
    if "image_patches" in takes:
        yield {"pixel_values": draw(1, 16, 3 * patch * patch)}
    more: Inputs = {}
    if "image_sizes" in takes:
        more["image_sizes"] = torch.tensor([[side, side]] * RUNS)
    if "image_embeds_position_mask" in takes:
        more["image_embeds_position_mask"] = torch.zeros(RUNS, 0)
    if "pixel_attention_mask" in takes and "spatial_shapes" not in takes:
        mask = torch.ones(RUNS, 1, side, side, dtype=torch.bool)
        yield {"pixel_values": draw(1, 1, 3, side, side), "pixel_attention_mask": mask, **more}
    if "high_res_pixel_values" in takes:
        big = model.config.high_res_vision_config.image_size
        more["high_res_pixel_values"] = draw(1, 3, big, big)
    if "qformer_input_ids" in takes:
        more["qformer_input_ids"] = torch.ones(RUNS, 4, dtype=torch.long)
        more["qformer_attention_mask"] = torch.ones(RUNS, 4, dtype=torch.long)
    if "num_local_patches" in takes:
        more["num_local_patches"] = torch.zeros(RUNS, dtype=torch.long)
    name = "pixel_values_images" if "pixel_values_images" in takes else "pixel_values"
    yield {name: draw(1, 3, side, side), **more}
    if "image_sizes" in more:
        yield {name: draw(1, 3, side, side)}
    yield {name: draw(1, 1, 3, side, side), **more}
    yield {name: draw(1, 2, 3, side, side), **more}
    yield {name: draw(1, 3, 3, side, side), **more}
    if rows != 4:
        yield {name: draw(1, 3, 4 * patch, 4 * patch), **more}


def count(model: Any, pictures: Inputs) -> list[int]:
    """How many image tokens a run's picture gives: by the model, else whatever may be."""
    found: list[int] = []
    function = getattr(model, "get_image_features", None) or getattr(
        getattr(model, "model", None), "get_image_features", None
    )
    if function is not None:
        takes = inspect.signature(function).parameters
        given = {name: value for name, value in pictures.items()}
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
            given = {name: value for name, value in pictures.items() if name in takes}
        if "pixel_values_images" in given:
            given["pixel_values"] = given.pop("pixel_values_images")
        try:
            with torch.no_grad():
                output = function(**given)
        except Exception:  # not in this form
            return []
        features = getattr(output, "pooler_output", None)
        features = output if features is None else features
        features = getattr(features, "last_hidden_state", features)
        parts = features if isinstance(features, list | tuple) else [features]
        parts = [one for one in parts if isinstance(one, Tensor)]
        if parts:
            found.append(sum(one.numel() // one.shape[-1] for one in parts) // RUNS)
    return found + [n for n in (16, 4, 17, 1, 64, 9, 36, 8, 32) if n not in found]


def prompt_of(model: Any, image: int, pictures: Inputs) -> Prompt:
    """A prompt of some words, a run's image tokens, and some words."""
    config = model.config
    names = (
        "image_token_id",
        "image_token_index",
        "media_placeholder_token_id",
        "img_token_id",
        "im_patch_id",
        "image_patch_id",
    )
    token = next(
        (getattr(config, one) for one in names if getattr(config, one, None) is not None), None
    )
    vocabulary = getattr(config, "vocabulary_map", None) or {}
    token = vocabulary.get("<image>") if token is None else token
    masked = "image_embeds_position_mask" in pictures
    token = 300 if masked else token
    if token is None:
        raise _Tokenless("its config names no image token, so no prompt position is the picture's")
    words = torch.arange(100, 100 + BEFORE + AFTER)
    extra: Inputs = {}
    ids = torch.cat([words[:BEFORE], torch.full((image,), int(token)), words[BEFORE:]]).repeat(
        RUNS, 1
    )
    takes = inspect.signature(model.forward).parameters
    types = (ids == token).long()
    for name in ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids"):
        if name in takes:
            extra[name] = types
    if masked:
        pictures = {**pictures, "image_embeds_position_mask": types.bool()}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **extra, **pictures}
    spans = Spans(ids.shape[1], torch.arange(BEFORE, BEFORE + image))
    return Prompt(
        inputs,
        RUNS,
        spans,
        Patches(np.empty((0, 4)), (0, 0)),
        torch.empty(0, dtype=torch.long),
        AnswerTokens(5, 6),
        "",
    )


def runs_at_all(model: Any) -> Prompt | str:
    """Return a prompt that the class runs on, and whose picture matters; or why there is none."""
    said: list[str] = []
    for pictures in forms(model):
        for image in count(model, pictures):
            try:
                prompt = prompt_of(model, image, pictures)
                with torch.no_grad():
                    logits = model(**prompt.inputs, use_cache=False).logits[:, -1]
            except _Tokenless:
                raise
            except Exception as error:
                said.append(f"{type(error).__name__}: {str(error).strip()[:200]}")
                continue
            if not torch.isfinite(logits).all():
                said.append("logits are not finite")
            elif torch.equal(logits[0], logits[1]):
                said.append("the answer does not depend on the picture")
            else:
                return prompt
    return said[0] if said else "no form of pictures"


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
    side, merge = pixels.shape[-1], getattr(_vision(vlm.model.config), "spatial_merge_size", 1)

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
    except _Tokenless as error:
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

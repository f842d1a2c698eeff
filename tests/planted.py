"""A micro LLaVA with a circuit planted by hand, whose every number can be worked out on paper.

`tests.circuit` says how; here is what is planted. A patch's brightness b is a feature; no vision
head writes. The projector adds ``found`` = 1 where a bright patch lies in the region, by a clamp of
b + region: 0 below 1.25, 1 above 1.75.

The pictures are 56 px, 4 × 4 patches. Without: black, with one white patch at row 3, column 1.
With: a white patch at row 1, column 1 as well. The region is the top left quadrant,
4 of 16 patches.

The vote. LD = vote − 5, and each head's share of it (with / without the object):

| head | name          | looks from | at              | writes                 | with | without |
|------|---------------|------------|-----------------|------------------------|------|---------|
| 1.1  | looker        | answer     | found 3/4       | vote                   |  2   |  0      |
| 0.2  | blind writer  | answer     | region, 1/4 each| vote, one regardless   |  2   |  1      |
| 0.3  | redundant a   | answer     | found 3/4       | red 1, clamped to vote |  4   |  0      |
| 1.0  | redundant b   | answer     | found 3/4       | red 1, either suffices | (4)  |  0      |
| 1.3  | suppressor    | answer     | found 1/2       | vote                   | −1   |  0      |
| 0.1  | note writer   | "?"        | found 3/4       | note, at "?"           |      |         |
| 2.0  | note reader   | answer     | "?"             | vote                   |  1   |  0      |
| 0.0  | pool writer   | last patch | found 3/4       | pool, at the last patch|      |         |
| 2.1  | pool reader   | answer     | last patch      | vote                   |  1   |  0      |
| 1.2  | decoy         | answer     | found 0.95      | junk, which none reads |  0   |  0      |
| 2.2  | faint         | answer     | text; of the image, found 0.99 | nothing |  0   |  0      |
| 2.3, 3.* | silent    |            |                 | nothing, or noise      |  0   |  0      |

So LD_with = 2 + 2 + 4 − 1 + 1 + 1 − 5 = +4 and LD_without = 1 − 5 = −4.
The MLP of layer 2 adds 4·clamp(2·red − 0.5, 0, 1) to the vote. `HEADS` holds what follows for each.

With ``trio=True`` there is a layer 4, whose heads are silent, and heads 2.3, 3.0 and 3.1 (`TRIO`)
write ``trio`` 1 each where 1.1 looks; the MLP of layer 3 adds 4·clamp(2·trio − 0.5, 0, 1) to the
vote. One of the three suffices, so no two of them are missed: LD_with = +8, a gap of 12.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from headpatch.core.study.study import Study
from headpatch.heads import Head
from headpatch.models.prompt import Prompt, encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.circuit import ALL, Circuit, Clamp, Form
from tests.tiny import PATCH, QUESTION, SIDE, tiny_processor

HEADS_PER_LAYER, LAYERS = 4, 4
FORM = Form(
    LAYERS, HEADS_PER_LAYER, hidden=16,
    features=("const", "image", "bright", "region", "found", "last", "relay", "ask", "said", "vote",
              "red", "note", "pool", "junk", "trio"),
    vision_features=("const", "bright", "region", "last"),
)  # fmt: skip
FOUND = {"found": Clamp({"bright": 1, "region": 1}, 1.25, 1.75, sharpness=40)}
LD_WITH, LD_WITHOUT = 4.0, -4.0
VISION_ODDS = 7.0  # head v0.1 attends to bright patches


@dataclass(frozen=True)
class PlantedHead:
    """A head of the circuit and what must be found for it."""

    head: Head
    share_with: float  # of its image attention, from the answer position, on the region
    share_without: float
    raw_with: float | None  # the same of all its attention; None: by the question's length
    raw_without: float | None
    necessity: float  # normalized effects of resampling it in its scope alone: noising,
    sufficiency: float  # denoising
    scope: Positions = "answer"  # the narrowest in which it acts

    @property
    def diff(self) -> float:
        return self.share_with - self.share_without


def _on_found(odds: float, name: str, *effects: float) -> PlantedHead:
    """A head that attends to the image alone and to found with these odds: 15 other patches."""
    share = (3 + odds) / (15 + odds)
    return PlantedHead(Head.parse(name), share, 4 / 16, share, 4 / 16, *effects)


HEADS: Mapping[str, PlantedHead] = {
    "looker": _on_found(45, "1.1", 2 / 8, 2 / 8),
    "blind writer": PlantedHead(Head(0, 2), 1, 1, 1, 1, 1 / 8, 1 / 8),
    "redundant a": _on_found(45, "0.3", 0, 4 / 8),
    "redundant b": _on_found(45, "1.0", 0, 4 / 8),
    "suppressor": _on_found(15, "1.3", -1 / 8, -1 / 8),
    "note writer": PlantedHead(Head(0, 1), 1 / 4, 1 / 4, None, None, 1 / 8, 1 / 8, "question"),
    "note reader": PlantedHead(Head(2, 0), 1 / 4, 1 / 4, 0, 0, 1 / 8, 1 / 8),
    "pool writer": PlantedHead(Head(0, 0), 1 / 4, 1 / 4, None, None, 1 / 8, 1 / 8, "image"),
    "pool reader": PlantedHead(Head(2, 1), 0, 0, 0, 0, 1 / 8, 1 / 8),
    "decoy": _on_found(285, "1.2", 0, 0),
    "faint": replace(_on_found(1485, "2.2", 0, 0), raw_with=None, raw_without=None),
}
"""What to find; the redundant pair is necessary together: 4/8."""

SILENT = (Head(2, 3), *(Head(3, head) for head in range(HEADS_PER_LAYER)))
TRIO = (Head(2, 3), Head(3, 0), Head(3, 1))
"""Redundant all three together: necessary together, 4/12, and no two of them."""
SILENT_BESIDE_TRIO = (Head(3, 2), Head(3, 3), *(Head(4, head) for head in range(HEADS_PER_LAYER)))
GAP_WITH_TRIO = 12.0


@dataclass(frozen=True, eq=False)
class Planted:
    """The model, the prompt of both runs, and its two pictures."""

    vlm: VLM
    prompt: Prompt
    with_image: Image.Image
    without_image: Image.Image


def planted(noise: float = 0.0, seed: int = 0, trio: bool = False) -> Planted:
    """Build the circuit above; `noise` is the scale of the silent heads' weights."""
    circuit = Circuit(replace(FORM, layers=LAYERS + trio), FOUND)
    plant, found = circuit.plant_head, {"found": 1.0}
    looks = {"image": ALL, "found": 45.0}
    plant("1.1", at="ask", attends=looks, reads=found, writes={"vote": 8 / 3})
    plant(
        "0.2", at="ask", attends={"region": ALL}, reads={"found": 4, "image": 1}, writes={"vote": 1}
    )
    plant("0.3", at="ask", attends=looks, reads=found, writes={"red": 4 / 3})
    plant("1.0", at="ask", attends=looks, reads=found, writes={"red": 4 / 3})
    circuit.plant_clamp(2, Clamp({"red": 1}, 0.25, 0.75), "vote", height=4)
    plant("1.3", at="ask", attends={"image": ALL, "found": 15}, reads=found, writes={"vote": -2})
    plant("0.1", at="relay", attends=looks, reads=found, writes={"note": 4 / 3})
    plant("2.0", at="ask", attends={"relay": ALL}, reads={"note": 1}, writes={"vote": 1})
    plant("0.0", at="last", attends=looks, reads=found, writes={"pool": 4 / 3})
    plant("2.1", at="ask", attends={"last": ALL}, reads={"pool": 1}, writes={"vote": 1})
    plant("1.2", at="ask", attends={"image": ALL, "found": 285}, reads=found, writes={"junk": 1})
    plant("2.2", at="ask", attends={"image": 1e-6, "found": 1485}, reads=found)
    circuit.plant_vision_head("v0.1", attends={"bright": VISION_ODDS})
    if trio:
        for head in TRIO:
            plant(str(head), at="ask", attends=looks, reads=found, writes={"trio": 4 / 3})
        circuit.plant_clamp(3, Clamp({"trio": 1}, 0.25, 0.75), "vote", height=4)
    if noise:
        circuit.plant_noise(SILENT_BESIDE_TRIO if trio else SILENT, noise, seed)
    vlm = VLM(circuit.model, planted_processor(), "planted", f"noise:{noise} seed:{seed}")
    with_image, without_image = planted_image(found=True), planted_image(found=False)
    prompt = encode(vlm, [with_image, without_image], QUESTION)
    return Planted(vlm, prompt, with_image, without_image)


@contextmanager
def says_instead(vlm: VLM, word: str, logits: float) -> Iterator[None]:
    """Add to the logit of a token wherever the model looks for its next."""
    token = vlm.processor.tokenizer.convert_tokens_to_ids(word)

    def louder(_: object, __: object, output: Tensor) -> Tensor:
        return output.index_add(-1, torch.tensor([token]), torch.full_like(output[..., :1], logits))

    handle = vlm.model.lm_head.register_forward_hook(louder)
    try:
        yield
    finally:
        handle.remove()


def planted_processor():
    """One that hands pixels on as 0 to 1."""
    return tiny_processor(image_mean=[0.0] * 3, image_std=[1.0] * 3)


def planted_image(
    found: bool, row: int = 1, column: int = 1, other: tuple[int, int] = (3, 1)
) -> Image.Image:
    """Black, with a white patch at `other` (row, column), and one at (row, column) if found."""
    image = Image.new("RGB", (SIDE, SIDE))
    for y, x in [other, (row, column)][: 1 + found]:
        box = (x * PATCH, y * PATCH, (x + 1) * PATCH - 1, (y + 1) * PATCH - 1)
        ImageDraw.Draw(image).rectangle(box, fill="white")
    return image


def planted_study(folder: Path, **options: object) -> Study:
    """A study of the circuit's pictures, written to `folder`; dotted keys as in `Study.make`."""
    pictures = {"with": folder / "with.png", "without": folder / "without.png"}
    for key, file in pictures.items():
        planted_image(found=key == "with").save(file)
    flags = {key: str(file) for key, file in pictures.items()}
    return Study.make(None, {**flags, "question": QUESTION, "region": "top-left", **options})


def planted_folder(folder: Path) -> Path:
    """Write the circuit's model and its pictures to a folder; return it."""
    save_planted(folder / "model")
    planted_study(folder)
    return folder


def planted_dataset(folder: Path, pairs: int = 48) -> Path:
    """Write pairs that differ in the places of both patches, and their manifest.

    Pictures without the object are shared, but what the circuit does with each pair is known: each
    is a scene of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = list(product(range(2), range(2)))
    outside = [place for place in product(range(4), range(4)) if place not in inside]
    rows = ["name,with,without,question,region,scene"]
    for index, (other, (row, column)) in enumerate(product(outside, inside)):
        name = f"p{index:02d}"
        for found in (True, False):
            planted_image(found, row, column, other).save(folder / f"{name}-{found}.png")
        rows.append(f'{name},{name}-True.png,{name}-False.png,"{QUESTION}",top-left,{name}')
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows[: pairs + 1]) + "\n")
    return manifest


def save_planted(folder: Path, noise: float = 0.0, seed: int = 0) -> Path:
    """Write the model with its processor, as `headpatch.models.load.load` reads it."""
    made = planted(noise, seed)
    made.vlm.model.save_pretrained(folder)
    made.vlm.processor.save_pretrained(folder)
    return folder

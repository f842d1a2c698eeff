"""Circuits of heads that are harder to judge than those of `tests.planted`, worked out by hand.

Pictures
--------
56 px, 4 × 4 patches. A dim ground (0 to 0.15, drawn anew for every pair, the same in both of its
pictures) and a white patch outside of the region, the top left quadrant. With: an object in a patch
of the region as well, a *disc* (brightness 0.6) or a *square* (1). Of 64 pairs (`drawn_pairs`)

- half show a disc, half a square: the manifest's column ``shape``;
- half of each show it in the left column, half in the right: no column tells;
- one of 16, 4 in all, shows it in the upper row: no column tells.

The projector adds to the object's token ``found`` = 1, ``square`` = 1 for squares, and ``left`` and
``upper`` = 1 by its place; without the object they are 0 everywhere.

The circuit (`kinds`)
---------------------
LD = vote − 5. The vote is 10 in every with-run and 0 in every without-run, so LD = ±5 and the gap
is 10. A head *looks* if it attends from the answer to the object with odds of 45 and to the 15
other patches, so that it reads 3/4 of a feature of the object, and shares 48/60 of its attention
with the region; without the object 4/16. It writes what makes the figures below shares of the gap
(δ = 0.02). Necessity and sufficiency are those of resampling the head alone, at the answer.

| head    | name        | what it does                           | nec.  | suff. | label      |
|---------|-------------|----------------------------------------|-------|-------|------------|
| 0.1–0.3 | or a, b, c  | 0.08 if any of the three looks         | 0     | 0.08  | redundant  |
| 0.4–0.5 | and a, b    | 0.08 if both look                      | 0.08  | 0     | necessary  |
| 0.6     | main        | 0.10                                   | 0.04  | 0.10  | both       |
| 0.7     | backup      | 0.06 if main is gone and lamp is not   | 0     | 0     | redundant  |
| 1.0     | lamp        | lets backup and half of opposite act   | 0.10  | 0     | necessary  |
| 1.1     | opposite    | −0.05, and +0.10 with lamp             | 0.05  | −0.05 | necessary  |
| 1.2     | glow reader | 0.06, what v1.0 wrote everywhere       | 0.06  | 0.06  | both       |
| 1.3     | pool reader | 0.06, what 0.0 wrote at the last patch | 0.06  | 0.06  | both       |
| 0.0     | pool writer | acts at the image, not at the answer   | 0     | 0     | inert      |
| 1.4     | discs only  | 0.23 for discs, 0 for squares          | 0.115 | 0.115 | both       |
| 1.5     | two-faced   | 0.04 for discs, −0.04 for squares      | 0     | 0     | mixed      |
| 1.6     | hidden      | 0.10 on the left, −0.10 on the right   | 0     | 0     | mixed      |
| 1.7     | rare        | 0.15 in the upper row, 0 in the lower  | 0.009 | 0.009 | not small  |
| 2.0     | carrier     | what the gap still lacks, 0.04 to 0.70 | 0.436 | 0.436 | both       |
| 2.1     | tiny        | 0.01, attends evenly to the image      | 0.01  | 0.01  | inert      |
| 2.2     | watcher     | nothing, looks with odds of 285        | 0     | 0     | watches    |
| 2.3     | flicker     | nothing, looks with odds of 1.0002     | 0     | 0     | inert      |
| 2.4     | avoider     | nothing, looks at all but the object   | 0     | 0     | looks away |
| 2.5     | idle        | nothing at all                         | 0     | 0     | inert      |
| 2.6–2.7 | noisy a, b  | nothing, or noise                      | 0     | 0     | inert      |

(*both*: necessary and sufficient.)
Heads that look share 48/60 − 4/16 = 0.55 more of their attention with the region; the watcher
288/300 − 4/16 = 0.71. The flicker's odds of 1 + 2·10⁻⁴ make 12/256 of that, 9.4·10⁻⁶. The avoider
attends to the region's patches with odds of 3, but not to the object: 9/21 − 12/24 = −1/14. The
readers, tiny, idle and the pool writer attend to the region alike in both runs. Only idle, the
noisy heads and the pool writer attend to text from the answer.

Together
~~~~~~~~
- or: any two 0, all three 0.08; each adds 0.08 once the two others are gone.
- main + backup 0.10: backup adds 0.06 once main is gone. With lamp gone backup never acts:
  main + lamp = 0.10 + 0.10, where alone they make 0.04 + 0.10.
- and: both 0.08, as either; together they are sufficient for 0.08.
- opposite + lamp: both 0.05; together sufficient for 0.05.
- In the tower: layer 1 (its head v1.0) 0.06; layer 0 nothing, and layer 2 is not read.

At the image's tokens the pool writer is 0.06 in both directions, and every other head is 0.

Many small shares (`diffuse`)
-----------------------------
One layer of 64 heads. Heads 0 to 47 look, the first ones the hardest (odds of 200 − index), and
each writes 1/48 of a gap of 10; heads 48 to 63 are silent. So any k of them carry k/48: the first
16 by attention 1/3, and 16 drawn of the other 48 heads of the layer 16 · 32/48 of a 48th on
average, 2/9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from headpatch.heads import Head
from headpatch.models.vlm import VLM
from tests.circuit import ALL, BIAS, Circuit, Clamp, Form
from tests.planted import planted_processor
from tests.tiny import PATCH, QUESTION, SIDE

GAP = 2 * BIAS
READ = 3 / 4  # of what the object's token holds, by a head that looks with odds of 45
LOOKS = {"image": ALL, "found": 45.0}
_REGION = {"bright": 1.0, "region": 1.0}
# At most 0.15 for a dim patch, at least 0.58 for a disc, at most 0.64, and 1 for a square
CLAMPS = {
    "found": Clamp(_REGION, 1.25, 1.45),
    "square": Clamp(_REGION, 1.7, 1.9),
    "left": Clamp({**_REGION, "left": 1}, 2.25, 2.45),
    "upper": Clamp({**_REGION, "upper": 1}, 2.25, 2.45),
    "glow": Clamp({"glow": 1}, 0.25, 0.45),
}
FORM = Form(
    layers=3, heads=8, hidden=32, units=8,
    features=("const", "image", "found", "square", "left", "upper", "glow", "region", "last",
              "relay", "ask", "said", "vote", "any", "both", "busy", "spare", "lit", "opposite",
              "pool", "junk"),
    vision_features=("const", "bright", "region", "last", "left", "upper", "glow", "unused"),
)  # fmt: skip


@dataclass(frozen=True)
class DrawnPair:
    """What is drawn in a pair, by which its figures are known."""

    name: str
    disc: bool
    left: bool
    upper: bool
    other: tuple[int, int]  # row and column of the white patch outside of the region
    ground: int  # seeds the dim ground

    @property
    def effects(self) -> Mapping[str, tuple[float, float]]:
        """Necessity and sufficiency of each head by name, in this pair; the other heads' are 0."""
        disc, side = float(self.disc), 1 if self.left else -1
        varying = {
            "discs only": 0.23 * disc,
            "two-faced": 0.08 * disc - 0.04,
            "hidden": 0.10 * side,
            "rare": 0.15 * self.upper,
        }
        carrier = 1 - sum(varying.values()) - 0.44  # or, and, main, opposite, readers, tiny
        alike = {**varying, "carrier": carrier, "tiny": 0.01}
        alike |= {"glow reader": 0.06, "pool reader": 0.06}
        return {
            **{f"or {one}": (0, 0.08) for one in "abc"},
            **{f"and {one}": (0.08, 0) for one in "ab"},
            "main": (0.04, 0.10),
            "lamp": (0.10, 0),
            "opposite": (0.05, -0.05),
            **{name: (effect, effect) for name, effect in alike.items()},
        }

    def picture(self, found: bool) -> Image.Image:
        """Draw the pair's picture with the object, or without."""
        dim = np.random.default_rng(self.ground).integers(0, 39, (8, 8), dtype=np.uint8)
        image = Image.fromarray(dim).resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")
        pen = ImageDraw.Draw(image)
        pen.rectangle(_box(*self.other), fill="white")
        if found:
            box = _box(1 - self.upper, 1 - self.left)
            if self.disc:
                pen.ellipse([box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1], fill="white")
            else:
                pen.rectangle(box, fill="white")
        return image


HEADS: Mapping[str, Head] = {
    name: Head.parse(head)
    for head, name in (
        ("0.0", "pool writer"), ("0.1", "or a"), ("0.2", "or b"), ("0.3", "or c"),
        ("0.4", "and a"), ("0.5", "and b"), ("0.6", "main"), ("0.7", "backup"),
        ("1.0", "lamp"), ("1.1", "opposite"), ("1.2", "glow reader"), ("1.3", "pool reader"),
        ("1.4", "discs only"), ("1.5", "two-faced"), ("1.6", "hidden"), ("1.7", "rare"),
        ("2.0", "carrier"), ("2.1", "tiny"), ("2.2", "watcher"), ("2.3", "flicker"),
        ("2.4", "avoider"), ("2.5", "idle"), ("2.6", "noisy a"), ("2.7", "noisy b"),
    )
}  # fmt: skip
DIFFERENCES: Mapping[str, float] = {
    **dict.fromkeys(HEADS, 48 / 60 - 4 / 16),
    **dict.fromkeys(("pool writer", "pool reader", "glow reader", "tiny", "idle"), 0.0),
    **dict.fromkeys(("noisy a", "noisy b"), 0.0),
    "watcher": 288 / 300 - 4 / 16,
    "flicker": 4.0002 / 16.0002 - 4 / 16,
    "avoider": -1 / 14,
}
"""Of the share of the image attention that lies on the region, with minus without."""
PAIRS = 64


def kinds(noise: float = 0.0, seed: int = 0) -> VLM:
    """Build the circuit above; `noise` is the scale of the noisy heads' weights."""
    circuit = Circuit(FORM, CLAMPS)

    def look(name: str, reads: Mapping[str, float], **writes: float) -> None:
        """A head that looks, and writes this much where what it reads of the object makes 1."""
        head = str(HEADS[name])
        scaled = {feature: amount / READ for feature, amount in writes.items()}
        circuit.plant_head(head, at="ask", attends=LOOKS, reads=reads, writes=scaled)

    def plant(name: str, **what: Mapping[str, float]) -> None:
        circuit.plant_head(str(HEADS[name]), at="ask", **what)

    found = {"found": 1.0}
    for letter in "abc":
        look(f"or {letter}", found, any=1)
    for letter in "ab":
        look(f"and {letter}", found, both=1)
    look("main", found, vote=0.10 * GAP, busy=1)
    look("backup", found, spare=1)
    look("lamp", found, lit=1)
    look("opposite", found, vote=-0.05 * GAP, opposite=1)
    look("discs only", {"found": 1, "square": -1}, vote=0.23 * GAP)
    look("two-faced", {"found": 1, "square": -2}, vote=0.04 * GAP)
    look("hidden", {"found": -1, "left": 2}, vote=0.10 * GAP)
    look("rare", {"upper": 1}, vote=0.15 * GAP)
    # 0.56 and, of what the four above write, nothing: (found, square, left, upper)
    rest = {"found": 0.56 - 0.27 + 0.10, "square": 0.31, "left": -0.20, "upper": -0.15}
    look("carrier", rest, vote=GAP)
    image = {"image": ALL}
    plant("tiny", attends=image, reads=found, writes={"vote": 16 * 0.01 * GAP})
    plant("glow reader", attends=image, reads={"glow": 1}, writes={"vote": 0.06 * GAP})
    circuit.plant_vision_head(
        "v1.0", attends={"bright": 1e5, "region": 1e8}, reads={"bright": 1}, writes={"glow": 1}
    )
    circuit.plant_head(
        "0.0", at="last", attends=LOOKS, reads=found, writes={"pool": 0.06 * GAP / READ}
    )
    plant("pool reader", attends={"last": ALL}, reads={"pool": 1}, writes={"vote": 1})
    plant("watcher", attends={"image": ALL, "found": 285}, reads=found, writes={"junk": 1})
    plant("flicker", attends={"image": ALL, "found": 1.0002})
    plant("avoider", attends={"image": ALL, "region": 3, "found": 1 / ALL})
    for reads, start, height in (
        ({"any": 1}, 0.25, 0.08),
        ({"both": 1}, 1.25, 0.08),
        ({"spare": 1, "lit": 1, "busy": -1}, 1.25, 0.06),
        ({"opposite": 1, "lit": 1}, 1.25, 0.10),
    ):
        circuit.plant_clamp(2, Clamp(reads, start, start + 0.5), "vote", height * GAP)
    if noise:
        circuit.plant_noise((HEADS["noisy a"], HEADS["noisy b"]), noise, seed)
    return VLM(circuit.model, planted_processor(), "kinds", f"noise:{noise} seed:{seed}")


CARRIERS, SILENT = 48, 16
"""Heads of the diffuse circuit: each of the first carries 1/48."""


def diffuse() -> VLM:
    """Build the circuit whose 48 first heads carry 1/48 each."""
    form = Form(1, CARRIERS + SILENT, 64, FORM.features, FORM.vision_features)
    circuit = Circuit(form, CLAMPS)
    for index in range(CARRIERS):
        odds = 200.0 - index
        read = odds / (15 + odds)  # of what the object's token holds
        circuit.plant_head(
            f"0.{index}", at="ask", attends={"image": ALL, "found": odds},
            reads={"found": 1}, writes={"vote": GAP / CARRIERS / read},
        )  # fmt: skip
    return VLM(circuit.model, planted_processor(), "diffuse", "planted")


def drawn_pairs(count: int = PAIRS) -> list[DrawnPair]:
    """Return pairs of which each shape and each column is as frequent, with every upper row 16th.

    Of a multiple of 64: in the upper row the four of shape and column are as frequent, too.
    """
    rng = np.random.default_rng(0)
    outside = [(row, column) for row in range(4) for column in range(4) if max(row, column) > 1]
    return [
        DrawnPair(
            name=f"k{index:02d}",
            disc=index % 2 == 0,
            left=index // 2 % 2 == 0,
            upper=index // 4 % 16 == index % 4 * 4,
            other=outside[rng.integers(len(outside))],
            ground=index,
        )
        for index in range(count)
    ]


def kinds_dataset(folder: Path, count: int = PAIRS) -> Path:
    """Write the pairs' pictures and their manifest, with the column ``shape``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["name,with,without,question,region,shape"]
    for pair in drawn_pairs(count):
        for found in (True, False):
            pair.picture(found).save(folder / f"{pair.name}-{found}.png")
        files = f"{pair.name}-True.png,{pair.name}-False.png"
        shape = "disc" if pair.disc else "square"
        rows.append(f'{pair.name},{files},"{QUESTION}",top-left,{shape}')
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def _box(row: int, column: int) -> tuple[int, int, int, int]:
    """The pixels of a patch: left, top, and the last ones."""
    return column * PATCH, row * PATCH, (column + 1) * PATCH - 1, (row + 1) * PATCH - 1

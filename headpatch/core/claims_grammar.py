"""Claims about heads and layers: the sentences that a study may list.

The grammar, one claim a line (H is a head such as ``24.17``, A-B layers such as ``17-26`` or one):

    head H is necessary | sufficient | causal | redundant | inhibitory | inert
    heads H and H are redundant                (or more: heads H, H and H)
    heads H and H do more together than alone  (or more)
    heads H and H work together
    heads H and H are independent
    heads H and H are necessary | sufficient together                      (or more)
    heads H and H matter more than others of their layers                  (or more)
    head H looks at the region
    the model looks at the region
    layers A-B hold the sensitive heads        (those that attention picks)
    layers A-B hold the causal heads
    the heads of layers A-B matter more than those of other layers
    the answer reads the region | image | question in layers A-B
    the question reads the region | image in layers A-B
    attention and effects correlate by more | less than X    (X from 0 to 1, such as 0.5)
    the heads of vision layers A-B are necessary
    the heads of vision layers A-B matter more than those of other layers
    vision layers A-B carry the object

What some of them mean:

- *causal*: shown to act on the answer: for it (necessary, sufficient or redundant), or against it
  (inhibitory).
- *redundant*: necessary together, and none of them necessary alone; *do more together than alone*
  leaves the second open.
- *work together*: both are needed (synergy: see `headpatch.stats.interactions`).
- *necessary together*, *sufficient together*: all of them changed at once, whatever each does
  alone; *matter more than others of their layers*: necessary together, and more so than random sets
  with as many heads of each layer.
- *the question reads*: from its words; the answer position, which is the prompt's last token, has a
  claim of its own.
- *attention and effects correlate*: over all heads, Spearman's rho of attention difference and size
  of effect, of the true values, not of means that errors scramble.
- *carry the object*: the region's patches bring the other run's answer as they leave layer B, and
  did not before layer A.

What data say to each, `headpatch.questions.claims.judge` has.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet

if TYPE_CHECKING:
    from headpatch.models.vlm import VLM

_ONE = r"[0-9]{1,99}\.[0-9]{1,99}"
_HEAD = rf"({_ONE})"
_HEADS = rf"((?:{_ONE}, )*{_ONE} and {_ONE})"
_LAYERS = "([0-9]{1,99})(?:-([0-9]{1,99}))?"


class Form(Enum):
    """Every form of a claim, and the line of the grammar that it is read by."""

    CLASS = rf"head {_HEAD} is (necessary|sufficient|causal|redundant|inhibitory|inert)"
    LOOKS = rf"head {_HEAD} looks at the region"
    MODEL_LOOKS = r"the model looks at the region"
    REDUNDANT = rf"heads {_HEADS} are redundant"
    MORE_TOGETHER = rf"heads {_HEADS} do more together than alone"
    WORK_TOGETHER = rf"heads {_HEAD} and {_HEAD} work together"
    INDEPENDENT = rf"heads {_HEAD} and {_HEAD} are independent"
    TOGETHER = rf"heads {_HEADS} are (necessary|sufficient) together"
    OTHERS = rf"heads {_HEADS} matter more than others of their layers"
    HOLD = rf"layers? {_LAYERS} holds? the (sensitive|causal) heads"
    SPAN = rf"the heads of layers? {_LAYERS} matter more than those of other layers"
    READS = (
        rf"the (?!question reads the question)(answer|question) reads the "
        rf"(region|image|question) in layers? {_LAYERS}"
    )
    CORRELATE = r"attention and effects correlate by (more|less) than (0?\.[0-9]{1,6})"
    VISION_HEADS = rf"the heads of vision layers? {_LAYERS} are necessary"
    VISION_SPAN = rf"the heads of vision layers? {_LAYERS} matter more than those of other layers"
    VISION_CARRIES = rf"vision layers? {_LAYERS} (?:carry|carries) the object"


_TESTED_TOGETHER = (Form.REDUNDANT, Form.MORE_TOGETHER)
_OF_VISION_LAYERS = (Form.VISION_HEADS, Form.VISION_SPAN, Form.VISION_CARRIES)
_EXAMPLES = (
    "a claim such as 'head 24.17 is necessary', 'head 24.17 looks at the region', 'heads 24.17 and "
    "23.20 work together', 'layers 17-26 hold the sensitive heads', 'the answer reads the region "
    "in layers 17-24' or 'vision layer 8 carries the object'"
)


@dataclass(frozen=True)
class Claim:
    """A claim, read: the heads, first and last layer, and word that its line leaves open."""

    text: str
    form: Form
    heads: tuple[Head, ...] = ()
    layers: tuple[int, int] = (0, 0)
    word: str = ""
    object: str = ""  # the second word, where a line leaves two open
    number: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Claim":
        """Read a claim; an error if it is none of the grammar's lines."""
        plain = " ".join(text.lower().rstrip(". ").split())
        for form in Form:
            if match := re.fullmatch(form.value, plain):
                parts = match.groups()
                named = () if form is Form.CORRELATE else re.findall(_HEAD, plain)
                heads = tuple(map(Head.parse, named))
                words = [part for part in parts if part and part.isalpha()] + ["", ""]
                numbers = [int(part) for part in parts if part and part.isdigit()]
                layers = (numbers[0], numbers[-1]) if numbers else (0, 0)
                if layers[0] > layers[1] or len(set(heads)) < len(heads):
                    break
                number = float(parts[-1]) if form is Form.CORRELATE else 0.0
                return cls(text, form, heads, layers, words[0], words[1], number)
        raise InputError("claims", repr(text), _EXAMPLES)

    @property
    def tested_set(self) -> HeadSet | None:
        """The heads that must be noised together to judge it; None if it is of another form."""
        return HeadSet(self.heads) if self.form in _TESTED_TOGETHER else None

    def check(self, grid: Grid, vision_layers: int | None) -> None:
        """Refuse a claim about heads or layers (None: not known) that the model does not have."""
        name = f"claims: {self.text!r}"
        for head in self.heads:
            grid.check(head, name)
        layers = vision_layers if self.form in _OF_VISION_LAYERS else grid.layers
        if layers is not None and self.layers[1] >= layers:
            wanted = f"layers 0-{layers - 1} in this model"
            raise InputError(name, f"layer {self.layers[1]} is out of range", wanted)
        if self.form in (Form.HOLD, Form.SPAN, Form.READS):
            grid.need_heads(*self.layers, name)


def check_claims(claims: Iterable[Claim], vlm: "VLM") -> None:
    """Refuse claims about heads or layers that a model does not have."""
    vision_layers = 0 if vlm.vision is None else vlm.vision.grid.layers
    for claim in claims:
        claim.check(vlm.lm.grid, vision_layers)

"""How circuits are planted by hand in a LLaVA, so that each of its numbers can be worked out.

It is a real `LlavaForConditionalGeneration` behind a real processor; all its weights are set here.
The residual stream has labelled dimensions (`Form.features`), and a head is planted by saying from
which token it looks, what it attends to, what it reads there and what it writes:

    circuit.plant_head("1.1", at="ask", attends={"image": ALL, "found": 45}, reads={"found": 1},
                       writes={"vote": 8 / 3})

How the parts are made harmless, so that the arithmetic stays short:

- *Norms.* A dimension ``const`` holds C = 10⁴, all others hold numbers up to about 10. So of H
  dimensions every RMS is C/√H to within 10⁻⁶, and with weights C/√H each norm is the identity.
  The vision tower has ±C and stores each feature as ±f, so that its LayerNorm's mean is 0.
- *Attention.* A head's query is 1 at its own token and 0 elsewhere, its key the sum of the
  logarithms of *odds* over the features a token has. So at its token a head attends to each token
  in proportion to the product of its features' odds, and elsewhere evenly over what it may see.
- *Positions.* Scores live in the head's dimension 1, which RoPE turns by 10⁻⁸ a token
  (θ = 10¹⁶); values live in dimension 0, which RoPE does not touch.
- *Vision.* A patch's brightness b (its mean pixel, 0 to 1) and its place are features. The
  projector passes features through as gelu(x) − gelu(−x) = x, and adds clamps of them.
- *Answers.* LD = vote − 5 at the answer position.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log, sqrt

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from headpatch.heads import Head
from tests.tiny import PATCH, Shape, tiny_config, tiny_tokenizer

HEAD_DIM = 4
VISION_LAYERS = 3
CONST, VISION_CONST = 1e4, 1e3
ALL = 1e9  # odds that leave nothing for other tokens
BIAS = 5.0
PLACES: Mapping[str, Tensor] = {
    "region": torch.tensor([1.0, 1, 0, 0] * 2 + [0] * 8),  # the top left quadrant
    "last": torch.tensor([0.0] * 15 + [1]),
    "left": torch.tensor([1.0, 0, 0, 0] * 4),
    "upper": torch.tensor([1.0] * 4 + [0] * 12),
}
"""Features of patches by their place, row by row."""


@dataclass(frozen=True)
class Form:
    """The sizes of a circuit's model, and what its two streams hold.

    `features`: ``const``, everywhere; ``image``, 1 at image tokens; ``ask``, at the answer
    position; ``relay``, at the question mark; ``said``, at the words Yes and No, after which the
    model stops; ``vote``; and what is made of the image. `vision_features`: ``const``, ``bright``,
    places (`PLACES`), and what heads of the tower write.
    """

    layers: int
    heads: int
    hidden: int
    features: tuple[str, ...]
    vision_features: tuple[str, ...]
    units: int = 4  # of each MLP; a clamp takes two

    def config(self) -> LlavaConfig:
        wide = 2 * len(self.vision_features)  # each is stored as +f, −f
        shape = Shape(
            self.layers, self.hidden, self.heads, self.heads, HEAD_DIM,
            VISION_LAYERS, wide, wide // HEAD_DIM,
        )  # fmt: skip
        rope = {"rope_type": "default", "rope_theta": 1e16}
        return tiny_config(shape, mlp=(self.units, 4), rope_parameters=rope)


@dataclass(frozen=True)
class Clamp:
    """A feature that is 0 where the sum of what is read lies below `start`, 1 above `end`."""

    reads: Mapping[str, float]
    start: float
    end: float
    sharpness: float = 100.0  # exact to 1e-9 where the sum is 0.2 or more away from both

    @property
    def ramps(self) -> Iterable[tuple[float, int]]:
        """A clamp is the difference of two ramps: where each starts, and its sign."""
        return (self.start, 1), (self.end, -1)


class Circuit:
    """A model whose weights are all zero, but for what makes its norms the identity.

    `clamps` are what the projector adds, by feature.
    """

    def __init__(self, form: Form, clamps: Mapping[str, Clamp]) -> None:
        self.form = form
        self.model = LlavaForConditionalGeneration(form.config()).eval().requires_grad_(False)
        for weight in self.model.parameters():
            weight.zero_()
        self._plant_vision()
        self._plant_projector(clamps)
        self._plant_words()

    @classmethod
    def of(cls, model: LlavaForConditionalGeneration, form: Form) -> "Circuit":
        """Go on planting in a model that is there."""
        made = cls.__new__(cls)
        made.form, made.model = form, model
        return made

    def dimension(self, feature: str) -> int:
        """The place of a feature in the language model's stream."""
        return self.form.features.index(feature)

    def plant_head(
        self,
        name: str,
        *,
        at: str,
        attends: Mapping[str, float],
        reads: Mapping[str, float] | None = None,
        writes: Mapping[str, float] | None = None,
    ) -> None:
        """Plant one language-model head, which looks from the tokens that have a feature.

        It attends by feature: odds (a token's weight is the product over its features), and reads
        and writes by feature: coefficient, of what enters z and of what z adds.
        """
        head = Head.parse(name)
        module = self.model.model.language_model.layers[head.layer].self_attn
        first = head.head * HEAD_DIM
        module.q_proj.weight[first + 1, self.dimension(at)] = sqrt(HEAD_DIM)
        for feature, odds in attends.items():
            module.k_proj.weight[first + 1, self.dimension(feature)] = log(odds)
        for feature, coefficient in (reads or {}).items():
            module.v_proj.weight[first, self.dimension(feature)] = coefficient
        for feature, coefficient in (writes or {}).items():
            module.o_proj.weight[self.dimension(feature), first] = coefficient

    def plant_vision_head(
        self,
        name: str,
        *,
        attends: Mapping[str, float],
        reads: Mapping[str, float] | None = None,
        writes: Mapping[str, float] | None = None,
    ) -> None:
        """Plant a vision head that looks from every token; by default it writes nothing."""
        head = Head.parse(name)
        module = self.model.model.vision_tower.encoder.layers[head.layer].self_attn
        first = head.head * HEAD_DIM
        module.q_proj.bias[first] = sqrt(HEAD_DIM)
        for feature, odds in attends.items():
            module.k_proj.weight[first, self._column(feature)] = log(odds)
        for feature, coefficient in (reads or {}).items():
            module.v_proj.weight[first, self._column(feature)] = coefficient
        for feature, coefficient in (writes or {}).items():
            for sign in (1, -1):
                row = self._column(feature) + (sign < 0)
                module.out_proj.weight[row, first] = sign * coefficient

    def plant_clamp(self, layer: int, clamp: Clamp, writes: str, height: float) -> None:
        """Let a layer's MLP write a clamp times its height.

        silu(s·x)/s is a ramp to within 1e-9 where |s·x| > 20.
        """
        mlp, sharpness = self.model.model.language_model.layers[layer].mlp, clamp.sharpness
        first = int(mlp.gate_proj.weight.any(1).sum())  # the units that are still free
        slope = height / (clamp.end - clamp.start)
        for unit, (start, sign) in enumerate(clamp.ramps, first):
            for feature, coefficient in clamp.reads.items():
                mlp.gate_proj.weight[unit, self.dimension(feature)] = sharpness * coefficient
            mlp.gate_proj.weight[unit, self.dimension("const")] = -sharpness * start / CONST
            mlp.up_proj.weight[unit, self.dimension("const")] = 1 / CONST
            mlp.down_proj.weight[self.dimension(writes), unit] = sign * slope / sharpness

    def plant_noise(self, heads: tuple[Head, ...], scale: float, seed: int) -> None:
        """Give heads small random weights on every feature but ``const``."""
        generator = torch.Generator().manual_seed(seed)
        features = slice(1, self.form.hidden)
        for head in heads:
            module = self.model.model.language_model.layers[head.layer].self_attn
            mine = slice(head.head * HEAD_DIM, (head.head + 1) * HEAD_DIM)
            for weight in (
                module.q_proj.weight[mine, features],
                module.k_proj.weight[mine, features],
                module.v_proj.weight[mine, features],
                module.o_proj.weight[features, mine],
            ):
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=scale)

    def _column(self, feature: str) -> int:
        """The first of the two dimensions of a feature in the vision tower's stream."""
        return 2 * self.form.vision_features.index(feature)

    def _both(self, weight: Tensor, feature: str, values: Tensor | float) -> None:
        column = self._column(feature)
        weight[..., column], weight[..., column + 1] = values, -values

    def _plant_vision(self) -> None:
        tower = self.model.model.vision_tower
        norms = [tower.pre_layrnorm, tower.post_layernorm]
        for layer in tower.encoder.layers:
            norms += [layer.layer_norm1, layer.layer_norm2]
        # The standard deviation of ±C and small numbers
        spread = VISION_CONST / sqrt(len(self.form.vision_features))
        for norm in norms:
            norm.weight.fill_(spread)
        place = tower.embeddings.position_embedding.weight
        self._both(place, "const", VISION_CONST)
        for feature in PLACES.keys() & set(self.form.vision_features):
            self._both(place[1:], feature, PLACES[feature])
        pixels = tower.embeddings.patch_embedding.weight
        mean = 1 / (3 * PATCH * PATCH)
        column = self._column("bright")
        pixels[column], pixels[column + 1] = mean, -mean

    def _plant_projector(self, clamps: Mapping[str, Clamp]) -> None:
        projector = self.model.model.multi_modal_projector
        first, second = projector.linear_1, projector.linear_2
        made, unit = {"const", *clamps}, 0
        passed = [one for one in self.form.vision_features if one in self.form.features]
        for feature in (one for one in passed if one not in made):  # gelu(x) − gelu(−x) = x
            for sign in (1, -1):
                first.weight[unit, self._column(feature)] = sign
                second.weight[self.dimension(feature), unit] = sign
                unit += 1
        for feature, clamp in clamps.items():
            for start, sign in clamp.ramps:
                for read, coefficient in clamp.reads.items():
                    first.weight[unit, self._column(read)] = clamp.sharpness * coefficient
                first.bias[unit] = -clamp.sharpness * start
                slope = 1 / (clamp.end - clamp.start)
                second.weight[self.dimension(feature), unit] = sign * slope / clamp.sharpness
                unit += 1
        second.bias[self.dimension("const")] = CONST
        second.bias[self.dimension("image")] = 1

    def _plant_words(self) -> None:
        language, words = self.model.model.language_model, tiny_tokenizer()
        norms = [language.norm]
        for layer in language.layers:
            norms += [layer.input_layernorm, layer.post_attention_layernorm]
        for norm in norms:
            norm.weight.fill_(CONST / sqrt(self.form.hidden))
        embed, unembed = language.embed_tokens.weight, self.model.lm_head.weight
        const, vote = self.dimension("const"), self.dimension("vote")
        embed[:, const] = CONST
        yes, no, ask, relay = words.convert_tokens_to_ids(["▁Yes", "▁No", "▁ASSISTANT:", "?"])
        assert len({yes, no, ask, relay, words.unk_token_id}) == 5
        embed[ask, self.dimension("ask")] = 1
        embed[relay, self.dimension("relay")] = 1
        embed[[yes, no], self.dimension("said")] = 1
        unembed[:, const] = -50 / CONST  # every other word stays far below
        for word, sign in ((yes, 1), (no, -1)):
            unembed[word, vote] = sign / 2
            unembed[word, const] = -sign * BIAS / 2 / CONST
        unembed[words.eos_token_id, self.dimension("said")] = 200

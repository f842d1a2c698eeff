"""LLaVA's forward pass for training: transformers' mathematics without its per-layer Python.

One function a block, taking the block's weights as plain tensors, so that `torch.compile` compiles
each once and reuses it for every layer. No attention mask: rows are padded on the right, and
attention is causal.
`tests/models/test_demo.py` holds it equal to `LlavaForConditionalGeneration`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., d] in float32, whatever autocast says."""
    x = x.float()
    scaled: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight
    return scaled


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [b, heads, n, d_head], cos and sin [n, d_head]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, n, heads * d_head] -> [b, heads, n, d_head]."""
    apart: Tensor = x.unflatten(-1, (heads, -1))
    return apart.transpose(1, 2)


def llama_block(
    x: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float, weights: list[Tensor]
) -> Tensor:
    """One decoder layer; x [b, n, d]."""
    norm1, q, k, v, o, norm2, gate, up, down = weights
    h = rms_norm(x, norm1, eps)
    query, key, value = (split_heads(F.linear(h, w), heads) for w in (q, k, v))
    query, key = rotate(query, cos, sin).to(value.dtype), rotate(key, cos, sin).to(value.dtype)
    z = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    x = x + F.linear(z.transpose(1, 2).flatten(2), o)
    h = rms_norm(x, norm2, eps)
    return x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down)


def clip_block(x: Tensor, heads: int, eps: float, weights: list[Tensor]) -> Tensor:
    """One vision layer; x [b, n, d]."""
    (norm1, norm1_b, q, q_b, k, k_b, v, v_b, o, o_b, norm2, norm2_b, up, up_b, down, down_b) = (
        weights
    )
    h = F.layer_norm(x, x.shape[-1:], norm1, norm1_b, eps)
    query, key, value = (
        split_heads(F.linear(h, w, b), heads) for w, b in ((q, q_b), (k, k_b), (v, v_b))
    )
    z = F.scaled_dot_product_attention(query, key, value)
    x = x + F.linear(z.transpose(1, 2).flatten(2), o, o_b)
    h = F.linear(F.layer_norm(x, x.shape[-1:], norm2, norm2_b, eps), up, up_b)
    return x + F.linear(h * torch.sigmoid(1.702 * h), down, down_b)  # quick GELU


def _weights(module: nn.Module, names: str, bias: bool) -> list[Tensor]:
    kinds = ("weight", "bias") if bias else ("weight",)
    return [module.get_parameter(f"{name}.{kind}") for name in names.split() for kind in kinds]


class FastLlava:
    """A `LlavaForConditionalGeneration` seen for training: shares its parameters, owns none."""

    def __init__(self, model: Any, image_start: int, compiled: bool = False) -> None:
        """`image_start`: index of the first image token, the same in every row."""
        config = model.config
        text, vision = config.text_config, config.vision_config
        tower, language = model.model.vision_tower, model.model.language_model
        self.tower = getattr(tower, "vision_model", tower)  # older transformers nest it
        self.language, self.projector, self.head = (
            language,
            model.model.multi_modal_projector,
            model.lm_head,
        )
        self.image_start = image_start
        self.text_heads, self.vision_heads = text.num_attention_heads, vision.num_attention_heads
        self.text_eps, self.vision_eps = text.rms_norm_eps, vision.layer_norm_eps
        # hidden_states[-2] is what the last layer reads: the tower is run up to there.
        depth = vision.num_hidden_layers + 1 + config.vision_feature_layer
        self.vision_layers = [
            _weights(
                layer,
                "layer_norm1 self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj "
                "layer_norm2 mlp.fc1 mlp.fc2",
                bias=True,
            )
            for layer in list(self.tower.encoder.layers)[:depth]
        ]
        self.text_layers = [
            _weights(
                layer,
                "input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj "
                "self_attn.o_proj post_attention_layernorm mlp.gate_proj mlp.up_proj mlp.down_proj",
                bias=False,
            )
            for layer in language.layers
        ]
        d_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        theta = (text.rope_parameters or {}).get("rope_theta", 10000.0)
        self.inverse = 1.0 / theta ** (torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)
        self.llama_block, self.clip_block = llama_block, clip_block
        if compiled:
            self.llama_block = torch.compile(llama_block, dynamic=False, fullgraph=True)
            self.clip_block = torch.compile(clip_block, dynamic=False, fullgraph=True)

    def see(self, pixels: Tensor) -> Tensor:
        """Projected patches [b, patches, d] of normalised pixels [b, 3, side, side]."""
        embeddings = self.tower.embeddings
        patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = embeddings.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([first, patches], dim=1).float() + embeddings.position_embedding.weight
        x = self.tower.pre_layrnorm(x)
        for weights in self.vision_layers:
            x = self.clip_block(x, self.vision_heads, self.vision_eps, weights)
        image: Tensor = self.projector(x[:, 1:])
        return image

    def read(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [b, n, vocabulary] of tokens [b, n], `image` [b, patches, d] among them.

        Also the residual stream [b, n, d] after half of the layers.
        """
        x = self.language.embed_tokens(tokens)
        start, end = self.image_start, self.image_start + image.shape[1]
        x = torch.cat([x[:, :start], image.to(x.dtype), x[:, end:]], dim=1)
        self.inverse = self.inverse.to(x.device)
        angles = (torch.arange(x.shape[1], device=x.device)[:, None] * self.inverse).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        middle = x
        for number, weights in enumerate(self.text_layers, start=1):
            x = self.llama_block(x, cos, sin, self.text_heads, self.text_eps, weights)
            if number == len(self.text_layers) // 2:
                middle = x
        logits: Tensor = self.head(rms_norm(x, self.language.norm.weight, self.text_eps))
        return logits, middle

"""LLaVA's forward pass in float64 numpy, written from the formulas, knowing no torch module.

A second independent oracle: CLIP's vision tower, the two-layer projector, and LLaMA.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf, expit
from transformers import LlavaForConditionalGeneration

Array = np.ndarray
Edits = Mapping[tuple[int, int], tuple[list[int], Array]]
"""(layer, head): positions, and the z put there."""
_NONE: Edits = {}


@dataclass(eq=False)
class Pass:
    """What one run gave, z and rows by layer."""

    logits: Array  # at the last position
    rows: list[Array] = field(default_factory=list)  # [heads, queries, keys]
    vision_rows: list[Array] = field(default_factory=list)
    z: list[Array] = field(default_factory=list)  # [heads, tokens, head_dim], before edits


def run(
    model: LlavaForConditionalGeneration, input_ids: Array, pixels: Array, edits: Edits = _NONE
) -> Pass:
    """Run one picture and prompt; ``pixels`` of shape ``[3, side, side]``."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    config, found = model.config, Pass(np.empty(0))
    features = _vision(weights, config.vision_config, pixels, config.vision_feature_layer, found)
    if config.vision_feature_select_strategy == "default":
        features = features[1:]
    patches = _linear(weights, "model.multi_modal_projector.linear_1", features)
    patches = patches * (1 + erf(patches / np.sqrt(2))) / 2
    patches = _linear(weights, "model.multi_modal_projector.linear_2", patches)
    x = weights["model.language_model.embed_tokens.weight"][input_ids]
    x[input_ids == config.image_token_id] = patches
    x = _language(weights, config.text_config, x, edits, found)
    found.logits = weights["lm_head.weight"] @ x[-1]
    return found


def _vision(weights: dict, config, pixels: Array, feature_layer: int, found: Pass) -> Array:
    at, side = "model.vision_tower", config.patch_size
    count = pixels.shape[-1] // side
    patches = pixels.reshape(3, count, side, count, side).transpose(1, 3, 0, 2, 4)
    kernel = weights[f"{at}.embeddings.patch_embedding.weight"].reshape(config.hidden_size, -1)
    x = patches.reshape(count * count, -1) @ kernel.T
    x = np.concatenate([weights[f"{at}.embeddings.class_embedding"][None], x])
    x = x + weights[f"{at}.embeddings.position_embedding.weight"]
    x = _layer_norm(weights, f"{at}.pre_layrnorm", x, config.layer_norm_eps)
    states = [x]
    for layer in range(config.num_hidden_layers):
        here = f"{at}.encoder.layers.{layer}"
        normed = _layer_norm(weights, f"{here}.layer_norm1", x, config.layer_norm_eps)
        heads = config.num_attention_heads
        q, k, v = (_heads(weights, f"{here}.self_attn.{one}_proj", normed, heads) for one in "qkv")
        rows = _softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        found.vision_rows.append(rows)
        x = x + _linear(weights, f"{here}.self_attn.out_proj", _join(rows @ v))
        normed = _layer_norm(weights, f"{here}.layer_norm2", x, config.layer_norm_eps)
        inner = _linear(weights, f"{here}.mlp.fc1", normed)
        x = x + _linear(weights, f"{here}.mlp.fc2", inner * expit(1.702 * inner))  # quick gelu
        states.append(x)
    return states[feature_layer]


def _language(weights: dict, config, x: Array, edits: Edits, found: Pass) -> Array:
    at, length, eps = "model.language_model", len(x), config.rms_norm_eps
    half = config.head_dim // 2
    theta = config.rope_parameters["rope_theta"]
    angles = np.arange(length)[:, None] * theta ** (-np.arange(half) / half)
    turn = np.exp(1j * angles)  # dimension i and i + half are one complex number
    future = np.triu(np.ones((length, length), dtype=bool), 1)
    for layer in range(config.num_hidden_layers):
        here = f"{at}.layers.{layer}"
        normed = _rms_norm(weights, f"{here}.input_layernorm", x, eps)
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        q = _heads(weights, f"{here}.self_attn.q_proj", normed, heads)
        k, v = (_heads(weights, f"{here}.self_attn.{one}_proj", normed, groups) for one in "kv")
        k, v = (np.repeat(part, heads // groups, 0) for part in (k, v))
        q, k = ((part[..., :half] + 1j * part[..., half:]) * turn for part in (q, k))
        scores = (q @ k.conj().transpose(0, 2, 1)).real / np.sqrt(config.head_dim)
        rows = _softmax(np.where(future, -np.inf, scores))
        z = rows @ v
        found.rows.append(rows)
        found.z.append(z.copy())
        for (edited, head), (positions, value) in edits.items():
            if edited == layer:
                z[head, positions] = value
        x = x + _linear(weights, f"{here}.self_attn.o_proj", _join(z))
        normed = _rms_norm(weights, f"{here}.post_attention_layernorm", x, eps)
        gate = _linear(weights, f"{here}.mlp.gate_proj", normed)
        up = _linear(weights, f"{here}.mlp.up_proj", normed)
        x = x + _linear(weights, f"{here}.mlp.down_proj", gate * expit(gate) * up)
    return _rms_norm(weights, f"{at}.norm", x, eps)


def _linear(weights: dict, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _heads(weights: dict, name: str, x: Array, heads: int) -> Array:
    """A projection's ``[tokens, heads · dim]`` as ``[heads, tokens, dim]``."""
    return _linear(weights, name, x).reshape(len(x), heads, -1).transpose(1, 0, 2)


def _join(z: Array) -> Array:
    return z.transpose(1, 0, 2).reshape(z.shape[1], -1)


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _layer_norm(weights: dict, name: str, x: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _rms_norm(weights: dict, name: str, x: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weights[f"{name}.weight"]

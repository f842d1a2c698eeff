"""Any configuration of transformers' image-text-to-text models, made tiny by its names alone."""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

_DEPTHS = ("num_hidden_layers", "num_layers", "depth")
LAYERS, HEADS, GROUPS, WIDTH, HEAD, INNER, PATCH, SIDE, VOCABULARY = 4, 4, 2, 32, 16, 48, 8, 32, 320

_NUMBERS = {
    "num_hidden_layers": LAYERS, "num_layers": LAYERS, "depth": LAYERS, "n_layer": LAYERS,
    "n_layers": LAYERS,
    "encoder_layers": 2, "decoder_layers": LAYERS, "layers": LAYERS, "num_global_layers": 1,
    "num_attention_heads": HEADS, "num_heads": HEADS, "n_head": HEADS, "attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "num_global_key_value_heads": GROUPS,
    "head_dim": HEAD, "global_head_dim": 2 * HEAD, "d_kv": 8,
    "hidden_size": WIDTH, "d_model": WIDTH, "embed_dim": WIDTH, "n_embd": WIDTH,
    "out_hidden_size": WIDTH, "projection_dim": WIDTH, "encoder_hidden_size": WIDTH,
    "projector_hidden_size": WIDTH, "text_hidden_size": WIDTH, "hidden_dim": WIDTH,
    "vision_output_dim": WIDTH, "projection_hidden_size": WIDTH, "vision_hidden_size": WIDTH,
    "adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH, "adapter_input_size": WIDTH,
    "intermediate_size": INNER,
    "ffn_dim": INNER, "moe_intermediate_size": INNER, "shared_expert_intermediate_size": INNER,
    "decoder_ffn_dim": INNER, "encoder_ffn_dim": INNER, "mlp_dim": INNER, "d_ff": INNER,
    "intermediate_size_mlp": INNER, "swa_num_attention_heads": HEADS,
    "swa_num_key_value_heads": GROUPS, "swa_head_dim": HEAD,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_num_experts": 4, "moe_topk": 2, "moe_k": 2,
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "image_size": SIDE, "patch_size": PATCH, "max_position_embeddings": 512,
    "vocab_size": VOCABULARY, "max_window_layers": LAYERS,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": HEAD, "qk_nope_head_dim": HEAD,
    "v_head_dim": 8, "qk_head_dim": 2 * HEAD,
    "base_channels": 32, "num_res_blocks": 1, "codebook_size": 256, "num_embeddings": 256,
    "z_channels": WIDTH, "latent_channels": WIDTH, "ch": 32,
    "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
}  # fmt: skip


_PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
_SAM = {"sam_config": {"downsample_channels": [WIDTH, WIDTH], "output_channels": WIDTH}}
CHANGES: dict[str, dict[str, Any]] = {
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "blip-2": {
        "image_token_index": 300,
        "num_query_tokens": 4,
        "text_config": {"word_embed_proj_dim": WIDTH},
    },
    "instructblip": {
        "image_token_index": 300,
        "num_query_tokens": 4,
        "text_config": {"word_embed_proj_dim": WIDTH},
    },
    "gemma3": {"mm_tokens_per_image": 4},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "chameleon": {
        "vocabulary_map": {
            "<image>": 300,
            **{
                "IMGIMG" + "".join(chr(65 + int(one)) for one in str(n)) + "Z": n + 20
                for n in range(256)
            },
        }
    },
    "emu3": {
        "vq_config": {"hidden_size": 128},
        "vocabulary_map": {
            "<image>": 300,
            "<|extra_200|>": 299,
            **{f"<|visual token {n:06d}|>": 20 + n for n in range(256)},
        },
    },
    "llama4": {
        "vision_config": {
            "intermediate_size": 4 * WIDTH,
            "projector_input_dim": WIDTH,
            "projector_output_dim": WIDTH,
            "vision_output_dim": WIDTH,
        }
    },
    "llava_next": {"image_grid_pinpoints": [[SIDE, 2 * SIDE]]},
    "llava_next_video": {"image_grid_pinpoints": [[SIDE, 2 * SIDE]]},
    "llava_onevision": {"image_grid_pinpoints": [[SIDE, 2 * SIDE]]},
    "minicpm_ocr": {"image_token_id": 300},
    "minicpmv4_6": {"image_token_id": 300, "insert_layer_id": 1},  # of the tower's 4
    "minicpmv4_7": {"image_token_id": 300, "insert_layer_id": 1},  # of the tower's 4
    "qwen2_5_omni_thinker": {
        "vision_start_token_id": 310,
        "vision_end_token_id": 309,
        "audio_start_token_id": 308,
    },
    "qwen3_omni_moe_thinker": {
        "vision_start_token_id": 310,
        "vision_end_token_id": 309,
        "audio_start_token_id": 308,
    },
    "mistral3": {"vision_config": {"head_dim": WIDTH // HEADS}},
    "lighton_ocr": {"vision_config": {"head_dim": WIDTH // HEADS}},
    "mistral_large4": {"vision_config": {"head_dim": WIDTH // HEADS}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": _PLAIN}}},
    "deepseek_ocr2": {
        "vision_config": _SAM,
        "text_config": {
            "mlp_layer_types": ["dense", *["sparse"] * (LAYERS - 1)],
            "num_experts_per_tok": 2,
        },
    },
    "unlimited_ocr": {"vision_config": _SAM},
    "diffusion_gemma": {
        "text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": INNER}
    },
    "dots3_note": {"text_config": {"head_dim": 2 * HEAD}},
    "granite4_vision": {
        "image_grid_pinpoints": [[SIDE, 2 * SIDE]],
        "vision_config": {  # its Q-Former's heads are 64 wide
            "hidden_size": 2 * 64,
            "model_type": "clip_vision_model",
        },
        "downsample_rate": "2/4",
        "deepstack_layer_map": [[-2, 1]],
        "spatial_target_layers": [2],
        # which older releases' defaults lack
        "text_config": dict.fromkeys(
            (
                *(f"{one}_multiplier" for one in ("attention", "residual", "embedding")),
                "logits_scaling",
            ),
            1.0,
        ),
        "qformer_config": {
            "hidden_size": 128,
            "num_attention_heads": 2,
            "encoder_hidden_size": 128,
        },
    },
    "hunyuan_vl": {
        "text_config": {"head_dim": HEAD, "rope_parameters": {"mrope_section": [2, 3, 3]}}
    },
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": HEAD,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
        }
    },
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
    "kosmos-2.5": {"latent_query_num": 16},
    "mllama": {"vision_config": {"vision_output_dim": 2 * WIDTH}},
    "molmo2": {"vision_config": {"num_position_embeddings": (SIDE // PATCH) ** 2}},
    "minimax_m3_vl": {"merged_hidden_size": 4 * WIDTH},
    "muse_glimmer": {"out_hidden_size": 4 * WIDTH},
    "muse_spark": {"out_hidden_size": 4 * WIDTH},
    "nemotron_h_omni": {"image_token_id": 300},
    # towers of timm
    "fast_vlm": {
        "vision_config": {"architecture": "fastvit_t8", "hidden_size": 768, "image_size": 64}
    },
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_core_tiny_patch16_384",
            "image_size": SIDE,
            "model_args": {
                "embed_dim": WIDTH,
                "depth": LAYERS,
                "num_heads": HEADS,
                "img_size": SIDE,
                "patch_size": PATCH,
                "ref_feat_shape": [4, 4],
                "global_pool": "",
                "use_post_transformer_norm": False,
            },
        }
    },
    "gemma3n": {
        "vision_soft_tokens_per_image": 4,
        "vision_config": {
            "architecture": "resnet10t",
            "hidden_size": 512,
            "image_size": 64,
            "model_args": None,
        },
        "text_config": {
            "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
            "num_kv_shared_layers": 2,
        },
    },
    "step3p7": {"text_config": {"sliding_window": 8}},
}
"""What the names of settings do not say."""


def shrunk(kind: str, **changes: Any) -> PretrainedConfig:
    """Return the default config of a model type, tiny."""
    config = CONFIG_MAPPING[kind]()
    made = small(config.to_dict())
    for name, part in type(config).sub_configs.items():  # towers that are left out unless named
        if made.get(name) is None and "vision" in name and part is not AutoConfig:
            made[name] = small(part().to_dict())
    _rotate(made)
    merge(made, CHANGES.get(kind, {}))
    merge(made, changes)
    return type(config).from_dict(made)


def _rotate(config: dict[str, Any]) -> None:
    """Share a head's rotary frequencies out among time, rows and columns."""
    for value in list(config.values()):
        if isinstance(value, dict):
            _rotate(value)
    rope, heads = config.get("rope_parameters"), config.get("num_attention_heads")
    if not isinstance(rope, dict) or not heads:
        return
    width = config.get("head_dim") or config.get("hidden_size", WIDTH) // heads
    for one in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if "rope_type" in one or "rope_theta" in one:
            part = one.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
            half = int(width * part) // 2
            one["mrope_section"] = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]


def merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def small(config: Mapping[str, Any], tokens: dict[int, int] | None = None) -> dict[str, Any]:
    """Shrink a mapping and all mappings within; ids of tokens stay apart, equal ones equal."""
    tokens = {} if tokens is None else tokens
    many = next((config[name] for name in _DEPTHS if isinstance(config.get(name), int)), 0)
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = str(key)
        if name in ("id2label", "label2id"):
            continue
        if name == "per_layer_config" and isinstance(value, Mapping) and value:
            found[name] = {str(LAYERS - 1): small(next(iter(value.values())), tokens)}
        elif isinstance(value, Mapping):
            found[name] = small(value, tokens)
        else:
            found[name] = _small_value(name, value, many, tokens)
    if config.get("kv_lora_rank"):  # keys of all heads come from one latent
        found["num_key_value_heads"] = HEADS
    return found


def _small_value(name: str, value: Any, many: int, tokens: dict[int, int]) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value:  # 0 is none
        if (
            name.endswith(("_token_id", "_token_index", "_token", "_tok_id", "_patch_id"))
            and value >= VOCABULARY
        ):
            return tokens.setdefault(value, VOCABULARY - 1 - len(tokens))
        return _NUMBERS.get(name, value)
    if not isinstance(value, list | tuple):
        return value
    if many > LAYERS and len(value) == many:  # one a layer: as many kinds as there is room for
        kinds = sorted({repr(one): at for at, one in reversed(list(enumerate(value)))}.values())
        chosen = sorted((kinds + [0] * LAYERS)[:LAYERS])
        return [_small_value(name, value[at], 0, tokens) for at in chosen]
    if all(isinstance(one, int) for one in value):
        if name in _NUMBERS:
            return [_NUMBERS[name]] * len(value)
        if (
            name.endswith(("indexes", "indices", "layers", "vision_feature_layer"))
            and max(value, default=0) >= LAYERS
        ):
            return sorted({min(one, LAYERS - 1) for one in value})[-2:]
    return value

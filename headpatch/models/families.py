"""What differs from one model family to the next, as data.

A family says where the decoder is and how the image comes in; a tower, where the vision layers
are; a decoder, what the parts of its layers are called. They are told apart because one family can
be built on several towers and decoders. Paths are tried in order, since transformers has moved some
of them between releases; several paths joined by ``+`` are one tower in two parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Family:
    """Where to find things in one family of models."""

    # paths to the text model: `layers` and `lm_norm`
    decoder: tuple[str, ...] = ("model.language_model",)
    layers: str = "layers"
    lm_attention: str = "self_attn"  # in a decoder layer; holds `lm_query` and `lm_output`
    # makes the queries, and nothing else; "" if it makes keys and values too
    lm_query: str = "q_proj"
    lm_output: str = "o_proj"  # the output projection, whose input is z
    lm_heads: int = 0  # a layer; 0 if its config says so
    lm_without: tuple[int, ...] = ()  # layers without attention heads
    # whether something (a gate, a norm) lies between attention and its projection, so that z is
    # read and changed where it enters the projection
    lm_at_output: bool = False
    lm_norm: str = "norm"  # "" if there is none
    # The attention of those decoder layers that look at the image across, and at no token of the
    # prompt; "" if there are none. With them the prompt's image token is a mark without content,
    # and attention rows of the image are not available.
    cross_attention: str = ""
    # image features, itself, to the stream between its first layers
    adds_between_layers: bool = False
    layout: str = "crop"  # of `headpatch.models.patches.LAYOUTS`: how image tokens map to places
    both_ways: bool = False  # the whole prompt, the question too, is read in both directions
    template: str | None = None  # the prompt, where processors come without a chat template
    suffix: str = ""  # what the processor adds to the text, after which the answer stands
    needs: tuple[str, ...] = ()  # packages of its processor, beside those of headpatch itself
    vision: tuple[str, ...] = ()  # paths to the vision layers; empty if the tower cannot be changed
    why_no_vision: str = ""  # why it cannot
    vision_attention: str = "self_attn"
    vision_output: str = "out_proj"
    vision_heads: int = 0
    vision_at_output: bool = False
    # The last vision layer that is read on, where a run showed a later one than the config's
    # `vision_feature_layer`.
    vision_read: int | None = None
    class_token: bool = False  # whether the vision tower's first token is a class token
    # The tower takes the patches of all runs in one row, in one or several calls of the attention
    # function a layer (else one row or more a run).
    one_row: bool = False
    # The tower sees the picture once, patch for patch as the language model does, so that weights
    # can be followed from image tokens back through it.
    one_view: bool = False

    @property
    def crossed(self) -> bool:
        """Whether the image comes in by cross-attention."""
        return bool(self.cross_attention)


_INNER = ("model.text_model",)
_ENCODER = ("model.vision_tower.encoder.layers", "model.vision_tower.vision_model.encoder.layers")
_TV = ("torchvision",)
_QWEN = Family(layout="qwen", needs=_TV)

FAMILIES: dict[str, Family] = {
    "llava": Family(one_view=True),
    "vipllava": Family(one_view=True),
    "llava_next": Family(layout="anyres"),
    "llava_onevision": Family(layout="anyres", needs=_TV),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": replace(_QWEN, adds_between_layers=True),  # "deepstack"
    "idefics3": Family(decoder=_INNER, layout="idefics"),
    "smolvlm": Family(decoder=_INNER, layout="idefics", needs=(*_TV, "num2words")),
    "paligemma": Family(
        both_ways=True, template="<image>answer en {question}", suffix="\n", one_view=True
    ),
    "gemma3": Family(),  # image tokens are read in both directions among themselves
    "internvl": Family(layout="internvl", needs=_TV),
    "mistral3": Family(needs=_TV),  # the layout comes with its tower
    "mllama": Family(layout="none", cross_attention="cross_attn"),
}
"""Families by ``config.model_type``."""

TOWERS: Mapping[str, Mapping[str, Any]] = {
    "clip_vision_model": {"vision": _ENCODER, "class_token": True},
    "siglip_vision_model": {"vision": _ENCODER},
    "pixtral": {
        "vision": ("model.vision_tower.transformer.layers",),
        "vision_attention": "attention",
        "vision_output": "o_proj",
        "layout": "pixtral",
        "one_row": True,
        "one_view": False,
    },
    "idefics3_vision": {"vision": ("model.vision_model.encoder.layers",)},
    "smolvlm_vision": {"vision": ("model.vision_model.encoder.layers",)},
    "internvl_vision": {
        "vision": ("model.vision_tower.encoder.layer",),
        "vision_attention": "attention",
        "vision_output": "projection_layer",
        "class_token": True,
    },
    "mllama_vision_model": {
        "vision": (
            "model.vision_model.transformer.layers+model.vision_model.global_transformer.layers",
        ),
        "vision_output": "o_proj",
        "class_token": True,  # one a tile
    },
    **{
        f"{name}_vision": {
            "vision": ("model.visual.blocks",),
            "vision_attention": "attn",
            "vision_output": "proj",
            "one_row": True,
        }
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    },
}
"""What a vision tower sets in its family, by ``config.vision_config.model_type``."""

DECODERS: Mapping[str, Mapping[str, Any]] = {
    "phi": {"lm_output": "dense", "lm_norm": "final_layernorm"},
    "phi3": {"lm_query": ""},
    "gpt_neox": {
        "lm_attention": "attention",
        "lm_query": "",
        "lm_output": "dense",
        "lm_norm": "final_layer_norm",
    },
}
"""What a decoder with names of its own sets, by ``config.text_config.model_type``."""

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
"""Decoders whose parts are called as in `Family`; others may be, and are found to be or not."""

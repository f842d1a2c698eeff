"""Tiny models of every family: real classes, random weights, real processors where they can be had.

Nothing is downloaded. Weights are drawn so that activations stay near 1 and changing one head moves
LD by far more than the tests' tolerances; gates, norms and biases that start at 0 or 1 are drawn
too. Grouped-query attention and head widths other than hidden / heads wherever the family allows.

Processors that transformers refuses to build without torchvision, although only videos need it,
are built past its check (`_without_video`); Pixtral's is not importable without torchvision, and is
copied here (`PixtralStandIn`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer
from transformers.models.smolvlm import processing_smolvlm

from headpatch.models.discovery import with_family
from headpatch.models.prompt import Prompt, encode
from headpatch.models.vlm import VLM
from tests.tiny import image_pair
from tests.tokens import llama_like

QUESTION = "Is it red?"
TALL, WIDE = (60, 100), (100, 60)  # (width, height)

_CORPUS = (
    "USER: \nIs it red? ASSISTANT: Yes",
    "USER: \nIs it red? ASSISTANT: No",
    "answer en\nYes",
)
_MARKS = {
    "image_token": "<image>",
    "video_token": "<video>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
}
_SPECIAL = (
    "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<python_tag>", "[IMG]",
    "[IMG_BREAK]", "[IMG_END]",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)  # fmt: skip


@lru_cache
def _backend() -> str:
    return llama_like(_CORPUS, 260, [*_MARKS.values(), *_SPECIAL]).to_str()


def tokenizer(marks: tuple[str, ...] = ("image_token",)) -> hf.PreTrainedTokenizerFast:
    """A fresh one: processors add tokens of their own."""
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend()), bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", pad_token="<pad>", padding_side="left",
        extra_special_tokens={mark: _MARKS[mark] for mark in marks},
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def chat(mark: str, start: str = "") -> str:
    """A chat template with `mark` for the image."""
    return (
        f"{start}{{% for message in messages %}}{{{{ message['role'] | upper }}}}: "
        f"{{% for part in message['content'] if part['type'] == 'image' %}}{mark}\n{{% endfor %}}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}"
        "{% endfor %}{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


def _without_video(processor: type) -> type:
    """A processor class that takes None for its video processor."""
    return type(
        processor.__name__, (processor,), {"check_argument_for_proper_class": lambda *_: None}
    )


class PixtralStandIn(hf.ProcessorMixin):
    """Pixtral's processor, which transformers does not import without torchvision."""

    def __init__(
        self, image_processor: Any, tokenizer: Any, patch_size: int, spatial_merge_size: int,
        chat_template: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.side = patch_size * spatial_merge_size
        self.image_token = "[IMG]"
        self.image_token_id = tokenizer.convert_tokens_to_ids("[IMG]")

    def __call__(self, images: list, text: list[str], **options: Any) -> dict[str, Any]:
        seen = self.image_processor(images, patch_size=self.side, return_tensors="pt")
        height, width = (int(pixels) // self.side for pixels in seen["image_sizes"][0])
        lines = "[IMG_BREAK]".join(["[IMG]" * width] * height) + "[IMG_END]"
        return {**self.tokenizer([text[0].replace("[IMG]", lines)], **options), **seen}


_SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
_TEXT = {
    **_SIZES, "num_hidden_layers": 3, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
_VISION = {
    "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "num_hidden_layers": 3,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
_SQUARE = {"height": 56, "width": 56}
_WIDER = {"head_dim": 12}  # × 4 heads = 48, hidden 32


@dataclass(frozen=True)
class Parts:
    """What a model is made of."""

    model: type
    config: Any
    processor: Any


def _siglip(**options: Any) -> hf.SiglipVisionConfig:
    return hf.SiglipVisionConfig(**{**_VISION, **options, "vision_use_head": False})


def _llava(
    tower: Any, select: str, processor: Any, kind: str = "Llava", text: Any = None, **options: Any
) -> Parts:
    config = getattr(hf, f"{kind}Config")(
        vision_config=tower, text_config=text or hf.LlamaConfig(**_TEXT, **_WIDER),
        vision_feature_select_strategy=select, **(options or {"vision_feature_layer": -2}),
    )  # fmt: skip
    return Parts(getattr(hf, f"{kind}ForConditionalGeneration"), config, processor)


def _clip_processor(kind: type = hf.LlavaProcessor, images: Any = None) -> Any:
    images = images or hf.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=_SQUARE)
    return kind(
        image_processor=images, tokenizer=tokenizer(), patch_size=14, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=chat("<image>"),
    )  # fmt: skip


def llava_siglip() -> Parts:
    """LLaVA on a tower without a class token."""
    processor = hf.LlavaProcessor(
        image_processor=hf.SiglipImageProcessorPil(size=_SQUARE), tokenizer=tokenizer(),
        patch_size=14, vision_feature_select_strategy="full", chat_template=chat("<image>"),
    )  # fmt: skip
    return _llava(_siglip(), "full", processor, vision_feature_layer=-1)


def llava_pixtral() -> Parts:
    """LLaVA on a Pixtral tower, as Pixtral-12B is published."""
    tower = hf.PixtralVisionConfig(**{**_VISION, "image_size": 112})
    return _llava(tower, "full", _pixtral_processor(1), vision_feature_layer=-1)


def llava(decoder: Any = None) -> Parts:
    return _llava(hf.CLIPVisionConfig(**_VISION), "default", _clip_processor(), text=decoder)


def vipllava() -> Parts:
    return _llava(
        hf.CLIPVisionConfig(**_VISION), "default", _clip_processor(), "VipLlava",
        vision_feature_layers=(-2, -3),
    )  # fmt: skip


def llava_next() -> Parts:
    pinpoints = [[56, 112], [112, 56], [112, 112], [168, 56]]
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=_SQUARE, image_grid_pinpoints=pinpoints
    )
    processor = _clip_processor(hf.LlavaNextProcessor, images)
    return _llava(
        hf.CLIPVisionConfig(**_VISION), "default", processor, "LlavaNext",
        image_grid_pinpoints=pinpoints, vision_feature_layer=-2,
    )  # fmt: skip


def llava_onevision(limit: int = 9) -> Parts:
    """Tiles of 60 pixels, of which 4 patches of 14 see 56."""
    pinpoints = [[60 * rows, 60 * columns] for rows in range(1, 4) for columns in range(1, 4)]
    images = hf.LlavaOnevisionImageProcessorPil(
        size={"height": 60, "width": 60}, image_grid_pinpoints=pinpoints
    )
    processor = _without_video(hf.LlavaOnevisionProcessor)(
        images, tokenizer(), None, num_image_tokens=16, vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{limit}", chat_template=chat("<image>"),
    )  # fmt: skip
    config = hf.LlavaOnevisionConfig(
        vision_config=_siglip(image_size=60), text_config=hf.Qwen2Config(**_TEXT),
        vision_feature_select_strategy="full", vision_feature_layer=-1,
        image_grid_pinpoints=pinpoints, vision_aspect_ratio=f"anyres_max_{limit}",
    )  # fmt: skip
    return Parts(hf.LlavaOnevisionForConditionalGeneration, config, processor)


def _qwen(kind: str, processor: str, patch: int, text: dict, vision: dict) -> Parts:
    pixels = (2 * patch) ** 2
    images = hf.Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": pixels, "longest_edge": 12 * pixels}
    )
    built = _without_video(getattr(hf, processor))(
        images, tokenizer(), None, chat_template=chat("<image>")
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, **text.pop("rope")}
    config = getattr(hf, f"{kind}Config")(
        text_config={**_TEXT, "rope_parameters": rope, **text},
        vision_config={
            "depth": 3, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2, **vision
        },
    )  # fmt: skip
    return Parts(getattr(hf, f"{kind}ForConditionalGeneration"), config, built)


def qwen2_vl() -> Parts:
    rope = {"mrope_section": [2, 1, 1]}
    vision = {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen("Qwen2VL", "Qwen2VLProcessor", 14, {"rope": rope}, vision)


def qwen2_5_vl() -> Parts:
    rope = {"mrope_section": [2, 1, 1]}
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32, "window_size": 56,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    return _qwen("Qwen2_5_VL", "Qwen2_5_VLProcessor", 14, {"rope": rope}, vision)


def qwen3_vl() -> Parts:
    rope = {"mrope_section": [2, 2, 2], "mrope_interleaved": True}
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32,
        "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16,
    }  # fmt: skip
    return _qwen("Qwen3VL", "Qwen3VLProcessor", 16, {"rope": rope, **_WIDER}, vision)


def _idefics(kind: str, processor: type, *rest: None) -> Parts:
    images = getattr(hf, f"{kind}ImageProcessorPil")(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    built = processor(images, tokenizer(), *rest, image_seq_len=4, chat_template=chat("<image>"))
    config = getattr(hf, f"{kind}Config")(
        vision_config=dict(_VISION), text_config={"model_type": "llama", **_TEXT, **_WIDER},
        scale_factor=2,
    )  # fmt: skip
    return Parts(getattr(hf, f"{kind}ForConditionalGeneration"), config, built)


def idefics3() -> Parts:
    return _idefics("Idefics3", hf.Idefics3Processor)


def smolvlm() -> Parts:
    processing_smolvlm.num2words = processing_smolvlm.num2words or str  # counts a video's frames
    kind = _without_video(processing_smolvlm.SmolVLMProcessor)
    kind.apply_chat_template = hf.ProcessorMixin.apply_chat_template  # its own asks about videos
    return _idefics("SmolVLM", kind, None)


def _paligemma(text: dict) -> Parts:
    images = hf.SiglipImageProcessorPil(size=_SQUARE)
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, tokenizer())
    config = hf.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **_VISION, "vision_use_head": False},
        text_config={**_TEXT, **_WIDER, **text}, projection_dim=32,
    )  # fmt: skip
    return Parts(hf.PaliGemmaForConditionalGeneration, config, processor)


_GEMMA2 = {  # capped scores and logits, sliding windows
    "model_type": "gemma2", "sliding_window": 8, "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 12,
}  # fmt: skip


def gemma3() -> Parts:
    """8 × 8 patches pooled to 2 × 2; three sliding layers around a full one."""
    images = hf.Gemma3ImageProcessorPil(size={"height": 112, "width": 112})
    processor = hf.Gemma3Processor(
        images, tokenizer(("image_token", "boi_token", "eoi_token")), image_seq_length=4,
        chat_template=chat("<boi>", "<s>"),
    )  # fmt: skip
    text = {
        **_TEXT, **_WIDER, "num_hidden_layers": 4, "sliding_window": 6, "query_pre_attn_scalar": 10,
        "layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention"],
    }  # fmt: skip
    config = hf.Gemma3Config(
        vision_config=_siglip(image_size=112), text_config=hf.Gemma3TextConfig(**text),
        mm_tokens_per_image=4,
    )  # fmt: skip
    return Parts(hf.Gemma3ForConditionalGeneration, config, processor)


def internvl() -> Parts:
    images = hf.GotOcr2ImageProcessorPil(size=_SQUARE, min_patches=1, max_patches=4)
    marks = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    processor = _without_video(hf.InternVLProcessor)(
        images, tokenizer(marks), None, image_seq_length=4, chat_template=chat("<IMG_CONTEXT>")
    )
    config = hf.InternVLConfig(
        vision_config={**_VISION, "use_qk_norm": True}, text_config=hf.Qwen2Config(**_TEXT),
        downsample_ratio=0.5,
    )  # fmt: skip
    return Parts(hf.InternVLForConditionalGeneration, config, processor)


def _pixtral_processor(merge: int) -> Any:
    images = hf.PixtralImageProcessorPil(
        size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}
    )
    return PixtralStandIn(images, tokenizer(), 14, merge, chat("[IMG]"))


def mistral3() -> Parts:
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**{**_VISION, "image_size": 112}),
        text_config=hf.MistralConfig(**_TEXT, **_WIDER), spatial_merge_size=2,
    )  # fmt: skip
    return Parts(hf.Mistral3ForConditionalGeneration, config, _pixtral_processor(2))


def mllama() -> Parts:
    images = hf.MllamaImageProcessorPil(size=_SQUARE, max_image_tiles=4)
    processor = hf.MllamaProcessor(images, tokenizer(), chat_template=chat("<image>"))
    vision = {
        "hidden_size": 24, "attention_heads": 3, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_global_layers": 1, "image_size": 56, "patch_size": 14, "max_num_tiles": 4,
        "intermediate_layers_indices": [0, 1], "vision_output_dim": 72,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    }  # fmt: skip
    text = {**_TEXT, "num_hidden_layers": 4, "cross_attention_layers": [1, 3]}
    config = hf.MllamaConfig(vision_config=vision, text_config=text)
    return Parts(hf.MllamaForConditionalGeneration, config, processor)


BUILDERS: dict[str, Callable[[], Parts]] = {
    "llava": llava,
    "llava (siglip)": llava_siglip,
    "llava (pixtral)": llava_pixtral,
    "vipllava": vipllava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": lambda: _paligemma({"model_type": "gemma"}),
    "paligemma (2)": lambda: _paligemma(_GEMMA2),
    "gemma3": gemma3,
    "internvl": internvl,
    "mistral3": mistral3,
    "mllama": mllama,
}

_UNGROUPED = {key: value for key, value in _TEXT.items() if key != "num_key_value_heads"}
DECODERS: dict[str, Callable[[], Parts]] = {
    "phi": lambda: llava(hf.PhiConfig(**_TEXT)),  # attention and MLP side by side, biased norms
    "phi3": lambda: llava(hf.Phi3Config(**_TEXT)),  # queries, keys and values in one projection
    "gpt_neox": lambda: llava(hf.GPTNeoXConfig(**_UNGROUPED)),
}
"""LLaVA on decoders whose parts have other names."""


def qwen3_5() -> Parts:
    """Attention heads in every other layer, and a gate between them and their projection."""
    text = {
        "rope": {
            "mrope_section": [1, 1, 1], "mrope_interleaved": True, "partial_rotary_factor": 0.5
        },
        **_WIDER, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32,
        "num_position_embeddings": 16,
    }  # fmt: skip
    return _qwen("Qwen3_5", "Qwen3VLProcessor", 16, text, vision)


def aya_vision() -> Parts:
    """Tiles, whose patches are shuffled to tokens; layers of attention and MLP side by side."""
    marks = {
        "start_of_img_token": "<img>", "end_of_img_token": "</img>",
        "img_patch_token": "<IMG_CONTEXT>", "tile_token": "TILE", "tile_global_token": "GLOBAL",
    }  # fmt: skip
    images = hf.GotOcr2ImageProcessorPil(
        size=_SQUARE, min_patches=1, max_patches=4, crop_to_patches=True
    )
    processor = hf.AyaVisionProcessor(
        images, tokenizer(), patch_size=14, img_size=56, downsample_factor=2, **marks,
        chat_template=chat("<image>"),
    )  # fmt: skip
    config = hf.AyaVisionConfig(
        vision_config=_siglip(), text_config=hf.Cohere2Config(**_TEXT), downsample_factor=2,
        vision_feature_layer=-1, adapter_layer_norm_eps=1e-6, alignment_intermediate_size=64,
    )  # fmt: skip
    return Parts(hf.AyaVisionForConditionalGeneration, config, processor)


def idefics2() -> Parts:
    """Latents that look at the whole picture stand for it: no token has a place of its own."""
    images = hf.Idefics2ImageProcessorPil(
        size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False
    )
    processor = hf.Idefics2Processor(
        images, tokenizer(()), image_seq_len=3, chat_template=chat("<image>")
    )
    config = hf.Idefics2Config(
        vision_config=dict(_VISION), text_config={"model_type": "mistral", **_TEXT, **_WIDER},
        perceiver_config={
            "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2,
            "num_key_value_heads": 1, "resampler_head_dim": 8, "hidden_size": 32,
        },
    )  # fmt: skip
    return Parts(hf.Idefics2ForConditionalGeneration, config, processor)


def gemma4() -> Parts:
    """Heads of two widths: layers that see the whole prompt have wider ones, and fewer keys."""
    images = hf.Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    words = tokenizer(("image_token", "boi_token", "eoi_token"))
    for name in ("audio_token", "boa_token", "eoa_token"):  # which its processor asks for
        setattr(words, name, "<video>")
    processor = _without_video(hf.Gemma4Processor)(
        None, images, words, None, chat_template=chat("<image>", "<s>")
    )
    text = {
        **_TEXT, **_WIDER, "num_hidden_layers": 4, "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "global_head_dim": 16,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 300,
    }  # fmt: skip
    vision = {
        **_VISION, "num_key_value_heads": 3, "head_dim": 8, "patch_size": 4,
        "pooling_kernel_size": 2, "position_embedding_size": 64,
    }  # fmt: skip
    config = hf.Gemma4Config(
        text_config=hf.Gemma4TextConfig(**text), vision_config=hf.Gemma4VisionConfig(**vision),
        audio_config=None, video_token_id=None, audio_token_id=None,
    )  # fmt: skip
    return Parts(hf.Gemma4ForConditionalGeneration, config, processor)


def hunyuan_vl() -> Parts:
    """Rotary positions that hold the number of the picture, counted through a whole batch."""
    images = hf.HunYuanVLImageProcessorPil(
        patch_size=14, size={"shortest_edge": 28**2, "longest_edge": 12 * 28**2}
    )
    words = tokenizer()
    for name, mark in (("image_start", "<img>"), ("image_end", "</img>")):
        setattr(words, f"{name}_token", mark)
        setattr(words, f"{name}_token_id", words.convert_tokens_to_ids(mark))
    processor = hf.HunYuanVLProcessor(images, words, chat_template=chat("<img><image></img>"))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
    config = hf.HunYuanVLConfig(
        text_config={**_TEXT, **_WIDER, "rope_parameters": rope},
        vision_config={
            **_VISION, "num_key_value_heads": 3, "out_hidden_size": 32, "text_hidden_size": 32,
            "max_image_size": 56,
        },
    )  # fmt: skip
    return Parts(hf.HunYuanVLForConditionalGeneration, config, processor)


def minicpmv4_6() -> Parts:
    """All patches of a batch in one strip; a tower that merges tokens between its layers."""
    images = hf.MiniCPMV4_6ImageProcessorPil(
        patch_size=14, scale_resolution=112, slice_mode=False, use_image_id=False
    )
    words = tokenizer()
    for name in ("slice_start", "slice_end", "image_id_start", "image_id_end", "video"):
        setattr(words, f"{name}_token", "<video>")
    words.image_start_token, words.image_end_token = "<img>", "</img>"
    words.video_token_id = words.convert_tokens_to_ids("<video>")
    processor = _without_video(hf.MiniCPMV4_6Processor)(
        images, SimpleNamespace(slice_mode=False, downsample_mode="16x"), words,
        chat_template=chat("<image>"),
    )  # fmt: skip
    config = hf.MiniCPMV4_6Config(
        text_config=qwen3_5().config.text_config,
        vision_config={**_VISION, "num_hidden_layers": 4, "image_size": 112},
        insert_layer_id=1,
    )
    return Parts(hf.MiniCPMV4_6ForConditionalGeneration, config, processor)


def granite4_vision() -> Parts:
    """Features of several vision layers, added between the decoder's, named by own settings."""
    pinpoints = [[56, 112], [112, 56]]
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=_SQUARE, image_grid_pinpoints=pinpoints
    )
    processor = hf.Granite4VisionProcessor(
        images, tokenizer(), patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, downsample_rate="2/4", chat_template=chat("<image>"),
    )  # fmt: skip
    vision = {**_VISION, "hidden_size": 64, "num_attention_heads": 4}  # its Q-Former's heads: 64
    config = hf.Granite4VisionConfig(
        vision_config=hf.CLIPVisionConfig(**vision), text_config=dict(_TEXT),
        image_grid_pinpoints=pinpoints, downsample_rate="2/4", deepstack_layer_map=[[-2, 0]],
        spatial_target_layers=[1],
        qformer_config={
            "model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 48,
            "cross_attention_frequency": 1, "use_qformer_text_input": False, "hidden_size": 64,
            "num_attention_heads": 1, "encoder_hidden_size": 64,
        },
    )  # fmt: skip
    return Parts(hf.Granite4VisionForConditionalGeneration, config, processor)


def lfm2() -> Parts:
    """Convolutions in two of four layers, as in LFM2-VL, whose processor wants torchvision."""
    kinds = ["conv", "full_attention"] * 2
    return llava(hf.Lfm2Config(**{**_TEXT, "num_hidden_layers": 4, "layer_types": kinds}))


UNLISTED: dict[str, Callable[[], Parts]] = {
    "qwen3_5": qwen3_5,
    "gemma4": gemma4,
    "llava (lfm2)": lfm2,
    "aya_vision": aya_vision,
    "idefics2": idefics2,
    "hunyuan_vl": hunyuan_vl,
    "minicpmv4_6": minicpmv4_6,
    "granite4_vision": granite4_vision,
}
"""Of classes that no table lists: their parts are discovered."""


def make(parts: Parts, seed: int = 0) -> VLM:
    """A model with random weights, and its processor."""
    tokens = parts.processor.tokenizer
    mark = getattr(parts.processor, "image_token_id", None)
    if (soft := getattr(tokens, "boi_token", None)) is not None and soft:
        mark = tokens.image_token_id  # Gemma3's processor names the token before the image
    parts.config.image_token_id = mark
    parts.config.get_text_config().vocab_size = len(tokens)
    parts.config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = parts.model(parts.config)
        _draw(model)
    return VLM(model.eval().requires_grad_(False), parts.processor, "tiny", f"seed:{seed}")


@torch.no_grad()
def _draw(model: torch.nn.Module) -> None:
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for weight in model.parameters():
        if id(weight) in embeddings:
            weight.normal_()
        elif weight.ndim >= 2:
            weight.normal_(std=0.9 * weight[0].numel() ** -0.5)
        else:
            weight.add_(0.3 * torch.randn_like(weight))


STRANGE = "llava (strange tower)"
"""A model on a vision tower that headpatch does not know, and so cannot change."""


def build(name: str) -> VLM:
    if name in UNLISTED:
        return with_family(make(UNLISTED[name]()))
    if name != STRANGE:
        return make(BUILDERS[name]())
    vlm = build("llava")
    vlm.__dict__["family"] = replace(vlm.family, vision=())
    return vlm


def prompt_of(vlm: VLM) -> Prompt:
    """Both runs of a pair, through the processor."""
    return encode(vlm, image_pair(WIDE), QUESTION)


@lru_cache
def built(name: str) -> tuple[VLM, Prompt]:
    """A model and its prompt, for all tests that leave them as they are."""
    vlm = build(name)
    return vlm, prompt_of(vlm)

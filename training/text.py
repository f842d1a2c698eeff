"""The demo model's tokenizer, chat template, processor and configuration, in LLaVA-1.5's form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from training.questions import corpus

BOS, EOS, UNK, PAD, IMAGE = "<s>", "</s>", "<unk>", "<pad>", "<image>"

# LLaVA-1.5's conversation: "USER: <image>\n... ASSISTANT: ...</s>". A message's content may be
# plain text or a list of parts.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- message['role'] | upper + ': ' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{- '<image>\\n' -}}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{{- '</s>' if message['role'] == 'assistant' else ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""


def train_tokenizer(sentences: Iterable[str] | None = None) -> Tokenizer:
    """A byte-fallback BPE with LLaMA's word mark; every word of the sentences becomes one token.

    Ids: <unk>, <s>, </s>, 256 bytes, letters and merges, then <pad> and <image> last, as in LLaVA.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True),
            pre_tokenizers.Split(
                Regex(r"[^\w▁]"), behavior="isolated"
            ),  # punctuation and line ends stand alone
        ]
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=2, initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(sorted(set(corpus() if sentences is None else sentences)), trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [p for p, _ in sorted(learned["vocab"].items(), key=lambda item: item[1]) if p != "\n"]
    vocab = [UNK, BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(vocab)},
            merges=merges,
            unk_token=UNK,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [AddedToken(t, normalized=False, special=True) for t in (UNK, BOS, EOS, PAD, IMAGE)]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def build_processor(image_size: int = 168, patch_size: int = 14) -> Any:
    """A `LlavaProcessor` around a freshly trained tokenizer, with CLIP's own image processing."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(),
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: Any, **overrides: int) -> Any:
    """LLaVA-1.5's configuration, narrow: its 32 x 32 heads and 24 vision layers, width 128.

    `overrides` change the shape: layers, heads, head_dim, vision_layers, vision_heads, width, mlp,
    vision_mlp, image_size.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    shape = {
        "layers": 32,
        "heads": 32,
        "head_dim": 8,
        "vision_layers": 24,
        "vision_heads": 4,
        "width": 128,
        "mlp": 344,
        "vision_mlp": 512,
        "image_size": 168,
        **overrides,
    }
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        head_dim=shape["head_dim"],
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape["width"],
        intermediate_size=shape["vision_mlp"],
        num_hidden_layers=shape["vision_layers"],
        num_attention_heads=shape["vision_heads"],
        image_size=shape["image_size"],
        patch_size=14,
        projection_dim=shape["width"],
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(shape["image_size"] // 14) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def question_prompt(question: str) -> str:
    """The single-turn prompt, exactly what the chat template gives with `add_generation_prompt`."""
    return f"USER: {IMAGE}\n{question} ASSISTANT:"

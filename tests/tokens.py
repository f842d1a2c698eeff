"""Tokenizers of tiny models: a BPE in LLaMA's manner, made from a few sentences."""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing


def llama_like(corpus: Sequence[str], size: int, marks: Sequence[str]) -> Tokenizer:
    """``▁Yes`` and ``Yes`` are both words of it, as in LLaMA's; marks are whole tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Split(Regex(r"[?!.,\n]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=["▁", "\n", *letters],
        show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        min_frequency=1,
    )
    tokenizer.train_from_iterator([*corpus] * 2, trainer)
    tokenizer.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in marks])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer

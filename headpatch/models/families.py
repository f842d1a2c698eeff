"""What differs from one model family to the next, as data.

A family says where the decoder and the vision layers are. Paths are tried in order, since
transformers has moved some of them between releases.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Where to find things in one family of models.

    Attributes
    ----------
    decoder
        Paths to the text model, which holds ``layers`` and the final ``norm``.
    vision
        Paths to the list of vision layers; empty if the tower cannot be changed.
    lm_attention, lm_output
        In a decoder layer: its self-attention, and in that the output projection, whose input
        is z.
    vision_attention, vision_output
        The same in a vision layer.
    class_token
        Whether the vision tower's first token is a class token.
    """

    decoder: tuple[str, ...] = ("model.language_model",)
    vision: tuple[str, ...] = ()
    lm_attention: str = "self_attn"
    lm_output: str = "o_proj"
    vision_attention: str = "self_attn"
    vision_output: str = "out_proj"
    class_token: bool = False


_CLIP = ("model.vision_tower.encoder.layers", "model.vision_tower.vision_model.encoder.layers")

FAMILIES: dict[str, Family] = {
    "llava": Family(vision=_CLIP, class_token=True),
    "vipllava": Family(vision=_CLIP, class_token=True),
}
"""Families by ``config.model_type``."""

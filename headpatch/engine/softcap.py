"""The soft cap that some models put on their logits."""

import torch
from torch import Tensor

from headpatch.models.vlm import VLM


def cap_of(vlm: VLM, unembedded: Tensor, logits: Tensor) -> float | None:
    """Return the soft cap that a pass put on its logits; None if none.

    A text model's config names a cap, but the vision-language model around it need not apply it
    (PaliGemma does as of some release of transformers, LLaVA does not). So it is seen from a pass:
    from what the unembedding gave, and what the model did.
    """
    cap = getattr(vlm.model.config.get_text_config(), "final_logit_softcapping", None)
    if not cap:
        return None
    unembedded, cap = unembedded.to(logits), float(cap)
    either = unembedded, capped(unembedded, cap)
    off, off_capped = ((one - logits).abs().max() for one in either)
    return cap if bool(off_capped < off) else None


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Put a soft cap on logits."""
    return logits if cap is None else torch.tanh(logits / cap) * cap

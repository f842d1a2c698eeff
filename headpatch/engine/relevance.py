"""Gradient-weighted relevance: attention that moves an answer, followed back through the layers.

H. Chefer, S. Gur and L. Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers (ICCV 2021, arXiv:2103.15679), their rule for self-attention: with the
relevance R = I before the first layer, each layer adds Ā R, where Ā is the mean over heads of
(∂y/∂A ⊙ A)⁺. y is the answer token's logit, or its difference from another token's. One token's row
of R is again a vector that goes from the last layer to the first: v + v Ā.

∂y/∂A needs no graph through the maps: z = A V, so it is ∂y/∂z Vᵀ, made a block of rows at a time
from the gradient with respect to z that `headpatch.engine.rollout.look` keeps. The paper's two
towers meet in cross-attention; here the image's tokens are handed from the vision tower to the
language model, so the same rule goes on in the tower from their relevance.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.engine.rollout import Sight


def relevance(sight: Sight, vector: Float[Tensor, "runs tokens"]) -> Float[Tensor, "runs tokens"]:
    """Go back one layer: v + v Ā."""
    found = vector.clone()
    for chosen, rows in sight.blocks(vector):
        gained = (rows * _gradient(sight, chosen)).clamp(min=0).mean(1)
        found += torch.einsum("rc,rct->rt", vector[:, chosen], gained)
    return found


def _gradient(sight: Sight, chosen: Tensor) -> Float[Tensor, "runs heads chosen tokens"]:
    """∂y/∂A of the chosen queries: heads that share a value are multiplied with it together."""
    runs, kv_heads = sight.value.shape[:2]
    slope = sight.slope[:, chosen].transpose(1, 2).float()  # [runs, heads, chosen, dim]
    heads = slope.shape[1]
    grouped = slope.reshape(runs, kv_heads, -1, slope.shape[-1])
    product = grouped @ sight.value.float().transpose(-1, -2)
    return product.reshape(runs, heads, len(chosen), -1)

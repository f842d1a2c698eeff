r"""Attention that is re-weighted: more of it, or less, to the image or to a region of it.

Of a row of attention :math:`a` over the keys :math:`j` (after the softmax, and after a soft cap, if
the model has one), that to each key of a set K is multiplied by :math:`1 + α`, and the row is
divided by its new sum:

.. math:: a'_j = w_j a_j / \sum_i w_i a_i, \quad w_j = 1 + α \text{ in K, else } 1,
          \quad z = \sum_j a'_j v_j.

α = 0 changes nothing, α = −1 cuts the edges. It is the same as to add :math:`\log(1 + α)` to the
keys' scores. Two published changes are near, and are not this one. PAI (S. Liu, K. Zheng and
W. Chen, Paying More Attention to Image, ECCV 2024, arXiv:2407.21771) adds α·|score| to the scores
of the image's keys before the softmax, at the last position: how much a key gains hangs on its
score. Z. Jiang et al. (Devils in Middle Layers of Large Vision-Language Models, CVPR 2025,
arXiv:2411.16724) add there what the heads' mean attention is.

Heads of several layers act on one another: the later ones re-weight the attention that they have
once the earlier ones have changed it (`Intervention.follows`). Such sets are run plainly, as `Cut`s
with a factor. What heads of one layer become is known from the untouched run, here.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headpatch.engine.attention import attention_rows, weigh
from headpatch.errors import RunError

if TYPE_CHECKING:
    from headpatch.engine.prefill import LayerState

_CLOSE = 1e-3  # of z's largest number: how far z that is made again may lie from the model's


def reweighted(
    state: "LayerState", keys: Int[Tensor, " keys"], alpha: float
) -> Float[Tensor, "suffix heads dim"]:
    """Return the z that one run's heads have once they attend 1 + `alpha` times as much to `keys`.

    A query that keeps no attention gets z = 0. A `RunError` if what the pass kept does not give the
    model's own z, so that it cannot be trusted to give this one.
    """
    key, value = (
        torch.cat(both, 2) for both in ((state.key, state.own_key), (state.value, state.own_value))
    )
    here = torch.arange(state.query.shape[2], device=key.device)
    scoring = {**state.scoring, "is_causal": True}
    rows = attention_rows(nn.Module(), state.query, key, state.mask, here, **scoring)
    own, z = weigh(rows, value.float()), state.z.float()
    if not bool((own - z).abs().max() <= _CLOSE * z.abs().max()):
        raise RunError("attention cannot be re-weighted: it is not what q, k and v give")
    rows[..., keys.to(rows.device)] *= 1 + alpha
    total = rows.sum(-1, keepdim=True)
    return weigh((rows / total).nan_to_num(0.0), value.float())[0].to(state.z.dtype)

"""What each head and MLP writes straight into LD = logit(Yes) - logit(No): a sum, exactly.

In the with-run less the without-run; see `headpatch.engine.direct`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headpatch.core.session import Session
from headpatch.engine.direct import take_apart
from headpatch.engine.patching import WITH, WITHOUT


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part writes straight into LD, the with-run less the without-run, as shares.

    Attributes
    ----------
    heads, mlps, rest
        By layer; the rest is the embedding (entry 0) and biases. All together they add up to 1.
    """

    heads: Float[np.ndarray, "layers heads"]
    mlps: Float[np.ndarray, " layers"]
    rest: Float[np.ndarray, " layers"]


def attribute(session: Session) -> Attribution:
    """Take both runs apart, each with its own frozen scale of the final norm.

    Raises
    ------
    RunError
        If LD cannot be attributed to this model's parts.
    """
    parts = take_apart(session.vlm, session.prompt).parts
    gap = float(parts.ld[WITH] - parts.ld[WITHOUT])

    def share(values: Tensor) -> Float[np.ndarray, "*shape"]:
        scaled = values.double() * parts.scale.double().view(-1, *[1] * (values.ndim - 1))
        return (scaled[WITH] - scaled[WITHOUT]).numpy() / (gap or np.nan)

    rest = share(parts.biases)
    rest[0] += share(parts.start[:, None])[0]
    return Attribution(share(parts.heads), share(parts.mlps), rest)

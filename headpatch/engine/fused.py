"""The steps between the products of a walk, each in one go where a CUDA device has Triton.

Every function here is plain torch; on a CUDA device whose own kernels (`headpatch.engine.kernels`)
give the same numbers on first use, those do it. Deviations are computed as such, without taking
the difference of two nearly equal numbers: a row that does not deviate gives exactly zero.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_CLOSE = 0.01  # of a kernel's rounded numbers to plain torch's, relative to the largest

Act = Literal["silu", "gelu_tanh", "gelu"]
ACTS: dict[Act, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
}
"""Activations of gated MLPs."""


def rms_norm(x: Tensor, scale: Float[Tensor, " width"], eps: float) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) × scale."""
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * scale


def norm_deviation(
    d: Float[Tensor, "rows suffix width"],
    x0: Float[Tensor, "1 suffix width"],
    scale: Float[Tensor, " width"],
    eps: float,
    low: torch.dtype,
) -> Float[Tensor, "rows suffix width"]:
    """Return rms_norm(x0 + d) - rms_norm(x0), in `low`."""
    if (kernels := kernels_on(d.device)) is not None:
        out: Tensor = kernels.norm_deviation(d, x0, scale, eps, low)
        return out
    r, r0 = (
        (x.square().mean(-1, keepdim=True) + eps).rsqrt() for x in (x0 + d, x0)
    )  # 1/r² - 1/r0² is the mean of d (d + 2 x0)
    more = (d * (d + 2 * x0)).mean(-1, keepdim=True)
    change = -more * (r * r0).square() / (r + r0)
    return ((d * r + x0 * change) * scale).to(low)


def gated_deviation(
    gate: Float[Tensor, "rows suffix width"],
    up: Float[Tensor, "rows suffix width"],
    gate0: Float[Tensor, "1 suffix width"],
    up0: Float[Tensor, "1 suffix width"],
    act: Act,
    low: torch.dtype,
) -> Float[Tensor, "rows suffix width"]:
    """Return act(gate0 + gate) × (up0 + up) - act(gate0) × up0, in `low`."""
    if act != "gelu" and (kernels := kernels_on(gate.device)) is not None:
        out: Tensor = kernels.gated_deviation(gate, up, gate0, up0, act, low)
        return out
    run = ACTS[act]
    before = run(gate0)
    return ((run(gate0 + gate) - before) * (up0 + up) + before * up).to(low)


def kernels_on(device: torch.device) -> ModuleType | None:
    """Return the kernels if they run on `device` and give what plain torch gives."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    return _tried(device.index or 0)


@lru_cache
def _tried(index: int) -> ModuleType | None:
    try:
        from headpatch.engine import kernels

        if agree(kernels, torch.device("cuda", index)):
            return kernels
        why = "they do not give what plain torch gives"
    except Exception as error:  # no compiler, no driver for it: whatever it is
        why = f"{type(error).__name__}: {error}"
    words = f"headpatch's kernels are not used on GPU {index}, plain torch is, which is slower"
    warnings.warn(f"{words} ({why})", stacklevel=2)
    return None


def agree(kernels: ModuleType, device: torch.device) -> bool:
    """Compare each kernel with what it stands for, on random numbers of odd sizes."""
    low = torch.bfloat16
    rows, heads, kv_heads, suffix, prefix, dim = 70, 4, 2, 3, 75, 24
    rng = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    d, x0, scale = draw(rows, suffix, dim), draw(1, suffix, dim), draw(dim)
    found = [kernels.norm_deviation(d, x0, scale, 1e-5, low)]
    wanted = [rms_norm(x0 + d, scale, 1e-5) - rms_norm(x0, scale, 1e-5)]
    up, up0 = draw(rows, suffix, dim), draw(1, suffix, dim)
    for act in ("silu", "gelu_tanh"):
        run = ACTS[act]
        found.append(kernels.gated_deviation(d, up, x0, up0, act, low))
        wanted.append(run(x0 + d) * (up0 + up) - run(x0) * up0)

    def z_of(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        some, group = len(query), heads // kv_heads
        keys = torch.cat([before_key.expand(some, -1, -1, -1), key], 2).repeat_interleave(group, 1)
        values = torch.cat([before_value.expand(some, -1, -1, -1), value], 2)
        scores = query @ keys.transpose(2, 3) * 0.2
        ahead = torch.ones(suffix, suffix, dtype=torch.bool, device=device).triu(1)
        scores[..., prefix:].masked_fill_(ahead, -torch.inf)
        weights = scores.softmax(-1)
        z = weights @ values.repeat_interleave(group, 1)
        return weights, z.transpose(1, 2)

    before_key, before_value = (draw(kv_heads, prefix, dim).to(low) for _ in range(2))
    before_key, before_value = before_key[None].float(), before_value[None].float()
    run0 = [draw(1, count, suffix, dim) for count in (heads, kv_heads, kv_heads)]
    moved = [draw(rows, *one.shape[1:]).to(low).float() for one in run0]
    weights, z0 = z_of(*run0)
    found.append(
        kernels.attend(
            *moved,
            *(one[0] for one in run0),
            weights[0],
            before_key[0].to(low),
            before_value[0].to(low),
            0.2,
            True,
        )
    )
    after = [a + b for a, b in zip(run0, moved, strict=True)]
    wanted.append(z_of(*after)[1] - z0)
    return all(
        bool((ours.float() - theirs).abs().max() <= _CLOSE * theirs.abs().max())
        for ours, theirs in zip(found, wanted, strict=True)
    )

"""Rows over low-precision weights, carried as deviations from an untouched run.

The stream of a row is what it has beyond the untouched run's, h - h0. A linear layer takes a
deviation d to W d, whatever the run and the bias; anything else takes it to f(x0 + d) - f(x0), with
x0 and f(x0) kept from the raised pass (`Points`). Products are of low precision, so a deviation
carries their relative error, and a row that changes nothing deviates by exactly nothing.

The layer's own code still joins the parts: it only adds, reshapes and rotates, which is linear.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headpatch.engine import fused
from headpatch.engine.precision import low_linear, lowered_difference, product, replaced, swapped
from headpatch.models.vlm import VLM

_CLOSE = 1e-5  # of a formula to what a module was seen to do, relative to the largest
_GATED = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, eq=False)
class Norm:
    """A root-mean-square norm: x / sqrt(mean(x²) + eps) × scale."""

    scale: Float[Tensor, " width"]
    eps: float


@dataclass(frozen=True, eq=False)
class Gated:
    """A gated MLP: down(act(gate(x)) × up(x)), by its linear layers."""

    gate: nn.Module
    up: nn.Module
    down: nn.Module
    act: fused.Act


@dataclass(frozen=True)
class _Parts:
    """The decoder's modules by what a deviation does in them.

    `linears` take deviations to deviations; `lifted` are norms and the like, and whole MLPs, which
    are not linear; `inner` are the MLPs' linear layers, which see the stream itself.
    """

    linears: list[nn.Linear]
    lifted: list[nn.Module]
    inner: list[nn.Linear]


def _parts(vlm: VLM) -> _Parts:
    found = _Parts([], [], [])
    for layer, attention in zip(vlm.lm.layers, vlm.lm.attentions, strict=True):
        for module in (*layer.children(), *attention.children()):
            if module is attention:
                continue
            if low_linear(module):
                found.linears.append(module)
                continue
            found.lifted.append(module)
            found.inner.extend(filter(low_linear, module.modules()))
    return found


@dataclass(eq=False)
class Points:
    """Where the decoder's modules stood in an untouched run, from position `start` on.

    Inputs and outputs are float32, ``[runs, suffix, width]``; of norms inside the attention
    ``[runs, suffix, heads, dim]`` or ``[runs, heads, suffix, dim]``.
    """

    start: int
    low: torch.dtype  # the weights' dtype
    tokens: int
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    parts: _Parts = field(default_factory=lambda: _Parts([], [], []))
    # modules whose formula is known, and so can be computed in one step
    known: dict[nn.Module, Norm | Gated] = field(default_factory=dict)
    _latest: deque[tuple[Tensor, Tensor]] = field(default_factory=lambda: deque(maxlen=4))

    def run(self, index: int) -> "Points":
        """Return one run of the batch."""
        one = slice(index, index + 1)
        return replace(
            self,
            inputs={module: value[one] for module, value in self.inputs.items()},
            outputs={module: value[one] for module, value in self.outputs.items()},
        )

    def needed(self, *ends: nn.Module) -> "Points":
        """Return the points without what `deviating` does not look at, and of `ends` the inputs."""
        gated = [one for one in self.known.values() if isinstance(one, Gated)]
        within = {part for one in gated for part in (one.gate, one.up, one.down)}
        inputs = {
            module: self.inputs[module]
            for module in (*self.parts.lifted, *self.parts.inner, *ends)
            if module in self.inputs and module not in within
        }
        outputs = {
            module: inputs[module] if module in self.known else self.outputs[module]
            for module in inputs
        }
        outputs |= {part: self.outputs[part] for one in gated for part in (one.gate, one.up)}
        inputs |= {module: outputs[one.gate] for module, one in self.known.items() if one in gated}
        return replace(self, inputs=inputs, outputs=outputs)

    def keep(self, module: nn.Module, x: Any, y: Any) -> None:
        """Take what went in and came out, where it runs over the prompt's positions."""
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            return
        # What goes in may still lie where the module before computes.
        self.inputs[module], self.outputs[module] = self._cut(x.to(y.device)), self._cut(y)

    def _cut(self, x: Tensor) -> Tensor:
        """Return the suffix of what came by; what has just come by elsewhere is kept once."""
        for seen, kept in self._latest:
            if seen is x:
                return kept
        self._latest.append((x, self._suffix(x)))
        return self._latest[-1][1]

    def _suffix(self, x: Tensor) -> Tensor:
        at = _positions(x, self.tokens)
        if at is None or self.start == 0:  # of the unembedding: the answer alone
            return x.float()
        return x.narrow(at, self.start, self.tokens - self.start).float().clone()


def _positions(x: Tensor, tokens: int) -> int | None:
    return next((dim for dim in (1, 2) if x.ndim > dim + 1 and x.shape[dim] == tokens), None)


@contextmanager
def watched(vlm: VLM, points: Points) -> Iterator[None]:
    """Keep `points` for the length of one raised pass."""
    parts = points.parts = _parts(vlm)
    ends = [vlm.final_norm, vlm.unembedding]

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        points.keep(module, args[0] if args else None, output)

    with ExitStack() as stack:
        for module in (*parts.lifted, *parts.inner, *ends):
            assert isinstance(module, nn.Module)
            stack.callback(module.register_forward_hook(keep).remove)
        yield
    points._latest.clear()
    points.known.update(_formulas(parts.lifted, points))


_computed: "WeakKeyDictionary[nn.Module, set[str]]" = WeakKeyDictionary()
"""Names of formulas that a module was seen to compute, in an earlier pass."""
_beyond_weight: "WeakKeyDictionary[nn.Module, float | None]" = WeakKeyDictionary()
"""By norm: its scale less its weight, 0 or 1 mostly; None where the scale is something else."""


def _formulas(modules: list[nn.Module], points: Points) -> dict[nn.Module, Norm | Gated]:
    """Find the modules whose formula reproduces what they were seen to do.

    They are compared in the first pass only: which of them is right hangs on the module's code.
    """
    guesses = [(module, guess) for module in modules for guess in _guesses(module, points)]
    new = [(module, guess) for module, guess in guesses if module not in _computed]
    apart = [_apart(module, guess, points) for module, guess in new]
    right = []
    if apart:
        right = (torch.stack([one.to(apart[0].device) for one in apart]) <= _CLOSE).tolist()
    for module, _ in new:
        _computed.setdefault(module, set())
    for (module, guess), yes in zip(new, right, strict=True):
        if yes:
            _computed[module].add(_name(guess))
    return {module: guess for module, guess in guesses if _name(guess) in _computed[module]}


def _guesses(module: nn.Module, points: Points) -> Iterator[Norm | Gated]:
    """Say what `module` may compute."""
    if module not in points.inputs:
        return
    x, eps = points.inputs[module], _eps_of(module)
    if eps is not None and x.ndim == 3:
        yield Norm(_scale_of(module, x[0, 0], eps), eps)
    gate, up, down = (getattr(module, name, None) for name in _GATED)
    if gate in points.inputs and up in points.inputs and down in points.inputs:
        for act in fused.ACTS:
            yield Gated(gate, up, down, act)


def _scale_of(module: nn.Module, x: Float[Tensor, " width"], eps: float) -> Float[Tensor, " width"]:
    """Return what a norm multiplies by: its weight, where that was once seen to be so."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or (weight.shape, weight.device) != (x.shape, x.device):
        weight = None  # offloaded, or none
    if weight is not None and (more := _beyond_weight.get(module)) is not None:
        return weight.float() + more if more else weight.float()
    scale: Tensor = module(torch.ones_like(x)).float() * (1 + eps) ** 0.5
    if weight is not None and module not in _beyond_weight:
        near = [more for more in (0.0, 1.0) if torch.allclose(scale, weight.float() + more)]
        _beyond_weight[module] = near[0] if near else None
    return scale


def quick_norms(vlm: VLM) -> list[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """Return norms of the decoder with a float32 form that takes one launch.

    They are those that an earlier pass was seen to compute.
    """
    found: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
    for module in _parts(vlm).lifted:
        more = _beyond_weight.get(module)
        if more is None or "norm" not in _computed.get(module, ()):
            continue
        if (eps := _eps_of(module)) is not None:
            found.append((module, partial(_normed, module, more, eps)))
    return found


def _eps_of(module: nn.Module) -> float | None:
    eps = getattr(module, "variance_epsilon", None)
    eps = getattr(module, "eps", None) if eps is None else eps
    return eps if isinstance(eps, float) else None


def _normed(module: nn.Module, more: float, eps: float, x: Tensor) -> Tensor:
    weight: Any = module.weight
    scale = weight.to(x.device, x.dtype)
    return functional.rms_norm(x, scale.shape, scale + more if more else scale, eps)


def _name(guess: Norm | Gated) -> str:
    return "norm" if isinstance(guess, Norm) else guess.act


def _apart(module: nn.Module, guess: Norm | Gated, points: Points) -> Tensor:
    """Return how far a formula is from what was seen, relative to the largest."""
    if isinstance(guess, Norm):
        found = fused.rms_norm(points.inputs[module], guess.scale, guess.eps)
        seen = points.outputs[module]
    else:
        gated = fused.ACTS[guess.act](points.outputs[guess.gate])
        found, seen = gated * points.outputs[guess.up], points.inputs[guess.down]
    return (found - seen).abs().max() / seen.abs().max()


@contextmanager
def deviating(points: Points | None) -> Iterator[None]:
    """Let the decoder's layers take deviations from one run; nothing where there are no points."""
    if points is None:
        yield
        return
    parts = points.parts
    known = [points.known.get(module) for module in parts.lifted]
    gated = {
        part for one in known if isinstance(one, Gated) for part in (one.gate, one.up, one.down)
    }
    runs = [(linear, _linear(linear, points.low)) for linear in parts.linears]
    for linear in parts.inner:
        if linear in gated:
            runs.append((linear, _linear(linear, points.low)))
        elif linear in points.inputs:
            runs.append((linear, _affine(linear, points)))
    lifted = [
        (module, _lifted(module, formula, points))
        for module, formula in zip(parts.lifted, known, strict=True)
        if module in points.inputs
    ]
    with replaced(runs), swapped(lifted):
        yield


def _linear(module: nn.Linear, low: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda d: product(d.to(low), module.weight)


def _affine(module: nn.Linear, points: Points) -> Callable[[Tensor], Tensor]:
    x0, y0 = points.inputs[module], points.outputs[module]

    def run(x: Tensor) -> Tensor:
        moved = lowered_difference(x, _last(x0, x), points.low)
        return product(moved, module.weight).add_(_last(y0, x))

    return run


def _lifted(
    module: nn.Module, formula: Norm | Gated | None, points: Points
) -> Callable[[Tensor], Tensor]:
    x0, y0 = points.inputs[module], points.outputs[module]
    if isinstance(formula, Norm):
        scale, eps = formula.scale, formula.eps
        return lambda d: fused.norm_deviation(d, _last(x0, d), scale, eps, points.low)
    if isinstance(formula, Gated):
        gate0, up0 = points.outputs[formula.gate], points.outputs[formula.up]

        def gated(d: Tensor) -> Tensor:
            untouched = _last(gate0, d), _last(up0, d)
            moved = formula.gate(d), formula.up(d)
            between = fused.gated_deviation(*moved, *untouched, formula.act, points.low)
            return cast("Tensor", formula.down(between))

        return gated
    run = module.forward

    return lambda d: cast("Tensor", run(_last(x0, d) + d) - _last(y0, d))


def _last(x0: Tensor, d: Tensor) -> Tensor:
    return x0 if x0.ndim != 3 or x0.shape[1] == d.shape[1] else x0[:, -d.shape[1] :]

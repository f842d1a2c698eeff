"""Layers that follow each other in a pass, launched all at once (`headpatch.engine.replay`)."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from headpatch.engine.precision import swapped
from headpatch.engine.replay import Replays
from headpatch.engine.trees import Tree, same

_HIDDEN = "hidden_states"
_TOKENS = 1024  # of a pass: where there are more, it does not wait for its launches


@runtime_checkable
class Pass(Protocol):
    """What a pass does in layers, beside what the model does."""

    def given(self) -> Tree:
        """Return the numbers that it hangs on."""

    def use(self, given: Tree) -> None:
        """Hang on these numbers; None: on its own."""

    def collected(self) -> Tree:
        """Hand over what was kept once the layers have run; nothing is kept after that."""

    def give(self, collected: Tree) -> None:
        """Keep what was handed over, of this pass or of an equal one."""


@contextmanager
def at_once(
    replays: Replays,
    layers: Sequence[nn.Module],
    what: Hashable,
    own: Pass,
    last_only: bool = False,
) -> Iterator[None]:
    """Let layers that follow each other in a pass be launched all at once.

    Layers that take something that the first has not, or not exactly what the one before has given,
    run as ever. `last_only`: nobody looks at what the others give.
    """
    one = _Following(replays, layers, what, own, last_only)
    with swapped([(layer, one.runs(index)) for index, layer in enumerate(layers)]):
        yield
    one.end()


class _Following:
    """Layers of one pass: they hand back what was computed at the first, or run one by one."""

    def __init__(
        self,
        replays: Replays,
        layers: Sequence[nn.Module],
        what: Hashable,
        own: Pass,
        last_only: bool,
    ) -> None:
        self._replays, self._what, self._pass, self._last_only = replays, what, own, last_only
        self._forwards = [layer.forward for layer in layers]
        self._made: list[Any] | None = None
        self._beside: Any = None  # what a recording gave that is not proved
        self._outputs: list[Any] = []
        self._key: Hashable = None
        self._alike, self._ran = True, 0
        self._first: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._hidden: Tensor | None = None

    def runs(self, index: int) -> Callable[..., Any]:
        """Return what the layer does."""
        forward = self._forwards[index]

        def run(*args: Any, **kwargs: Any) -> Any:
            if index == 0:
                self._begin(args, kwargs)
            if self._made is not None:
                return self._made[index]
            hidden, rest, named = _entering(args, kwargs)
            if index:
                followed = index == self._ran and hidden is self._hidden
                self._alike &= followed and same((rest, named), self._first)
            else:
                self._first = rest, named
            self._ran = index + 1
            output = forward(*args, **kwargs)
            self._hidden = _leaving(output)
            if self._beside is not None:
                self._compare(output)
            return output

        return run

    def end(self) -> None:
        """Take note, when the pass is over, of layers that cannot run at once."""
        if self._key is None or self._made is not None:
            return
        if not (self._alike and self._ran == len(self._forwards)):
            self._replays.refuse(self._key)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._ran or self._made is not None:  # they run twice in a pass
            self._alike, self._made = False, None
            return
        if _entering(args, kwargs)[0].shape[:-1].numel() > _TOKENS:
            return
        given = args, kwargs, self._pass.given()
        found, self._key = self._replays.played(self._what, self._compute, given)
        if found is None:
            return
        if not self._replays.proved(self._key):
            self._beside = found
            return
        outputs, kept = found
        if self._last_only:
            outputs = [_entering(args, kwargs)[0]] * (len(self._forwards) - 1) + outputs
        self._made = outputs
        self._pass.give(kept)

    def _compare(self, output: Any) -> None:
        """Hold what the layers gave, once all have run, against what a recording did."""
        self._outputs.append(output)
        if self._ran == len(self._forwards):
            outputs = self._outputs[-1:] if self._last_only else self._outputs
            kept = self._pass.collected()
            self._replays.prove(self._key, self._beside, (outputs, kept))
            self._pass.give(kept)
            self._beside, self._outputs = None, []

    def _compute(
        self, given: tuple[tuple[Any, ...], dict[str, Any], Tree]
    ) -> tuple[list[Any], Tree]:
        args, kwargs, own = given
        outputs = list[Any]()
        self._pass.use(own)
        try:
            for forward in self._forwards:
                outputs.append(forward(*args, **kwargs))
                hidden = _leaving(outputs[-1])
                args, kwargs = (
                    ((hidden, *args[1:]), kwargs) if args else ((), {**kwargs, _HIDDEN: hidden})
                )
        except BaseException:
            self._pass.collected()  # of layers that have run: they run again, as ever
            raise
        finally:
            self._pass.use(None)
        return outputs[-1:] if self._last_only else outputs, self._pass.collected()


def _entering(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Return the stream that enters a layer, and all else that it is given."""
    if args:
        return args[0], args[1:], kwargs
    return kwargs[_HIDDEN], (), {name: one for name, one in kwargs.items() if name != _HIDDEN}


def _leaving(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden

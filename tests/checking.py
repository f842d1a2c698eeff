"""The types and shapes of every call into the package are checked, at a cost that tests can bear.

jaxtyping's hook wraps every function for the sake of shapes: a call binds its arguments anew, opens
a scope for the names of axes and checks its arguments twice, before the call and with the result.
A function whose annotations name no shape gets the type checker alone, at less than a tenth of the
price. Where they name shapes, the type checker works within a scope: the arguments are bound and
checked once, the result by the same names. What is left to jaxtyping are generators, whose scope
ends after their call, and what is not known before a call.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection
from types import CellType, FunctionType
from typing import Any, ForwardRef, get_args, get_origin, get_type_hints

import beartype
import beartype.typing
import jaxtyping

# jaxtyping decorates methods one by one; beartype knows `Self` only when it decorates the class.
CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf(hint_overrides="
    "beartype.FrozenDict({beartype.typing.Self: object})))"
)
# What breaks a shape is a TypeError of jaxtyping's, as it is for those who switch its checks on.
_of_shapes = beartype.beartype(
    conf=beartype.BeartypeConf(
        hint_overrides=beartype.FrozenDict({beartype.typing.Self: object}),
        violation_type=jaxtyping.TypeCheckError,
    )
)
_shaped = jaxtyping.jaxtyped
_scope = jaxtyping.jaxtyped("context")  # has no state of its own
_compiled: dict[Any, tuple[dict[str, Any], FunctionType | None, bool]] = {}


def install(package: str) -> None:
    """Check the modules of a package that are imported from now on."""
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(package, CHECKER)


def _checked(made: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """What the hook calls for each class and function instead of `jaxtyping.jaxtyped`."""
    if made is None:
        return functools.partial(_checked, typechecker=typechecker)
    if dataclasses.is_dataclass(made) and _hints(made.__init__) is not None:
        made.__init__ = _checked(made.__init__, typechecker=typechecker)
        return made
    inner = inspect.isfunction(made) and "<locals>" in made.__qualname__
    return (_inner if inner else _outer)(made, typechecker)


def _outer(made: Any, typechecker: Callable[[Any], Any]) -> Any:
    hints = _hints(made)
    if hints is None:
        return _shaped(made, typechecker=typechecker)
    return _scoped(_of_shapes(made)) if any(map(_names_shape, hints)) else typechecker(made)


def _inner(made: FunctionType, typechecker: Callable[[Any], Any]) -> Any:
    """Check a function within another, which is made anew by each call of that.

    To compile its checks takes milliseconds. They are compiled of a hollow copy, which holds
    nothing that a call has given, and serve all that are made of the same code with equal hints.
    """
    key = made.__module__, made.__qualname__, made.__code__
    hints = {name: _form(hint) for name, hint in made.__annotations__.items()}
    if _compiled.get(key, (None,))[0] != hints:
        _compiled[key] = hints, *_compile(made, typechecker)
    _, checks, shaped = _compiled[key]
    if checks is None:
        return _outer(made, typechecker)
    own = FunctionType(checks.__code__, checks.__globals__, made.__name__)
    own.__kwdefaults__ = {**checks.__kwdefaults__, "__beartype_func": made}
    own.__dict__.update(checks.__dict__)
    functools.update_wrapper(own, made)
    return _scoped(own) if shaped else own


def _compile(
    made: FunctionType, typechecker: Callable[[Any], Any]
) -> tuple[FunctionType | None, bool]:
    """Return checks that serve others than `made`, if there are any, and whether of shapes."""
    defaults = (*(made.__defaults__ or ()), *(made.__kwdefaults__ or {}).values())
    hints = _hints(made)
    if hints is None or not all(one is None or type(one) in (bool, int, str) for one in defaults):
        return None, False
    cells = tuple(CellType() for _ in made.__code__.co_freevars)
    hollow = FunctionType(made.__code__, made.__globals__, made.__name__, None, cells)
    for name in ("__annotations__", "__defaults__", "__kwdefaults__", "__module__", "__qualname__"):
        setattr(hollow, name, getattr(made, name))
    shaped = any(map(_names_shape, hints))
    checks = (_of_shapes if shaped else typechecker)(hollow)
    if (checks.__kwdefaults__ or {}).get("__beartype_func") is not hollow or checks.__closure__:
        return None, False  # it checks nothing, or is made otherwise than thought
    return checks, shaped


def _form(hint: object) -> object:
    """What two hints share that ask for the same: shapes are new classes, names may mean others."""
    if isinstance(hint, str | ForwardRef):
        return object()
    if isinstance(hint, list):
        return tuple(map(_form, hint))
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.array_type, hint.dim_str, hint.dtypes
    return (get_origin(hint), *map(_form, get_args(hint))) if get_args(hint) else hint


def _scoped(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Call it with names of axes of its own."""

    @functools.wraps(checked)
    def call(*arguments: Any, **named: Any) -> Any:
        with _scope:
            return checked(*arguments, **named)

    return call


def _hints(made: object) -> Collection[Any] | None:
    """What the annotations of a function name; None of what jaxtyping is to check."""
    if not inspect.isfunction(made):
        return None
    try:
        hints = get_type_hints(made, include_extras=True).values()
    except Exception:  # of a class that is being made, say: jaxtyping takes it for Any
        return None
    if any(map(_names_shape, hints)) and inspect.isgeneratorfunction(made):
        return None
    if any("{" in repr(hint) for hint in hints):  # an axis is as long as the value of an argument
        return None
    return hints


def _names_shape(hint: object) -> bool:
    if isinstance(hint, list):  # the arguments of a Callable
        return any(map(_names_shape, hint))
    shape = inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)
    return shape or isinstance(hint, str) or any(map(_names_shape, get_args(hint)))

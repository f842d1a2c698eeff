"""The types and shapes of every call into the package are checked, at a cost that tests can bear.

jaxtyping's hook wraps every function for the sake of shapes: a call binds its arguments anew, opens
a scope for the names of axes and checks its arguments twice, which takes some 3 µs. A function
whose annotations name no shape gets the type checker alone, for less than a tenth of it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import beartype.typing  # noqa: F401  CHECKER needs it
import jaxtyping

# jaxtyping decorates methods one by one; beartype knows `Self` only when it decorates the class.
CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf(hint_overrides="
    "beartype.FrozenDict({beartype.typing.Self: object})))"
)
_shaped = jaxtyping.jaxtyped


def install(package: str) -> None:
    """Check the modules of a package that are imported from now on."""
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(package, CHECKER)


def _checked(made: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """What the hook calls for each class and function instead of `jaxtyping.jaxtyped`."""
    if made is None:
        return functools.partial(_checked, typechecker=typechecker)
    if dataclasses.is_dataclass(made) and _names_no_shape(made.__init__):
        made.__init__ = typechecker(made.__init__)
        return made
    if _names_no_shape(made):
        return typechecker(made)
    return _shaped(made, typechecker=typechecker)


def _names_no_shape(made: object) -> bool:
    """Whether it is a function, and all that its annotations name is known and is no shape."""
    if not inspect.isfunction(made):
        return False
    try:
        hints = get_type_hints(made, include_extras=True)
    except Exception:  # of a class that is being made, say: jaxtyping takes it for Any
        return False
    return not any(map(_names_shape, hints.values()))


def _names_shape(hint: object) -> bool:
    if isinstance(hint, list):  # the arguments of a Callable
        return any(map(_names_shape, hint))
    shape = inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)
    return shape or isinstance(hint, str) or any(map(_names_shape, get_args(hint)))

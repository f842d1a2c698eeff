"""Signatures of calls with their options by name, as editors, notebooks and ``help`` show them."""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar, get_args

Called = TypeVar("Called", bound=Callable[..., Any])


def with_options_listed(call: Called) -> Called:
    """Let a call's signature name each option that ``**options`` takes; the call stays itself.

    An option that is left out is the study's own, which ``...`` stands for.
    """
    known = signature(call)
    *first, last = known.parameters.values() or [None]
    if last is None or last.kind is not Parameter.VAR_KEYWORD or not get_args(last.annotation):
        return call
    (options,) = get_args(last.annotation)
    named = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=..., annotation=kind)
        for name, kind in options.__annotations__.items()
    ]
    call.__signature__ = known.replace(parameters=[*first, *named])  # type: ignore[attr-defined]
    return call

"""What a call refuses, in its one line."""

from collections.abc import Callable
from typing import Any

import pytest

from headpatch.errors import InputError


def refusal(call: Callable[..., object], *arguments: Any, of: str = "", **options: Any) -> str:
    """Make a call that must be refused for its argument `of`; return the error's line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.startswith(f"{of}: " if of else "")
    assert "\n" not in message and "; expected " in message
    assert caught.value.exit_code == 2
    return message
